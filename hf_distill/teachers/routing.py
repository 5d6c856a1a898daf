"""Sends every row of a batch to its own teacher, and joins their signals to one batch again.

Shape legend: B rows of the batch, N teachers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from ..capture import batch
from ..capture.batch import facts_of, places_where
from ..capture.signals import Projections, SignalRequest, Signals

TEACHER_COLUMN = "teacher_id"


def rows_of_teachers(inputs: Mapping[str, Any], num_teachers: int) -> list[Tensor]:
    """The rows of every teacher, from the column `teacher_id` (B,) of a batch.

    Raises:
        ValueError: If the column is missing, or names a teacher that does not exist.
    """
    ids = inputs.get(TEACHER_COLUMN)
    if ids is None:
        raise ValueError(
            f"`--combine route` needs the column {TEACHER_COLUMN!r} in the data, with a number from 0 to "
            f"{num_teachers - 1} for every row; the batch has {sorted(inputs)}."
        )
    counts = facts_of(ids).counts
    ids = ids.reshape(-1)
    sizes = [counts.get(teacher, 0) if counts else None for teacher in range(num_teachers)]
    rows = [places_where(ids == teacher, size) for teacher, size in enumerate(sizes)]
    if sum(map(len, rows)) != len(ids):
        wrong = sorted({int(i) for i in ids.tolist()} - set(range(num_teachers)))
        raise ValueError(
            f"`--combine route`: the column {TEACHER_COLUMN!r} has {wrong}, but there are {num_teachers} teachers; "
            f"allowed are 0 to {num_teachers - 1}."
        )
    return rows


def take_inputs(inputs: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """Some rows of a batch; what is no tensor stays as it is."""
    return {name: batch.take_rows(value, rows) if torch.is_tensor(value) else value for name, value in inputs.items()}


def take_rows(signals: Signals, rows: Tensor) -> Signals:
    """Some rows of signals."""
    return signals.map(lambda tensor: tensor.index_select(0, rows))


def join_parts(parts: Sequence[Signals], rows: Sequence[Tensor]) -> Signals:
    """One batch from parts of it.

    Args:
        parts: Signals of some rows each, all with the same layers and widths.
        rows: Which rows of the batch those are; together all of them, each once.
    """
    order = torch.cat(list(rows)).argsort()
    if parts[0].candidates is not None:
        if parts[0].hidden_states or parts[0].projections or parts[0].attention_scores:
            raise ValueError("Rows with candidates that have different teachers (`teacher_id`) compare scores only.")
        parts = [replace(part, attention_mask=cast(Tensor, part.candidates)) for part in parts]
    return _merge(parts, lambda tensors: torch.cat(tensors).index_select(0, order))


def only_requested(signals: Signals, request: SignalRequest) -> Signals:
    """The part of signals that a request asks for; the model may have been asked for more."""
    return Signals(
        attention_mask=signals.attention_mask,
        logits=signals.logits if request.logits else {},
        hidden_states={layer: signals.hidden_states[layer] for layer in request.hidden_states},
        projections={layer: signals.projections[layer] for layer in request.projections},
        attention_scores={layer: signals.attention_scores[layer] for layer in request.attention_scores},
        pooled=signals.pooled if request.pooled else None,
        candidates=signals.candidates,
    )


def shapes_of(signals: Signals) -> dict[str, tuple[int, ...]]:
    """The shape of every signal without its rows: equal where the rows of two teachers fit into one batch."""
    shapes = {f"logits {name}": tuple(value.shape[1:]) for name, value in signals.logits.items()}
    shapes |= {f"hidden state {layer}": tuple(value.shape[1:]) for layer, value in signals.hidden_states.items()}
    shapes |= {f"attention scores {layer}": tuple(v.shape[1:]) for layer, v in signals.attention_scores.items()}
    for layer, found in signals.projections.items():
        shapes[f"projections {layer}"] = (found.num_heads, *(x.shape[-1] for x in (found.query, found.key)))
    if signals.pooled is not None:
        shapes["vectors of texts"] = tuple(signals.pooled.shape[1:])
    return shapes


def _merge(parts: Sequence[Signals], merge: Callable[[list[Tensor]], Tensor]) -> Signals:
    """Apply `merge` to what the parts have in the same place."""
    first = parts[0]
    return Signals(
        attention_mask=merge([part.attention_mask for part in parts]),
        logits={name: merge([part.logits[name] for part in parts]) for name in first.logits},
        hidden_states={layer: merge([part.hidden_states[layer] for part in parts]) for layer in first.hidden_states},
        projections={
            layer: Projections(
                query=merge([part.projections[layer].query for part in parts]),
                key=merge([part.projections[layer].key for part in parts]),
                value=merge([part.projections[layer].value for part in parts]),
                num_heads=found.num_heads,
            )
            for layer, found in first.projections.items()
        },
        attention_scores={
            layer: merge([part.attention_scores[layer] for part in parts]) for layer in first.attention_scores
        },
        pooled=None if first.pooled is None else merge([cast(Tensor, part.pooled) for part in parts]),
        candidates=None if first.candidates is None else merge([cast(Tensor, part.candidates) for part in parts]),
    )
