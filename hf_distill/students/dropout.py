"""Dropout of a model that exists already."""

from __future__ import annotations

from torch import nn

# Attributes of attention and recurrent modules that hold a share of their own, which no module of dropout applies.
SHARES = ("attention_dropout", "activation_dropout", "dropout", "hidden_dropout", "dropout_p", "dropout_prob")


def set_dropout(model: nn.Module, share: float) -> None:
    """Let a model drop this share of its states while it is trained; its configuration keeps the share it has.

    Args:
        model: The model; its modules are changed.
        share: From 0 (nothing is dropped) to below 1.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
            continue
        for name in SHARES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, share)
