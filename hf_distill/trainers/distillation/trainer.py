"""`DistillationTrainer`: a `transformers.Trainer` whose student learns from a teacher."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from huggingface_hub import CommitInfo
from torch import Tensor, nn
from transformers import PreTrainedModel, ProgressCallback, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction
from transformers.utils import find_labels, logging

from hf_distill.tasks.labels import LABEL_COLUMNS

from ...capture.architectures import forward_columns, without_adapters
from ...capture.packed_rows import packing_rows
from ...capture.signals import Signals, named_signals
from ...capture.transformer import give_back_attention
from ...hub.tokenizers import tokenizer_hash
from ...kernels.cpu import configure_fp32_matmul
from ...objectives import Objective, WeightedObjective
from ...objectives.base import chosen_objectives
from ...settings import DistillationArguments
from ...settings.distill import RATE_OF_CUT_STUDENTS, Unset, settled
from ...students.dropout import set_dropout
from ...students.first_weights import CUT_STUDENTS
from ...students.sentence import read_head
from ...tasks.loading import LoadedTask
from ...tasks.rows.text import has_transform
from ...teachers.base import TeacherSource
from ...teachers.opening import open_teachers, refuse_shared, sorted_by_kind
from ..base import (
    BaseTrainer,
    named_targets,
    random_state_kept,
    refuse_data_parallel,
    refuse_resharding,
    refuse_without_effect,
    unless_stock,
)
from ..callbacks import CountsEpochs, TermsInProgressBar
from ..checkpoints import check_base_has_name, read_beside_student, write_beside_student
from .collators import LABEL_NAMES, masking_collator
from .evaluation import Evaluation, searched_loss
from .fitting import begins_with_fit, fit_projections
from .model import DistillationModel, count_items, plain_student, plain_teacher, refuse_wrapped, with_objectives
from .optimizers import give_own_settings, train_beside
from .publishing import Publisher, check_strategy, write_card
from .rows import RowReader, check_one_set, has_pairs, refuse_other_processor, settle_problem_type

logger = logging.get_logger(__name__)


class DistillationTrainer(BaseTrainer):
    """Train a student on what a teacher computes.

    A drop-in `Trainer` for encoders (and decoders) of any supported architecture. It compares relations, features and
    logits on plain text; the class of the same name in `trl` distils decoders on the text that they generate. Without
    a teacher and objectives it behaves exactly like `Trainer`.
    """

    # What plain arguments are filled up to where something is distilled.
    arguments_class: ClassVar[type[DistillationArguments]] = DistillationArguments

    args: Any
    # A `DistillationModel` where something is distilled, else the plain model.
    model: Any
    processing_class: Any
    label_names: Any
    data_collator: Any
    hub_model_id: Any
    compute_metrics: Any
    preprocess_logits_for_metrics: Any
    # Fields of the card's facts that whoever trains knows and the trainer does not, such as the name of the corpus.
    card_details: Mapping[str, Any] = MappingProxyType({})
    _signature_columns: Any
    # Whether projections are fitted: outside of a run there is nothing to fit.
    _is_fitted = True

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

        Positional arguments are those of `Trainer` in its order; the arguments of a distillation are given by name.
        The teacher may also be the second positional argument, before `args`: `DistillationTrainer(student, teacher,
        args)`.

        Args:
            model: The student: a model, a Hub id or a folder. `trainer.model` of another distillation is unwrapped to
                its student.
            args: `DistillationArguments`, or plain `TrainingArguments`: all their values count as given, and the
                settings of the distillation have their defaults.
            data_collator: Makes a batch of rows. Default: a collator that pads.
            train_dataset: Tokenized rows, or rows with a text column, which are tokenized with `processing_class`.
                Default: the rows of a stored teacher.
            eval_dataset: Held-out rows of the same kind, or a dict of data sets. Default: the evaluation rows of
                `eval_task`.
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
            objectives: Overrides `args.objectives`; may contain `Objective` objects (see `build_objectives`).
            eval_task: A loaded task on which the student is scored in every evaluation; overrides `args.eval_task`.
            teacher_processing_class: The teacher's own tokenizer. It is compared with the student's, or with
                `args.align_tokenizers` the teacher reads text with it. Default: loaded, if the teacher is a Hub id or
                a folder.
            peft_config: Train an adapter on the student instead of all its weights.

        Raises:
            TypeError: If `args` is neither training arguments nor a teacher, or there are two teachers.
            ValueError: If teacher, student, tokenizer, objectives and data do not fit each other; the message names
                what differs and what to do.
        """
        args, data_collator, teacher_model = sorted_by_kind(args, data_collator, teacher_model, "teacher_model")
        items = objectives if objectives is not None else getattr(args, "objectives", None)
        self._objective_items = chosen_objectives(items, has_teacher=teacher_model is not None)
        self.distilling = bool(self._objective_items)
        is_rate_open = isinstance(getattr(args, "learning_rate", Unset()), Unset)
        self.args = settled(args, self.arguments_class, distilling=self.distilling)
        # The usual rate, and that of this student: both `None` where somebody chose one.
        self._usual_rate = self._open_rate = self.args.learning_rate if is_rate_open else None
        self.peft_config = peft_config
        self._given_model, self._is_started = model is not None, False
        student, self._student_head = plain_student(model)
        self._check_given(eval_task, processing_class, compute_loss_func=compute_loss_func)
        self.teacher: TeacherSource | None = None
        if teacher_model is not None:
            self.teacher = open_teachers(
                plain_teacher(teacher_model),
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
        if self.distilling and student is not None:
            student = self._wrap(student)
        if self.teacher is not None:
            train_dataset = self.teacher.dataset if train_dataset is None else train_dataset
            processing_class = self.teacher.tokenizer() if processing_class is None else processing_class
        self.evaluation, self.publisher = Evaluation(), Publisher()
        # Sums of the terms since the last log, on the device, and the steps that they are of.
        self._term_sums: dict[str, Tensor] = {}
        self._num_logged_steps = 0
        self._rows_of_loader: Any = None  # Those that the loader of an evaluation was made for.
        if self.distilling and (eval_task is not None or self.args.eval_task is not None or self.args.by_headline):
            eval_dataset = self.evaluation.plan(self.args, eval_task, eval_dataset, processing_class, self.teachers)
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
        if self.distilling:
            self._start(data_collator)
            self._is_started = True

    # ---- Preparation ----

    def _own(self, name: str) -> Any:
        """A setting that `Trainer` does not know; `None` where the arguments are plain ones."""
        return getattr(self.args, name, None)

    def _check_given(self, eval_task: LoadedTask | None, processing_class: Any, **given: Any) -> None:
        """Refuse what would have no effect on a distillation or spoil it, and set the precision of the process."""
        if not self.distilling and self.peft_config is not None:
            raise ValueError("`peft_config` is for a distillation: without one, wrap the model by `get_peft_model`.")
        if not self.distilling and (eval_task is not None or self._own("eval_task") or self._own("eval_agreement")):
            raise ValueError(
                "`--eval_task` and `--eval_agreement` need a distillation: give a teacher or `--objectives`."
            )
        if self.distilling:
            refuse_without_effect("a distillation", self.args, given)
            refuse_data_parallel(self.args)
            refuse_other_processor(processing_class)
        # A plain training leaves the precision as it is, unless it is told otherwise.
        if self.distilling or self._own("fp32_matmul") not in (None, "auto"):
            configure_fp32_matmul(self.args.fp32_matmul)

    @property
    def teachers(self) -> list[TeacherSource]:
        """The teachers in the order of their numbers; an empty list without a teacher."""
        return [] if self.teacher is None else self.teacher.members

    @property
    def is_stock(self) -> bool:
        """Whether nothing is distilled: then this is a plain `Trainer`."""
        return not self.distilling

    def _wrap(self, student: Any) -> DistillationModel:
        """Put the objectives around the student."""
        refuse_wrapped(student)
        # The same object, unless a search or a user has set one since, perhaps of the same value.
        if self.args.learning_rate is self._open_rate:
            self._open_rate = RATE_OF_CUT_STUDENTS if student in CUT_STUDENTS else self._usual_rate
            self.args.learning_rate = self._open_rate
        if self.peft_config is not None:
            from ..._optional import require

            peft = require("peft", extra="peft", needed_by="`peft_config`")
            student = peft.get_peft_model(student, self.peft_config)
        if self.args.student_dropout is not None:
            set_dropout(student, self.args.student_dropout)
        settle_problem_type(student, self._example_rows, self.args.device)
        # Every trial of a search needs objectives of its own.
        items = self._objective_items if self._given_model else copy.deepcopy(self._objective_items)
        return with_objectives(student, items, self.teacher, self.args, self._student_head)

    def _start(self, collator: Any) -> None:
        """Prepare everything that needs the base class to be ready."""
        if self.model.schedules:
            self.add_callback(CountsEpochs(lambda: self.model))
        self.model.warn_of_untrained_head()
        # The wrapper's loss is a mean over the whole optimizer step already.
        self.loss_is_scaled_for_ga = True
        if self.args.label_names is None:
            self.label_names = find_labels(type(without_adapters(self.student)))
        if self.teacher is not None:
            self.teacher.to(self.args.device)
            plugin = self.accelerator.state.deepspeed_plugin if self.is_deepspeed_enabled else None
            if plugin is not None and plugin.zero_stage == 3:
                self.teacher.share_out(plugin.deepspeed_config["zero_optimization"])
        self._prepare_rows(collator)
        self._check_objectives()
        if self.optimizer is not None or self.lr_scheduler is not None:
            has_new_adapters = self.peft_config is not None
            train_beside(self.optimizer, self.lr_scheduler, self.model, self.args, has_new_adapters=has_new_adapters)
        if self.evaluation.task is not None:
            self.evaluation.settle(self.model, self.args, self.eval_dataset)
        self.args.check_metric(self.eval_dataset if isinstance(self.eval_dataset, dict) else ())
        # In a notebook there is a table instead of the bar; without bars there is neither.
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(TermsInProgressBar())

    def _prepare_rows(self, collator: Any) -> None:
        """Read the rows that are known already; they become batches by a collator that was given, or by ours."""
        self._set_signature_columns_if_needed()
        self.rows = RowReader(self.student, self.teacher, self.processing_class, self.args, self.label_names, collator)
        self.train_dataset = self._read_rows(self.train_dataset, "train_dataset")
        self.eval_dataset = self._read_rows(self.eval_dataset, "eval_dataset", several=True)
        self.data_collator = self._collator()

    def _collator(self, *, evaluating: bool = False) -> Any:
        """The collator of the training, or that of an evaluation."""
        columns = self._signature_columns if self.args.remove_unused_columns else None
        needs_labels = any(objective.needs_labels for objective in self.model.objectives.values())
        return self.rows.collator(columns, needs_labels=needs_labels, evaluating=evaluating)

    def _check_objectives(self) -> None:
        self.model.check(self.teacher, self.args)
        if self.model.ends_inside_a_layer:
            refuse_resharding(self.accelerator, sorted(self.model.objectives))
        # As they begin: a callback may change them on the way.
        self._described = self.model.describe()
        self._manifest = None

    @unless_stock
    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Make the student with `model_init` and wrap it."""
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
            if self.evaluation.task is not None:
                self.evaluation.task.show(self.model)
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
            known = {key: value for key, value in objective.describe().items() if value is not None}
            settings = ", ".join(f"{key} {value}" for key, value in known.items())
            lines.append(f"objective: {name} x {self.model.weights[name]:g}" + (f" ({settings})" if settings else ""))
        return "\n".join(lines)

    # ---- Rows ----

    def _read_rows(self, dataset: Any, name: str, *, several: bool = False, predicting: bool = False) -> Any:
        """A data set as the models read it: the same for training, `evaluate` and `predict`."""
        dataset = self.rows.prepare(dataset, name, several=several, predicting=predicting)
        if not predicting and self.teacher is not None:
            self.teacher.check_rows(dataset, name)
        return dataset

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """As in `Trainer`; rows that were given since are read as those of the constructor."""
        if self.distilling:
            self.train_dataset = self._read_rows(self.train_dataset, "train_dataset")
        check_one_set(self.train_dataset, "train_dataset")
        return super().get_train_dataloader()

    @unless_stock
    def get_eval_dataloader(self, eval_dataset: Any = None) -> torch.utils.data.DataLoader:
        """As in `Trainer`, for rows of any kind: text is tokenized, and over-long rows are found before the pass."""
        self.eval_dataset = self._read_rows(self.eval_dataset, "eval_dataset", several=True)
        eval_dataset = self._read_rows(eval_dataset, "eval_dataset")
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if not isinstance(rows, str) and rows is not self._rows_of_loader:
            # With persistent workers the base class keeps one loader, whatever rows it is asked for.
            getattr(self, "_eval_dataloaders", {}).pop("eval", None)
            self._rows_of_loader = rows
        of_training = self.data_collator
        if self.rows.masks:
            self.data_collator = self._collator(evaluating=True)
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = of_training

    def get_test_dataloader(self, test_dataset: Any) -> torch.utils.data.DataLoader:
        """As `get_eval_dataloader`, for the student alone: the rows need no labels and no signals of a teacher."""
        if self.distilling:
            test_dataset = self._read_rows(test_dataset, "test_dataset", predicting=True)
        check_one_set(test_dataset, "test_dataset")
        return super().get_test_dataloader(test_dataset)

    @unless_stock
    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            columns = {*forward_columns(self.student), *LABEL_COLUMNS, *LABEL_NAMES, *self.label_names}
            if self.teacher is not None:
                columns |= set(self.teacher.input_columns)
            self._signature_columns = sorted(columns)

    @unless_stock
    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        # A transform, or a collator of the user's, needs them.
        if has_transform(dataset) or self.rows.leaves_raw:
            return dataset
        return super()._remove_unused_columns(dataset, description)

    @unless_stock
    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        if self.rows.collates_any_row:
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, description)

    # ---- A step ----

    def _trained_parts(self) -> list[nn.Module]:
        """The modules that must have something to train: the student, and the pooling head of a sentence encoder."""
        head = self.model.sentence_head
        return [self.student] if head is None else [self.student, head]

    def _begin_steps(self) -> None:
        super()._begin_steps()
        check_base_has_name(self.student)
        self.model.use_attention()
        if self.args.student_dropout is not None:
            set_dropout(self.student, self.args.student_dropout)
        self._term_sums, self._num_logged_steps = {}, 0
        self._is_fitted = False

    def _tidy_up(self) -> None:
        super()._tidy_up()
        self._give_back_attention()
        if self.distilling and self.model is not None and self.args.student_dropout is not None:
            set_dropout(self.student, None)

    def _give_back_attention(self) -> None:
        """Leave student and teachers with the attention implementations that they came with."""
        if self.distilling and self.model is not None:
            for model in (self.student, *(teacher.model for teacher in self.teachers)):
                if model is not None:
                    give_back_attention(model)

    def fit_projections(self) -> None:
        """Fit the projections that begin with a fit to rows from everywhere in the training data."""
        # Weights that are spread over processes cannot be set here: their projections begin at random.
        if not begins_with_fit(self.model) or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return
        # Every process takes some of the batches.
        collate = self._get_collator_with_removed_columns(self.data_collator)
        with random_state_kept(self.args.device), torch.no_grad(), self.compute_loss_context_manager():
            batches = (self._prepare_inputs(collate(rows)) for rows in self.rows.sample(self.train_dataset))
            fit_projections(self.model, ((batch, self.teacher_signals(batch)) for batch in batches))

    @unless_stock
    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As in `Trainer`; parameters of the objectives take `projection_learning_rate` and their own decay."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new:
            give_own_settings(optimizer, self.model.objectives, self.args)
        return optimizer

    @unless_stock
    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        """Count rows, tokens and labels of the whole optimizer step, over all micro-batches and processes."""
        if not batch_samples:
            return None
        for batch in batch_samples:
            self.rows.check_batch(batch)
        if not self._is_fitted and self.state.global_step == 0:
            self.fit_projections()
        self._is_fitted = True
        counts = [count_items(self.model.as_read(batch)) for batch in batch_samples]
        units = list(counts[0])
        totals = torch.stack([torch.stack([count[unit] for unit in units]) for count in counts]).sum(0)
        if self.accelerator.num_processes > 1:
            # A process of its own keeps them where the batch is: no copy to the device, nothing to wait for.
            totals = self.accelerator.reduce(totals.to(device), "sum")
        self._num_logged_steps += 1
        self.model.set_progress(self.state.global_step / max(1, self.state.max_steps))
        return dict(zip(units, totals.unbind(), strict=True))

    @unless_stock
    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted sum of all terms; a mean over the whole optimizer step when `num_items_in_batch` is given."""
        with packing_rows() if self.args.pack_rows else nullcontext():
            inputs = self.model.as_read(inputs)
            signals = self.teacher_signals(inputs)
            outputs = model(
                teacher_signals=signals,
                num_items=num_items_in_batch,
                loss_scale=1.0 if num_items_in_batch is None else float(self.accelerator.num_processes),
                return_logits=return_outputs,
                **inputs,
            )
        if self.model.training:
            terms = outputs["terms"]
            self.watch(named_targets(signals, inputs))
            self.watch(terms)
            # They are kept until the next log; nothing waits for the device.
            self._term_sums = {n: self._term_sums[n] + v if n in self._term_sums else v for n, v in terms.items()}
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def teacher_signals(self, inputs: Mapping[str, Any]) -> Signals | Mapping[str, Signals] | None:
        """The signals of the teacher for a batch (see `TeacherSource.signals`); `None` without a teacher."""
        if self.teacher is None:
            return None
        # `Trainer` puts only the model it trains under autocast.
        with self.accelerator.autocast():
            return self.teacher.signals(inputs)

    def outputs_of(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The signals of the student that objectives read."""
        return dict(named_signals(self.model.student_signals(batch)))

    @unless_stock
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each unweighted term since the last log, `loss/<objective>/<term>`, and scheduled values."""
        if "loss" in logs and self._term_sums:
            names = sorted(self._term_sums)
            values = self.accelerator.reduce(torch.stack([self._term_sums[name] for name in names]), "mean")
            means = (values / max(1, self._num_logged_steps)).tolist()
            logs.update({f"loss/{name}": mean for name, mean in zip(names, means, strict=True)})
            logs.update(self.model.current_settings())
            self._term_sums, self._num_logged_steps = {}, 0
        super().log(logs, start_time)

    # ---- Evaluation ----

    @unless_stock
    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Any, Any, Any]:
        """Loss with or without labels; logits only where metrics need them."""
        self.rows.check_batch(inputs)
        return self.evaluation.step(
            self, model, self._prepare_inputs(inputs), with_outputs=not prediction_loss_only, ignored=ignore_keys or ()
        )

    @property
    def has_own_loss(self) -> bool:
        """Whether `compute_loss` is one of the user's."""
        return getattr(self.compute_loss, "__func__", None) is not DistillationTrainer.compute_loss

    @unless_stock
    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As in `Trainer`; the loss and its terms are exact means over the data set, not means of batch means.

        With `eval_agreement` and `eval_task` there are agreement with the teacher and scores of the student too.
        """
        self.model.use_attention()
        try:
            with random_state_kept(self.args.device):
                return self.evaluation.run(self, super().evaluation_loop, *args, **kwargs)
        finally:
            if not self.is_in_train:
                self._give_back_attention()

    @unless_stock
    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], dict[str, float]] | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As in `Trainer`, which by default would minimise the sum of all that an evaluation measures.

        A distillation measures terms that rise and fall, so here the default is `eval_loss`: with several evaluation
        sets the mean of theirs. What `compute_objective` gives is minimised too, unless `direction` says otherwise.
        """
        if compute_objective is None:
            compute_objective = lambda metrics: searched_loss(metrics, self.eval_dataset)  # noqa: E731
        return super().hyperparameter_search(hp_space, compute_objective, *args, **kwargs)

    # ---- Checkpoints ----

    def manifest(self) -> dict[str, Any]:
        """Return what a resumed run must find unchanged: teacher, tokenizer, objectives with weights and settings."""
        if self._manifest is None:
            described = {"objectives": self._described, "tokenizer": tokenizer_hash(self.processing_class)}
            self._manifest = json.loads(json.dumps(described))
            self._manifest |= self.teacher.fingerprint() if self.teacher is not None else {"teacher": "none"}
        return self._manifest

    @unless_stock
    def input_folders(self) -> dict[str, Any]:
        """The folders of teachers and student."""
        own = getattr(getattr(self.student, "config", None), "name_or_path", None)
        return {"teacher_model": [teacher.place for teacher in self.teachers], "model": own}

    def _write_beside(self, folder: Path) -> None:
        write_beside_student(folder, self.manifest(), self.model.objectives)

    @unless_stock
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        read_beside_student(Path(resume_from_checkpoint), self.manifest(), self.model.objectives)
        # A checkpoint holds the plain student; sharded strategies save and load the whole wrapper.
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        super()._load_from_checkpoint(resume_from_checkpoint, model if sharded else self.student)
        head = self.model.sentence_head
        if head is not None and head.state_dict() and not sharded:
            head.load_state_dict(read_head(resume_from_checkpoint).state_dict())  # type: ignore[union-attr]

    @unless_stock
    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return super()._load_best_model()
        self.checkpoints.check_best(self.state.best_model_checkpoint)
        return self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    # ---- Publishing ----

    @unless_stock
    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make repository and branch before the training, so that what is wrong shows before it."""
        check_strategy(self.args)
        if self.is_world_process_zero():
            self.hub_model_id = self.publisher.open(self.args, token, private)

    @unless_stock
    def push_to_hub(  # type: ignore[override]
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """As in `Trainer`; what is uploaded is the student with its card (see `Publisher.push`)."""
        return self.publisher.push(self, commit_message, blocking, token, revision, private, kwargs)

    @unless_stock
    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        self.publisher.push_checkpoint(self, checkpoint_folder)

    @unless_stock
    def _finish_current_push(self) -> None:
        self.publisher.wait()

    @unless_stock
    def create_model_card(self, model_name: str | None = None, **metadata: Any) -> None:  # type: ignore[override]
        """Write `README.md`: teacher, student, objectives, settings that differ from defaults, curves of the terms.

        Args:
            model_name: Title; by default the name of the repository or folder.
            metadata: `language`, `license` (an id of the Hub) and `tags`; what the stock card takes besides is about
                data sets, which a distillation has no labels of.
        """
        if self.is_world_process_zero():
            write_card(self, model_name, self.card_details, metadata)
