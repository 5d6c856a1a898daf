"""Signals of a model from one forward pass, computed by the model's own fast kernels.

Queries, keys and values are recorded where the attention uses them: a function that is registered in transformers'
attention interface gives them to the capture and then calls SDPA, or its replacement for frozen models on the CPU. The
few models outside the interface get hooks. Nothing is computed after the last signal that is needed.

Shape legend: B batch, T padded length, A attention heads, G key/value heads, D head size, H hidden size.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._guards import TracingContext
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.utils import ModelOutput, logging

from hf_distill.capture.architectures import (
    ArchitectureInfo,
    UnsupportedArchitectureError,
    describe_architecture,
    shows_its_signals,
    unwrap,
)
from hf_distill.capture.attention_hooks import AttentionHooks
from hf_distill.capture.batch import FACTS, NOW, facts_of, has_padding, reading
from hf_distill.capture.forward import (
    removing_stale_pre_hooks,
    run_candidates,
    without_checkpointing,
)
from hf_distill.capture.outputs import OutputCapture
from hf_distill.capture.packed_rows import BY_COLUMN, BY_COUNT, PackedRows, rows_of_now
from hf_distill.capture.signals import (
    EarlyStopError,
    Pool,
    Recorder,
    ScoreParts,
    SignalRequest,
    Signals,
    attach,
    attention_mask_of,
    detach,
    have_candidates,
    logits_of,
    needed_pool,
    recorders_of,
)
from hf_distill.kernels.cpu import attention_by_products, products_apply

logger = logging.get_logger(__name__)

ATTENTION_NAME = "hf_distill_sdpa"
"""Name of the attention implementation. transformers asks for a name with `sdpa` in it to tell that a model that only
has eager attention cannot use it."""
# Attribute of a model that was switched to it: the implementation that it came with, and its `output_attentions`.
CAME_WITH = "_hf_distill_attention_before"


def capture_of(model: nn.Module, request: SignalRequest, pool: Pool | None = None) -> SignalCapture | OutputCapture:
    """The capture for a model of either kind.

    Args:
        model: The model.
        request: The signals.
        pool: Makes the vector of a text, where the request asks for it.

    Raises:
        UnsupportedArchitectureError: If the architecture is unknown or cannot give what is asked for.
        ValueError: If a layer does not exist, or logits are asked of a model without a head.
    """
    kind = OutputCapture if shows_its_signals(model) else SignalCapture
    return kind(model, request, pool=pool)


class SignalCapture:
    """Runs a model and returns the signals of a request.

    The capture keeps inactive hooks on the layers it needs for as long as it lives; nothing is added to the model's
    parameters, buffers or configuration file. If queries, keys, values or scores are needed, the model's attention
    implementation becomes `hf_distill_sdpa`, which is transformers' SDPA with the same padding mask and kernels,
    except for frozen models on the CPU (`hf_distill.kernels.cpu`). Its own implementation is restored when its last
    capture is closed or deleted, or by `give_back_attention`; the next pass switches it again. Several captures may
    share a model.

    Early stop: without `logits`, the forward pass ends inside the model with the last signal. Values and gradients are
    those of the full pass. The pass is not shortened in code traced by `torch.compile` (the compiler drops what nobody
    uses) and in models sharded by FSDP or DeepSpeed ZeRO-3, whose hooks must run to the end. An FSDP student needs
    `reshard_after_forward=False`: a backward pass that begins inside a layer does not gather its parameters again.

    Args:
        model: Base model, model with a head, or either with peft adapters or under `torch.compile`.
        request: The signals. Layers are 1 to `num_layers`, and for hidden states also 0 (embeddings).
        early_stop: Whether to stop after the last signal.
        pool: Pooling of a sentence encoder, if `request.pooled` is set.

    Attributes:
        num_layers: Layers of the model.
        hidden_size: H.
        num_heads: A.
        has_head: Whether the model has more than its base, such as a classifier.

    Raises:
        UnsupportedArchitectureError: If the architecture is unknown.
        ValueError: If a layer does not exist, logits are asked of a model without a head, or the model is wrapped in
            `DistributedDataParallel` or `DataParallel`.
    """

    def __init__(
        self, model: nn.Module, request: SignalRequest, *, early_stop: bool = True, pool: Pool | None = None
    ) -> None:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            # Outputs beside those of the wrapper's forward are unknown to it: gradients would not be averaged.
            raise ValueError(
                f"SignalCapture needs the model inside {type(model).__name__} (its `.module`). Call it in the "
                "forward of the module that is wrapped and compute the loss there."
            )
        self.model = model
        self.request = request
        self.early_stop = early_stop
        self.pool = needed_pool(request, pool)
        self.architecture = describe_architecture(model)
        self.num_layers = self.architecture.num_layers
        self.hidden_size = self.architecture.hidden_size
        self.num_heads = self.architecture.num_heads
        self._inner = unwrap(model)
        self.has_head = self._inner is not self.architecture.base
        self._defaults = _default_inputs(self._inner)
        _check_request(request, self.architecture, self._inner)
        self._recorder = Recorder(request)
        self._prefers_products = False
        self._attention_hooks: list[AttentionHooks] = []
        handles = self._install_layer_hooks()
        attached = [self.architecture.base, *self._install_attention()]
        attach(self.architecture.base, self._recorder, None)
        self._finalizer = weakref.finalize(self, _uninstall, self._recorder, handles, attached, self._attention_hooks)
        self._finalizer.atexit = False

    def __call__(self, **inputs: Any) -> Signals:
        """Run `model(**inputs)` and return the signals; rows with candidates, (B, C, T), run as (B * C, T)."""
        if have_candidates(self._inner, inputs):
            return run_candidates(self.run, self._inner, inputs)
        return self.run(**inputs)[0]

    def run(self, **inputs: Any) -> tuple[Signals, ModelOutput | None]:
        """Run `model(**inputs)`.

        Args:
            **inputs: Keyword arguments of the model's forward, with `input_ids` or `inputs_embeds`.

        Returns:
            The signals, and the model's output, or None if the pass ended early.

        Raises:
            RuntimeError: If the model ran and a signal did not appear, or the capture is running already.
        """
        recorder = self._recorder
        if recorder.active:
            raise RuntimeError("This SignalCapture is already running; make a second one for the same model.")
        signals = Signals(attention_mask=attention_mask_of(inputs))
        output = None
        self.use_attention()
        rows = self._rows_to_pack(inputs)
        if rows is not None:
            inputs = rows.inputs(inputs, self.architecture.base.config)
        stop_early = self._stops_early()
        # This pass is not the one that captures around it wait for, if it runs inside the same model.
        paused = [other for other, _ in recorders_of(self.architecture.base) if other.active]
        for other in paused:
            other.active = False
        recorder.start(stop_early=stop_early)
        try:
            with ExitStack() as stack:
                self._prepare(stack, inputs)
                if rows is not None:
                    stack.enter_context(rows_of_now(rows))
                output = self.model(**{**self._defaults, **inputs})
        except EarlyStopError:
            pass
        finally:
            for other in paused:
                other.active = True
            signals.hidden_states = recorder.hidden_states
            signals.projections = recorder.projections
            score_parts, last_states = recorder.score_parts, recorder.last_states
            recorder.clear()
        if rows is not None:
            signals.hidden_states = {layer: rows.unpack(found) for layer, found in signals.hidden_states.items()}
            last_states = None if last_states is None else rows.unpack(last_states)
        signals.attention_scores = {layer: parts.scores() for layer, parts in score_parts.items()}
        if self.request.logits and output is not None:
            signals.logits = logits_of(output, self._inner)
        if self.pool is not None and last_states is not None:
            signals.pooled = self.pool(last_states.to(signals.attention_mask.device), signals.attention_mask)
        self._check_complete(signals)
        return signals, output

    @property
    def packs_rows(self) -> bool:
        """Whether the model computes the same without padding, and nothing of its head is asked for."""
        info = self.architecture
        is_known = info.model_type in BY_COLUMN | BY_COUNT and not getattr(info.base.config, "is_decoder", False)
        return (
            is_known and not self.request.logits and info.base.config._attn_implementation in (ATTENTION_NAME, "sdpa")
        )

    def _rows_to_pack(self, inputs: dict[str, Any]) -> PackedRows | None:
        """The rows of the inputs where they are to be packed; `None` where they stay as they are."""
        if not NOW.packs_rows or torch.compiler.is_compiling() or not self.packs_rows:
            return None
        mask, ids = inputs.get("attention_mask"), inputs.get("input_ids")
        if mask is None or ids is None or not mask.dim() == ids.dim() == 2 or facts_of(mask).has_padding is False:
            return None
        # A pass that is computed again while gradients are would not find its rows.
        again = any(getattr(layer, "gradient_checkpointing", False) and layer.training for layer in self._layers())
        # The head of ModernBERT reads the mask of its batch.
        reads_mask = self.architecture.model_type == "modernbert" and self.has_head and not self._stops_early()
        if again or reads_mask:
            return None
        self.prefer_products()
        return PackedRows(mask)

    def prefer_products(self) -> None:
        """Let a model that runs SDPA choose attention by products (`hf_distill.kernels.cpu`) where faster.

        Captures of queries, keys, values and scores do so anyway; other attention implementations stay.
        """
        self._prefers_products = True
        self.use_attention()

    def use_attention(self) -> None:
        """Switch the model to the attention that the capture needs, where it has another one by now.

        Every pass does so by itself, but for passes that `torch.compile` reads.
        """
        info = self.architecture
        before = info.base.config._attn_implementation
        if torch.compiler.is_compiling() or info.spec.mechanism != "interface" or before == ATTENTION_NAME:
            return
        if self._attention_layers():
            _use_recording_attention(info)
        elif self._prefers_products and before == "sdpa":
            _switch(info.base)

    def close(self) -> None:
        """Take all hooks off the model; the capture cannot be used afterwards."""
        self._finalizer()

    def _stops_early(self) -> bool:
        last = self._recorder.last
        if not self.early_stop or self.request.logits or last is None or torch.compiler.is_compiling():
            return False
        return not any(map(_is_sharded, self._layers()))

    def _prepare(self, stack: ExitStack, inputs: dict[str, Any]) -> None:
        """Enter the contexts that this pass needs; none in the usual case on the CPU."""
        mask = inputs.get("attention_mask")
        if not torch.compiler.is_compiling() and (NOW.mask is not None or hasattr(mask, FACTS)):
            stack.enter_context(reading(mask))
        for hooks in self._attention_hooks:
            hooks.ensure_installed()
            stack.enter_context(hooks.during_forward())
        layers = self._layers_to_run_plainly()
        if layers:
            stack.enter_context(without_checkpointing(layers))
        if inputs.get("adapter_names") is not None or inputs.get("alora_offsets") is not None:
            stack.enter_context(removing_stale_pre_hooks(self._inner))

    def _layers_to_run_plainly(self) -> list[nn.Module]:
        """Layers whose activation checkpointing has to pause for this pass.

        Reentrant checkpointing cuts the graph of everything recorded inside a layer, and torch.compile lets nothing
        out of a checkpointed layer. Otherwise the recomputation needs no care: it records nothing, and it ends where
        the forward pass ended.
        """
        found: list[nn.Module] = []
        if not any(getattr(layer, "gradient_checkpointing", False) for layer in self._layers()):
            return found
        for index in self._attention_layers():
            layer = self.architecture.layer(index)
            if getattr(layer, "gradient_checkpointing", False) and layer.training:
                keywords = getattr(layer._gradient_checkpointing_func, "keywords", {})
                if keywords.get("use_reentrant") or torch.compiler.is_compiling():
                    found.append(layer)
        return found

    def _layers(self) -> Iterator[nn.Module]:
        """The layers' modules as they are now: strategies that shard a model replace them."""
        return self.architecture.base.get_submodule(self.architecture.spec.layers).children()

    def _attention_layers(self) -> list[int]:
        return sorted(self.request.projections | self.request.attention_scores)

    def _install_layer_hooks(self) -> list[RemovableHandle]:
        """Hooks for hidden states, and the counter of a model whose layers share modules."""
        info, recorder = self.architecture, self._recorder
        handles = []
        wanted = self.request.hidden_states
        if info.spec.shared:
            for module in info.layer_list():
                handles.append(module.register_forward_pre_hook(_CountCalls(recorder)))
                handles.append(module.register_forward_hook(_RecordOutput(recorder, None)))
        else:
            for index in sorted(wanted - {0}):
                module = _output_module(info, index)
                handles.append(module.register_forward_hook(_RecordOutput(recorder, index)))
        if 0 in wanted:
            handles.append(info.layer(1).register_forward_pre_hook(_RecordInput(recorder), with_kwargs=True))
        if self.request.pooled:
            handles.append(info.base.register_forward_hook(_RecordBase(recorder)))
        return handles

    def _install_attention(self) -> list[nn.Module]:
        """Make the attention of the wanted layers show itself; returns the modules that know the recorder."""
        info, layers = self.architecture, self._attention_layers()
        if not layers:
            return []
        if info.spec.mechanism != "interface":
            self._attention_hooks = [AttentionHooks(info, layer, self._recorder) for layer in layers]
            for hooks in self._attention_hooks:
                hooks.ensure_installed()
            return []
        self.use_attention()
        attached: list[nn.Module] = []
        for layer in layers:
            module = info.attention(layer)
            if not any(module is known for known in attached):
                attach(module, self._recorder, None if info.spec.shared else layer)
                attached.append(module)
        return attached

    def _check_complete(self, signals: Signals) -> None:
        missing = {
            "hidden_states": self.request.hidden_states - signals.hidden_states.keys(),
            "projections": self.request.projections - signals.projections.keys(),
            "attention_scores": self.request.attention_scores - signals.attention_scores.keys(),
        }
        if any(missing.values()):
            listed = ", ".join(f"{name} of layers {sorted(layers)}" for name, layers in missing.items() if layers)
            raise RuntimeError(
                f"{type(self._inner).__name__} ran, but {listed} were not recorded. Its attention implementation is "
                f"{self._inner.config._attn_implementation!r} and must be {ATTENTION_NAME!r}; the model may also have "
                "been compiled, or its layers replaced, after the SignalCapture was made: make it last."
            )


class _RecordOutput:
    """Forward hook: the output of a layer is a hidden state. A class, so that a model with hooks can be pickled."""

    def __init__(self, recorder: Recorder, layer: int | None) -> None:
        self.recorder = recorder
        self.layer = layer

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self.recorder.active:
            layer = self.recorder.current if self.layer is None else self.layer
            self.recorder.record_hidden_state(layer, output[0] if isinstance(output, tuple) else output)


class _RecordBase:
    """Forward hook of the base model: its first output is the last hidden states, after a final norm."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self.recorder.active:
            self.recorder.record_last_states(output[0])


class _RecordInput:
    """Forward pre-hook of the first layer: its input is hidden state 0."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.recorder.active:
            self.recorder.record_hidden_state(0, args[0] if args else kwargs["hidden_states"])


class _CountCalls:
    """Forward pre-hook of a shared layer module: the next layer begins."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self.recorder.active:
            self.recorder.current += 1


def _uninstall(
    recorder: Recorder, handles: list[RemovableHandle], attached: list[nn.Module], hooks: list[AttentionHooks]
) -> None:
    if TracingContext.try_get() is not None:
        # The garbage collector got here while torch.compile reads the modules; they must not change now. What stays
        # is inactive.
        return
    for handle in handles:
        handle.remove()
    for module in attached:
        detach(module, recorder)
    for hook in hooks:
        hook.remove()
    if attached and not recorders_of(attached[0]):
        give_back_attention(attached[0])


def give_back_attention(model: nn.Module) -> None:
    """Give a model the attention implementation again that it came with before captures switched it.

    Captures that live go on to work: their next pass switches it anew.

    Args:
        model: The model, perhaps with a head, adapters or other wrappers around it.
    """
    found: list[Any] = [module for module in model.modules() if CAME_WITH in vars(module)]
    for module in found:
        before, shows_maps = vars(module).pop(CAME_WITH)
        # Somebody may have chosen another one since.
        if module.config._attn_implementation == ATTENTION_NAME:
            module.set_attn_implementation(before)
        if shows_maps and module.config._attn_implementation == "eager":
            module.config.output_attentions = True


@contextmanager
def attention_given_back(model: nn.Module) -> Iterator[None]:
    """Let a model have the attention that it came with within this context, as while it is saved."""
    switched = [module for module in model.modules() if CAME_WITH in vars(module)]
    give_back_attention(model)
    try:
        yield
    finally:
        for module in switched:
            _switch(module)


def _switch(base: Any) -> None:
    """Switch a base model, which keeps what it had."""
    setattr(base, CAME_WITH, (base.config._attn_implementation, bool(base.config.output_attentions)))
    # transformers saves no configuration that asks for maps and has another attention than the eager one.
    base.config.output_attentions = False
    base.set_attn_implementation(ATTENTION_NAME)


def _use_recording_attention(info: ArchitectureInfo) -> None:
    """Switch the model to the attention function that shows its queries, keys and values."""
    base, before = info.base, info.base.config._attn_implementation
    if not base._supports_sdpa:
        raise UnsupportedArchitectureError(
            f"{type(base).__name__} has no SDPA attention, so queries, keys, values and attention scores cannot be "
            "captured from it. Ask for hidden_states or logits."
        )
    if base.config.output_attentions:
        logger.warning_once(
            f"{type(base).__name__}: `config.output_attentions` is off while signals are captured: SDPA, which shows "
            "queries, keys and values, makes no attention maps."
        )
    _switch(base)
    if before not in ("sdpa", None):
        # Eager attention gives the same numbers; another kernel was somebody's choice.
        report = logger.info if before == "eager" else logger.warning_once
        report(
            f"{type(base).__name__}: the attention implementation changed from {before!r} to {ATTENTION_NAME!r} "
            "(SDPA), so that queries, keys and values can be captured."
        )


def merge_heads(tensor: Tensor) -> Tensor:
    """(B, A, T, D) -> (B, T, A * D); a view where the memory allows it, as it does after a projection."""
    return tensor.transpose(1, 2).flatten(2)


def recording_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """SDPA attention that shows its queries, keys and values to the active recorders of the module.

    The kernel is transformers' choice, or products in slices where these are faster.

    Args:
        module: The attention module that calls.
        query: (B, A, T, D), after rotary embedding.
        key: (B, G, T, D), after rotary embedding.
        value: (B, G, T, D).
        attention_mask: Passed on, as is everything in `kwargs` (scaling, dropout, position bias ...).
        **kwargs: See `attention_mask`.

    Returns:
        What `sdpa_attention_forward` returns.
    """
    rows = NOW.rows
    if rows is not None:
        with rows_of_now(None):
            return rows.attend(recording_attention, module, [query, key, value], **kwargs)
    for recorder, fixed_layer in recorders_of(module):
        if recorder.active:
            layer = recorder.current if fixed_layer is None else fixed_layer
            _record(recorder, layer, query, key, value, kwargs)
    if products_apply(module, query, key, attention_mask, kwargs):
        return attention_by_products(query, key, value, attention_mask, kwargs.get("scaling")), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _record(recorder: Recorder, layer: int, query: Tensor, key: Tensor, value: Tensor, kwargs: dict[str, Any]) -> None:
    if not recorder.wants_attention(layer):
        return
    recorder.record_projections(layer, merge_heads(query), merge_heads(key), merge_heads(value), query.shape[1])
    if layer in recorder.request.attention_scores:
        scaling = kwargs.get("scaling")
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        recorder.record_scores(layer, ScoreParts(query, key, scaling, kwargs.get("position_bias")))
    recorder.attention_done(layer)


def _check_request(request: SignalRequest, info: ArchitectureInfo, inner: nn.Module) -> None:
    for name, first in (("hidden_states", 0), ("projections", 1), ("attention_scores", 1)):
        wrong = sorted(layer for layer in getattr(request, name) if not first <= layer <= info.num_layers)
        if wrong:
            raise ValueError(
                f"SignalRequest.{name}: layers {wrong} do not exist. {type(inner).__name__} has layers {first} to "
                f"{info.num_layers}{' (0 = embeddings)' if first == 0 else ''}; resolve negative numbers first."
            )
    if getattr(info.base.config, "inner_group_num", 1) > 1 and (request.projections or request.attention_scores):
        raise UnsupportedArchitectureError(
            f"{type(inner).__name__} has {info.base.config.inner_group_num} attentions a layer (inner_group_num), "
            "so that its projections and attention_scores are ambiguous. Ask for hidden_states or logits."
        )
    if request.logits and inner is info.base:
        raise ValueError(
            f"SignalRequest.logits: {type(inner).__name__} is a base model without a head, so it has no logits. Load "
            "it with a head, e.g. AutoModelForSequenceClassification or AutoModelForMaskedLM; `hf-distill teach` "
            "trains one. Without a head leave `logits` out of `--objectives`."
        )


def _output_module(info: ArchitectureInfo, index: int) -> nn.Module:
    """The module whose output is the hidden state of a layer: the layer, or DeBERTa-v2's convolution after layer 1."""
    convolution = getattr(getattr(info.base, "encoder", None), "conv", None)
    return convolution if index == 1 and info.model_type == "deberta-v2" and convolution else info.layer(index)


def _default_inputs(inner: nn.Module) -> dict[str, Any]:
    """Arguments that every pass gets where the model takes them: a named output, no cache of keys and values."""
    taken = inspect.signature(inner.forward).parameters
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values())
    # A model of somebody's own may have no argument for it.
    named = {"return_dict": True} if "return_dict" in taken or takes_any else {}
    return named | ({"use_cache": False} if "use_cache" in taken else {})


def _is_sharded(layer: nn.Module) -> bool:
    """Whether FSDP or DeepSpeed ZeRO-3 hold the parameters of the layer."""
    if type(layer).__name__.startswith(("FSDP", "FullySharded")):
        return True
    return hasattr(next(layer.parameters(), None), "ds_id")


def known_mask(*, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """The mask of SDPA as transformers makes it, without asking a device whether a batch has padding.

    Args:
        attention_mask: (B, T); of a batch whose host knows that it has no padding, none is needed.
        kwargs: As for `sdpa_mask`.

    Returns:
        What `sdpa_mask` returns.
    """
    padded = None
    if attention_mask is not None and not torch.compiler.is_compiling() and NOW.mask is not None:
        padded = has_padding(attention_mask)
    if padded:
        # Skipped are masks without padding alone; to find one, the device would have to be asked.
        kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(attention_mask=None if padded is False else attention_mask, **kwargs)


AttentionInterface.register(ATTENTION_NAME, recording_attention)
# Without the mask function of the same name, transformers would leave out the padding mask. Where no facts are known,
# it is that of transformers.
for _name in (ATTENTION_NAME, "sdpa"):
    AttentionMaskInterface.register(_name, known_mask)
