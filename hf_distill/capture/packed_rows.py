"""A forward pass over the real tokens of a batch: its rows are packed into a single row, without padding between them.

Embeddings, linear layers and norms compute every token independently, so padding can be left out there. Attention is
among the tokens of a row; only for attention queries, keys and values are padded again.

Shape legend: B rows, T padded length, N real tokens of all rows, A attention heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .batch import NOW, facts_of, places_where

# Architectures whose position of a token is its column in the padded batch, whatever stands before it.
BY_COLUMN = frozenset({"bert", "electra", "ernie", "modernbert", "nomic_bert"})
# Those that count the tokens of a row that are not padding, from behind the id of padding on.
BY_COUNT = frozenset({"roberta", "xlm-roberta", "camembert"})


class PackedRows:
    """Where the real tokens of a padded batch stand.

    Attributes:
        mask: (B, T), 1 on real tokens.
        places: (N,) their places in the batch laid out flat.
    """

    def __init__(self, mask: Tensor) -> None:
        """Find them; where the host knows their number it does not wait for the device."""
        self.mask = mask
        self.places = places_where((mask != 0).flatten(), facts_of(mask).num_shown)

    def pack(self, values: Tensor) -> Tensor:
        """(B, T, ...) -> (1, N, ...)."""
        return values.flatten(0, 1).index_select(0, self.places).unsqueeze(0)

    def unpack(self, values: Tensor) -> Tensor:
        """(1, N, ...) -> (B, T, ...), zeros on padding."""
        flat = values.new_zeros(self.mask.numel(), *values.shape[2:])
        return flat.index_copy(0, self.places, values[0]).unflatten(0, self.mask.shape)

    def inputs(self, given: Mapping[str, Any], config: Any) -> dict[str, Any]:
        """The inputs of a model for the packed batch: every tensor (B, T), and the positions as it would make them."""
        packed = {
            name: self.pack(value) if isinstance(value, Tensor) and value.shape[:2] == self.mask.shape else value
            for name, value in given.items()
            if name != "attention_mask"
        }
        if "position_ids" not in packed:
            packed["position_ids"] = self.pack(_positions(given["input_ids"], config))
        if config.model_type == "modernbert":
            # It would make a mask (N, N) of its window, which nobody reads here.
            packed["attention_mask"] = dict.fromkeys(("full_attention", "sliding_attention"))
        return packed

    def attend(self, attention: Callable[..., Any], module: Any, projections: list[Tensor], **kwargs: Any) -> Any:
        """Attention among the tokens of each row.

        Args:
            attention: Of padded rows, as transformers calls it.
            module: The module that calls.
            projections: Queries, keys and values (1, A, N, D).
            **kwargs: Handed on.

        Returns:
            (1, N, A, D), and nothing.
        """
        rows = [self.unpack(one.transpose(1, 2)).transpose(1, 2) for one in projections]
        output, _ = attention(module, *rows, self._mask(kwargs.get("sliding_window")), **kwargs)
        return self.pack(output), None

    def _mask(self, window: int | None) -> Tensor:
        """(B, 1, 1 or T, T) of bool: the keys that a query sees, those nearer than `window` where there is one."""
        mask = self.mask[:, None, None, :].bool()
        if window is None:
            return mask
        columns = torch.arange(self.mask.shape[1], device=mask.device)
        distance = (columns[:, None] - columns).abs()
        # Every query sees itself: without any key padding would become NaN, and gradients with it.
        return (mask & (distance < window)) | (distance == 0)


def _positions(ids: Tensor, config: Any) -> Tensor:
    """(B, T) positions of the tokens of a padded batch."""
    if config.model_type in BY_COLUMN:
        return torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
    is_text = (ids != config.pad_token_id).long()
    return is_text.cumsum(1) * is_text + config.pad_token_id


@contextmanager
def packing_rows() -> Iterator[None]:
    """Within this context captures pack the rows of models that can (`SignalCapture.packs_rows`)."""
    before, NOW.packs_rows = NOW.packs_rows, True
    try:
        yield
    finally:
        NOW.packs_rows = before


@contextmanager
def rows_of_now(rows: PackedRows | None) -> Iterator[None]:
    """Within this context a model reads these rows, packed, or those of its batch as they are."""
    before, NOW.rows = NOW.rows, rows
    try:
        yield
    finally:
        NOW.rows = before
