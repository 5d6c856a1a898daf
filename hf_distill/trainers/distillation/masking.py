"""Masked language modelling: what is masked depends on the rows alone, so that a resumed run masks the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xxhash
from transformers import DataCollatorForLanguageModeling

from ...settings import DistillationArguments, MaskedHeadArguments
from ...teachers.base import TeacherSource


@dataclass
class MaskingCollator(DataCollatorForLanguageModeling):
    """Masks tokens as BERT does (15 %: 80 % mask, 10 % random, 10 % kept) and puts what was there into `labels`.

    The stock collator draws from the global generator, one batch ahead of the update, so a resumed run masks other
    tokens. This one draws from a generator that is seeded with `seed` and the rows of the batch: random batches of
    another epoch are masked anew, and every evaluation of the same rows is comparable.
    """

    def __post_init__(self) -> None:
        """Keep the seed from the base class, which puts a generator of its own in place of that of the rows."""
        self.mask_seed, self.seed = self.seed or 0, None
        super().__post_init__()

    def torch_call(self, examples: list[Any]) -> dict[str, Any]:
        """Pad and mask a batch; labels are -100 where nothing was masked."""
        digest = xxhash.xxh3_64(seed=self.mask_seed)
        for example in examples:
            digest.update(json.dumps(list(map(int, example["input_ids"]))).encode())
        # Generators take seeds of 63 bits.
        self.generator = torch.Generator().manual_seed(digest.intdigest() >> 1)
        return super().torch_call(examples)


def masking_collator(
    args: DistillationArguments | MaskedHeadArguments, tokenizer: Any, teachers: Sequence[TeacherSource]
) -> MaskingCollator:
    """The collator for `args.mlm_probability`.

    Raises:
        ValueError: If the tokenizer has nothing to mask with, or a teacher cannot read what is masked.
    """
    if any(teacher.dataset is not None for teacher in teachers):
        raise ValueError(
            "`--mlm_probability` masks other tokens in every epoch, but a stored teacher has read the rows as they "
            "are: give the teacher itself as `--teacher_model`."
        )
    if getattr(tokenizer, "mask_token", None) is None:
        raise ValueError(
            f"`--mlm_probability` is {args.mlm_probability}, but the tokenizer ({type(tokenizer).__name__}) has no "
            "mask token: give that of a masked language model as `processing_class`."
        )
    return MaskingCollator(tokenizer, mlm_probability=args.mlm_probability, seed=args.seed)
