"""Closed-form refits: every matrix of a cut student is fitted so that it computes what the teacher computes there.

A student that was cut out of its teacher computes from fewer dimensions, so that its errors grow from layer to layer.
The matrices of a layer are fitted in the order in which they compute, each by ridge regression from the student's own
input to the teacher's signal: queries, keys and values; the attention's output; both matrices of the feed-forward
block; after each sum its norm; at last the head. Nothing is trained, and no random number is drawn.

The texts pass teacher and student layer by layer: where the states before a layer are known, the layers below it do
not run again. Of the teacher's signals, those of one layer are kept at a time.

Shape legend: B rows, T padded length, N real tokens of a batch, H hidden size, F neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_distill.capture.architectures import describe_architecture
from hf_distill.capture.signals import SignalRequest
from hf_distill.capture.transformer import SignalCapture
from hf_distill.kernels.least_squares import fit_linear

from .blocks import Block, block_of, has_known_blocks, is_bert_like, paths_of
from .slicing import Axis, Cut, row_factors

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class TeacherSignals:
    """Signals of a teacher at the real tokens of a batch, in the dimensions that its student keeps.

    Attributes:
        projections: What leads into the heads: queries, keys and values side by side, (N, 3 * inside).
        middle: States after the attention's sum (and norm, where the layer is post-norm), (N, H); `None` where the
            architecture does not show them.
        neurons: The maps to the neurons, before their activation, (N, F or 2 F); `None` likewise.
        output: States after the layer, (N, H).
    """

    projections: Tensor
    middle: Tensor | None
    neurons: Tensor | None
    output: Tensor


def can_be_refitted(teacher: PreTrainedModel, student: PreTrainedModel) -> bool:
    """Whether a student's layers can be fitted: they are like BERT's, or known and of the teacher's class."""
    is_alike = type(teacher.base_model) is type(student.base_model)
    return is_bert_like(student) or (is_alike and has_known_blocks(student))


@torch.no_grad()
def refit(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    cut: Cut,
    batches: Sequence[Batch],
    axes: Mapping[str, tuple[Axis, ...]],
    known: KnownStates | None = None,
) -> None:
    """Fit every matrix of the student to the teacher's signals; in place.

    On the given texts, no fit makes the error of its signal larger than it was.

    Args:
        teacher: The teacher, in evaluation mode.
        student: A student that was cut out of it and `can_be_refitted`, in evaluation mode.
        cut: What it keeps.
        batches: Tokenized texts, with `attention_mask`.
        axes: The axes of the weights of the teacher's base model.
        known: States of the teacher on them; without, the layers below each kept one run again.
    """
    is_alike = type(teacher.base_model) is type(student.base_model) and has_known_blocks(teacher)
    depth = len(cut.layers)
    own = KnownStates(student, range(2, depth + 1))
    _refit_projection(teacher, student, cut, batches, own)
    for number, layer in enumerate(cut.layers, start=1):
        if is_alike:
            goals = list(signals_of_class(teacher, cut, layer, batches, axes, known))
        else:
            goals = list(signals_of(teacher, cut, layer, batches, known))
        states = _refit_layer(LayerRuns(student, number, batches, own), block_of(student, number), goals)
        own.keep(number, states)
    refit_head(teacher, student, cut, batches)


def _refit_projection(
    teacher: PreTrainedModel, student: PreTrainedModel, cut: Cut, batches: Sequence[Batch], own: KnownStates
) -> None:
    """Fit the matrix that leads from narrow embeddings to the first layer, where the student has one."""
    project = getattr(student.base_model, "embeddings_project", None)
    if project is None:
        return
    capture = SignalCapture(teacher, SignalRequest(hidden_states=frozenset({0})))
    inputs = LayerRuns(student, 1, batches, own).inputs_of(project)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for x, batch in zip(inputs, batches, strict=True):
            mask = batch["attention_mask"].bool()
            yield x, as_state(teacher, capture(**batch).hidden_states[0][mask][:, cut.hidden])

    fit_linear([project], pairs())


class KnownStates:
    """States of a model before some of its layers, so that the layers below need not compute them again.

    Args:
        model: The model.
        layers: The layers (1-based).
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[int]) -> None:
        found = describe_architecture(model)
        # Layers that share one module cannot be left out one by one.
        self._modules = [] if found.spec.shared else found.layer_list()
        self._before = sorted({layer - 1 for layer in layers if layer > 1}) if self._modules else []
        self._states: dict[int, list[Any]] = {below: [] for below in self._before}

    def keep(self, layer: int, states: list[Any]) -> None:
        """Keep what a layer gives for every batch; that of the layer below it is not needed any more."""
        self._states = {layer: states}

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the states of every batch that the model reads meanwhile."""

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


class _LayerDoneError(Exception):
    """Ends a forward pass behind the layer that is looked at."""


class LayerRuns:
    """Runs of one layer of a model on every batch, which show what modules in it read and give.

    Args:
        model: The model.
        layer: The layer (1-based).
        batches: Tokenized texts.
        known: States of the model before the layer, if there are any.
    """

    def __init__(
        self, model: PreTrainedModel, layer: int, batches: Sequence[Batch], known: KnownStates | None = None
    ) -> None:
        self._base: Any = describe_architecture(model).base
        self._layer, self._known = layer, known
        self._inputs = [known_inputs(model, batch) for batch in batches]
        self.module = describe_architecture(model).layer(layer)
        self.masks = [batch["attention_mask"].bool() for batch in batches]

    def inputs_of(self, module: nn.Module) -> list[Tensor]:
        """What a module reads at the real tokens of every batch, each (N, ...)."""
        return [seen[module][0][mask] for seen, mask in zip(self.seen([module]), self.masks, strict=True)]

    def seen(self, modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, tuple[Any, Any]]]:
        """Batch by batch, what modules read and give, each (B, T, ...); of a module that is called again, at first."""
        seen: dict[nn.Module, tuple[Any, Any]] = {}

        def keep(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            seen.setdefault(module, (next(iter((*given, *named.values()))), output))
            if module is self.module:
                raise _LayerDoneError

        for number, inputs in enumerate(self._inputs):
            seen.clear()
            with ExitStack() as stack:
                for module in dict.fromkeys([*modules, self.module]):
                    stack.enter_context(module.register_forward_hook(keep, with_kwargs=True))
                if self._known is not None:
                    stack.enter_context(self._known.before(self._layer, number))
                with suppress(_LayerDoneError):
                    self._base(**inputs)
            yield seen


def signals_of_class(
    teacher: PreTrainedModel,
    cut: Cut,
    layer: int,
    batches: Sequence[Batch],
    axes: Mapping[str, tuple[Axis, ...]],
    known: KnownStates | None = None,
) -> Iterator[TeacherSignals]:
    """Compute the signals in a layer (1-based) of a teacher for a student of its class, batch by batch."""
    runs, block, paths = LayerRuns(teacher, layer, batches, known), block_of(teacher, layer), paths_of(teacher)
    place = f"{describe_architecture(teacher).spec.layers}.{layer - 1}"
    modules = [*block.into_heads, block.attention_norm, *block.into_neurons]
    for seen, mask in zip(runs.seen(modules), runs.masks, strict=True):

        def chosen(linears: Sequence[nn.Linear], names: Sequence[str], seen: Any = seen, mask: Any = mask) -> Tensor:
            """What linear layers give in the dimensions that the student keeps, as large as it should be there."""
            found = []
            for linear, name in zip(linears, names, strict=True):
                weight = f"{place}.{name}.weight"
                rows = cut.places(axes[weight][0], layer, linear.out_features // axes[weight][0].copies)
                found.append(seen[linear][1][mask][:, rows] * row_factors(weight, axes[weight], cut).flatten())
            return torch.cat(found, dim=1)

        reads, gives = seen[block.attention_norm]
        output = seen[runs.module][1]
        yield TeacherSignals(
            projections=chosen(block.into_heads, paths.into_heads),
            middle=(gives if block.is_post_norm else reads)[mask][:, cut.hidden],
            neurons=chosen(block.into_neurons, paths.into_neurons),
            output=(output[0] if isinstance(output, tuple) else output)[mask][:, cut.hidden],
        )


def signals_of(
    teacher: PreTrainedModel,
    cut: Cut,
    layer: int,
    batches: Sequence[Batch],
    known: KnownStates | None = None,
) -> Iterator[TeacherSignals]:
    """Compute the signals in a layer (1-based) of a teacher for a student like BERT, batch by batch."""
    request = SignalRequest(hidden_states=frozenset({layer}), projections=frozenset({layer}))
    capture, shown = SignalCapture(teacher, request), _BlockOutputs(teacher, layer)
    gain, heads, values = cut.gain, cut.heads[layer], cut.key_value_heads[layer]
    with shown:
        for number, batch in enumerate(batches):
            mask = batch["attention_mask"].bool()
            with known.before(layer, number) if known else nullcontext():
                found = capture(**batch)
            inside = found.projections[layer]
            projections = (
                inside.query[mask][:, heads] * gain,
                inside.key[mask][:, values] * gain,
                inside.value[mask][:, values],
            )
            yield TeacherSignals(
                projections=torch.cat(projections, dim=1),
                middle=shown.middle(mask, cut.hidden),
                neurons=shown.neurons(mask, cut.feed_forward[layer]),
                output=as_state(teacher, found.hidden_states[layer][mask][:, cut.hidden]),
            )


class _BlockOutputs(ExitStack):
    """Keeps what a teacher's layer computes inside and the capture does not record, until it is left."""

    def __init__(self, teacher: PreTrainedModel, layer: int) -> None:
        super().__init__()
        self._teacher = teacher
        self._kept: dict[str, Tensor] = {}
        if not has_known_blocks(teacher):
            return
        block = block_of(teacher, layer)
        reads = not block.is_post_norm
        self.enter_context(block.attention_norm.register_forward_hook(self._keep("middle", reads_input=reads)))
        self.enter_context(block.into_neurons[0].register_forward_hook(self._keep("neurons", reads_input=False)))

    def _keep(self, name: str, *, reads_input: bool) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._kept[name] = inputs[0] if reads_input else output

        return hook

    def middle(self, mask: Tensor, hidden: Tensor) -> Tensor | None:
        """The states after the attention, in the kept dimensions."""
        return as_state(self._teacher, self._kept["middle"][mask][:, hidden]) if self._kept else None

    def neurons(self, mask: Tensor, chosen: Tensor) -> Tensor | None:
        """The map to the kept neurons; of a gated block, to what goes through the activation."""
        return self._kept["neurons"][mask][:, chosen] if self._kept else None


def as_state(model: PreTrainedModel, rows: Tensor) -> Tensor:
    """A model's states as a layer like BERT's gives them: those of other architectures are standardised."""
    return rows if is_bert_like(model) else _standardised(rows)


def _refit_layer(runs: LayerRuns, block: Block, goals: Sequence[TeacherSignals]) -> list[Any]:
    """Fit the matrices and norms of a student's layer; returns what it gives for every batch then."""
    fit_linear(
        block.into_heads,
        zip(runs.inputs_of(block.into_heads[0]), (goal.projections for goal in goals), strict=True),
    )
    attended, entering = runs.inputs_of(block.attention_output), runs.inputs_of(runs.module)
    norm = block.attention_norm if block.is_post_norm else None
    middle = _refit_sum(block.attention_output, norm, attended, entering, [goal.middle for goal in goals])
    neurons = [goal.neurons for goal in goals if goal.neurons is not None]
    if neurons:
        fit_linear(block.into_neurons, zip(runs.inputs_of(block.into_neurons[0]), neurons, strict=True))
    answers = runs.inputs_of(block.contract)
    _refit_sum(block.contract, block.output_norm, answers, middle, [goal.output for goal in goals])
    return [seen[runs.module][1] for seen in runs.seen([])]


def _refit_sum(
    linear: nn.Linear,
    norm: nn.LayerNorm | None,
    inputs: Sequence[Tensor],
    skipped: Sequence[Tensor],
    goals: Sequence[Tensor | None],
) -> list[Tensor]:
    """Fit a matrix, and the norm after it, so that the sum of matrix output and skipped input becomes the goal.

    Args:
        linear: The matrix.
        norm: The norm of the sum; `None` where the goal is the sum itself.
        inputs: What the matrix reads of every batch, each (N, ...).
        skipped: What is added to its output, each (N, H).
        goals: What should come out, each (N, H); `None` for what is not known.

    Returns:
        What comes out for every batch, each (N, H).
    """

    def result() -> list[Tensor]:
        sums = (linear(x) + skip for x, skip in zip(inputs, skipped, strict=True))
        return [total if norm is None else norm(total) for total in sums]

    known = [goal for goal in goals if goal is not None]
    if not known:
        return result()
    if norm is None:
        fit_linear([linear], ((x, goal - skip) for x, skip, goal in zip(inputs, skipped, known, strict=True)))
        return result()
    before, as_it_was = _kept_weights(linear, norm), _error(result(), known)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for x, skip, goal in zip(inputs, skipped, known, strict=True):
            total = linear(x) + skip
            # A norm forgets mean and size of a row: the goal of a row takes those that its sum has now.
            wanted = _standardised((goal - norm.bias) / norm.weight.where(norm.weight != 0, 1.0))
            yield x, wanted * total.std(1, keepdim=True) + total.mean(1, keepdim=True) - skip

    fit_linear([linear], pairs())
    _fit_norm(norm, [linear(x) + skip for x, skip in zip(inputs, skipped, strict=True)], known)
    if not _error(result(), known) <= as_it_was:
        _restore(before, linear, norm)
    return result()


def _fit_norm(norm: nn.LayerNorm, totals: Sequence[Tensor], goals: Sequence[Tensor]) -> None:
    """Fit scale and shift of every dimension of a norm to sums and goals: one regression a dimension."""
    sums = torch.zeros(5, norm.weight.numel(), dtype=torch.float64)
    for total, goal in zip(totals, goals, strict=True):
        given = nn.functional.layer_norm(total, total.shape[-1:]).double()
        wanted = goal.double()
        ones = torch.ones_like(given)
        sums += torch.stack([t.sum(0) for t in (ones, given, wanted, given * given, given * wanted)])
    count, given, wanted, squares, products = sums
    scale = (products - given * wanted / count) / (squares - given * given / count).clamp(min=1e-12)
    norm.weight.copy_(scale)
    norm.bias.copy_((wanted - scale * given) / count)


def _error(found: Sequence[Tensor], goals: Sequence[Tensor]) -> float:
    """Squared distance of what comes out from the goals, over all real tokens."""
    return sum(float((one - goal).double().square().sum()) for one, goal in zip(found, goals, strict=True))


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
