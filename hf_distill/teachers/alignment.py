"""Aligns teachers with other tokenizers: both models read the same text, and features are compared piece by piece.

A piece is a smallest stretch of text at whose ends both tokenizers end a token: tokens that share characters are in
the same piece. Pieces depend on characters, not on spaces, so they work in every language; often a piece is a word.
The first and the last special token of a row ([CLS], [SEP], `<s>` ...) are pieces too. Hidden states, queries, keys
and values of a piece are the means over its tokens. Logits of a row need no pieces; a tag of a piece is that of its
first token, which is where heads on tokens learn the tag of a word; and the probability that an answer begins or ends
in a piece is the sum over its tokens.

Every other tokenizer has its own columns beside the student's (`TokenColumns`): its tokens of the row, and for both
models the piece of every token.

Shape legend: B rows, T padded length of one side, W pieces, D width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import DataCollatorWithPadding

from ..capture.architectures import without_adapters
from ..capture.batch import pad_lists
from ..capture.signals import SignalRequest, Signals
from ..hub.tokenizers import tokenizer_hash
from ..objectives.logits import SPAN_LABELS
from ..tasks.rows.text import (
    CANDIDATES_COLUMN,
    LENGTH_COLUMN,
    PAIR_COLUMN,
    check_texts,
    columns_of,
    encode_batch,
    padded_length,
    remember_length,
    say_rows_cut,
)
from .base import TeacherSource, TokenColumns

# Columns of another tokenizer, after their prefix. The first two say which piece a token of the teacher, or of the
# student, is part of; -1 for padding and for what the other side has no token for. The third is 1 on the pieces of
# each row.
PIECES, STUDENT_PIECES, PIECE_MASK = "pieces", "student_pieces", "piece_mask"
NO_PIECE = -1

Span = tuple[int, int]


def reads_like(tokenizer: Any, other: Any) -> bool:
    """Whether `other` makes of every text what `tokenizer` makes of it, so that a model may read either.

    Not by the vocabulary alone: the same tokens may be cut from other characters. `False` where it cannot be known.
    """
    if tokenizer is other:
        return True
    if not (getattr(tokenizer, "is_fast", False) and getattr(other, "is_fast", False)):
        return False
    lacking = set(tokenizer.model_input_names) - set(other.model_input_names)
    return not lacking and _rules(tokenizer) == _rules(other)


def _rules(tokenizer: Any) -> dict[str, Any]:
    """Everything that decides tokens; how the last call cut and padded does not."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    sides = {"cuts": tokenizer.truncation_side, "pads": tokenizer.padding_side}
    return {**rules, "truncation": None, "padding": None, **sides}


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
    others: Sequence[TokenColumns],
    *,
    text_column: str = "text",
    max_length: int = 128,
    keep: Iterable[str] = (),
) -> Any:
    """Tokenize text for the student and by every other tokenizer.

    Args:
        dataset: Rows with the column of the text and perhaps `text_pair`, the second text of a row or None.
        tokenizer: The student's tokenizer, a fast one.
        others: Those of the teachers, with fast tokenizers too.
        text_column: Column of the text.
        max_length: Longest row in tokens of each tokenizer.
        keep: Other columns that stay.

    Returns:
        The student's columns; with the prefix of every other tokenizer the columns that it makes, `pieces` and
        `student_pieces` (see `align`); and `length`, the student's tokens.

    Raises:
        ValueError: If the column is missing, a row of it holds no text, or a tokenizer is no fast one.
    """
    columns = columns_of(dataset)
    if text_column not in columns:
        raise ValueError(
            f"Several tokenizers need text to read: the data set has no column {text_column!r} (`--text_column`), but "
            f"{columns}. Rows that are tokenized already fit one tokenizer only."
        )
    read = {text_column, *(other.text_column for other in others if other.text_column is not None)}
    if read - set(columns):
        raise ValueError(
            f"The data set has no column {sorted(read - set(columns))[0]!r} for the teacher to read "
            f"(`--teacher_text_column`), but {columns}."
        )
    for side in (tokenizer, *(other.tokenizer for other in others if not other.is_other_text)):
        if not getattr(side, "is_fast", False):
            raise ValueError(
                f"{type(side).__name__} gives no character offsets: to align tokenizers, all must be fast ones."
            )

    def encode(batch: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        for column in read:
            check_texts(batch, column, numbers)
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        encoded = [_encode_row(tokenizer, others, row, text_column, max_length) for row in rows]
        return {name: [row[name] for row in encoded] for name in encoded[0]}

    kept = set(keep)
    progress = {"desc": "Tokenizing for all sides"} if isinstance(dataset, datasets.Dataset) else {}
    dropped = [name for name in columns if name not in kept]
    tokens = dataset.map(encode, batched=True, with_indices=True, remove_columns=dropped, **progress)
    if isinstance(tokens, datasets.Dataset):
        say_rows_cut(tokens, max_length, ids="input_ids")
        for other in others:
            say_rows_cut(tokens, max_length, "rows, as a teacher reads them,", ids=f"{other.prefix}input_ids")
    remember_length(tokenizer, max_length)
    return tokens


def _encode_row(
    tokenizer: Any, others: Sequence[TokenColumns], row: Mapping[str, Any], text_column: str, max_length: int
) -> dict[str, list[int] | int]:
    if CANDIDATES_COLUMN in row:
        return _encode_candidates(tokenizer, others, row, text_column, max_length)
    second = row.get(PAIR_COLUMN)
    texts = (row[text_column],) if second is None else (row[text_column], second)
    ours = tokenizer(*texts, truncation=True, max_length=max_length)
    found: dict[str, list[int] | int] = {**ours, LENGTH_COLUMN: len(ours["input_ids"])}
    for other in others:
        # A second text belongs to that of the student.
        read = texts if other.text_column is None else (row[other.text_column],)
        theirs = other.tokenizer(other.prompt + read[0], *read[1:], truncation=True, max_length=max_length)
        if other.is_other_text:
            pieces, student_pieces = ([NO_PIECE] * len(side["input_ids"]) for side in (theirs, ours))
        else:
            student_pieces, pieces = align(_spans(ours, texts), _spans(theirs, texts))
        columns = {**theirs, PIECES: pieces, STUDENT_PIECES: student_pieces}
        found |= {other.prefix + name: values for name, values in columns.items()}
    return found


def _encode_candidates(
    tokenizer: Any, others: Sequence[TokenColumns], row: Mapping[str, Any], text_column: str, max_length: int
) -> dict[str, Any]:
    """As `_encode_row`, for a query with candidates: scores are compared, so that there are no pieces."""
    candidates = [row[CANDIDATES_COLUMN]]

    def encode(side: Any, query: str) -> dict[str, Any]:
        encoded = encode_batch(side, {text_column: [query], CANDIDATES_COLUMN: candidates}, text_column, max_length)
        return {name: values[0] for name, values in encoded.items()}

    ours = encode(tokenizer, row[text_column])
    found = {**ours, LENGTH_COLUMN: padded_length(ours["input_ids"])}
    for other in others:
        theirs = encode(other.tokenizer, other.prompt + row[other.text_column or text_column])
        columns: dict[str, Any] = {**theirs, PIECES: [], STUDENT_PIECES: []}
        found |= {other.prefix + name: values for name, values in columns.items()}
    return found


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
    """Pads every encoding of a row, each by its own tokenizer."""

    def __init__(
        self,
        tokenizer: Any,
        others: Sequence[TokenColumns],
        student: Callable[[list[dict[str, Any]]], Mapping[str, Any]] | None = None,
        *,
        text_column: str = "text",
        max_length: int = 128,
    ) -> None:
        """Take the two sides.

        Args:
            tokenizer: The student's.
            others: Those of the teachers.
            student: Makes the batch of everything that is the student's; by default its tokenizer pads.
            text_column: Column of the text in rows that are not tokenized.
            max_length: Where these are cut, in tokens of each tokenizer.
        """
        self.tokenizer = tokenizer
        self.student = student or DataCollatorWithPadding(tokenizer)
        self.text_column = text_column
        self.max_length = max_length
        self.others = [(other, DataCollatorWithPadding(other.tokenizer)) for other in others]

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """One batch; every other tokenizer has a `piece_mask` (B, W): 1 on the pieces of each row.

        Rows that are tokenized for the student alone, and have no text, become a batch that only the student reads.
        """
        rows = [self._read(row) for row in features]
        not_ours = {name for name in rows[0] for other, _ in self.others if other.owns(name)} | {LENGTH_COLUMN}
        batch = dict(self.student([{k: v for k, v in row.items() if k not in not_ours} for row in rows]))
        for other, pad in self.others:
            if other.prefix + PIECES not in rows[0]:
                continue
            columns = self._of(other, pad, rows, batch["attention_mask"])
            batch |= {other.prefix + name: values for name, values in columns.items()}
        return batch

    def _read(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row with what every other tokenizer makes of its text, if that is not there yet."""
        if self.text_column not in row or all(other.prefix + PIECES in row for other, _ in self.others):
            return dict(row)
        others = [other for other, _ in self.others]
        read = {self.text_column, *(other.text_column for other in others if other.text_column is not None)}
        for column in read:
            check_texts({name: [row.get(name)] for name in (column, PAIR_COLUMN)}, column, [0])
        encoded = _encode_row(self.tokenizer, others, row, self.text_column, self.max_length)
        return {**{k: v for k, v in row.items() if k not in (*read, PAIR_COLUMN, CANDIDATES_COLUMN)}, **encoded}

    @staticmethod
    def _of(
        other: TokenColumns, pad: DataCollatorWithPadding, features: Sequence[Mapping[str, Any]], student_mask: Tensor
    ) -> dict[str, Tensor]:
        """The columns of one other tokenizer, without their prefix."""
        rows = [other.select(row) for row in features]
        pieces, student_pieces = ([row.pop(name) for row in rows] for name in (PIECES, STUDENT_PIECES))
        if student_mask.dim() == 3:
            none = torch.full((len(rows), 1), NO_PIECE)
            return pad_lists(pad, rows) | {PIECES: none, STUDENT_PIECES: none, PIECE_MASK: torch.ones_like(none)}
        batch = dict(pad(rows))
        counts = torch.tensor([max(row, default=NO_PIECE) + 1 for row in pieces])
        return batch | {
            PIECES: _pad(pieces, batch["attention_mask"]),
            STUDENT_PIECES: _pad(student_pieces, student_mask),
            PIECE_MASK: (torch.arange(max(1, int(counts.max()))) < counts[:, None]).long(),
        }


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


def first_of_pieces(logits: Tensor, pieces: Tensor, num_pieces: int) -> Tensor:
    """(B, T, C) logits of tokens -> (B, W, C) those of the first token of each piece."""
    batch, length, classes = logits.shape
    place = torch.where(pieces < 0, num_pieces, pieces)
    first = torch.full((batch, num_pieces + 1), length - 1, device=pieces.device)
    first = first.scatter_reduce(1, place, torch.arange(length, device=pieces.device).expand(batch, -1), "amin")
    return logits.gather(1, first[:, :num_pieces, None].expand(-1, -1, classes))


def sum_over_pieces(scores: Tensor, pieces: Tensor, num_pieces: int) -> Tensor:
    """(B, T) scores of positions -> (B, W) fp32 scores of pieces, whose softmax is the sum of that of the tokens.

    What is in no piece is left out of the softmax.
    """
    scores, batch = scores.float(), len(scores)
    place = torch.where(pieces < 0, num_pieces, pieces)
    highest = scores.detach().masked_fill(pieces < 0, torch.finfo(torch.float32).min).amax(1, keepdim=True)
    parts = (scores - highest).masked_fill(pieces < 0, 0.0).exp()
    sums = scores.new_zeros(batch, num_pieces + 1).scatter_add(1, place, parts)[:, :num_pieces]
    return sums.clamp(min=torch.finfo(torch.float32).tiny).log() + highest


def by_pieces(signals: Signals, pieces: Tensor, piece_mask: Tensor) -> Signals:
    """Signals of tokens -> signals of pieces; what speaks about rows stays as it is.

    Args:
        signals: Of one side.
        pieces: (B, T) the piece of each token of that side.
        piece_mask: (B, W).
    """
    num_pieces = piece_mask.shape[1]
    if signals.candidates is not None and (signals.hidden_states or signals.projections):
        raise ValueError(
            "Rows with candidates and tokenizers that differ (`--align_tokenizers`): only scores can be compared, by "
            "`margin`, `listwise` and `logits`."
        )

    def mean(states: Tensor) -> Tensor:
        return mean_over_pieces(states, pieces, num_pieces)

    def of_logits(name: str, values: Tensor) -> Tensor:
        if name in SPAN_LABELS:
            return sum_over_pieces(values, pieces, num_pieces)
        return first_of_pieces(values, pieces, num_pieces) if values.dim() == 3 else values

    return Signals(
        attention_mask=piece_mask,
        logits={name: of_logits(name, values) for name, values in signals.logits.items()},
        hidden_states={layer: mean(states) for layer, states in signals.hidden_states.items()},
        projections={layer: found.map(mean) for layer, found in signals.projections.items()},
        pooled=signals.pooled,
        candidates=signals.candidates,
    )


class AlignedTeacher(TeacherSource):
    """A teacher with another tokenizer: it reads the tokens of its own and speaks in pieces."""

    def __init__(self, teacher: TeacherSource, own_tokens: TokenColumns) -> None:
        """Wrap a teacher whose model reads the columns of its tokenizer."""
        self.teacher = teacher
        self.model, self.config = teacher.model, teacher.config
        self.own_tokens: TokenColumns = own_tokens
        self.num_layers, self.model_type = teacher.num_layers, teacher.model_type
        names = (*teacher.input_columns, PIECES, STUDENT_PIECES, PIECE_MASK)
        self.input_columns = [own_tokens.prefix + name for name in names]
        self.required_columns = [own_tokens.prefix + PIECES]

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
        if self.own_tokens.is_other_text and (request.hidden_states or request.projections):
            raise ValueError(
                "Teacher and student read different texts (`--teacher_text_column`, `--teacher_prompt`): no token of "
                "one is one of the other. Objectives on vectors of texts and logits of rows can compare them."
            )
        self.teacher.request(request)
        self.head = self.teacher.head
        if request.pooled and self.head is not None:
            self.head.leave_out(self.own_tokens.prompt, self.own_tokens.tokenizer)

    def to(self, device: torch.device) -> None:
        """Move to the device of training."""
        self.teacher.to(device)

    def share_out(self, settings: Mapping[str, Any]) -> None:
        """Share out the weights."""
        self.teacher.share_out(settings)

    @contextmanager
    def on_device(self, device: torch.device) -> Iterator[None]:
        """Be on a device within this context, and in the host's memory before and after it."""
        with self.teacher.on_device(device):
            yield

    def fetch(self, device: torch.device) -> None:
        """Prepare to be on a device soon."""
        self.teacher.fetch(device)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where its model reads its inputs."""
        return self.teacher.device

    def match_labels(self, student_config: Any) -> None:
        """Compare label names with the student's, and give logits in the student's order from now on."""
        self.teacher.match_labels(student_config)

    def probe(self, inputs: Mapping[str, Tensor]) -> Signals:
        """Signals of a few tokens, to look at shapes.

        Raises:
            ValueError: If the head speaks about tokens of a vocabulary, or about tokens of another text.
        """
        signals = self.teacher.signals(inputs)
        of_tokens = sorted(name for name, values in signals.logits.items() if values.dim() == 3 or name != "logits")
        inner = without_adapters(self.model)
        if of_tokens and (self.own_tokens.is_other_text or inner.get_output_embeddings() is not None):
            what = "another text" if self.own_tokens.is_other_text else "another vocabulary"
            raise ValueError(
                f"Teacher and student have different tokenizers or texts, but {of_tokens} of "
                f"{type(self.model).__name__} speak about single tokens of {what}. Logits of rows, tags of words and "
                "positions of answers in one text can be compared (`--align_tokenizers`)."
            )
        return signals

    def signals(self, inputs: Mapping[str, Tensor]) -> Signals:
        """The requested signals for one batch of `AlignedCollator`.

        Raises:
            ValueError: If the rows came tokenized for the student alone.
        """
        if self.required_columns[0] not in inputs:
            raise ValueError(
                "Several tokenizers need text to read (`--text_column`), but a batch has tokens of the student only. "
                "Rows that are tokenized already fit one tokenizer only."
            )
        own = self.own_tokens.select(inputs)
        return by_pieces(self.teacher.signals(own), own[PIECES], own[PIECE_MASK])

    def fingerprint(self) -> dict[str, str]:
        """The teacher's, and its tokenizer's."""
        found = {**self.teacher.fingerprint(), "teacher_tokenizer": tokenizer_hash(self.own_tokens.tokenizer)}
        reads = {"teacher_text_column": self.own_tokens.text_column, "teacher_prompt": self.own_tokens.prompt}
        return {**found, **({name: str(value) for name, value in reads.items() if value})}

    def describe(self) -> str:
        """Describe the teacher in words."""
        return f"{self.teacher.describe()}, with a tokenizer of its own ({len(self.own_tokens.tokenizer)} tokens)"

    def source(self) -> dict[str, Any]:
        """Return the origin of the model, as its teacher does."""
        return self.teacher.source()
