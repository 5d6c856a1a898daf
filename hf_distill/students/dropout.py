"""Sets the dropout of an existing model."""

from __future__ import annotations

from torch import nn

# Attributes of attention and recurrent modules that hold a share of their own, which no module of dropout applies.
SHARES = ("attention_dropout", "activation_dropout", "dropout", "hidden_dropout", "dropout_p", "dropout_prob")
# The attribute of a module that keeps the shares it had.
OWN_SHARES = "_hf_distill_own_shares"


def set_dropout(model: nn.Module, share: float | None) -> None:
    """Set the dropout probability of a model's modules; its configuration is not changed.

    Args:
        model: The model; its modules are changed.
        share: The probability, from 0 (no dropout) to below 1; `None` restores the former one of every module.
    """
    for module in model.modules():
        names = ["p"] if isinstance(module, nn.Dropout) else SHARES
        found = {name: getattr(module, name, None) for name in names}
        own = {name: value for name, value in found.items() if isinstance(value, float)}
        own |= vars(module).pop(OWN_SHARES, {})
        for name, value in own.items():
            setattr(module, name, value if share is None else share)
        if own and share is not None:
            vars(module)[OWN_SHARES] = own
