"""Self-attention relations: MiniLM and MiniLMv2.

Shape legend: B batch, T padded length, R relation heads, d width of one relation head, D = R * d.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..capture.signals import Projections, SignalRequest, Signals
from ..storage.plain_values import as_hint, shown
from .base import NO_TEACHER, Objective, register_objective, required, resolve_layer
from .layer_map import LayerMap, resolve_layer_map

# Scores of one slice, in bytes: small enough to stay in a core's cache, large enough to keep a GPU busy.
SLICE_BYTES = {"cpu": 2 * 2**20, "default": 256 * 2**20}
# Triton comes with PyTorch's CUDA builds.
TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
SIDES = {"q": "query", "k": "key", "v": "value"}
# MiniLMv2 uses 64 relation heads for large teachers (width 1024) and 48 for base ones.
LARGE_WIDTH, LARGE_HEADS, BASE_HEADS = 1024, 64, 48


def legal_relation_heads(*widths: int) -> list[int]:
    """Head counts that divide every width, largest first."""
    common = math.gcd(*widths)
    return [heads for heads in range(common, 0, -1) if common % heads == 0]


def choose_relation_heads(requested: int | str, teacher_width: int, widths: Sequence[int]) -> int:
    """Resolve `relation_heads`.

    Args:
        requested: A number, or `auto`: the largest legal number up to the paper's (64 for teachers at least 1024 wide,
            else 48).
        teacher_width: Width of the teacher's queries.
        widths: Widths of every projection on both sides.

    Raises:
        ValueError: If the number does not divide every width; the message lists the legal ones.
    """
    legal = legal_relation_heads(*widths)
    if requested == "auto":
        wanted = LARGE_HEADS if teacher_width >= LARGE_WIDTH else BASE_HEADS
        return max(heads for heads in legal if heads <= wanted)
    if not str(requested).isdigit() or int(requested) not in legal:
        raise ValueError(
            f"`relation_heads` is {requested}, which does not divide the projection widths {sorted(set(widths))}; "
            f"allowed are {legal} or 'auto'."
        )
    return int(requested)


def default_teacher_layer(num_layers: int, model_type: str = "") -> int:
    """The teacher layer of MiniLMv2: the last one, but an upper middle one of 24-layer teachers.

    Layer 19 of RoBERTa-like and 21 of BERT-like large models (MiniLMv2; see also section B.3 of its reproductions).
    """
    if num_layers != 24:
        return num_layers
    return 19 if "roberta" in model_type or model_type in {"camembert", "ernie"} else 21


# One operator, so that `torch.compile` takes it whole: it would unroll the slices anew for every length of a batch.
@torch.library.custom_op("hf_distill::relation_kl", mutates_args=())
def _relation_kl(
    student_left: Tensor,
    student_right: Tensor,
    teacher_left: Tensor,
    teacher_right: Tensor,
    mask: Tensor,
    heads: int,
    same: bool,
    needs_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean over rows of the KL divergence between two relations, and its gradient, slice by slice.

    Everything is in fp32. A slice holds the T x T scores of a few rows or heads; the gradient is formed while the
    slice is at hand, so that the backward pass only scales it: no T x T tensor outlives its slice. It stays in fp32
    until it is scaled, because in fp16 much of it would be 0 before the factor of a loss scaler reached it.

    Args:
        student_left: (B, T, D) like the next three, each side with its own D.
        student_right: See there.
        teacher_left: See there.
        teacher_right: See there.
        mask: (B, T) bool.
        heads: R.
        same: Whether rows and columns of the student's relation are one tensor.
        needs_grad: Whether gradients are wanted.

    Returns:
        The scalar and its gradients by `student_left` and `student_right`, in fp32; empty where they are not wanted,
        or, with `same`, part of the other.
    """
    with torch.autocast(student_left.device.type, enabled=False):
        left, right = _split(student_left, heads), _split(student_right, heads)
        t_left, t_right = _split(teacher_left, heads), _split(teacher_right, heads)
        grad_left = torch.empty_like(left) if needs_grad else None
        grad_right = torch.empty_like(right) if needs_grad and not same else None
        batch, _, length, width = left.shape
        scale, t_scale = width**-0.5, t_left.shape[-1] ** -0.5
        # (B, T): 0 on padded queries, 1 / (R * n_b * B) on real ones.
        row_weight = mask / (heads * batch * mask.sum(1, keepdim=True).clamp(min=1))
        total = left.new_zeros(())
        for rows, chunk in _slices(batch, heads, length, left.device.type):
            padded_keys = ~mask[rows, None, None, :]
            t_log = _log_relation(t_left[rows, chunk], t_right[rows, chunk], t_scale, padded_keys)
            s_log = _log_relation(left[rows, chunk], right[rows, chunk], scale, padded_keys)
            target = t_log.exp()
            weight = row_weight[rows, None, :]
            # A padded key has probability 0 on both sides; its logarithms may be infinite, so it is blanked out.
            divergence = t_log.sub_(s_log).mul_(target).masked_fill_(padded_keys, 0.0).sum(-1)
            total += (divergence * weight).sum()
            if grad_left is not None:
                grad_scores = s_log.exp_().sub_(target).mul_(weight[..., None]).mul_(scale)
                if grad_right is None:
                    grad_scores = grad_scores + grad_scores.transpose(-1, -2)
                    grad_left[rows, chunk] = grad_scores @ right[rows, chunk]
                else:
                    grad_left[rows, chunk] = grad_scores @ right[rows, chunk]
                    grad_right[rows, chunk] = grad_scores.transpose(-1, -2) @ left[rows, chunk]
    return total, _merge(grad_left, student_left), _merge(grad_right, student_right)


@_relation_kl.register_fake
def _shapes_of_relation_kl(
    student_left: Tensor,
    student_right: Tensor,
    teacher_left: Tensor,
    teacher_right: Tensor,
    mask: Tensor,
    heads: int,
    same: bool,
    needs_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Tell the compiler the shapes of the results of `_relation_kl`."""
    gradients = [
        side.new_empty(side.shape if wanted else 0, dtype=torch.float32)
        for side, wanted in ((student_left, needs_grad), (student_right, needs_grad and not same))
    ]
    return student_left.new_empty((), dtype=torch.float32), gradients[0], gradients[1]


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[1:])
    ctx.dtypes = inputs[0].dtype, inputs[1].dtype
    ctx.same = inputs[6]


def _scale_gradients(ctx: Any, grad_total: Tensor, *grads_of_gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    """Scale the gradients that the forward pass made; they have none of their own."""
    if any(grad is not None for grad in grads_of_gradients):
        raise RuntimeError("A relation loss has no second derivative.")
    left, right = ctx.saved_tensors
    first = (left * grad_total).to(ctx.dtypes[0])
    return (first, None if ctx.same else (right * grad_total).to(ctx.dtypes[1]), *[None] * 6)


_relation_kl.register_autograd(_scale_gradients, setup_context=_keep_gradients)


def _split(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, R, T, d) in fp32, contiguous so that no slice is copied again by its product."""
    return x.detach().float().unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()


def _merge(grad: Tensor | None, like: Tensor) -> Tensor:
    """(B, R, T, d) -> (B, T, D), contiguous in fp32; empty for `None`."""
    if grad is None:
        return like.new_empty(0, dtype=torch.float32)
    return grad.transpose(1, 2).flatten(2).contiguous()


def _log_relation(left: Tensor, right: Tensor, scale: float, padded_keys: Tensor) -> Tensor:
    """Log-softmax over the keys of `left @ right^T * scale`: (b, r, T, T)."""
    scores = (left @ right.transpose(-1, -2)).mul_(scale)
    return scores.masked_fill_(padded_keys, torch.finfo(scores.dtype).min).log_softmax(-1)


def _slices(batch: int, heads: int, length: int, device_type: str) -> list[tuple[slice, slice]]:
    """Cut (B, R) into pieces whose T x T scores fit the slice size: whole rows if they do, else heads of one row."""
    limit = SLICE_BYTES.get(device_type, SLICE_BYTES["default"])
    per_head = 4 * length * length
    rows = max(1, min(batch, limit // (heads * per_head)))
    chunk = heads if rows > 1 else max(1, min(heads, limit // per_head))
    return [
        (slice(r, min(r + rows, batch)), slice(h, min(h + chunk, heads)))
        for r in range(0, batch, rows)
        for h in range(0, heads, chunk)
    ]


def relation_loss(
    student_left: Tensor,
    student_right: Tensor,
    teacher_left: Tensor,
    teacher_right: Tensor,
    attention_mask: Tensor,
    relation_heads: int,
) -> Tensor:
    """KL divergence between the teacher's and the student's relation of two projections (MiniLMv2, equations 3 to 5).

    `mean_b 1/(R n_b) sum_r sum_{t real} KL(softmax(L_t R_t^T / sqrt(d_t)) || softmax(L_s R_s^T / sqrt(d_s)))`,
    padded keys masked before the softmax, padded queries left out; computed in fp32 under any autocast. On CUDA
    devices a fused kernel does this without any T x T tensor (`hf_distill.kernels.fused_relation`); it takes heads up
    to 128 wide in fp32, fp16 and bf16, and needs Triton and compute capability 8.0. Elsewhere the scores are computed
    in slices that fit the cache.

    Args:
        student_left: (B, T, D_s), the rows of the relation.
        student_right: (B, T, D_s), its columns; the same tensor as `student_left` for Q-Q, K-K and V-V.
        teacher_left: (B, T, D_t).
        teacher_right: (B, T, D_t).
        attention_mask: (B, T), 1 on real tokens.
        relation_heads: R, which must divide both widths.

    Returns:
        A scalar; its gradient reaches the student's tensors only.
    """
    sides = student_left, student_right, teacher_left, teacher_right
    mask, same = attention_mask.bool(), student_left is student_right
    if TRITON_INSTALLED and mask.is_cuda:
        from ..kernels.fused_relation import fused_relation_kl, takes

        if takes(*sides, relation_heads):
            return fused_relation_kl(*sides, mask, relation_heads, symmetric=same and teacher_left is teacher_right)
    needs_grad = torch.is_grad_enabled() and (student_left.requires_grad or student_right.requires_grad)
    return _relation_kl(*sides, mask, relation_heads, same=same, needs_grad=needs_grad)[0]


@register_objective("relation")
class RelationObjective(Objective):
    """Self-attention relations of one layer, any number of relation heads (MiniLMv2)."""

    citation = "minilmv2"
    formula = (
        "sum over relations xy of mean over rows, relation heads and queries of KL(R_T || R_S), "
        "R = softmax(X Y^T / sqrt(d))"
    )

    def __init__(
        self,
        relations: Sequence[str] = ("qq", "kk", "vv"),
        relation_heads: int | str = "auto",
        student_layer: int = -1,
        teacher_layer: int | str = "auto",
        layer_map: str | None = None,
        teacher_model_type: str = "",
    ) -> None:
        """Create the objective.

        Args:
            relations: Pairs of projections such as `qq` or `qk`, each optionally with a weight: `"qq:0.5"`.
            relation_heads: Number of heads both sides are split into, or `auto`.
            student_layer: Layer of the student, 1-based or negative from the end.
            teacher_layer: Layer of the teacher, or `auto` (see `default_teacher_layer`).
            layer_map: Several pairs of layers instead of one (see `hf_distill.objectives.layer_map`); the terms are
            summed.
            teacher_model_type: `config.model_type` of the teacher, for `auto`.
        """
        super().__init__()
        self.relations = _parse_relations(relations)
        self.relation_heads = relation_heads
        self.student_layer, self.teacher_layer, self.layer_map = student_layer, teacher_layer, layer_map
        self.teacher_model_type = teacher_model_type
        self.pairs: LayerMap = ()
        self.num_heads = 0

    def bind(self, num_student_layers: int, num_teacher_layers: int | None) -> None:
        """Resolve the pairs of layers."""
        if num_teacher_layers is None:
            raise ValueError("A relation objective compares with a teacher: give `--teacher_model`.")
        if self.layer_map is not None:
            self.pairs = resolve_layer_map(self.layer_map, num_student_layers, num_teacher_layers)
            if any(0 in pair for pair in self.pairs):
                raise ValueError("`layer_map`: the embeddings (layer 0) have no queries, keys and values to relate.")
            return
        student = resolve_layer(self.student_layer, num_student_layers, flag="student_layer")
        if self.teacher_layer == "auto":
            teacher = self._auto_teacher_layer(num_teacher_layers)
        else:
            teacher = resolve_layer(_as_layer(self.teacher_layer), num_teacher_layers, flag="teacher_layer")
        self.pairs = ((student, teacher),)

    def _auto_teacher_layer(self, num_teacher_layers: int) -> int:
        """The layer that the paper of this objective learns from."""
        return default_teacher_layer(num_teacher_layers, self.teacher_model_type)

    @property
    def student_request(self) -> SignalRequest:
        """Q, K, V of the student's layers."""
        return SignalRequest(projections=frozenset(student for student, _ in self.pairs))

    @property
    def teacher_request(self) -> SignalRequest:
        """Q, K, V of the teacher's layers."""
        return SignalRequest(projections=frozenset(teacher for _, teacher in self.pairs))

    def check(self, student: Signals, teacher: Signals | None) -> None:
        """Fix the number of relation heads from the widths of both sides."""
        sides = [student.projections[s] for s, _ in self.pairs]
        teacher_sides = [required(teacher).projections[t] for _, t in self.pairs]
        widths = [
            getattr(p, SIDES[c]).shape[-1] for p in (*sides, *teacher_sides) for pair in self.relations for c in pair
        ]
        self._check_equal_widths((*sides, *teacher_sides))
        self.num_heads = self._resolve_heads(sides[0], teacher_sides[0], widths)

    def _resolve_heads(self, student: Projections, teacher: Projections, widths: Sequence[int]) -> int:
        return choose_relation_heads(self.relation_heads, teacher.query.shape[-1], widths)

    def _check_equal_widths(self, sides: Sequence[Projections]) -> None:
        """A relation of two different projections needs them equally wide (grouped-query models are not)."""
        for projections in sides:
            for pair in self.relations:
                left, right = (getattr(projections, SIDES[c]).shape[-1] for c in pair)
                if left != right:
                    raise ValueError(
                        f"`relations` has {pair!r}, but this model's {SIDES[pair[0]]} is {left} wide and its "
                        f"{SIDES[pair[1]]} {right} (grouped-query attention); allowed are qq, kk, vv and kv."
                    )

    def forward(
        self, student: Signals, teacher: Signals | None, labels: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """One term per relation, summed over the pairs of layers."""
        if teacher is None:
            raise ValueError(NO_TEACHER)
        terms: dict[str, Tensor] = {}
        for relation, weight in self.relations.items():
            left, right = (SIDES[c] for c in relation)
            loss: Any = sum(
                relation_loss(
                    getattr(student.projections[s], left),
                    getattr(student.projections[s], right),
                    getattr(teacher.projections[t], left),
                    getattr(teacher.projections[t], right),
                    student.attention_mask,
                    self.num_heads,
                )
                for s, t in self.pairs
            )
            terms[relation] = loss if weight == 1.0 else weight * loss
        return terms

    def describe(self) -> dict[str, Any]:
        """Relations, heads and layers as resolved."""
        return {"relations": self.relations, "relation_heads": self.num_heads, "layers": [list(p) for p in self.pairs]}


@register_objective("minilm")
class MiniLMObjective(RelationObjective):
    """Attention transfer and value relation with the models' own heads (MiniLM, section 3)."""

    citation = "minilm"
    formula = (
        "mean over rows, heads and queries of KL(A_T || A_S) + KL(R_T || R_S), "
        "A = softmax(Q K^T / sqrt(d)), R = softmax(V V^T / sqrt(d))"
    )

    def __init__(
        self,
        student_layer: int = -1,
        teacher_layer: int | str = "auto",
        layer_map: str | None = None,
    ) -> None:
        """As `RelationObjective`; the relations are Q-K and V-V, the heads those of the models.

        The teacher's layer is the last one with `auto`, whatever the teacher (section 3.1): MiniLMv2's choice of an
        upper middle layer is not MiniLM's.
        """
        super().__init__(("qk", "vv"), "auto", student_layer, teacher_layer, layer_map)

    def _auto_teacher_layer(self, num_teacher_layers: int) -> int:
        return num_teacher_layers

    def _resolve_heads(self, student: Projections, teacher: Projections, widths: Sequence[int]) -> int:
        if student.num_heads != teacher.num_heads:
            raise ValueError(
                f"The objective `minilm` needs as many attention heads in the student ({student.num_heads}) as in "
                f"the teacher ({teacher.num_heads}): create the student as 'SHAPE:{teacher.num_heads}h', or use "
                "`relation`."
            )
        return student.num_heads


def _parse_relations(relations: Sequence[str]) -> dict[str, float]:
    parsed: dict[str, float] = {}
    if not isinstance(relations, (list, tuple)):
        raise ValueError(f"`relations` is {shown(relations)}; it must be a list such as qq kk vv.")
    for item in relations:
        if not isinstance(item, str):
            raise ValueError(f"`relations` has {shown(item)}; it must be text such as 'qq' or 'qk:0.5'.")
        pair, _, weight = item.partition(":")
        if len(pair) != 2 or not set(pair) <= set(SIDES):
            raise ValueError(f"`relations` has {item!r}; allowed are pairs of q, k and v such as 'qq' or 'qk:0.5'.")
        if pair in parsed:
            raise ValueError(f"`relations` has {pair!r} twice; give each pair once.")
        try:
            parsed[pair] = float(weight or 1.0)
        except ValueError:
            parsed[pair] = math.nan
        if not 0 < parsed[pair] < math.inf:
            raise ValueError(f"`relations` has {item!r}; the weight after the colon must be a number above 0.")
    if not parsed:
        raise ValueError("`relations` is empty; the usual choice is qq kk vv.")
    return parsed


def _as_layer(layer: int | str) -> int:
    try:
        return int(as_hint(layer, int, "`teacher_layer`"))
    except ValueError:
        raise ValueError(f"`teacher_layer` is {layer!r}; allowed are 'auto' and layer numbers.") from None
