"""Masked language modelling: what is masked depends on the rows alone, so that a resumed run masks the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import xxhash
from transformers import DataCollatorForLanguageModeling


@dataclass
class MaskingCollator(DataCollatorForLanguageModeling):
    """Masks tokens as BERT does (15 %: 80 % mask, 10 % random, 10 % kept) and puts what was there into `labels`.

    The stock collator draws from the global generator, one batch ahead of the update, so a resumed run masks other
    tokens. This one draws from a generator that is seeded with `seed` and the rows of the batch: random batches of
    another epoch are masked anew, and every evaluation of the same rows is comparable.
    """

    def torch_call(self, examples: list[Any]) -> dict[str, Any]:
        """Pad and mask a batch; labels are -100 where nothing was masked."""
        digest = xxhash.xxh3_64(seed=self.seed or 0)
        for example in examples:
            digest.update(json.dumps(list(map(int, example["input_ids"]))).encode())
        # Generators take seeds of 63 bits.
        self.generator = self.get_generator(digest.intdigest() >> 1)
        return super().torch_call(examples)
