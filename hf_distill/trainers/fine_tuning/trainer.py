"""Fine-tune a model on a task's labels and evaluate it, for teachers and students alike."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import datasets
import numpy as np
import torch
from scipy.special import expit
from torch import Tensor, nn
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput, SchedulerType
from transformers.utils import logging

from hf_distill.capture.batch import reading
from hf_distill.capture.signals import check_weights
from hf_distill.hub.loading import checksum_of_embeddings
from hf_distill.kernels.cpu import configure_fp32_matmul
from hf_distill.settings import FineTuningArguments
from hf_distill.storage.files import model_files
from hf_distill.students.sentence import SentenceHead
from hf_distill.tasks.label_names import is_generic, names_of_head
from hf_distill.tasks.labels import LABEL_COLUMNS, visible_labels
from hf_distill.tasks.loading import LoadedTask
from hf_distill.tasks.majority import constant_label
from hf_distill.tasks.metrics.compute import build_compute_metrics, predictions_of
from hf_distill.tasks.rows.tokenizing import tokenize_task
from hf_distill.tasks.several_labels import best_thresholds
from hf_distill.tasks.spec import TaskSpec
from hf_distill.trainers.base import BaseTrainer
from hf_distill.trainers.distillation.evaluation import ExactMeans, rows_that_count
from hf_distill.trainers.fine_tuning.heads import TaskHead, head_of
from hf_distill.trainers.fine_tuning.task_models import check_positions, fit_head, label_order, merge_lora

logger = logging.get_logger(__name__)

# Outputs that are no logits and would be gathered for the whole evaluation split.
IGNORED_OUTPUTS = ["hidden_states", "attentions", "past_key_values"]
SPEED_KEYS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


class Scores(dict[str, dict[str, float]]):
    """Evaluation split -> metric -> value.

    Attributes:
        constants: Evaluation split -> the label that the model predicts for all rows. A split on which it predicts
            several labels is not in it.
        thresholds: Several labels a row: evaluation split -> for every label, the probability threshold with the best
            F1.
    """

    def __init__(self) -> None:
        """Begin with no score."""
        super().__init__()
        self.constants: dict[str, Any] = {}
        self.thresholds: dict[str, list[float]] = {}


@dataclass
class FineTuningResult:
    """The result of a fine-tuning.

    Attributes:
        model: The trained model, LoRA merged.
        scores: Evaluation split -> metric -> value (fractions, not percent), with `loss`.
        score: The headline metric on the headline split.
        metric: Name of the headline metric.
        seconds: Wall time of training, of all calls where it was resumed; `None` where a checkpoint did not tell.
        steps: Updates made.
        train_rows: Rows trained on.
        train_loss: Mean loss over the training; likewise.
        fp32_matmul: The fp32 path in force on the CPU.
        settings: The resolved settings that decide the result.
        history: Logged values by step.
        constant: The only label that the model predicts on the headline split; `None` if it predicts several.
    """

    model: PreTrainedModel
    scores: Scores
    score: float
    metric: str
    seconds: float | None
    steps: int
    train_rows: int
    train_loss: float | None
    fp32_matmul: str
    settings: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)
    constant: str | float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model, as JSON-able values."""
        names = [item.name for item in dataclasses.fields(self) if item.name != "model"]
        return {name: getattr(self, name) for name in names}


class TaskLoss:
    """The loss of a task as `compute_loss_func`: the mean over all rows of an update, however they are split up.

    Stock `Trainer` scales the loss of most classification heads by accumulation steps and by processes; a sum divided
    by the rows of the whole update is right for both, and exact when the last micro-batch is smaller.

    Attributes:
        attention_mask: Of the batch that comes next.
        num_rows: How many of its rows count; the first ones. `None` are all.
        count: Labels that the last loss is over.
    """

    def __init__(self, head: TaskHead, *, label_smoothing: float = 0.0, scale: float = 1.0) -> None:
        """Make the loss.

        Args:
            head: Of the task.
            label_smoothing: Share of the target spread over all classes.
            scale: Factor on the loss of an update.
        """
        self.head = head
        self.label_smoothing = label_smoothing
        self.scale = scale
        self.attention_mask: Tensor | None = None
        self.num_rows: int | None = None
        self.count: Tensor = torch.zeros(())

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Loss of one micro-batch.

        Args:
            outputs: The model's output.
            labels: As the head's collator gives them; hidden ones do not count.
            num_items_in_batch: Labels of the whole update; `None` takes those of this batch.
        """
        mask = self.attention_mask
        if self.num_rows is not None:
            outputs = {name: value[: self.num_rows] for name, value in outputs.items() if isinstance(value, Tensor)}
            labels, mask = labels[: self.num_rows], None if mask is None else mask[: self.num_rows]
        total, count = self.head.loss(outputs, labels, self.label_smoothing, mask)
        self.count = count
        if num_items_in_batch is None:
            return total / count.clamp(min=1)
        if isinstance(num_items_in_batch, Tensor):
            num_items_in_batch = num_items_in_batch.reshape(-1)[0].to(total.device)
        return total * self.scale / num_items_in_batch


class FineTuningTrainer(BaseTrainer):
    """A `Trainer` of one task: its loss is exact, however the rows of an update or an evaluation are split up."""

    _signature_columns: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As `Trainer`."""
        self._means = ExactMeans()
        super().__init__(*args, **kwargs)

    def input_folders(self) -> dict[str, Any]:
        """The folder that the model was loaded from."""
        return {"model": getattr(self.model, "name_or_path", None)}

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As in `Trainer`, which gives the loss function outputs and labels only.

        In an evaluation the loss of a task is the mean of this process's batch, without the rows that several
        processes repeat.
        """
        loss, real = self.compute_loss_func, 0
        if isinstance(loss, TaskLoss):
            loss.attention_mask, loss.num_rows = inputs.get("attention_mask"), None
            if not self.model.training:
                num_items_in_batch = None
                real = rows_that_count(inputs, self.accelerator)[1]
                # A batch of repeated rows alone is run all the same, and does not count.
                loss.num_rows = max(1, real)
        with reading(inputs.get("attention_mask")):
            found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if isinstance(loss, TaskLoss) and loss.num_rows is not None:
            mean = (found[0] if isinstance(found, tuple) else found).detach().float()
            self._means.add("loss", mean, loss.count.to(mean) * min(real, 1))
        return found

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """As in `Trainer`; the loss of a task is the mean over all labels, not that of the batches' means."""
        self._means, prefix = ExactMeans(), kwargs.get("metric_key_prefix", "eval")
        output = super().evaluation_loop(*args, **kwargs)
        means = self._means.take(self.accelerator.reduce) if self._means else {}
        if output.metrics is not None and f"{prefix}_loss" in output.metrics and means:
            output.metrics[f"{prefix}_loss"] = means["loss"]
        return output


def finetune(
    model: PreTrainedModel,
    task: LoadedTask,
    tokenizer: PreTrainedTokenizerBase,
    args: TrainingArguments,
    *,
    max_length: int | None = None,
    doc_stride: int | None = None,
    callbacks: list[TrainerCallback] | None = None,
    save: bool = True,
) -> FineTuningResult:
    """Fine-tune a model on the task's labels and evaluate it on every evaluation split.

    Args:
        model: A model with a head of `task.spec.num_labels` outputs, possibly wrapped by `add_lora`.
        task: The rows.
        tokenizer: The model's tokenizer.
        args: `FineTuningArguments` (unset values are those of the task) or plain `TrainingArguments`.
            `resume_from_checkpoint="last"` continues from the latest checkpoint in `output_dir`.
        max_length: Largest number of tokens in a row. Default: the task's.
        doc_stride: Question answering: tokens by which two windows of a context overlap. Default: the task's.
        callbacks: Further callbacks of the trainer.
        save: Whether to write model and tokenizer to `output_dir`.

    Returns:
        The trained model with its scores.

    Raises:
        ValueError: If head, labels or lengths do not fit.
    """
    spec = task.spec
    args = args.with_task_defaults(spec) if isinstance(args, FineTuningArguments) else args
    limit = max_length if max_length is not None else spec.fine_tuning.max_length
    check_positions(model.config, limit)
    _name_labels(model, spec)
    train_rows = tokenize_task(labelled_rows(task), spec, tokenizer, limit, doc_stride=doc_stride)
    evaluation = evaluation_rows(task, tokenizer, limit, doc_stride)
    choosing = evaluation.get(spec.choice_split)
    trainer = build_trainer(
        model, spec, tokenizer, args, train_rows, None if choosing is None else choosing.tokens, callbacks
    )
    if choosing is not None:
        own = spec.for_split(spec.choice_split)
        trainer.compute_metrics = build_compute_metrics(own, choosing.rows, choosing.tokens)
    training = fit(trainer, args, limit)
    trained = merge_lora(trainer.model)
    if save:
        _save(trainer, trained, tokenizer, args)
    if trained is not trainer.model:
        trainer = build_trainer(trained, spec, tokenizer, args)
    scores = evaluate_splits(trainer, evaluation, spec)
    if spec.choice_split in scores.thresholds:
        trained.config.label_thresholds = scores.thresholds[spec.choice_split]
        if save and args.should_save:
            trained.config.save_pretrained(str(args.output_dir))
    return FineTuningResult(
        model=trained,
        scores=scores,
        score=headline_score(scores, spec),
        metric=spec.headline,
        constant=scores.constants.get(spec.headline_split),
        **training,
    )


def fit(trainer: FineTuningTrainer, args: TrainingArguments, max_length: int) -> dict[str, Any]:
    """Train, and return the fields of `FineTuningResult` that are known before any scoring.

    Args:
        trainer: The trainer.
        args: Its resolved arguments.
        max_length: Tokens per row.
    """
    fp32_matmul = configure_fp32_matmul(getattr(args, "fp32_matmul", "auto"))
    trainer.started_from = checksum_of_embeddings(trainer.model)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    whole = trainer.whole_run
    return {
        "seconds": whole.facts()["training_seconds"],
        "steps": whole.steps,
        "train_rows": len(trainer.train_dataset),
        "train_loss": whole.train_loss,
        "fp32_matmul": fp32_matmul,
        "settings": _settings(args, max_length),
        "history": list(trainer.state.log_history),
    }


def evaluate_model(
    model: PreTrainedModel,
    task: LoadedTask,
    tokenizer: PreTrainedTokenizerBase,
    args: TrainingArguments | None = None,
    *,
    max_length: int | None = None,
    doc_stride: int | None = None,
    name: str = "the model",
) -> Scores:
    """Score a model on every loaded evaluation split, without training it; labels are matched by name.

    Args:
        model: A model with the task's kind of head.
        task: The rows.
        tokenizer: The model's tokenizer.
        args: Batch size, device and precision. Default: those of `FineTuningArguments`.
        max_length: Largest number of tokens in a row. Default: the task's.
        doc_stride: Question answering: tokens by which two windows of a context overlap. Default: the task's.
        name: What to call the model in messages.

    Returns:
        Evaluation split -> metric -> value (fractions), with `loss`.

    Raises:
        ValueError: If the model's labels are not the task's.
    """
    spec = task.spec
    limit = max_length if max_length is not None else spec.fine_tuning.max_length
    check_positions(model.config, limit)
    order = label_order(model.config, spec, where=name)
    evaluation = evaluation_rows(task, tokenizer, limit, doc_stride)
    with tempfile.TemporaryDirectory() as folder:
        args = args if args is not None else FineTuningArguments(output_dir=folder)
        args = args.with_task_defaults(spec) if isinstance(args, FineTuningArguments) else args
        configure_fp32_matmul(getattr(args, "fp32_matmul", "auto"))
        return evaluate_splits(build_trainer(model, spec, tokenizer, args, order=order), evaluation, spec)


def build_trainer(
    model: nn.Module,
    spec: TaskSpec,
    tokenizer: PreTrainedTokenizerBase,
    args: TrainingArguments,
    train_dataset: datasets.Dataset | None = None,
    eval_dataset: datasets.Dataset | None = None,
    callbacks: list[TrainerCallback] | None = None,
    order: list[int] | None = None,
    head: TaskHead | None = None,
) -> FineTuningTrainer:
    """The trainer of a task: dynamic padding, exact loss, the task's metrics.

    Args:
        model: The model.
        spec: The task.
        tokenizer: Pads the batches.
        args: Resolved arguments.
        train_dataset: Tokenised rows to train on.
        eval_dataset: Tokenised rows to evaluate during training.
        callbacks: Further callbacks.
        order: Index among the model's outputs of each label of the task; `None` if the orders agree.
        head: The head, where it is another than that of the task's kind.
    """
    head = head or head_of(spec, None if order is None or order == list(range(len(order))) else order)
    # Under DataParallel the base class multiplies the loss by the devices although it is that of all their rows.
    undo = 1.0 / args.n_gpu if args.n_gpu > 1 and args.average_tokens_across_devices else 1.0
    args = copy.copy(args)
    # The head's collator puts every label there, also where the model itself has other names for them.
    args.label_names = ["labels"]
    trainer = FineTuningTrainer(
        model=model,
        args=args,
        data_collator=head.collator(tokenizer, 8 if args.device.type == "cuda" else None),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        compute_loss_func=TaskLoss(head, label_smoothing=args.label_smoothing_factor, scale=undo),
        callbacks=callbacks,
        preprocess_logits_for_metrics=lambda logits, labels: head.kept(logits),
    )
    # The collator reads all columns of labels, also those that no model does.
    trainer._set_signature_columns_if_needed()
    columns: Any = [*(trainer._signature_columns or ()), *LABEL_COLUMNS]
    trainer._signature_columns = columns
    return trainer


@dataclass(frozen=True)
class EvaluationRows:
    """One split: its rows as they are, and their tokens."""

    rows: datasets.Dataset
    tokens: datasets.Dataset


def evaluation_rows(
    task: LoadedTask, tokenizer: PreTrainedTokenizerBase, max_length: int, doc_stride: int | None
) -> dict[str, EvaluationRows]:
    """Every evaluation split that was loaded."""
    return {
        split: EvaluationRows(rows, tokenize_task(rows, task.spec, tokenizer, max_length, doc_stride=doc_stride))
        for split, rows in task.evaluation.items()
    }


def _name_labels(model: PreTrainedModel, spec: TaskSpec) -> None:
    """Bring the head into the order of the task's labels, and write their names into the model's configuration."""
    if model.config.num_labels != spec.num_labels:
        raise ValueError(
            f"Task {spec.name!r} needs a head of {spec.num_labels} outputs, the model has {model.config.num_labels}: "
            "load it with `load_task_model`."
        )
    names = names_of_head(model.config)
    if not is_generic(names):
        fit_head(model, names, spec, where=f"the {type(model).__name__}")
    model.config.id2label, model.config.label2id = spec.id2label, spec.label2id
    model.config.problem_type = spec.problem_type


def labelled_rows(task: LoadedTask) -> datasets.Dataset:
    """The training rows whose label is known; the others are counted and left out."""
    if not task.spec.is_of_rows:
        return task.train
    shown = visible_labels(task.train, task.spec)
    if shown.all():
        return task.train
    logger.warning(f"Task {task.spec.name!r}: {int((~shown).sum())} training rows with a hidden label are left out.")
    return task.train.select(shown.nonzero()[0])


def _save(
    trainer: Trainer, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: TrainingArguments
) -> None:
    """Write a plain model folder."""
    if model is trainer.model:
        trainer.save_model()
    elif args.should_save:
        save_model(model, tokenizer, str(args.output_dir))


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str, head: SentenceHead | None = None
) -> None:
    """Write a model and its tokenizer into a folder, a sentence encoder with its head.

    Raises:
        NotFiniteError: If a weight is not finite.
    """
    for module in (model, head):
        if module is not None:
            check_weights(module, "Nothing is saved: the trained")
    with model_files(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        if head is not None:
            head.save(part, model.config.hidden_size)


def evaluate_splits(trainer: Trainer, evaluation: dict[str, EvaluationRows], spec: TaskSpec) -> Scores:
    """Score a model on every split; a warning says where it predicts the same for all rows."""
    scores = Scores()
    for split, part in evaluation.items():
        # Rows of like length together; the order of rows changes no score.
        tokens = part.tokens.select(np.argsort(-np.asarray(part.tokens["length"]), kind="stable"))
        scored = build_compute_metrics(spec.for_split(split), part.rows, tokens)
        trainer.compute_metrics = partial(_noting_constants, spec, split, scored, scores)
        found = trainer.evaluate(tokens, ignore_keys=IGNORED_OUTPUTS)
        plain = {key.removeprefix("eval_"): value for key, value in found.items()}
        scores[split] = {key: float(value) for key, value in plain.items() if key not in (*SPEED_KEYS, "epoch")}
    scores.update(_averages(scores, spec))
    return scores


def _noting_constants(
    spec: TaskSpec,
    split: str,
    scored: Callable[[EvalPrediction], dict[str, float]],
    scores: Scores,
    prediction: EvalPrediction,
) -> dict[str, float]:
    """Scores of a split; where the model says the same of all of its rows, that is noted, and a warning says it.

    Where a row has several labels, the probabilities from which on a label is best given are noted.
    """
    found = scored(prediction)
    sides = prediction.predictions, prediction.label_ids
    outputs, labels = (np.asarray(side[0] if isinstance(side, tuple) else side) for side in sides)
    if spec.several_labels:
        shown = spec.visible(labels)
        scores.thresholds[split] = best_thresholds(expit(outputs[shown].astype(np.float64)), labels[shown])
    elif not spec.is_span:
        said = predictions_of(spec, outputs) if outputs.ndim == labels.ndim + 1 else outputs.reshape(labels.shape)
        label = constant_label(said, labels, spec)
        if label is not None:
            scores.constants[split] = label
            logger.warning_once(
                f"Task {spec.name!r}, split {split!r}: the model predicts only {label!r}, whatever the text says. "
                "Compare its score with the majority's; it needs more rows, more steps or another learning rate."
            )
    return found


def _averages(scores: Scores, spec: TaskSpec) -> dict[str, dict[str, float]]:
    """Means over the splits that the task averages (languages), where all of them were scored."""
    whole = {name: splits for name, splits in spec.averages.items() if set(splits) <= set(scores)}
    return {
        name: {key: sum(scores[split][key] for split in splits) / len(splits) for key in scores[splits[0]]}
        for name, splits in whole.items()
    }


def headline_score(scores: Scores, spec: TaskSpec) -> float:
    """The one number of the task."""
    split = next((name for name in spec.evaluation_splits if name in scores), None)
    return scores[split][spec.headline] if split is not None else float("nan")


def _settings(args: TrainingArguments, max_length: int) -> dict[str, Any]:
    """Return the settings that decide the result."""
    names = (
        "learning_rate num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps world_size "
        "warmup_steps weight_decay lr_scheduler_type adam_beta1 adam_beta2 adam_epsilon max_grad_norm "
        "label_smoothing_factor train_sampling_strategy bf16 fp16 seed data_seed load_best_model_at_end"
    )
    values = {name: getattr(args, name) for name in names.split()}
    scheduler = SchedulerType(args.lr_scheduler_type).value
    return values | {"lr_scheduler_type": scheduler, "max_length": max_length}
