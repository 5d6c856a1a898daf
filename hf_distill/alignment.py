"""A teacher with another tokenizer: both sides read the same text, and features are compared piece by piece.

A piece is the smallest stretch of text that both tokenizers keep apart: tokens of either side that share characters
are in one piece. Characters decide, not spaces, so that it works in every language; where both tokenizers keep words
together, a piece is a word. The first and the last special token of a row ([CLS], [SEP], `<s>` ...) are pieces too.
Hidden states, queries, keys and values of a piece are the means over its tokens; logits of a row need no pieces.

Shape legend: B rows, T padded length of one side, W pieces, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import DataCollatorWithPadding

from .loading import vocabulary_hash
from .signals import SignalRequest, Signals
from .teachers import LiveTeacher

PREFIX = "teacher_"
# Which piece a token belongs to; -1 for padding and for what the other side has no token for.
PIECES, PIECE_MASK = "pieces", "piece_mask"
NO_PIECE = -1

Span = tuple[int, int]


def align(student: Sequence[Span | None], teacher: Sequence[Span | None]) -> tuple[list[int], list[int]]:
    """The piece of every token on both sides.

    Args:
        student: Characters of each token, from and to (`to` excluded); `None` for special tokens.
        teacher: Likewise, for the same text.

    Returns:
        Numbers of pieces in the order of the text, the same on both sides; -1 where the other side has nothing.
    """
    tokens = sorted(
        (span[0], span[1], side, index)
        for side, spans in enumerate((student, teacher))
        for index, span in enumerate(spans)
        if span is not None and span[0] < span[1]
    )
    groups: list[list[tuple[int, int]]] = []
    end = -1
    for start, stop, side, index in tokens:
        if start >= end:
            groups.append([])
        groups[-1].append((side, index))
        end = max(end, stop)
    first, last = _special_pieces(student, teacher)
    shared = [group for group in groups if {side for side, _ in group} == {0, 1}]
    pieces = [[NO_PIECE] * len(student), [NO_PIECE] * len(teacher)]
    for number, group in enumerate([*first, *shared, *last]):
        for side, index in group:
            pieces[side][index] = number
    return pieces[0], pieces[1]


def _special_pieces(
    student: Sequence[Span | None], teacher: Sequence[Span | None]
) -> tuple[list[list[tuple[int, int]]], list[list[tuple[int, int]]]]:
    """The first and the last token where both sides have a special one there."""
    if not student or not teacher:
        return [], []
    first = [[(0, 0), (1, 0)]] if student[0] is None and teacher[0] is None else []
    ends = (len(student) - 1, len(teacher) - 1)
    is_special = student[-1] is None and teacher[-1] is None and min(ends) > 0
    return first, [[(0, ends[0]), (1, ends[1])]] if is_special else []


def tokenize_aligned(
    dataset: Any,
    tokenizer: Any,
    teacher_tokenizer: Any,
    *,
    text_column: str = "text",
    pair_column: str = "text_pair",
    max_length: int = 128,
    keep: Iterable[str] = (),
) -> Any:
    """Tokenize text for both sides.

    Args:
        dataset: Rows with the column of the text and perhaps that of a second text.
        tokenizer: The student's tokenizer, a fast one.
        teacher_tokenizer: The teacher's, likewise.
        text_column: Column of the text.
        pair_column: Column of the second text; rows without one are None or lack the column.
        max_length: Longest row in tokens on each side.
        keep: Other columns that stay.

    Returns:
        The student's columns, the teacher's with the prefix `teacher_`, `pieces` and `teacher_pieces` (see `align`),
        and `length`, the student's tokens.

    Raises:
        ValueError: If the column is missing, or a tokenizer is no fast one.
    """
    columns = list(dataset.column_names or [])
    if text_column not in columns:
        raise ValueError(
            f"Two tokenizers need text to read: the data set has no column {text_column!r} (`--text_column`), but "
            f"{columns}. Rows that are tokenized already fit one tokenizer only."
        )
    for side in (tokenizer, teacher_tokenizer):
        if not getattr(side, "is_fast", False):
            raise ValueError(f"{type(side).__name__} gives no character offsets: two tokenizers must be fast ones.")

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = list(zip(batch[text_column], batch.get(pair_column, [None] * len(batch[text_column])), strict=True))
        encoded = [_encode_row(tokenizer, teacher_tokenizer, first, second, max_length) for first, second in rows]
        return {name: [row[name] for row in encoded] for name in encoded[0]}

    kept = set(keep)
    progress = {"desc": "Tokenizing for both sides"} if isinstance(dataset, datasets.Dataset) else {}
    return dataset.map(encode, batched=True, remove_columns=[c for c in columns if c not in kept], **progress)


def _encode_row(
    tokenizer: Any, teacher_tokenizer: Any, first: str, second: str | None, max_length: int
) -> dict[str, list[int] | int]:
    texts = (first,) if second is None else (first, second)
    sides = [side(*texts, truncation=True, max_length=max_length) for side in (tokenizer, teacher_tokenizer)]
    spans = [_spans(encoding, texts) for encoding in sides]
    pieces, teacher_pieces = align(*spans)
    row: dict[str, list[int] | int] = dict(sides[0])
    row |= {f"{PREFIX}{name}": values for name, values in sides[1].items()}
    return row | {PIECES: pieces, PREFIX + PIECES: teacher_pieces, "length": len(pieces)}


def _spans(encoding: Any, texts: Sequence[str]) -> list[Span | None]:
    """Characters of each token without blanks around them, the second text counted on from the first."""
    inner = encoding.encodings[0]
    starts = (0, len(texts[0]) + 1)
    found: list[Span | None] = []
    for (start, stop), sequence in zip(inner.offsets, inner.sequence_ids, strict=True):
        if sequence is None:
            found.append(None)
            continue
        token = texts[sequence][start:stop]
        left = start + len(token) - len(token.lstrip())
        found.append((starts[sequence] + left, starts[sequence] + max(left, start + len(token.rstrip()))))
    return found


class AlignedCollator:
    """Pads both encodings of a row, each by its own tokenizer."""

    def __init__(self, tokenizer: Any, teacher_tokenizer: Any) -> None:
        """Take the tokenizers of student and teacher."""
        self.student = DataCollatorWithPadding(tokenizer)
        self.teacher = DataCollatorWithPadding(teacher_tokenizer)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """One batch, with `piece_mask` (B, W): 1 on the pieces of each row."""
        pieces = (PIECES, PREFIX + PIECES)
        theirs = [name for name in features[0] if name.startswith(PREFIX) and name not in pieces]
        ours = [{k: v for k, v in row.items() if k not in (*theirs, *pieces, "length")} for row in features]
        batch = dict(self.student(ours))
        other = self.teacher([{name.removeprefix(PREFIX): row[name] for name in theirs} for row in features])
        batch |= {PREFIX + name: value for name, value in other.items()}
        for prefix in ("", PREFIX):
            batch[prefix + PIECES] = _pad([row[prefix + PIECES] for row in features], batch[f"{prefix}attention_mask"])
        counts = torch.tensor([max(row[PIECES], default=NO_PIECE) + 1 for row in features])
        batch[PIECE_MASK] = (torch.arange(max(1, int(counts.max()))) < counts[:, None]).long()
        return batch


def _pad(rows: Sequence[Sequence[int]], mask: Tensor) -> Tensor:
    """(B, T) numbers put where the mask is 1, on whichever side that is."""
    padded = torch.full_like(mask, NO_PIECE)
    padded[mask.bool()] = torch.tensor([number for row in rows for number in row], dtype=mask.dtype)
    return padded


def mean_over_pieces(states: Tensor, pieces: Tensor, num_pieces: int) -> Tensor:
    """(B, T, D) states of tokens -> (B, W, D) fp32 means over the tokens of each piece; the rest is left out."""
    states = states.float()
    batch, _, width = states.shape
    # One more place takes what belongs nowhere.
    place = torch.where(pieces < 0, num_pieces, pieces)
    sums = states.new_zeros(batch, num_pieces + 1, width)
    sums = sums.scatter_add(1, place[..., None].expand_as(states), states)
    counts = states.new_zeros(batch, num_pieces + 1).scatter_add(1, place, torch.ones_like(place, dtype=states.dtype))
    return (sums / counts.clamp(min=1)[..., None])[:, :num_pieces]


def by_pieces(signals: Signals, pieces: Tensor, piece_mask: Tensor) -> Signals:
    """Signals of tokens -> signals of pieces; what speaks about rows stays as it is.

    Args:
        signals: Of one side.
        pieces: (B, T) the piece of each token of that side.
        piece_mask: (B, W).
    """
    num_pieces = piece_mask.shape[1]

    def mean(states: Tensor) -> Tensor:
        return mean_over_pieces(states, pieces, num_pieces)

    return Signals(
        attention_mask=piece_mask,
        logits=signals.logits,
        hidden_states={layer: mean(states) for layer, states in signals.hidden_states.items()},
        projections={
            layer: dataclasses.replace(found, query=mean(found.query), key=mean(found.key), value=mean(found.value))
            for layer, found in signals.projections.items()
        },
    )


class AlignedTeacher:
    """A live teacher that reads its own encoding of the text and speaks in pieces."""

    # Its vocabulary has nothing to do with the student's.
    reads_own_tokens = True

    def __init__(self, teacher: LiveTeacher, tokenizer: Any) -> None:
        """Wrap a teacher that reads what `tokenizer` makes."""
        self.teacher = teacher
        self.tokenizer = tokenizer
        self.num_layers = teacher.num_layers
        self.model_type = teacher.model_type
        self.input_columns = [*(PREFIX + name for name in teacher.input_columns), PREFIX + PIECES, PIECES, PIECE_MASK]

    @property
    def model(self) -> Any:
        """The model itself."""
        return self.teacher.model

    @property
    def config(self) -> Any:
        """The configuration of the model."""
        return self.teacher.config

    def request(self, request: SignalRequest) -> None:
        """Say which signals `signals` must give.

        Raises:
            ValueError: If the request asks for attention scores: there is no mean of a map over pieces.
        """
        if request.attention_scores:
            raise ValueError(
                "Teacher and student have different tokenizers (`--align_tokenizers`): their attention maps cannot be "
                "compared. Objectives on logits of rows, hidden states and relations can."
            )
        self.teacher.request(request)

    def to(self, device: torch.device) -> None:
        """Move to the device of training."""
        self.teacher.to(device)

    def match_labels(self, student_config: Any) -> None:
        """See `LiveTeacher.match_labels`."""
        self.teacher.match_labels(student_config)

    def probe(self, inputs: Mapping[str, Tensor]) -> Signals:
        """Signals of a few tokens, to look at shapes.

        Raises:
            ValueError: If the head speaks about tokens or positions, which are others on the student's side.
        """
        signals = self.teacher.signals(inputs)
        of_tokens = sorted(name for name, values in signals.logits.items() if values.dim() == 3 or name != "logits")
        if of_tokens:
            raise ValueError(
                f"Teacher and student have different tokenizers (`--align_tokenizers`), but {of_tokens} of "
                f"{type(self.model).__name__} speak about single tokens. Only logits of whole rows can be compared."
            )
        return signals

    def signals(self, inputs: Mapping[str, Tensor]) -> Signals:
        """The requested signals for one batch of `AlignedCollator`."""
        own = {name.removeprefix(PREFIX): value for name, value in inputs.items() if name.startswith(PREFIX)}
        return by_pieces(self.teacher.signals(own), own[PIECES], inputs[PIECE_MASK])

    def fingerprint(self) -> dict[str, str]:
        """The teacher's, and its tokenizer's."""
        return {**self.teacher.fingerprint(), "teacher_tokenizer": vocabulary_hash(self.tokenizer)}

    def describe(self) -> str:
        """What it is, in words."""
        return f"{self.teacher.describe()}, with a tokenizer of its own ({len(self.tokenizer)} tokens)"

    def source(self) -> dict[str, Any]:
        """See `LiveTeacher.source`."""
        return self.teacher.source()
