"""`DistillationTrainer`: a `transformers.Trainer` whose student learns from a teacher."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import EarlyStoppingCallback, PreTrainedModel, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalPrediction
from transformers.utils import find_labels, logging

from hf_distill.tasks.labels import LABEL_COLUMNS

from ...capture.outputs import capture_of
from ...capture.signals import SignalRequest, Signals, named_signals
from ...hub.loading import forward_columns, load_model
from ...hub.tokenizers import tokenizer_hash
from ...kernels.precision import configure_fp32_matmul
from ...objectives import Objective, WeightedObjective, build_objectives
from ...objectives.base import objective_items
from ...settings import DistillationArguments
from ...tasks.loading import LoadedTask
from ...teachers.base import TeacherSource, own_tokens_of
from ...teachers.opening import open_teachers, refuse_shared
from ..drop_in import refuse_without_effect, settled, sorted_by_kind
from .callbacks import CountsEpochs
from .checkpoints import read_beside_student, write_beside_student
from .evaluation import EvaluatingTrainer
from .labels import LABEL_NAMES, ClassOrder, LabelReader, has_choices
from .masking import masking_collator
from .model import DistillationModel, count_items
from .optimizer import give_own_settings, train_beside
from .rows import RowReader, bounds_of, check_one_set, has_pairs, settle_problem_type
from .text import counted, length_grouped_sampler
from .unfreezing import GradualUnfreezing

logger = logging.get_logger(__name__)


class DistillationTrainer(EvaluatingTrainer):
    """Train a student on what a teacher computes.

    A drop-in `Trainer` for encoders (and decoders) of any supported architecture. Not the class of the same name in
    `trl`, which distils the generations of decoders: this one matches relations, features and logits on plain text.
    Without a teacher and objectives it behaves exactly like `Trainer`.
    """

    # What plain arguments are filled up to where something is distilled.
    arguments_class: ClassVar[type[DistillationArguments]] = DistillationArguments

    args: Any
    # A `DistillationModel` where something is distilled, else the plain model.
    model: Any
    processing_class: Any
    label_names: Any
    _signature_columns: Any

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | str | None = None,
        args: TrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        model_init: Callable[..., PreTrainedModel] | None = None,
        compute_loss_func: Callable[..., Any] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[..., Any] | None = None,
        *,
        teacher_model: PreTrainedModel | nn.Module | TeacherSource | str | None = None,
        objectives: Sequence[str | Mapping[str, Any] | Objective | WeightedObjective] | None = None,
        eval_task: LoadedTask | None = None,
        teacher_processing_class: Any = None,
        peft_config: Any = None,
    ) -> None:
        """Prepare both models; nothing is trained yet.

        The places of the arguments are those of `Trainer`; what is ours comes by its name. A teacher may also stand
        in second place, with the training's arguments behind it: `DistillationTrainer(student, teacher, args)`.

        Args:
            model: The student: a model, a Hub id or a folder.
            args: `DistillationArguments`, or plain `TrainingArguments`: what they say counts as chosen, and what is
                ours has its default.
            data_collator: Makes batches of rows.
            train_dataset: Tokenized rows, or rows with a text column, which are tokenized with `processing_class`;
                by default those of a stored teacher.
            eval_dataset: Likewise; may be a dict of data sets. Default: the evaluation text of `eval_task`.
            processing_class: The tokenizer of both models.
            model_init: Makes the student instead of `model`.
            compute_loss_func: As in `Trainer`.
            compute_metrics: As in `Trainer`.
            callbacks: As in `Trainer`.
            optimizers: As in `Trainer`.
            optimizer_cls_and_kwargs: As in `Trainer`.
            preprocess_logits_for_metrics: As in `Trainer`.
            teacher_model: The teacher: a model, a Hub id, a folder, a folder that `precompute` wrote, or a
                `TeacherSource`.
            objectives: Overrides `args.objectives`; may hold objects (see `build_objectives`).
            eval_task: A task that the student is scored on in every evaluation; overrides `args.eval_task`.
            teacher_processing_class: The teacher's own tokenizer, to be compared, or to read with where
                `args.align_tokenizers` is set; loaded where the teacher is an id.
            peft_config: Train an adapter on the student instead of all its weights.

        Raises:
            TypeError: If `args` is neither training arguments nor a teacher, or there are two teachers.
            ValueError: If teacher, student, tokenizer, objectives and data do not fit each other; the message names
                both sides and the ways out.
        """
        args, data_collator, teacher_model = sorted_by_kind(args, data_collator, teacher_model, "teacher_model")
        items = objectives if objectives is not None else getattr(args, "objectives", None)
        self._objective_items = _chosen_objectives(items, teacher_model)
        self.distilling = bool(self._objective_items)
        self.args = settled(args, self.arguments_class, distilling=self.distilling)
        self.peft_config = peft_config
        self._given_model, self._is_started = model is not None, False
        student: Any = load_model(model, flag="model") if isinstance(model, str) else model
        self._check_given(compute_loss_func=compute_loss_func)
        self.teacher: TeacherSource | None = None
        if teacher_model is not None:
            self.teacher = open_teachers(
                teacher_model,
                self.args,
                student=student,
                tokenizer=processing_class,
                own_tokenizer=teacher_processing_class,
                pairs=has_pairs(train_dataset, self.args.text_column),
                collator=data_collator,
            )
        self._manifest: dict[str, Any] | None = None
        if self._own("mlm_probability") is not None and data_collator is None:
            data_collator = masking_collator(self.args, processing_class, self.teachers)
        self._example_rows = (train_dataset, eval_dataset)
        if self.distilling:
            student = None if student is None else self._wrap(student)
        if self.teacher is not None:
            train_dataset = self.teacher.dataset if train_dataset is None else train_dataset
            processing_class = self.teacher.tokenizer() if processing_class is None else processing_class
        eval_dataset = self._plan_evaluation(eval_task, eval_dataset, processing_class)
        super().__init__(
            student,
            self.args,
            data_collator,
            train_dataset,
            eval_dataset,
            processing_class,
            model_init,
            compute_loss_func,
            compute_metrics,
            callbacks,
            optimizers,
            optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics,
        )
        self._start(data_collator)

    # ---- Preparation ----

    def _start(self, collator: Any) -> None:
        """Prepare everything that needs the base class to be ready."""
        if self.distilling:
            self._start_distilling(collator)
            self._start_watching()
            self._is_started = True
        if self._own("early_stopping_patience") is not None:
            self.add_callback(
                EarlyStoppingCallback(self.args.early_stopping_patience, self.args.early_stopping_threshold)
            )
        if self._own("gradual_unfreezing") is not None:
            self.add_callback(GradualUnfreezing(*self.args.gradual_unfreezing))

    def _own(self, name: str) -> Any:
        """A setting of ours; `None` where the arguments are plain ones."""
        return getattr(self.args, name, None)

    def _check_given(self, **given: Any) -> None:
        """Refuse what would have no effect on a distillation or spoil it, and set the precision of the process."""
        if not self.distilling and self.peft_config is not None:
            raise ValueError("`peft_config` is for a distillation: without one, wrap the model by `get_peft_model`.")
        if self.distilling:
            refuse_without_effect("a distillation", self.args, given)
        # A plain training leaves the precision as it is, unless it is told otherwise.
        if self.distilling or self._own("fp32_matmul") not in (None, "auto"):
            configure_fp32_matmul(self.args.fp32_matmul)

    @property
    def teachers(self) -> list[TeacherSource]:
        """The teachers in the order in which they are counted; none where nothing is compared with one."""
        return [] if self.teacher is None else self.teacher.members

    @property
    def stops_if_not_finite(self) -> bool:
        """Whether numbers that are not finite end the training: where something is distilled."""
        return self.distilling

    def _wrap(self, student: Any) -> DistillationModel:
        """Bind the objectives to both depths and put them around the student."""
        if self.peft_config is not None:
            from ..._optional import require

            student = require("peft", extra="peft", needed_by="`peft_config`").get_peft_model(
                student, self.peft_config
            )
        settle_problem_type(student, self._example_rows, self.args.device)
        objectives = self._build_objectives(student)
        needing = [item.name for item in objectives if item.objective.needs_teacher]
        if needing and self.teacher is None:
            raise ValueError(f"The objectives {needing} compare with a teacher: give `--teacher_model`.")
        depth = capture_of(student, SignalRequest()).num_layers
        own_tokens = {}
        for item in objectives:
            teacher = self._teacher_of(item)
            item.objective.bind(depth, None if teacher is None else teacher.num_layers)
            if teacher is not None and item.objective.teacher_request:
                own_tokens[item.name] = teacher.own_tokens
        if self.teacher is not None:
            self.teacher.connect(objectives, student.config)
        return DistillationModel(student, objectives, own_tokens)

    def _build_objectives(self, student: Any) -> list[WeightedObjective]:
        """Every objective with the settings that follow from student and teacher."""
        # Every trial of a search needs its own.
        given = self._objective_items if self._given_model else copy.deepcopy(self._objective_items)
        options = {**self.args.objective_options(), "problem_type": getattr(student.config, "problem_type", None)}
        kind = "" if self.teacher is None else self.teacher.model_type
        built = build_objectives(given, {**options, "teacher_model_type": kind})
        for index, item in enumerate(built):
            teacher = self._teacher_of(item)
            if teacher is not None and teacher is not self.teacher:
                own = {**options, "teacher_model_type": teacher.model_type}
                [built[index]] = build_objectives([given[index]], own)
        return built

    def _teacher_of(self, item: WeightedObjective) -> TeacherSource | None:
        """The teacher that an objective learns from, if there is one."""
        return None if self.teacher is None else self.teacher.of(item)

    def _start_distilling(self, collator: Any) -> None:
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process (DataParallel) are not supported: start with "
                "`torchrun --nproc_per_node NUM_GPUS script.py`, or show one GPU with CUDA_VISIBLE_DEVICES."
            )
        self.add_callback(CountsEpochs(lambda: self.model))
        self.model.warn_of_untrained_head()
        # The wrapper's loss is a mean over the whole optimizer step already.
        self.loss_is_scaled_for_ga = True
        if self.args.label_names is None:
            student_class = type(
                self.student.get_base_model() if hasattr(self.student, "get_base_model") else self.student
            )
            self.label_names = find_labels(student_class)
        if self.teacher is not None:
            self.teacher.to(self.args.device)
        self._prepare_rows(collator)
        self._check_smoothing()
        self._check_objectives()
        if self.optimizer is not None:
            train_beside(self.optimizer, self.lr_scheduler, self.model.objectives, self.args)

    def _prepare_rows(self, collator: Any) -> None:
        """Read the rows that are known already, and decide how rows become batches.

        Args:
            collator: The one that was given, or that masks; `None` is ours.
        """
        self._set_signature_columns_if_needed()
        self.rows = RowReader(
            self.processing_class,
            self.args,
            others=own_tokens_of(self.teachers),
            keep=[
                *(() if self.teacher is None else self.teacher.kept_columns),
                *LabelReader(self.student, self.label_names).columns,
            ],
            own_collator=collator,
            bounds=bounds_of(self.student, self.teachers),
            order=ClassOrder(self.student),
        )
        self.train_dataset = self._read_rows(self.train_dataset, "train_dataset")
        self.eval_dataset = self._read_rows(self.eval_dataset, "eval_dataset", several=True)
        columns = self._signature_columns if self.args.remove_unused_columns else None
        needs_labels = any(objective.needs_labels for objective in self.model.objectives.values())
        self.data_collator = self.rows.collator(
            self.student, self.label_names, columns, self.teacher, needs_labels=needs_labels
        )

    def _check_rows(self, dataset: Any, name: str) -> None:
        if self.teacher is not None:
            self.teacher.check_rows(dataset, name)

    def _check_smoothing(self) -> None:
        """Labels are smoothed where there is a loss of labels."""
        factor, objectives = self.args.label_smoothing_factor, self.model.objectives
        if factor and not any(getattr(objective, "label_smoothing", 0) for objective in objectives.values()):
            raise ValueError(
                f"`--label_smoothing_factor` {factor} would have no effect: it is for the objective `labels`, and the "
                f"objectives are {sorted(objectives)}."
            )

    @torch.no_grad()
    def _check_objectives(self) -> None:
        """Let every objective look at one tiny batch of both sides."""
        ids = torch.arange(4, device=self.args.device)[None]
        if has_choices(self.student):
            # Two choices a row; the rows of everything but the logits are the choices.
            ids = ids.expand(1, 2, -1)
            deep = [n for n, o in self.model.objectives.items() if o.student_request != SignalRequest(logits=True)]
            if deep:
                raise ValueError(
                    f"The objectives {deep} compare layers, but a head of multiple choice reads several texts a row: "
                    "only `logits` and `labels` can be used with it."
                )
        probe = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        self.model.check(probe, None if self.teacher is None else self.teacher.probe(probe), seed=self.args.seed)
        self.model.objectives.to(self.args.device)
        # As they begin: a callback may change them on the way.
        self._described = self.model.describe()
        self._manifest = None

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Make the student with `model_init` and wrap it."""
        if not self.distilling:
            return super().call_model_init(trial)
        if trial is not None:
            # Objectives are made of the arguments, which the base class sets when the student is there.
            self._hp_search_setup(trial)
        student = super().call_model_init(trial)
        for teacher in self.teachers:
            refuse_shared(student, teacher)
        self.model = self._wrap(student)
        if self._is_started:
            # Every trial of a search has a student and projections of its own.
            self.model.to(self.args.device)
            self._check_objectives()
            if self.task_evaluation is not None:
                self.task_evaluation.show(self.model)
        return self.model

    @property
    def student(self) -> Any:
        """The plain student inside the model that is trained; between the trials of a search there is none."""
        return self.model.student if self.distilling and self.model is not None else self.model

    def describe(self) -> str:
        """Describe what will be trained, one fact a line: models, objectives, layers, signals."""
        if not self.distilling:
            return f"{type(self.model).__name__}, trained on its own labels"
        lines = [f"student: {type(self.student).__name__}, {self.student.num_parameters():,} parameters"]
        for index, teacher in reversed(list(enumerate(self.teachers))):
            number = f" {index}" if len(self.teachers) > 1 else ""
            lines.insert(0, f"teacher{number}: {teacher.describe()}")
        for name, objective in self.model.objectives.items():
            settings = ", ".join(f"{key} {value}" for key, value in objective.describe().items())
            lines.append(f"objective: {name} x {self.model.weights[name]:g}" + (f" ({settings})" if settings else ""))
        return "\n".join(lines)

    # ---- Training ----

    def _set_signature_columns_if_needed(self) -> None:
        if not self.distilling or self._signature_columns is not None:
            return super()._set_signature_columns_if_needed()
        columns = {*forward_columns(self.student), *LABEL_COLUMNS, *LABEL_NAMES, *self.label_names}
        if self.teacher is not None:
            columns |= set(self.teacher.input_columns)
        self._signature_columns = sorted(columns)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """As in `Trainer`; rows that were given since are read as those of the constructor."""
        if self.distilling:
            self.train_dataset = self._read_rows(self.train_dataset, "train_dataset")
        check_one_set(self.train_dataset, "train_dataset")
        return super().get_train_dataloader()

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        if not self.distilling:
            rows = self.train_dataset if train_dataset is None else train_dataset
            return super()._get_train_sampler(counted(rows))
        sampler = length_grouped_sampler(self.train_dataset, self.args, lambda: int(self.state.epoch or 0))
        return sampler if sampler is not None else super()._get_train_sampler(train_dataset)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As in `Trainer`; parameters of the objectives take `projection_learning_rate` and their own decay."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if self.distilling and is_new:
            give_own_settings(optimizer, self.model.objectives, self.args)
        return optimizer

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        """Count rows, tokens and labels of the whole optimizer step, over all micro-batches and processes."""
        if not self.distilling:
            return super()._get_num_items_in_batch(batch_samples, device)
        if not batch_samples:
            return None
        counts = [count_items(batch) for batch in batch_samples]
        units = list(counts[0])
        totals = torch.stack([torch.stack([count[unit] for unit in units]) for count in counts]).sum(0)
        if self.accelerator.num_processes > 1:
            # A process of its own keeps them where the batch is: no copy to the device, nothing to wait for.
            totals = self.accelerator.reduce(totals.to(device), "sum")
        self._num_logged_steps += 1
        self.model.set_progress(self.state.global_step / max(1, self.state.max_steps))
        return dict(zip(units, totals.unbind(), strict=True))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted sum of all terms; a mean over the whole optimizer step when `num_items_in_batch` is given."""
        if not self.distilling:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        signals = self._teacher_signals(inputs)
        outputs = model(
            teacher_signals=signals,
            num_items=num_items_in_batch,
            loss_scale=1.0 if num_items_in_batch is None else float(self.accelerator.num_processes),
            return_logits=return_outputs,
            **inputs,
        )
        if self.model.training:
            self.watch_teacher(signals, inputs)
            self._add_trained(outputs["terms"])
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def outputs_of(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The signals of the student that objectives read."""
        return dict(named_signals(self.model.student_signals(batch)))

    def _teacher_signals(self, inputs: Mapping[str, Any]) -> Signals | Mapping[str, Signals] | None:
        if self.teacher is None:
            return None
        # `Trainer` puts only the model it trains under autocast.
        with self.accelerator.autocast():
            return self.teacher.signals(inputs)

    # ---- Checkpoints ----

    def manifest(self) -> dict[str, Any]:
        """Return what a resumed run must find unchanged: teacher, tokenizer, objectives with weights and settings."""
        if self._manifest is None:
            described = {"objectives": self._described, "tokenizer": tokenizer_hash(self.processing_class)}
            self._manifest = json.loads(json.dumps(described))
            self._manifest |= self.teacher.fingerprint() if self.teacher is not None else {"teacher": "none"}
        return self._manifest

    def input_folders(self) -> dict[str, Any]:
        """The folders of teachers and student."""
        if not self.distilling:
            return {}
        own = getattr(getattr(self.student, "config", None), "name_or_path", None)
        return {"teacher_model": [teacher.place for teacher in self.teachers], "model": own}

    def _write_beside(self, folder: Path) -> None:
        if self.distilling:
            write_beside_student(folder, self.manifest(), self.model.objectives)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if not self.distilling:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        read_beside_student(Path(resume_from_checkpoint), self.manifest(), self.model.objectives)
        # A checkpoint holds the plain student; sharded strategies save and load the whole wrapper.
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        super()._load_from_checkpoint(resume_from_checkpoint, model if sharded else self.student)

    def _load_best_model(self) -> None:
        if not self.distilling or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return super()._load_best_model()
        self._check_best()
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))


def _chosen_objectives(given: Any, teacher: Any) -> list[Any]:
    """The objectives: by default `relation`, if there is a teacher; none if nothing is distilled.

    Raises:
        ValueError: If there is a teacher and nothing to learn from it.
    """
    if given is None:
        return ["relation"] if teacher is not None else []
    if teacher is not None and not given:
        raise ValueError("There is a teacher, but `--objectives` is empty: nothing would be learnt from it.")
    return objective_items(given)
