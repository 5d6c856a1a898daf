"""`MTLTrainer`: one encoder fine-tuned on many tasks at once (Muppet; the teacher of MITKD).

Every micro-batch has rows of one task; an update has several micro-batches. Each task is scored by its own metrics;
the mean of the headline metrics chooses the best checkpoint.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, PredictionOutput, SaveStrategy
from transformers.utils import logging

from hf_distill.capture.transformer import give_back_attention
from hf_distill.hub.tokenizers import tokenizer_hash
from hf_distill.kernels.cpu import configure_fp32_matmul
from hf_distill.settings import TeacherArguments
from hf_distill.settings.distill import filled_up
from hf_distill.settings.mtl import MTLArguments
from hf_distill.storage.files import write_json
from hf_distill.tasks.labels import LABEL_COLUMNS
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.rows.tokenizing import tokenize_task
from hf_distill.teachers.base import TeacherSource
from hf_distill.teachers.opening import open_teacher, refuse_shared, share_tokens
from hf_distill.teachers.stored.teacher import StoredCollator, join_rows
from hf_distill.trainers.base import (
    BaseTrainer,
    random_state_kept,
    refuse_data_parallel,
)
from hf_distill.trainers.callbacks import epochs_in
from hf_distill.trainers.checkpoints import MANIFEST_NAME, check_manifest
from hf_distill.trainers.distillation.evaluation import ExactMeans
from hf_distill.trainers.distillation.model import DistillationModel, plain_teacher
from hf_distill.trainers.distillation.optimizers import train_too
from hf_distill.trainers.distillation.rows import check_one_set
from hf_distill.trainers.fine_tuning.heads import Collator, head_of
from hf_distill.trainers.fine_tuning.task_models import check_positions
from hf_distill.trainers.fine_tuning.trainer import (
    FineTuningTrainer,
    Scores,
    build_trainer,
    evaluate_splits,
    evaluation_rows,
    labelled_rows,
    save_model,
)
from hf_distill.trainers.finite import TEACHER
from hf_distill.trainers.multi_task.loss import MultiTaskLoss
from hf_distill.trainers.multi_task.mixing import TaskBatches, TaskCollator, TaskRows
from hf_distill.trainers.multi_task.model import MultiTaskModel, multi_task_model
from hf_distill.trainers.multi_task.teachers import TaskTeachers
from hf_distill.trainers.signature import refuse_settings, takes_what_trainer_takes

logger = logging.get_logger(__name__)


class MTLTrainer(BaseTrainer):
    """Fine-tunes one encoder on many tasks, from their labels, from teachers of single tasks, or from both.

    `save_model` writes the plain encoder; `save_task` a plain model with the head of one task.

    Attributes:
        specs: Task -> what it is.
    """

    args: MTLArguments
    model: Any
    processing_class: Any
    train_dataset: Any

    @takes_what_trainer_takes("MTLTrainer takes rows, heads, losses and metrics from its tasks")
    def __init__(
        self,
        model: str | PreTrainedModel | MultiTaskModel,
        args: TrainingArguments | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        *,
        tasks: Sequence[LoadedTask],
        task_teachers: Mapping[str, Any] | None = None,
        lora: TeacherArguments | None = None,
        max_length: int | None = None,
        doc_stride: int | None = None,
    ) -> None:
        """Make the trainer.

        Positional arguments are those of `Trainer` in its order; further arguments are given by name. Data sets,
        collator, `model_init`, loss and metric functions are refused, because rows, heads, losses and metrics come
        from the tasks.

        Args:
            model: The encoder, its Hub id or folder, or a model with the heads of all tasks (of another `MTLTrainer`).
            args: Settings of the training: `MTLArguments`.
            processing_class: The model's tokenizer.
            callbacks: As in `Trainer`.
            optimizers: As in `Trainer`.
            optimizer_cls_and_kwargs: As in `Trainer`.
            tasks: The tasks with their rows; those without a training split are only scored.
            task_teachers: Task -> one teacher or several: models, Hub ids, folders, stored teachers, `TeacherSource`
                objects. A task with a stored teacher is trained on the stored rows.
            lora: LoRA for the encoder, if its `lora_r` is set.
            max_length: Largest number of tokens in a row. Default: each task's own.
            doc_stride: Question answering: tokens by which two windows of a context overlap. Default: the task's.

        Raises:
            TypeError: If `args` are no training arguments.
            ValueError: If there is no tokenizer or no rows to train on, if tasks, teachers and model do not fit, or if
                an argument is given that is refused.
        """
        if processing_class is None:
            raise ValueError(
                "MTLTrainer tokenizes the tasks itself: give the model's tokenizer as `processing_class`."
            )
        own: Any = args if args is not None else MTLArguments(output_dir="trainer_output")
        own = own if isinstance(own, MTLArguments) else filled_up(MTLArguments, own)
        _refuse_settings(own)
        refuse_data_parallel(own)
        configure_fp32_matmul(own.fp32_matmul)
        if isinstance(model, (os.PathLike, DistillationModel)):
            model = model.student if isinstance(model, DistillationModel) else os.fspath(model)
        known = list(model.parameters()) if isinstance(model, nn.Module) else []
        self.specs = {task.spec.name: task.spec for task in tasks}
        if not isinstance(model, MultiTaskModel):
            model = multi_task_model(model, [task.spec for task in tasks])
        if lora is not None:
            model.add_lora(lora)
        limits = {name: max_length or spec.fine_tuning.max_length for name, spec in self.specs.items()}
        check_positions(model.config, max(limits.values()))
        self.task_teachers = self._open_teachers(task_teachers or {}, model, own, processing_class)
        rows = {
            task.spec.name: self._training_rows(task, processing_class, limits[task.spec.name], doc_stride)
            for task in tasks
            if task.spec.train_split in task.dataset
        }
        if not rows:
            raise ValueError(f"None of the tasks {list(self.specs)} has a training split.")
        self.evaluation = {
            task.spec.name: evaluation_rows(task, processing_class, limits[task.spec.name], doc_stride)
            for task in tasks
        }
        self._lengths = {name: part["length"][:] for name, part in rows.items()}
        self._limits, self._doc_stride = limits, doc_stride
        self._means = ExactMeans()
        super().__init__(
            model=MultiTaskLoss(model, self.specs, limits, own),
            args=self._for_training(own),
            data_collator=TaskCollator({name: self._collator(name, processing_class, own) for name in rows}),
            train_dataset=TaskRows(
                {name: self._read_columns(name, part, processing_class) for name, part in rows.items()}
            ),
            eval_dataset=self.evaluation if any(self.evaluation.values()) else None,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
        )
        # Mean losses of micro-batches, which `Trainer` divides by their number in an update.
        self.loss_is_scaled_for_ga = False
        self.model_accepts_loss_kwargs = False
        # Heads, adapters and weights of tasks were not there when somebody made an optimizer.
        were_there = {id(parameter) for parameter in known}
        added = [parameter for parameter in self.model.parameters() if id(parameter) not in were_there]
        train_too(self.optimizer, self.lr_scheduler, known, added)
        self.task_teachers.connect(
            {name: head.config for name, head in zip(self.specs, model.heads.values(), strict=True)}, self.args.device
        )

    @staticmethod
    def _for_training(args: MTLArguments) -> MTLArguments:
        args = copy.copy(args)
        # Rows have the columns of their kind of task only, and are batched here.
        args.remove_unused_columns = False
        # Heads of other tasks get no gradient in a micro-batch.
        args.ddp_find_unused_parameters = True
        return args

    def _open_teachers(
        self, given: Mapping[str, Any], model: MultiTaskModel, args: MTLArguments, tokenizer: Any
    ) -> TaskTeachers:
        unknown = sorted(set(given) - set(self.specs))
        if unknown:
            raise ValueError(f"`task_teachers` has {unknown}; the tasks are {list(self.specs)}.")
        found: dict[str, list[TeacherSource]] = {}
        for task, teachers in given.items():
            is_list = isinstance(teachers, Sequence) and not isinstance(teachers, str)
            pairs = len(self.specs[task].text_columns) > 1
            found[task] = []
            for index, one in enumerate(map(plain_teacher, teachers if is_list else [teachers])):
                refuse_shared(model, one)
                source = open_teacher(one, flag="--task_teachers", name=f"teacher_{index}")
                try:
                    share_tokens(source, one, tokenizer, None, pairs=pairs)
                except ValueError as error:
                    raise ValueError(f"A teacher of task {task!r}: {error}") from error
                found[task].append(source)
        return TaskTeachers(found, args.temperature)

    def _stored(self, task: str) -> list[Any]:
        return [one for one in self.task_teachers.teachers.get(task, ()) if one.dataset is not None]

    def _training_rows(
        self, task: LoadedTask, tokenizer: PreTrainedTokenizerBase, limit: int, doc_stride: int | None
    ) -> datasets.Dataset:
        """Tokenised rows, or those of the stored teachers."""
        stored = self._stored(task.spec.name)
        if not stored:
            return tokenize_task(labelled_rows(task), task.spec, tokenizer, limit, doc_stride=doc_stride)
        rows = join_rows(stored)
        if "labels" not in rows.column_names and "start_positions" not in rows.column_names:
            raise ValueError(
                f"The stored teacher {stored[0].folder!r} of task {task.spec.name!r} has rows without labels: run "
                "precompute with `--with_labels` on the task."
            )
        if "length" in rows.column_names:
            return rows
        return rows.add_column("length", [len(ids) for ids in rows.with_format(None)["input_ids"][:]])

    def _read_columns(self, task: str, rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase) -> datasets.Dataset:
        """Leave out the columns that only the scores need."""
        read = {*tokenizer.model_input_names, *LABEL_COLUMNS}
        read.update(*(teacher.all_columns for teacher in self._stored(task)))
        return rows.select_columns([name for name in rows.column_names if name in read])

    def _collator(self, task: str, tokenizer: PreTrainedTokenizerBase, args: MTLArguments) -> Collator:
        pad = head_of(self.specs[task]).collator(tokenizer, 8 if args.device.type == "cuda" else None)
        stored = self._stored(task)
        return StoredCollator(stored, pad) if stored else pad

    # ---- Training ----

    def _begin_steps(self) -> None:
        super()._begin_steps()
        self._means = ExactMeans()
        if not any(parameter.requires_grad for parameter in self.tasks_model.encoder.parameters()):
            logger.warning_once(
                "The encoder is frozen, so that heads alone are trained. If that is not wanted (a model that was a "
                "teacher stays frozen), call its `requires_grad_(True)`."
            )

    def _tidy_up(self) -> None:
        super()._tidy_up()
        for teacher in itertools.chain.from_iterable(self.task_teachers.teachers.values()):
            if teacher.model is not None:
                give_back_attention(teacher.model)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """Micro-batches of one task each."""
        batches = TaskBatches(
            list(self._lengths.values()),
            self._train_batch_size,
            sampling=self.args.task_sampling,
            exponent=self.args.sampling_exponent,
            num_epochs=math.ceil(self.args.num_train_epochs),
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            epoch=lambda: int(self.state.epoch or 0),
        )
        loader = torch.utils.data.DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self._knowing(self.data_collator, self.train_dataset),
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
            in_order=self.args.dataloader_in_order,
            persistent_workers=self.args.dataloader_persistent_workers,
        )
        loader = self.accelerator.prepare(loader)
        if self.args.max_steps > 0:
            epochs = epochs_in(self.args.max_steps, loader, self.args.gradient_accumulation_steps)
            batches.num_epochs = math.ceil(epochs or 1)
        return loader

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean loss of one micro-batch, scaled and weighted as its task's."""
        task, labels = inputs["task"], inputs["labels"]
        self.model.set_progress(self.state.global_step / max(1, self.state.max_steps))
        with self.accelerator.autocast():
            targets = self.task_teachers.targets(task, inputs)
        read = {name: inputs[name] for name in self.processing_class.model_input_names if name in inputs}
        outputs = model(task=task, labels=labels, targets=targets, **read)
        terms = {f"{task}/{name}": value.float() for name, value in outputs["terms"].items()}
        self.watch({f"{TEACHER}{name} of {task}": value for name, value in targets.items()} | terms)
        for name, value in terms.items():
            self._means.add(name, value, torch.ones_like(value))
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def outputs_of(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return the outputs of the head of the batch's task."""
        read = {name: batch[name] for name in self.processing_class.model_input_names if name in batch}
        outputs = self.tasks_model(batch["task"], **read)
        return {name: value for name, value in outputs.items() if torch.is_tensor(value)}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of every task's own terms since the last log as `loss/<task>/<term>`, and moving weights."""
        if "loss" in logs and self._means:
            # Processes saw different tasks, but must sum over the same names.
            zero = torch.zeros((), device=self.args.device)
            for name in self._term_names():
                self._means.add(name, zero, zero)
            found = self._means.take(self.accelerator.reduce)
            logs.update({f"loss/{name}": value for name, value in found.items()})
            logs.update({f"weight/{task}": value for task, value in self.model.current_weights().items()})
        super().log(logs, start_time)

    def _term_names(self) -> list[str]:
        """Every term that a micro-batch can have."""
        names = []
        for task, spec in self.specs.items():
            names.append(f"{task}/hard")
            if task in self.task_teachers.teachers:
                names.append(f"{task}/soft")
            if self.args.r3f_lambda > 0 and spec.problem_type != "regression":
                names.append(f"{task}/r3f")
        return names

    # ---- Evaluation ----

    def scores(self) -> dict[str, Scores]:
        """Task -> evaluation split -> metric -> value (fractions)."""
        found = {}
        # A training that goes on must draw the same random numbers as one that is not evaluated.
        with random_state_kept(self.args.device):
            for task, splits in self.evaluation.items():
                if splits:
                    found[task] = evaluate_splits(self._trainer_of(task), splits, self.specs[task])
        return found

    def _trainer_of(self, task: str) -> FineTuningTrainer:
        """Return the trainer that runs the model with the head of one task."""
        args = copy.copy(self.args)
        args.eval_strategy, args.save_strategy = IntervalStrategy.NO, SaveStrategy.NO
        args.load_best_model_at_end, args.report_to, args.disable_tqdm = False, [], True
        args.remove_unused_columns = True
        return build_trainer(self.tasks_model.task_model(task), self.specs[task], self.processing_class, args)

    def predict(
        self,
        test_dataset: Any,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "test",
        *,
        task: str | None = None,
    ) -> PredictionOutput:
        """Return the predictions of one task's head for rows, in their order.

        Args:
            test_dataset: Rows of the task, as `LoadedTask` has them, or tokenized (`tokenize_task`).
            ignore_keys: As in `Trainer`.
            metric_key_prefix: As in `Trainer`.
            task: Name of the task; may be left out if there is one only.

        Raises:
            ValueError: If the task is not named, or there is no such task.
        """
        task = next(iter(self.specs)) if task is None and len(self.specs) == 1 else task
        if task not in self.specs:
            raise ValueError(f"`task` is {task!r}: name the task whose head predicts, one of {list(self.specs)}.")
        check_one_set(test_dataset, "test_dataset")
        spec = self.specs[task]
        if "input_ids" not in test_dataset.column_names:
            limit = self._limits[task]
            test_dataset = tokenize_task(test_dataset, spec, self.processing_class, limit, doc_stride=self._doc_stride)
        with random_state_kept(self.args.device):
            return self._trainer_of(task).predict(test_dataset, ignore_keys, metric_key_prefix)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Scores of every task as `eval_<task>_<metric>`, and `eval_mean` of the headline metrics.

        They are those of the split by which checkpoints are chosen; `scores` has all splits.

        Raises:
            ValueError: If rows are given: the tasks bring theirs.
        """
        if eval_dataset is not None and eval_dataset is not self.eval_dataset:
            raise ValueError("MTLTrainer scores the evaluation splits of its tasks: give those to `tasks`.")
        found = self.scores()
        metrics: dict[str, float] = {}
        headlines = []
        for task, splits in found.items():
            main = splits.get(self.specs[task].choice_split) or next(iter(splits.values()))
            metrics |= {f"{metric_key_prefix}_{task}_{name}": value for name, value in main.items()}
            headlines.append(main[self.specs[task].headline])
        if headlines:
            metrics[f"{metric_key_prefix}_mean"] = sum(headlines) / len(headlines)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @property
    def tasks_model(self) -> MultiTaskModel:
        """The model of all tasks, inside the module that is trained."""
        return self.model.model

    @property
    def train_rows(self) -> dict[str, int]:
        """Task -> rows that are trained on."""
        return {name: len(part) for name, part in zip(self.train_dataset.names, self.train_dataset.parts, strict=True)}

    # ---- Saving ----

    def manifest(self) -> dict[str, Any]:
        """Return what a resumed run must find unchanged: tasks with their training rows, tokenizer, teachers."""
        rows = self.train_rows
        return {
            "tasks": {name: rows.get(name, 0) for name in self.specs},
            "tokenizer": tokenizer_hash(self.processing_class),
            "teachers": self.task_teachers.fingerprint(),
        }

    def input_folders(self) -> dict[str, Any]:
        """The encoder's folder."""
        return {"model": self.tasks_model.plain_encoder.name_or_path}

    def _write_beside(self, folder: Path) -> None:
        write_json(folder / MANIFEST_NAME, self.manifest())
        # The shape that a resumed training must have.
        write_json(folder / "config.json", self.tasks_model.config.to_dict(), default=str)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        check_manifest(
            Path(resume_from_checkpoint), self.manifest(), "training on many tasks", "tasks, tokenizer and teachers"
        )
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the plain encoder, LoRA merged, and its tokenizer; checkpoints hold everything that trains."""
        if _internal_call:
            return super().save_model(output_dir, _internal_call=True)
        if self.args.should_save:
            save_model(self._merged().plain_encoder, self.processing_class, output_dir or str(self.args.output_dir))

    def save_task(self, task: str, output_dir: str | Path) -> None:
        """Write a plain model with the head of one task, LoRA merged, and the tokenizer.

        Raises:
            ValueError: If there is no such task.
        """
        if task not in self.specs:
            raise ValueError(f"There is no task {task!r}; the tasks are {list(self.specs)}.")
        if self.args.should_save:
            save_model(self._merged().task_model(task), self.processing_class, str(output_dir))

    def _merged(self) -> MultiTaskModel:
        model = self.tasks_model
        if not hasattr(model.encoder, "merge_and_unload"):
            return model
        merged = copy.deepcopy(model)
        merged.merge_lora()
        return merged


def _refuse_settings(args: MTLArguments) -> None:
    """Refuse settings that a training on many tasks would ignore.

    Raises:
        ValueError: If one is set.
    """
    ways = {
        "dataloader_drop_last": "every row of every task is trained on",
        "neftune_noise_alpha": "noise on the embeddings is `--r3f_lambda`",
        "use_liger_kernel": "its kernels put the loss into the model, and every task has its own",
        "include_for_metrics": "the tasks bring their metrics",
        "batch_eval_metrics": "the tasks bring their metrics",
        "label_names": "the tasks know their labels",
        "bf16_full_eval": "it is scored with the weights that it trains",
        "fp16_full_eval": "it is scored with the weights that it trains",
        "prediction_loss_only": "every task is scored by its metrics",
    }
    refuse_settings("a training on many tasks", args, ways)
    if args.train_sampling_strategy in ("sequential", "batch_rebalance"):
        raise ValueError(
            f"`--train_sampling_strategy {args.train_sampling_strategy}` would have no effect on a training on many "
            "tasks: `--task_sampling` says in which order their batches come."
        )
