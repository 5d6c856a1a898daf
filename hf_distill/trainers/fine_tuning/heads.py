"""The heads of rows, words, spans and choices: for each its model class, batches, loss, and the outputs for scores.

Shape legend: B rows, T padded length, C outputs of the head.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DataCollatorForMultipleChoice,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
)

from hf_distill.tasks.rows.words import IGNORED
from hf_distill.tasks.spec import TaskSpec

Collator = Callable[[list[Any]], dict[str, Any]]
# Stands in the kept outputs where a score was not finite.
NOT_FINITE = -1


class TaskHead:
    """The part of fine-tuning that depends on the kind of task.

    Attributes:
        auto_class: Loads a model with such a head.
        suffix: The name of the model's class ends with it.
    """

    auto_class: ClassVar[Any]
    suffix: ClassVar[str]

    def __init__(self, spec: TaskSpec, order: list[int] | None = None) -> None:
        """Make the head of a task; see `head_of`."""
        self.spec = spec
        self.order = order

    def collator(self, tokenizer: PreTrainedTokenizerBase, multiple: int | None) -> Collator:
        """Pads rows to a batch whose labels are all in `labels`; -100 marks what has none."""
        raise NotImplementedError

    def loss(
        self, outputs: Any, labels: Tensor, label_smoothing: float, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses of a batch, and the number of labels that it is over."""
        raise NotImplementedError

    def kept(self, outputs: Any) -> Any:
        """Return the part of a model's outputs that the scores need."""
        raise NotImplementedError

    def in_task_order(self, logits: Tensor) -> Tensor:
        """Outputs (..., C) in the order of the task's labels."""
        return logits if self.order is None else logits[..., self.order]


class RowHead(TaskHead):
    """A class or a value for every row."""

    auto_class: ClassVar[Any] = AutoModelForSequenceClassification
    suffix: ClassVar[str] = "ForSequenceClassification"

    def collator(self, tokenizer: PreTrainedTokenizerBase, multiple: int | None) -> Collator:
        """Rows padded to the longest."""
        return DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)

    def loss(
        self, outputs: Any, labels: Tensor, label_smoothing: float, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of logits (B, C), or squared error in regression, over labels (B,).

        Where a row has several labels, binary cross-entropy over labels (B, C) of 0 and 1.
        """
        logits = self.in_task_order(outputs["logits"]).float()
        if self.spec.several_labels:
            shown = labels >= 0
            smooth = labels.float().clamp(min=0) * (1 - label_smoothing) + label_smoothing / 2
            each = functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
            return each.masked_fill(~shown, 0.0).sum(), shown.sum()
        if self.spec.label_names is None:
            shown = ~labels.isnan()
            # What has no label gives 0, so that no size depends on the numbers.
            given, wanted = (x.float().masked_fill(~shown, 0.0) for x in (logits.squeeze(-1), labels))
            return functional.mse_loss(given, wanted, reduction="sum"), shown.sum()
        return _cross_entropy(logits, labels, label_smoothing)

    def kept(self, outputs: Any) -> Tensor:
        """Logits (B, C) in the task's order."""
        return self.in_task_order(_first(outputs))


class WordHead(TaskHead):
    """A tag for every word, told by its first token."""

    auto_class: ClassVar[Any] = AutoModelForTokenClassification
    suffix: ClassVar[str] = "ForTokenClassification"

    def collator(self, tokenizer: PreTrainedTokenizerBase, multiple: int | None) -> Collator:
        """Rows padded to the longest, their labels with -100."""
        pad = pads_behind(tokenizer)
        return DataCollatorForTokenClassification(pad, pad_to_multiple_of=multiple, label_pad_token_id=IGNORED)

    def loss(
        self, outputs: Any, labels: Tensor, label_smoothing: float, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of logits (B, T, C) over labels (B, T)."""
        logits = self.in_task_order(outputs["logits"]).float()
        return _cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing)

    def kept(self, outputs: Any) -> Tensor:
        """The best tag of every token, (B, T), in the task's order: logits would fill the memory."""
        logits = self.in_task_order(_first(outputs))
        return logits.argmax(-1).masked_fill(~logits.isfinite().all(-1), NOT_FINITE)


class SpanHead(TaskHead):
    """First and last token of an answer."""

    auto_class: ClassVar[Any] = AutoModelForQuestionAnswering
    suffix: ClassVar[str] = "ForQuestionAnswering"

    def collator(self, tokenizer: PreTrainedTokenizerBase, multiple: int | None) -> Collator:
        """Windows padded to the longest; start and end as `labels` (B, 2), by which `Trainer` counts an update."""
        pad = DataCollatorWithPadding(pads_behind(tokenizer), pad_to_multiple_of=multiple)

        def collate(rows: list[Any]) -> dict[str, Any]:
            batch = dict(pad(rows))
            batch["labels"] = torch.stack((batch.pop("start_positions"), batch.pop("end_positions")), 1)
            return batch

        return collate

    def loss(
        self, outputs: Any, labels: Tensor, label_smoothing: float, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of start and end scores (B, T) over labels (B, 2): per label, so half of each.

        Heads of transformers score padding too; here no answer lies there, so that padding changes no loss: it is the
        mean of the model's own losses of each row alone.
        """
        scores = torch.cat((outputs["start_logits"], outputs["end_logits"])).float()
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask.bool().repeat(2, 1), torch.finfo(scores.dtype).min)
        return _cross_entropy(scores, labels.T.flatten(), label_smoothing)

    def kept(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """Start and end scores, (B, T) each."""
        return outputs[0], outputs[1]


class ChoiceHead(TaskHead):
    """A score for every choice of a row; the best one is the answer."""

    auto_class: ClassVar[Any] = AutoModelForMultipleChoice
    suffix: ClassVar[str] = "ForMultipleChoice"

    def collator(self, tokenizer: PreTrainedTokenizerBase, multiple: int | None) -> Collator:
        """All choices of all rows padded to the longest, (B, choices, T)."""
        pad = DataCollatorForMultipleChoice(tokenizer, pad_to_multiple_of=multiple)
        wanted = (*tokenizer.model_input_names, "labels")

        def collate(rows: list[Any]) -> dict[str, Any]:
            return dict(pad([{name: row[name] for name in wanted if name in row} for row in rows]))

        return collate

    def loss(
        self, outputs: Any, labels: Tensor, label_smoothing: float, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of scores (B, choices) over labels (B,)."""
        return _cross_entropy(outputs["logits"].float(), labels, label_smoothing)

    def kept(self, outputs: Any) -> Tensor:
        """Scores (B, choices)."""
        return _first(outputs)


_HEADS: dict[str, type[TaskHead]] = {
    "text_classification": RowHead,
    "token_classification": WordHead,
    "question_answering": SpanHead,
    "multiple_choice": ChoiceHead,
}


def pads_behind(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that pads on the right: labels and scores of tokens are counted from the first one of a row."""
    if tokenizer.padding_side == "right":
        return tokenizer
    other = copy.copy(tokenizer)
    other.padding_side = "right"
    return other


def head_of(spec: TaskSpec, order: list[int] | None = None) -> TaskHead:
    """The head of a task.

    Args:
        spec: The task.
        order: Index among the model's outputs of each label of the task; `None` if the orders agree. Spans and choices
            have no order that could differ.
    """
    return _HEADS[spec.kind](spec, order)


def _cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Sum over the labels that are not hidden (below 0), and their number."""
    shown = labels >= 0
    targets = labels.masked_fill(~shown, IGNORED)
    total = functional.cross_entropy(
        logits, targets, reduction="sum", ignore_index=IGNORED, label_smoothing=label_smoothing
    )
    return total, shown.sum()


def _first(outputs: Any) -> Tensor:
    """The logits of a model that returns several outputs."""
    return outputs[0] if isinstance(outputs, tuple) else outputs
