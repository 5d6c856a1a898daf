"""Word embeddings of a student from those of its teacher, by a truncated singular value decomposition.

Shape legend: V vocabulary, D width of the teacher's word embeddings, d of the student's.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

# What every student of this process that has compressed embeddings keeps of the variance of its teacher's.
KEPT_VARIANCE: weakref.WeakKeyDictionary[PreTrainedModel, float] = weakref.WeakKeyDictionary()


def principal_components(table: Tensor, width: int) -> tuple[Tensor, float]:
    """The best linear compression of a table (V, D) to `width` columns: `U S` of its centred rows.

    The decomposition is computed in float64 from the covariance (D, D) (`principal_loadings`).

    Returns:
        The compressed table (V, width), in the type of `table`, and the share of the variance that it keeps.

    Raises:
        ValueError: If `width` is larger than D.
    """
    if width > table.shape[1]:
        raise ValueError(
            f"Word embeddings of width {table.shape[1]} cannot be widened to {width} by a decomposition: use "
            "--student_init random, or a narrower student."
        )
    loadings = principal_loadings(table, width).double()
    rows = table.detach().double()
    rows = rows - rows.mean(0)
    compressed = rows @ loadings
    kept = float(compressed.square().sum() / rows.square().sum().clamp(min=torch.finfo(torch.float64).tiny))
    return compressed.to(table.dtype), kept


def principal_loadings(table: Tensor, width: int) -> Tensor:
    """The directions (D, width) in which the centred rows of a table (V, D) vary most, in its type.

    The sign of a direction is arbitrary; it is chosen so that its largest loading is positive, which makes the result
    the same on every machine.
    """
    rows = table.detach().double()
    rows = rows - rows.mean(0)
    loadings = torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1)[:, :width]
    largest = loadings.gather(0, loadings.abs().argmax(0, keepdim=True))
    return (loadings * largest.sign()).to(table.dtype)


@torch.no_grad()
def compress_embeddings(teacher: PreTrainedModel, student: PreTrainedModel) -> float:
    """Give the student the teacher's word embeddings, compressed to its width (XtremeDistil).

    Returns:
        The share of the variance of the teacher's embeddings that is kept.

    Raises:
        ValueError: If the student's embeddings are wider, or the vocabularies differ in size.
    """
    weights: list[Any] = [model.get_input_embeddings().weight for model in (teacher, student)]
    source, target = weights
    if len(source) != len(target):
        raise ValueError(
            f"The teacher has {len(source)} word embeddings, the student {len(target)}: --student_init svd_embeddings "
            "needs one vocabulary."
        )
    table, kept = principal_components(source.cpu().float(), target.shape[1])
    target.copy_(table)
    KEPT_VARIANCE[student] = kept
    logger.info(f"The student's word embeddings keep {kept:.1%} of the variance of the teacher's.")
    return kept
