"""First weights of a student from its teacher: cut by importance, then refitted in closed form on a few texts.

In most papers small students begin with random weights and need hundreds of thousands of updates. Here a student keeps
the most important dimensions of its teacher's layers (`slicing`), and its matrices are then corrected one by one so
that they compute on text what the teacher's compute (`refitting`).
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_distill.capture.architectures import ArchitectureInfo, describe_architecture, longest_row
from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import SignalCapture

from ..storage.plain_values import shown
from .blocks import is_bert_like, widening
from .class_change import copy_embeddings, copy_parts
from .configuration import student_config
from .refitting import Batch, KnownStates, as_state, can_be_refitted, known_inputs, refit
from .shapes import shape_of
from .slicing import (
    Axis,
    Cut,
    Importance,
    axes_of,
    base_prefix,
    check_can_be_cut,
    choose_cut,
    cut_weights,
    importance_of_weights,
)

logger = logging.getLogger(__name__)

# A text, a pair of texts, or tokens: `input_ids` and, where the model reads them, `token_type_ids`.
CalibrationRow = str | tuple[str, ...] | Mapping[str, Sequence[int]]
CALIBRATION_TOKENS = 40_000
ROWS_PER_BATCH = 64
# Of every so many batches, one is kept from the fits to measure them.
HELD_OUT_EVERY = 10
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# What every student of this process took that was cut out of a teacher.
CUT_STUDENTS: weakref.WeakKeyDictionary[PreTrainedModel, FirstWeights] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class FirstWeights:
    """The report on what a student took from its teacher.

    Attributes:
        layers: Teacher layer (1-based) of every student layer.
        energy: Share of the energy (sum of squares) of the teacher's hidden dimensions that the kept ones have.
        explained: For every student layer, the share of the variance of the teacher's hidden states (in the kept
            dimensions) that the student's states explain, on texts that were held out of the fits; empty without text.
        refitted: Whether its matrices were refitted on the texts; otherwise only its dimensions were chosen by them.
        texts: Number of texts that were read.
        tokens: Number of their tokens.
        seconds: Seconds that it took.
    """

    layers: tuple[int, ...]
    energy: float
    explained: tuple[float, ...]
    texts: int
    tokens: int
    seconds: float
    refitted: bool = True

    def __str__(self) -> str:
        """One line for a person."""
        line = (
            f"teacher layers {', '.join(map(str, self.layers))}; kept dimensions hold {self.energy:.1%} of the energy"
        )
        if self.explained:
            shares = ", ".join(f"{share:.0%}" for share in self.explained)
            did = "fitted" if self.refitted else "chosen, not refitted,"
            line += f"; explained variance by layer {shares} ({did} on {self.texts:,} texts, {self.tokens:,} tokens)"
        return f"{line}; {self.seconds:.0f} s"


@torch.no_grad()
def give_first_weights(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    layers: Sequence[int],
    *,
    texts: Iterable[CalibrationRow] | None = None,
    tokenizer: Any = None,
    max_length: int = 128,
    max_tokens: int = CALIBRATION_TOKENS,
) -> FirstWeights:
    """Cut a student out of its teacher and, if there are texts, refit it.

    Args:
        teacher: The teacher; it is in evaluation mode during the call.
        student: A model with any weights; changed in place.
        layers: Teacher layer (1-based) of every student layer.
        texts: Calibration text, of which the first `max_tokens` tokens are read: texts, pairs of texts if the student
            will read pairs, or rows of tokens. Without text the student is only cut, by the sizes of the weights.
        tokenizer: The tokenizer of both models.
        max_length: Largest number of tokens in a text or pair, if both models have so many positions; the rest is
            truncated. Rows of tokens are read as they are.
        max_tokens: Largest number of tokens that are read; memory and time grow with it.

    Raises:
        ValueError: If the student cannot be cut out of this teacher.
    """
    started = time.monotonic()
    check_can_be_cut(teacher, student)
    with _evaluating(teacher), _evaluating(student):
        limits = (max_length, longest_row(teacher), longest_row(student))
        batches = list(
            tokenized_batches(() if texts is None else texts, tokenizer, min(filter(None, limits)), max_tokens)
        )
        if texts is not None and max_tokens and not batches:
            logger.warning("calibration_text= has no text: the student is cut out of its teacher, and not refitted.")
        _check_fits(batches, teacher, student)
        fitted = [batch for i, batch in enumerate(batches) if len(batches) < 2 or i % HELD_OUT_EVERY != 1]
        unseen = [batch for i, batch in enumerate(batches) if len(batches) >= 2 and i % HELD_OUT_EVERY == 1]
        axes = axes_of(
            lambda shape: type(teacher)(student_config(teacher.config, shape)),
            shape_of(teacher),
            describe_architecture(teacher).num_key_value_heads,
        )
        base_axes = below_head(teacher, axes)
        known = KnownStates(teacher, layers)
        with known.kept():
            importance = importance_on_texts(teacher, base_axes, fitted) if fitted else importance_of_weights(teacher)
        cut = choose_cut(teacher, student, layers, importance, base_axes)
        if type(teacher.base_model) is type(student.base_model):
            cut_weights(teacher, student, cut, axes)
            widths = (
                getattr(widening(describe_architecture(model)), "in_features", None) for model in (teacher, student)
            )
            if next(widths) != next(widths):
                # Such as a student as wide as its teacher's narrow embeddings, which has no matrix behind them.
                copy_embeddings(teacher, student, cut)
        else:
            copy_parts(teacher, student, cut)
        refitted = bool(fitted) and can_be_refitted(teacher, student)
        if refitted:
            refit(teacher, student, cut, fitted, base_axes, known)
        explained = explained_variance(teacher, student, cut, unseen or fitted) if batches else ()
    count = sum(len(batch["input_ids"]) for batch in batches)
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    found = FirstWeights(cut.layers, cut.energy, explained, count, tokens, time.monotonic() - started, refitted)
    CUT_STUDENTS[student] = found
    logger.info(f"First weights from the teacher: {found}")
    return found


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Put a model into evaluation mode; afterwards every module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, is_training in modes:
            module.training = is_training


def first_weights_of(student: PreTrainedModel) -> FirstWeights | None:
    """Return what a student took from its teacher; `None` if it took nothing, or was not made in this process."""
    return CUT_STUDENTS.get(student)


def below_head(model: PreTrainedModel, axes: Mapping[str, tuple[Axis, ...]]) -> dict[str, tuple[Axis, ...]]:
    """The axes of the base model's weights, by their names in it."""
    prefix = base_prefix(model)
    return {name.removeprefix(prefix): found for name, found in axes.items() if name.startswith(prefix)}


def tokenized_batches(
    texts: Iterable[CalibrationRow], tokenizer: Any, max_length: int, max_tokens: int
) -> Iterator[Batch]:
    """Batches of texts of like length, until there are `max_tokens` tokens.

    They have `ROWS_PER_BATCH` texts, or fewer where there is little text: some batches are kept from the fits, and of
    the others some choose the ridge, so that there must be enough of them.
    """
    rows: list[dict[str, Any]] = []
    total = 0
    for text in texts if max_tokens else ():
        row = _tokens(text, tokenizer, max_length)
        total += len(row["input_ids"])
        if len(row["input_ids"]):
            rows.append(row)
        if total >= max_tokens:
            break
    rows.sort(key=lambda row: len(row["input_ids"]))
    size = min(ROWS_PER_BATCH, -(-len(rows) // (2 * HELD_OUT_EVERY)) or 1)
    for start in range(0, len(rows), size):
        padded = tokenizer.pad(rows[start : start + size], padding=True, return_tensors="pt")
        yield {name: padded[name] for name in _INPUTS if name in padded}


def _tokens(row: CalibrationRow, tokenizer: Any, max_length: int) -> dict[str, Any]:
    """The tokens of a calibration row.

    Raises:
        TypeError: If it is neither text, nor a pair, nor tokens.
    """
    if isinstance(row, Mapping) and "input_ids" in row:
        return {name: row[name] for name in _INPUTS if name in row}
    texts = (row,) if isinstance(row, str) else row
    if not isinstance(texts, (tuple, list)) or len(texts) > 2 or not all(isinstance(text, str) for text in texts):
        hint = f" Give the column of the texts, such as rows[{next(iter(row))!r}]." if isinstance(row, Mapping) else ""
        raise TypeError(
            f"calibration_text= has texts, pairs of texts, or rows with `input_ids`, but one is {shown(row)}.{hint}"
        )
    return dict(tokenizer(*texts, truncation=True, max_length=max_length))


def _check_fits(batches: Sequence[Batch], *models: PreTrainedModel) -> None:
    """Refuse tokens that a model has no place for; text is cut to its length, rows of tokens are not.

    Raises:
        ValueError: If a row is longer than a model reads, or a token beyond its vocabulary.
    """
    longest = max((batch["input_ids"].shape[1] for batch in batches), default=0)
    largest = max((int(batch["input_ids"].max()) for batch in batches), default=0)
    for model in models:
        table: Any = model.get_input_embeddings()
        length, pieces = longest_row(model), table.num_embeddings
        if length is not None and longest > length:
            raise ValueError(
                f"calibration_text= has a row of {longest} tokens, but {type(model).__name__} has {length} positions."
            )
        if largest >= pieces:
            raise ValueError(
                f"calibration_text= has the token {largest}, but {type(model).__name__} has {pieces} word embeddings: "
                "give the tokenizer of the teacher."
            )


@torch.no_grad()
def importance_on_texts(
    teacher: PreTrainedModel, axes: Mapping[str, tuple[Axis, ...]], batches: Sequence[Batch]
) -> Importance:
    """Measure how important every dimension is on texts.

    Args:
        teacher: The teacher.
        axes: The axes of its base model's weights.
        batches: The texts.

    Returns:
        The energy (sum of squares) of every hidden dimension, as a share of its layer's and summed over the layers,
        and the mean absolute activation of every neuron.
    """
    found = describe_architecture(teacher)
    layers = range(1, found.num_layers + 1)
    capture = SignalCapture(teacher, SignalRequest(hidden_states=frozenset(layers)))
    sums = torch.zeros(2, found.num_layers, found.hidden_size, dtype=torch.float64)
    tokens = 0
    with _NeuronActivations(found, axes) as answers:
        for batch in batches:
            answers.mask = batch["attention_mask"].bool()
            states = capture(**batch).hidden_states
            for layer in layers:
                rows = states[layer][answers.mask].double()
                sums[:, layer - 1] += torch.stack([rows.sum(0), rows.square().sum(0)])
            tokens += int(answers.mask.sum())
    variance = (sums[1] / tokens - (sums[0] / tokens).square()).clamp(min=0)
    shares = variance / variance.sum(1, keepdim=True).clamp(min=1e-30)
    return Importance(shares.sum(0).float(), {layer: total / tokens for layer, total in answers.sums.items()})


class _NeuronActivations(ExitStack):
    """Sums the absolute activations of every feed-forward neuron over real tokens, until it is left."""

    def __init__(self, found: ArchitectureInfo, axes: Mapping[str, tuple[Axis, ...]]) -> None:
        super().__init__()
        self.mask = torch.empty(0)
        self.sums: dict[int, Tensor] = {}
        for name, spaces in () if found.spec.shared else axes.items():
            if name.startswith(f"{found.spec.layers}.") and len(spaces) == 2 and spaces[1].space == "feed_forward":
                number = int(name.removeprefix(f"{found.spec.layers}.").split(".", 1)[0])
                module = found.base.get_submodule(name.removesuffix(".weight"))
                self.enter_context(module.register_forward_pre_hook(self._adder(number + 1)))

    def _adder(self, layer: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            size = inputs[0][self.mask].double().abs().sum(0)
            self.sums[layer] = self.sums[layer] + size if layer in self.sums else size

        return hook


@torch.no_grad()
def explained_variance(
    teacher: PreTrainedModel, student: PreTrainedModel, cut: Cut, batches: Sequence[Batch]
) -> tuple[float, ...]:
    """The share of the variance of the teacher's kept states that every layer of the student explains."""
    theirs = SignalCapture(teacher, SignalRequest(hidden_states=frozenset(cut.layers)))
    mine = SignalCapture(student, SignalRequest(hidden_states=frozenset(range(1, len(cut.layers) + 1))))
    # States of blocks that normalise last are standardised, those of others are not.
    differ = is_bert_like(teacher) != is_bert_like(student)
    count = 0
    errors, sums, squares = (torch.zeros(len(cut.layers), len(cut.hidden), dtype=torch.float64) for _ in range(3))
    for batch in batches:
        mask = batch["attention_mask"].bool()
        goals, states = theirs(**batch).hidden_states, mine(**known_inputs(student, batch)).hidden_states
        count += int(mask.sum())
        for number, layer in enumerate(cut.layers):
            goal, state = goals[layer][mask][:, cut.hidden], states[number + 1][mask]
            if differ:
                goal, state = as_state(teacher, goal), as_state(student, state)
            goal = goal.double()
            errors[number] += (state.double() - goal).square().sum(0)
            sums[number] += goal.sum(0)
            squares[number] += goal.square().sum(0)
    variance = (squares - sums.square() / count).sum(1)
    return tuple((1 - errors.sum(1) / variance.clamp(min=1e-30)).tolist())
