"""Models and tokenizers given as a Hub id, a folder or an instance."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel


def load_model(model: str | PreTrainedModel | nn.Module, *, flag: str, **kwargs: Any) -> Any:
    """Return `model` if it is an instance, else load it with the class that its configuration names.

    Args:
        model: Hub id, local folder, or a model (returned as it is).
        flag: The argument that carried it, for the error.
        kwargs: For `from_pretrained`; weights are loaded in float32 unless `dtype` says otherwise.

    Raises:
        OSError: If there is no such model; the message names the flag.
    """
    if not isinstance(model, str):
        return model
    revision = {"revision": kwargs["revision"]} if kwargs.get("revision") else {}
    try:
        config = AutoConfig.from_pretrained(model, **revision)
    except (OSError, ValueError) as error:
        raise OSError(f"`{flag}`: cannot load {model!r} from a local folder or the Hub: {error}") from error
    architectures = getattr(config, "architectures", None) or []
    model_class = getattr(transformers, architectures[0], AutoModel) if architectures else AutoModel
    kwargs = {"dtype": torch.float32, **kwargs}
    if "add_pooling_layer" in inspect.signature(model_class).parameters:
        # A pooler that the checkpoint lacks would be random, and nothing here reads a base model's pooler.
        kwargs.setdefault("add_pooling_layer", False)
    return model_class.from_pretrained(model, **kwargs)


def load_tokenizer(name: str, *, flag: str, revision: str | None = None) -> Any:
    """Load the tokenizer of a model.

    Args:
        name: Hub id or local folder.
        flag: The argument that carried it, for the error.
        revision: Branch, tag or commit.

    Raises:
        OSError: If there is none. `AutoTokenizer` makes one without words of a folder that has a configuration only,
            and every word would become the unknown token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        raise OSError(f"`{flag}`: cannot load the tokenizer of {name!r}: {error}") from error
    # Tokenizers of characters and bytes need no vocabulary file: theirs is larger than their special tokens too.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise OSError(
            f"`{flag}`: {name!r} has no tokenizer files (tokenizer.json, vocab.txt, …). Save the model's tokenizer "
            "beside it: tokenizer.save_pretrained(folder)."
        )
    return tokenizer


def forward_columns(model: Any) -> list[str]:
    """Names of the inputs a model's `forward` knows (of the base model, below an adapter)."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return [
        name
        for name, parameter in inspect.signature(inner.forward).parameters.items()
        if parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ]
