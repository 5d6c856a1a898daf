"""Combines the predictions of several teachers into one: tensors in, tensors out.

Shape legend: N teachers, B rows, T padded length, C classes, I items of a row (1 of a sequence, its tokens, or its
yes-or-no questions). A head gives (B, C) for sequences, (B, T, C) for tokens and (B, T) for the start or the end of a
span, whose classes are the positions. Everything is computed in fp32. Weights of teachers are positive and sum to 1;
each is one number, or one for each row (B,).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..objectives.logits import SPAN_LABELS
from ..settings.distill import CombinationRule

LOWEST = torch.finfo(torch.float32).min


def combine_logits(
    teachers: Sequence[Mapping[str, Tensor]],
    rule: CombinationRule,
    weights: Tensor,
    attention_mask: Tensor,
    *,
    labels: Mapping[str, Tensor] | None = None,
    temperature: float = 1.0,
    problem_type: str | None = None,
    has_candidates: bool = False,
) -> dict[str, Tensor]:
    """The heads' outputs that stand for all teachers; those of a single teacher stay as they are.

    Args:
        teachers: The logits of every teacher by the name of the head.
        rule: `mean_logits`, `mean_probabilities` or `confidence` (`route` combines nothing).
        weights: (N,), one for each teacher.
        attention_mask: (B, T), 1 on real tokens.
        labels: The label columns of the batch, for `confidence`.
        temperature: The temperature at which probabilities are averaged.
        problem_type: `config.problem_type` of the student.
        has_candidates: Whether the logits are the scores (B, C) of a query's candidates, whose softmax is what
            `mean_probabilities` averages.

    Raises:
        ValueError: If the rule does not fit a regression or candidates, or is no rule of combination.
    """
    if len(teachers) == 1:
        return dict(teachers[0])
    if rule == "route":
        raise ValueError("`--combine route` chooses one teacher for each row; it combines no logits.")
    if has_candidates and rule == "confidence":
        raise ValueError(
            "`--combine` is 'confidence', which trusts teachers by the class of a row, but rows with candidates have "
            "none; allowed are 'mean_logits', 'mean_probabilities' and 'route'."
        )
    if rule != "mean_logits" and not has_candidates and _is_regression(teachers[0], problem_type):
        raise ValueError(
            f"`--combine` is {rule!r}, but a regression has no probabilities; allowed are 'mean_logits' and 'route'."
        )
    multi_label = problem_type == "multi_label_classification" and not has_candidates
    if rule == "confidence":
        rows = [row_uncertainty(logits, attention_mask, labels or {}, multi_label=multi_label) for logits in teachers]
        weights = confidence_weights(torch.stack(rows), weights)
    each = list(weights.unbind())
    return {
        name: _combine_head(name, [logits[name] for logits in teachers], rule, each, attention_mask, temperature)
        if not multi_label or rule == "mean_logits"
        else mean_binary_probabilities([logits[name] for logits in teachers], each, temperature)
        for name in teachers[0]
    }


def _combine_head(
    name: str,
    logits: Sequence[Tensor],
    rule: CombinationRule,
    weights: Sequence[Tensor],
    attention_mask: Tensor,
    temperature: float,
) -> Tensor:
    if rule == "mean_logits":
        return mean_logits(logits, weights)
    if name not in SPAN_LABELS:
        return mean_probabilities(logits, weights, temperature)
    # Padding is no position that an answer could have; what stands there is never read, but must be a number.
    real = attention_mask.bool()
    combined = mean_probabilities([_only_real(one, real) for one in logits], weights, temperature)
    return combined.masked_fill(~real, 0.0)


def mean_logits(logits: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """`sum_n w_n z_n`: MT-DNN's and TextBrewer's ensemble, before temperature and softmax."""
    return sum(_broadcast(w, z) * z.float() for w, z in zip(weights, logits, strict=True))  # type: ignore[return-value]


def mean_probabilities(logits: Sequence[Tensor], weights: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
    """Logits whose softmax is the mean of the teachers' probabilities, both at one temperature.

    With `p_n = softmax(z_n / temperature)`, the result `z` has `softmax(z / temperature) = sum_n w_n p_n`. A softmax
    leaves the level of its logits open; it is the mean of the teachers' own,
    `z = temperature * (log sum_n w_n p_n + sum_n w_n logsumexp(z_n / temperature))`, so that teachers that agree give
    their own logits.
    """
    scaled = [z.float() / temperature for z in logits]
    levels = [z.logsumexp(-1, keepdim=True) for z in scaled]
    parts = zip(weights, scaled, levels, strict=True)
    log_mean = functools.reduce(torch.logaddexp, (_broadcast(w, z).log() + (z - level) for w, z, level in parts))
    level = mean_logits(levels, weights)
    return temperature * (log_mean + level)


def mean_binary_probabilities(logits: Sequence[Tensor], weights: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
    """As `mean_probabilities`, with every class its own yes-or-no question (multi-label).

    `z = temperature * logit(sum_n w_n sigmoid(z_n / temperature))`.
    """
    scaled = [z.float() / temperature for z in logits]
    log_weights = [_broadcast(w, z).log() for w, z in zip(weights, scaled, strict=True)]
    yes, no = (
        functools.reduce(
            torch.logaddexp,
            (w + torch.nn.functional.logsigmoid(sign * z) for w, z in zip(log_weights, scaled, strict=True)),
        )
        for sign in (1, -1)
    )
    return temperature * (yes - no)


def confidence_weights(uncertainty: Tensor, weights: Tensor) -> Tensor:
    """Weights of the teachers for every row: `w_n exp(-u_n) / sum_m w_m exp(-u_m)`.

    With cross-entropies on the labels as `uncertainty`, this is a simpler relative of CA-MKD (Zhang et al. 2022),
    whose weight is `(1 - softmax(u)_n) / (N - 1)`: for two teachers the formulas are the same; of more, this one
    trusts the best more. Rows without a label bring their entropies instead; CA-MKD knows no such rows.

    Args:
        uncertainty: (N, B).
        weights: (N,), what is thought of the teachers beforehand.

    Returns:
        (N, B), of sum 1 over the teachers.
    """
    return (weights.log()[:, None] - uncertainty).softmax(0)


def row_uncertainty(
    logits: Mapping[str, Tensor], attention_mask: Tensor, labels: Mapping[str, Tensor], *, multi_label: bool = False
) -> Tensor:
    """Return the uncertainty of one teacher about every row, in nats: (B,).

    The cross-entropy on the row's gold labels where it has some, else the entropy of the prediction; both are means
    over the row's labelled or real items and over the heads. The temperature is 1.

    Args:
        logits: By the name of the head.
        attention_mask: (B, T).
        labels: Label columns; negative labels, and span positions outside the row, count as missing.
        multi_label: Whether every class is a yes-or-no question.
    """
    crosses, shown, entropies = zip(
        *(_head_uncertainty(name, z, attention_mask, labels, multi_label) for name, z in logits.items()), strict=True
    )
    cross, entropy = torch.stack(crosses).mean(0), torch.stack(entropies).mean(0)
    return torch.where(torch.stack(shown).all(0), cross, entropy)


def _head_uncertainty(
    name: str, logits: Tensor, attention_mask: Tensor, labels: Mapping[str, Tensor], multi_label: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of every row: cross-entropy, whether it has a label, entropy; each (B,)."""
    log_probabilities, real = _items(name, logits.float(), attention_mask, multi_label)
    entropies = -(log_probabilities.exp() * log_probabilities).nan_to_num(0.0).sum(-1)
    entropy = _mean_where(entropies, real)
    gold = labels.get(SPAN_LABELS.get(name, "labels"))
    if gold is None:
        return torch.zeros_like(entropy), torch.zeros_like(entropy, dtype=torch.bool), entropy
    gold = gold.reshape(len(logits), -1)
    if multi_label:
        # What lies between no and yes is a share of both.
        labelled, yes = gold >= 0, gold.float().clamp(min=0).nan_to_num(0.0)[..., None]
        picked = (log_probabilities * torch.cat((1 - yes, yes), -1)).sum(-1)
        return _mean_where(-picked, labelled), labelled.any(1), entropy
    gold = gold.long()
    labelled = (gold >= 0) & (gold < log_probabilities.shape[-1])
    if name in SPAN_LABELS:
        # Answers on padding were cut off too.
        labelled &= attention_mask.bool().gather(1, gold.masked_fill(~labelled, 0))
    picked = log_probabilities.gather(-1, gold.masked_fill(~labelled, 0)[..., None]).squeeze(-1)
    return _mean_where(-picked.clamp(min=LOWEST), labelled), labelled.any(1), entropy


def _items(name: str, logits: Tensor, attention_mask: Tensor, multi_label: bool) -> tuple[Tensor, Tensor]:
    """The distributions in every row: log-probabilities (B, I, C) and which of them are real (B, I)."""
    real = attention_mask.bool()
    if name in SPAN_LABELS:
        return _only_real(logits, real).log_softmax(-1)[:, None], real[:, :1] | True
    if multi_label:
        pair = torch.stack((-logits, logits), -1)
        asked = torch.ones_like(logits, dtype=torch.bool) if logits.dim() == 2 else real[..., None].expand_as(logits)
        return torch.nn.functional.logsigmoid(pair).flatten(1, -2), asked.flatten(1)
    if logits.dim() == 2:
        return logits.log_softmax(-1)[:, None], real[:, :1] | True
    return logits.log_softmax(-1), real


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B, I) over the items that `mask` (B, I) marks; 0 where it marks none."""
    return values.masked_fill(~mask, 0.0).sum(1) / mask.sum(1).clamp(min=1)


def _only_real(logits: Tensor, real: Tensor) -> Tensor:
    """(B, T) scores of positions, without those of padding."""
    return logits.float().masked_fill(~real, LOWEST)


def _broadcast(weight: Tensor, like: Tensor) -> Tensor:
    """A weight () or (B,) in as many dimensions as `like` (B, ...)."""
    return weight.reshape(*weight.shape, *[1] * (like.dim() - weight.dim()))


def _is_regression(logits: Mapping[str, Tensor], problem_type: str | None) -> bool:
    return problem_type == "regression" or any(
        z.shape[-1] == 1 for name, z in logits.items() if name not in SPAN_LABELS
    )
