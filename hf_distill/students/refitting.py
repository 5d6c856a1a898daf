"""Closed-form refits: every matrix of a cut student is fitted to what the teacher computes at its place.

A student that was cut out of its teacher computes from fewer dimensions, so that its errors grow from layer to layer.
The matrices of a block are fitted in the order in which they work, each by ridge regression from the student's own
input to the teacher's signal: queries, keys and values; the attention's output; both matrices of the feed-forward
block; after each sum its norm; at last the head. Nothing is trained and nothing is drawn at random.

The texts pass teacher and student once, layer by layer: where the states before a teacher's layer are known, the
layers below it do not run again. Of the teacher's signals, those of one layer are kept at a time.

Shape legend: B rows, T padded length, N real tokens of a batch, H hidden size, F neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_distill.capture.architectures import describe_architecture
from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import SignalCapture
from hf_distill.kernels.least_squares import fit_linear

from .blocks import Block, activation_of, attend, block_of, embed, is_bert_like
from .slicing import Cut

# Blocks that normalise first: the norm that reads the sum after the attention, and the map to the neurons.
_BEFORE_FEED_FORWARD = {
    "modernbert": ("mlp_norm", "mlp.Wi"),
    "eurobert": ("post_attention_layernorm", "mlp.gate_proj"),
    "llama": ("post_attention_layernorm", "mlp.gate_proj"),
    "qwen2": ("post_attention_layernorm", "mlp.gate_proj"),
}
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class TeacherSignals:
    """Signals of a teacher at the real tokens of a batch, in the dimensions that its student keeps.

    Attributes:
        projections: Queries, keys and values side by side, (N, 3 * inside).
        middle: States after the attention, (N, H); `None` where the architecture does not show them.
        neurons: The map to the neurons, before their activation, (N, F); `None` likewise.
        output: States after the block, (N, H).
    """

    projections: Tensor
    middle: Tensor | None
    neurons: Tensor | None
    output: Tensor


@torch.no_grad()
def refit(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    cut: Cut,
    batches: Sequence[Batch],
    known: KnownStates | None = None,
) -> None:
    """Fit every matrix of the student to the teacher's signals; in place.

    On the given texts, no fit leaves the signal that it is for further from the teacher's than it was.

    Args:
        teacher: The teacher, in evaluation mode.
        student: A BERT-like student that was cut out of it, in evaluation mode.
        cut: What it keeps.
        batches: Tokenized texts, with `attention_mask`.
        known: States of the teacher on them; without, the layers below each kept one run again.
    """
    masks = [batch["attention_mask"].bool() for batch in batches]
    _refit_projection(teacher, student, cut, batches)
    states = [embed(student, batch) for batch in batches]
    for number, layer in enumerate(cut.layers, start=1):
        goals = list(signals_of(teacher, cut, layer, batches, known))
        states = _refit_block(student, block_of(student, number), states, masks, goals)
    refit_head(teacher, student, cut, batches)


def _refit_projection(teacher: PreTrainedModel, student: PreTrainedModel, cut: Cut, batches: Sequence[Batch]) -> None:
    """Fit the matrix that leads from narrow embeddings to the first block, where the student has one."""
    project = getattr(student.base_model, "embeddings_project", None)
    if project is None:
        return
    capture = SignalCapture(teacher, SignalRequest(hidden_states=frozenset({0})))

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            mask = batch["attention_mask"].bool()
            goal = capture(**batch).hidden_states[0][mask][:, cut.hidden]
            yield embed(student, batch, projected=False)[mask], as_state(teacher, goal)

    fit_linear([project], pairs())


class KnownStates:
    """States of a teacher before some of its layers, kept while it read the texts once.

    Args:
        teacher: The teacher.
        layers: The layers (1-based).
    """

    def __init__(self, teacher: PreTrainedModel, layers: Sequence[int]) -> None:
        found = describe_architecture(teacher)
        # Layers that share one module cannot be left out one by one.
        self._modules = [] if found.spec.shared else found.layer_list()
        self._before = sorted({layer - 1 for layer in layers if layer > 1}) if self._modules else []
        self._states: dict[int, list[Any]] = {below: [] for below in self._before}

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the states of every batch that the teacher reads meanwhile."""

        def keeper(below: int) -> Callable[..., None]:
            return lambda module, inputs, output: self._states[below].append(output)

        with ExitStack() as hooks:
            for below in self._before:
                hooks.enter_context(self._modules[below - 1].register_forward_hook(keeper(below)))
            yield

    @contextmanager
    def before(self, layer: int, batch: int) -> Iterator[None]:
        """Let the layers below one of the chosen ones give the states of a batch without computing."""
        known = self._states.get(layer - 1, [])
        below = [module.__dict__ for module in self._modules[: layer - 1]] if known else []
        # Wrappers of a module, such as those of accelerate, give it a forward of its own already.
        wrapped = [own.get("forward") for own in below]
        for own in below:
            own["forward"] = lambda *_, **__: known[batch]
        try:
            yield
        finally:
            for own, forward in zip(below, wrapped, strict=True):
                if forward is None:
                    del own["forward"]
                else:
                    own["forward"] = forward


def signals_of(
    teacher: PreTrainedModel,
    cut: Cut,
    layer: int,
    batches: Sequence[Batch],
    known: KnownStates | None = None,
) -> Iterator[TeacherSignals]:
    """Compute the teacher's signals in one of its layers (1-based), batch by batch."""
    request = SignalRequest(hidden_states=frozenset({layer}), projections=frozenset({layer}))
    capture, shown = SignalCapture(teacher, request), _ModuleOutputs(teacher, layer)
    query_gain = cut.gain
    with shown:
        for number, batch in enumerate(batches):
            mask = batch["attention_mask"].bool()
            with known.before(layer, number) if known else nullcontext():
                found = capture(**batch)
            heads, values = cut.heads[layer], cut.key_value_heads[layer]
            inside = found.projections[layer]
            yield TeacherSignals(
                projections=torch.cat(
                    [
                        inside.query[mask][:, heads] * query_gain,
                        inside.key[mask][:, values] * query_gain,
                        inside.value[mask][:, values],
                    ],
                    dim=1,
                ),
                middle=shown.state("middle", mask, cut.hidden),
                neurons=shown.neurons(mask, cut.feed_forward[layer]),
                output=as_state(teacher, found.hidden_states[layer][mask][:, cut.hidden]),
            )


class _ModuleOutputs(ExitStack):
    """Keeps the outputs of modules inside a teacher's block, which the capture does not record, until it is left."""

    def __init__(self, teacher: PreTrainedModel, layer: int) -> None:
        super().__init__()
        found = describe_architecture(teacher)
        self._teacher = teacher
        self.normalises_last = is_bert_like(teacher)
        self._kept: dict[str, Tensor] = {}
        modules: dict[str, nn.Module] = {}
        if self.normalises_last:
            block = block_of(teacher, layer)
            modules = {"middle": block.attention_norm, "neurons": block.expand}
        elif found.model_type in _BEFORE_FEED_FORWARD:
            norm, expand = _BEFORE_FEED_FORWARD[found.model_type]
            module = found.layer(layer)
            modules = {"middle": module.get_submodule(norm), "neurons": module.get_submodule(expand)}
        for name, module in modules.items():
            reads_input = name == "middle" and not self.normalises_last
            self.enter_context(module.register_forward_hook(self._keep(name, reads_input)))

    def _keep(self, name: str, reads_input: bool) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._kept[name] = inputs[0] if reads_input else output

        return hook

    def state(self, name: str, mask: Tensor, hidden: Tensor) -> Tensor | None:
        """The recorded states of a module, in the kept dimensions."""
        return as_state(self._teacher, self._kept[name][mask][:, hidden]) if name in self._kept else None

    def neurons(self, mask: Tensor, chosen: Tensor) -> Tensor | None:
        """The map to the kept neurons; of a gated block, to what goes through the activation."""
        return self._kept["neurons"][mask][:, chosen] if "neurons" in self._kept else None


def as_state(model: PreTrainedModel, rows: Tensor) -> Tensor:
    """A model's states as a block gives them that normalises last: those of other architectures are standardised."""
    return rows if is_bert_like(model) else _standardised(rows)


def _refit_block(
    student: PreTrainedModel,
    block: Block,
    states: list[Tensor],
    masks: Sequence[Tensor],
    goals: Sequence[TeacherSignals],
) -> list[Tensor]:
    """Fit one block; returns its states."""
    count = range(len(states))
    fit_linear([block.query, block.key, block.value], ((states[i][masks[i]], goals[i].projections) for i in count))

    def gather(i: int) -> tuple[Tensor, Tensor]:
        return attend(student, block, states[i], masks[i]), states[i]

    middle = _refit_sum(block.attention_output, block.attention_norm, gather, masks, [g.middle for g in goals])
    neurons = [goal.neurons for goal in goals if goal.neurons is not None]
    fit_linear([block.expand], ((middle[i][masks[i]], goal) for i, goal in enumerate(neurons)))
    activation = activation_of(student)

    def answer(i: int) -> tuple[Tensor, Tensor]:
        return activation(block.expand(middle[i])), middle[i]

    return _refit_sum(block.contract, block.output_norm, answer, masks, [g.output for g in goals])


def _refit_sum(
    linear: nn.Linear,
    norm: nn.LayerNorm,
    inputs: Callable[[int], tuple[Tensor, Tensor]],
    masks: Sequence[Tensor],
    goals: Sequence[Tensor | None],
) -> list[Tensor]:
    """Fit a matrix and the norm after it, so that the norm of matrix output plus skipped input is the goal.

    Args:
        linear: The matrix.
        norm: The norm.
        inputs: Number of a batch -> input of the matrix and what is added to its output, each (B, T, ...).
        masks: True on the real tokens of every batch.
        goals: What the norm should give on them; `None` for what is not known.

    Returns:
        What the norm gives for every batch, (B, T, H).
    """
    count = range(len(masks))
    known = [goal for goal in goals if goal is not None]
    if not known:
        return [norm(linear(x) + skipped) for x, skipped in map(inputs, count)]
    before = _kept_weights(linear, norm)
    as_it_was = _error(linear, norm, inputs, masks, known)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for i in count:
            x, skipped = (values[masks[i]] for values in inputs(i))
            total = linear(x) + skipped
            # A norm forgets mean and size of a row: the goal of a row takes those that its sum has now.
            wanted = _standardised((known[i] - norm.bias) / norm.weight.where(norm.weight != 0, 1.0))
            yield x, wanted * total.std(1, keepdim=True) + total.mean(1, keepdim=True) - skipped

    fit_linear([linear], pairs())
    _fit_norm(linear, norm, inputs, masks, known)
    if not _error(linear, norm, inputs, masks, known) <= as_it_was:
        _restore(before, linear, norm)
    return [norm(linear(x) + skipped) for x, skipped in map(inputs, count)]


def _fit_norm(
    linear: nn.Linear,
    norm: nn.LayerNorm,
    inputs: Callable[[int], tuple[Tensor, Tensor]],
    masks: Sequence[Tensor],
    goals: Sequence[Tensor],
) -> None:
    """Fit scale and shift of every dimension of a norm: one regression a dimension."""
    sums = torch.zeros(5, norm.weight.numel(), dtype=torch.float64)
    for i, goal in enumerate(goals):
        x, skipped = (values[masks[i]] for values in inputs(i))
        given = nn.functional.layer_norm(linear(x) + skipped, norm.normalized_shape, eps=norm.eps).double()
        wanted = goal.double()
        ones = torch.ones_like(given)
        sums += torch.stack([t.sum(0) for t in (ones, given, wanted, given * given, given * wanted)])
    count, given, wanted, squares, products = sums
    scale = (products - given * wanted / count) / (squares - given * given / count).clamp(min=1e-12)
    norm.weight.copy_(scale)
    norm.bias.copy_((wanted - scale * given) / count)


def _error(
    linear: nn.Linear,
    norm: nn.LayerNorm,
    inputs: Callable[[int], tuple[Tensor, Tensor]],
    masks: Sequence[Tensor],
    goals: Sequence[Tensor],
) -> float:
    """Squared distance of what the norm gives from the goals, over all real tokens."""
    total = 0.0
    for i, goal in enumerate(goals):
        x, skipped = (values[masks[i]] for values in inputs(i))
        total += float((norm(linear(x) + skipped) - goal).double().square().sum())
    return total


def _kept_weights(*modules: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


def _restore(weights: Sequence[Tensor], *modules: nn.Module) -> None:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    for parameter, kept in zip(parameters, weights, strict=True):
        parameter.copy_(kept)


def _standardised(rows: Tensor) -> Tensor:
    """Rows of mean 0 and variance 1."""
    return (rows - rows.mean(1, keepdim=True)) / rows.std(1, keepdim=True).clamp(min=1e-6)


# ---- Heads ----


@torch.no_grad()
def refit_head(teacher: PreTrainedModel, student: PreTrainedModel, cut: Cut, batches: Sequence[Batch]) -> None:
    """Fit the linear layers of pooler and head in their order, where teacher and student have equally many."""
    theirs, mine = head_linears(teacher), head_linears(student)
    if len(theirs) != len(mine):
        return
    vocabulary = teacher.config.vocab_size
    for big, small in zip(theirs, mine, strict=True):
        if big.out_features == vocabulary:
            continue
        rows = head_rows(teacher, cut, big, small)
        if small.out_features != (big.out_features if rows is None else len(rows)):
            return
        pairs = _inputs_and_goals(teacher, student, big, small, rows, batches)
        fit_linear([small], pairs)


def head_rows(teacher: PreTrainedModel, cut: Cut, big: nn.Linear, small: nn.Linear) -> Tensor | None:
    """The outputs of a teacher's head layer that a student keeps: hidden dimensions, or all (`None`)."""
    is_hidden = big.out_features == describe_architecture(teacher).hidden_size
    return cut.hidden if is_hidden and small.out_features == len(cut.hidden) else None


def head_linears(model: PreTrainedModel) -> list[nn.Linear]:
    """The linear layers of pooler and head in the order of their definition, which is that of their use."""
    base = describe_architecture(model).base
    pooler = getattr(base, "pooler", None) or nn.Module()
    skipped = {id(module) for module in base.modules()} - {id(module) for module in pooler.modules()}
    return [m for m in model.modules() if isinstance(m, nn.Linear) and id(m) not in skipped]


def _inputs_and_goals(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    big: nn.Linear,
    small: nn.Linear,
    rows: Tensor | None,
    batches: Sequence[Batch],
) -> Iterator[tuple[Tensor, Tensor]]:
    kept: dict[str, Tensor] = {}
    with (
        big.register_forward_hook(lambda m, i, o: kept.__setitem__("goal", o)),
        small.register_forward_hook(lambda m, i, o: kept.__setitem__("input", i[0])),
    ):
        for batch in batches:
            mask = batch["attention_mask"].bool()
            teacher(**batch)
            student(**known_inputs(student, batch))
            # Read now: the caller runs the student's layer, and its hook would put another input there.
            x, goal = kept["input"], kept["goal"]
            x, goal = (x[mask], goal[mask]) if x.dim() == 3 else (x, goal)
            yield x, goal if rows is None else goal[:, rows]


def known_inputs(model: PreTrainedModel, batch: Batch) -> Batch:
    """The inputs that a model's embeddings have a table for."""
    has_types = hasattr(getattr(model.base_model, "embeddings", None), "token_type_embeddings")
    return {name: values for name, values in batch.items() if name != "token_type_ids" or has_types}
