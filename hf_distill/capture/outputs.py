"""Signals of a model that returns them in its output.

A model that is no transformer can be a student or teacher if it has three things: the class attribute
`signals_in_output = True`; `config.num_hidden_layers`, `config.hidden_size` and `config.vocab_size`; and a `forward`
that returns its logits by name and, called with `output_hidden_states=True`, `hidden_states` (the embedding output
first, then one per layer). It has no attention, so objectives on queries, keys, values and attention scores refuse it.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.utils import ModelOutput

from hf_distill.capture.architectures import UnsupportedArchitectureError, unwrap
from hf_distill.capture.forward import run_candidates
from hf_distill.capture.signals import (
    Pool,
    SignalRequest,
    Signals,
    attention_mask_of,
    have_candidates,
    logits_of,
    needed_pool,
)


class OutputCapture:
    """Runs a model that shows its signals in its output, and returns those of a request.

    Args:
        model: A model that is no transformer, as the module describes it.
        request: The signals.
        pool: Makes the vector of a text of the last hidden states.

    Attributes:
        num_layers: Layers of the model.
        has_head: Whether it gives logits.

    Raises:
        UnsupportedArchitectureError: If the request asks for projections or attention scores.
        ValueError: If a layer does not exist.
    """

    has_head = True
    packs_rows = False

    def __init__(self, model: nn.Module, request: SignalRequest, *, pool: Pool | None = None) -> None:
        self.model = model
        self.request = request
        self.pool = needed_pool(request, pool)
        inner = unwrap(model)
        self.num_layers: int = inner.config.num_hidden_layers
        if request.projections or request.attention_scores:
            raise UnsupportedArchitectureError(
                f"{type(inner).__name__} has no attention, so objectives on relations and attention scores cannot "
                "apply to it. Objectives on logits and hidden states can (`hf-distill info objectives`)."
            )
        wrong = sorted(layer for layer in request.hidden_states if not 0 <= layer <= self.num_layers)
        if wrong:
            raise ValueError(
                f"SignalRequest.hidden_states: layers {wrong} do not exist. {type(inner).__name__} has layers 0 "
                f"(embeddings) to {self.num_layers}."
            )

    def prefer_products(self) -> None:
        """Nothing to do: there is no attention whose kernel could be chosen."""

    def use_attention(self) -> None:
        """Nothing to do likewise."""

    def __call__(self, **inputs: Any) -> Signals:
        """As that of `SignalCapture`."""
        if have_candidates(unwrap(self.model), inputs):
            return run_candidates(self.run, unwrap(self.model), inputs)
        return self.run(**inputs)[0]

    def run(self, **inputs: Any) -> tuple[Signals, ModelOutput]:
        """Run `model(**inputs)`; returns the signals and the model's output.

        Raises:
            RuntimeError: If the model ran and did not return what it should.
        """
        wanted = self.request.hidden_states | ({self.num_layers} if self.pool is not None else set())
        output = self.model(**inputs, **({"output_hidden_states": True} if wanted else {}))
        signals = Signals(attention_mask=attention_mask_of(inputs))
        if self.request.logits:
            signals.logits = logits_of(output, unwrap(self.model))
        if wanted:
            states = output.get("hidden_states")
            if states is None or len(states) != self.num_layers + 1:
                given = "none" if states is None else len(states)
                raise RuntimeError(
                    f"{type(unwrap(self.model)).__name__} must return {self.num_layers + 1} `hidden_states` (the "
                    f"embeddings and one per layer), but returned {given}."
                )
            signals.hidden_states = {layer: states[layer] for layer in self.request.hidden_states}
            if self.pool is not None:
                signals.pooled = self.pool(states[-1], signals.attention_mask)
        return signals, output
