"""Loads models and tokenizers that are given as a Hub id, a folder or an instance."""

from __future__ import annotations

import importlib
import inspect
import os
import pickle
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
import xxhash
from huggingface_hub import constants
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto import modeling_auto
from transformers.utils import cached_file

from .._optional import require
from ..storage.files import close_path, damage_of_file, read_mapping
from ..storage.plain_values import as_hint, listed
from .selection import MODULES_FILE

ADAPTER_FILE = "adapter_config.json"
# What transformers raises for files that are missing, cut short, of another kind, or inconsistent. Pickles with more
# than tensors are never executed.
UNREADABLE = (
    *(OSError, ValueError, TypeError, AttributeError, KeyError, IndexError, EOFError, RuntimeError),
    *(SafetensorError, StrictDataclassError, pickle.UnpicklingError, AssertionError),
)


def load_model(model: str | PreTrainedModel | nn.Module, *, flag: str, **kwargs: Any) -> Any:
    """Return `model` if it is an instance, else load it with the class that its configuration names.

    Args:
        model: Hub id, local folder (of a model or of a LoRA adapter, which is merged into its base model), or a model,
            which is returned unchanged.
        flag: The argument that named it, for the error message.
        kwargs: Arguments of `from_pretrained`; weights are loaded in float32 unless `dtype` says otherwise.

    Raises:
        OSError: If the model does not exist; the message names the flag.
        ValueError: If its files lack weights, which would be random.
    """
    if not isinstance(model, str):
        return model
    folder = Path(model).expanduser()
    if (folder / ADAPTER_FILE).is_file() and not (folder / "config.json").is_file():
        return _with_adapter(folder, flag, **kwargs)
    revision = {"revision": kwargs["revision"]} if kwargs.get("revision") else {}
    _, model_class, options = _config_and_class(model, flag, **revision)
    try:
        loaded, report = model_class.from_pretrained(
            model, **{"dtype": torch.float32, **options, **kwargs}, output_loading_info=True
        )
    except UNREADABLE as error:
        raise load_error(model, error, flag=flag) from error
    check_complete(model, report, flag=flag)
    if loaded.config.output_attentions and loaded.config._attn_implementation != "eager":
        # Fast attention kernels return no maps, and transformers refuses to save a configuration that requests both.
        loaded.config.output_attentions = False
    return loaded


def _with_adapter(folder: Path, flag: str, **kwargs: Any) -> Any:
    """Load the base model of an adapter and merge the adapter into its weights."""
    peft = require("peft", extra="peft", needed_by=f"the adapter in {str(folder)!r}")
    settings = read_mapping(folder / ADAPTER_FILE)
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or settings.get("peft_type") != "LORA":
        raise ValueError(
            f"`{flag}` {str(folder)!r} is an adapter of kind {settings.get('peft_type')!r} on {base!r}; only LoRA on "
            "a named base model can be merged. Merge it with peft, and give the model."
        )
    model = load_model(base, flag=flag, **{name: value for name, value in kwargs.items() if name != "revision"})
    try:
        with warnings.catch_warnings():
            # An error below reports it.
            warnings.filterwarnings("ignore", "Found missing adapter keys")
            adapted = peft.PeftModel.from_pretrained(model, str(folder))
    except UNREADABLE as error:
        raise load_error(str(folder), error, flag=flag) from error
    weights = folder / "adapter_model.safetensors"
    # Weights that do not fit the base model would silently be dropped, and missing ones would be random.
    known = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    differing = sorted(set(load_file(weights)) ^ set(known)) if weights.is_file() else []
    if differing:
        raise ValueError(
            f"`{flag}` {str(folder)!r}: its base model {base!r} ({type(model).__name__}) has other layers, by "
            f"{listed(differing)}. Load both with the class that it was trained with, merge, and give the model."
        )
    merged = adapted.merge_and_unload()
    merged.config.name_or_path, merged.config._commit_hash = str(folder), None
    return merged


def check_complete(model: str, report: Mapping[str, Any], *, flag: str) -> None:
    """Check that a model that will not be trained has all its weights.

    Args:
        model: Hub id or local folder.
        report: The loading info of `from_pretrained`.
        flag: The argument that named the model, for the error message.

    Raises:
        ValueError: If weights are missing; the message names them.
    """
    # List those of a head first: their names are short.
    missing = sorted(report["missing_keys"], key=lambda name: (name.count("."), name))
    if missing:
        raise ValueError(
            f"`{flag}` {model!r} lacks weights, which would be random: {listed(missing)}. Give a model that was saved "
            "with them (a head that was trained on the task), or train them first (`hf-distill teach`)."
        )


def load_error(model: str, error: Exception, *, flag: str) -> OSError:
    """The error for a model that cannot be loaded: it names the flag and explains the reason.

    Args:
        model: Hub id or local folder.
        error: The error that transformers raised.
        flag: The argument that named it.
    """
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    reason = f"{error}" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {error}"
    if "ignore_mismatched_sizes" in reason:
        reason = "its weights have other shapes than its config.json says"
    if isinstance(error, pickle.UnpicklingError):
        reason = f"its weights are a pickle that holds more than tensors, which is not run; save safetensors ({error})"
    reason = _damage(Path(model).expanduser()) or reason
    near = ""
    if not Path(model).expanduser().exists():
        near = close_path(model)
        if model.startswith((".", "~", os.sep)) or model.count("/") > 1:
            reason = "there is no such folder, and the Hub has no such names"
        elif constants.HF_HUB_OFFLINE:
            reason = "there is no such folder, and HF_HUB_OFFLINE is set: of the Hub there is only its cache"
    return OSError(f"`{flag}`: cannot load {model!r} from a local folder or the Hub: {reason.rstrip('.')}.{near}")


def _damage(folder: Path) -> str | None:
    """The first damaged file in a model's folder; libraries do not always name it."""
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    return next(filter(None, map(damage_of_file, files)), None)


def load_skeleton(folder: str, *, flag: str) -> Any:
    """Make the model of a folder's configuration on the meta device: shapes and names without weights.

    Args:
        folder: Local folder or Hub id.
        flag: The argument that named it, for the error message.

    Raises:
        OSError: If there is no configuration; the message names the flag.
    """
    config, model_class, options = _config_and_class(folder, flag)
    try:
        with torch.device("meta"):
            if not issubclass(model_class, PreTrainedModel):
                # An `AutoModel` cannot be instantiated; it finds the class by itself.
                return model_class.from_config(config)
            return model_class(config, **options)
    except UNREADABLE as error:
        raise load_error(folder, error, flag=flag) from error


# Endings of the names of classes with a pretraining head.
_PRETRAINING = ("ForMaskedLM", "ForPreTraining")
# Model types of this package, which transformers does not know.
_OWN_TYPES = {"bigru": "hf_distill.students.recurrent"}


def _config_and_class(model: str, flag: str, **revision: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return the configuration of a model, the class that it names, and the arguments that this class needs."""
    try:
        stored, _ = PreTrainedConfig.get_config_dict(model, **revision)
        if stored.get("model_type") in _OWN_TYPES:
            importlib.import_module(_OWN_TYPES[stored["model_type"]])
        config = AutoConfig.from_pretrained(model, **revision)
        name = next(iter(named_architectures(config)), "")
    except UNREADABLE as error:
        raise load_error(model, error, flag=flag) from error
    own = sys.modules.get(_OWN_TYPES.get(config.model_type, ""))
    model_class = getattr(own or transformers, name, None) or _registered_class(config, name) or AutoModel
    if name.endswith(_PRETRAINING) and find_file(model, MODULES_FILE, **revision) is not None:
        # Many sentence encoders name the class of their pretraining, although they do not have its head.
        model_class = modeling_auto.MODEL_MAPPING.get(type(config), model_class)
    # A pooler that the checkpoint lacks would be random, and nothing here uses a base model's pooler.
    has_pooler = "add_pooling_layer" in inspect.signature(model_class).parameters
    return config, model_class, {"add_pooling_layer": False} if has_pooler else {}


def find_file(model: str, file: str, revision: str | None = None) -> str | None:
    """Path of a file of a model, or `None` if the model does not have it.

    Args:
        model: Hub id or local folder.
        file: Its path in the folder or repository.
        revision: Branch, tag or commit on the Hub.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder / file) if (folder / file).is_file() else None
    return cached_file(
        model,
        file,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def named_architectures(config: PreTrainedConfig) -> list[str]:
    """Names of the classes that a configuration lists.

    Raises:
        ValueError: If the field holds something else.
    """
    return as_hint(getattr(config, "architectures", None) or [], list[str], "config.json: `architectures`")


def _registered_class(config: PreTrainedConfig, name: str) -> Any:
    """The class of that name that a plugin registered for its configuration with an `AutoModelFor…`, or None."""
    for auto_class in vars(modeling_auto).values():
        mapping = getattr(auto_class, "_model_mapping", None)
        found = mapping[type(config)] if mapping is not None and type(config) in mapping else None
        if getattr(found, "__name__", None) == name:
            return found
    return None


def load_tokenizer(name: str, *, flag: str, revision: str | None = None) -> Any:
    """Load the tokenizer of a model.

    Args:
        name: Hub id or local folder.
        flag: The argument that named it, for the error message.
        revision: Branch, tag or commit.

    Raises:
        OSError: If there is none. From a folder with only a configuration, `AutoTokenizer` would make a tokenizer
            without a vocabulary, for which every word is the unknown token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        raise load_error(name, error, flag=flag) from error
    except ImportError:
        raise
    except Exception as error:
        # For a damaged file the tokenizers library raises many kinds of errors.
        reason = _damage(Path(name).expanduser()) or repr(error)
        raise OSError(f"`{flag}`: the tokenizer of {name!r} cannot be read: {reason}") from error
    # Tokenizers of characters and bytes have no vocabulary file, but they too have more than their special tokens.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise OSError(
            f"`{flag}`: {name!r} has no tokenizer files (tokenizer.json, vocab.txt, …). Save the model's tokenizer "
            "beside it: tokenizer.save_pretrained(folder)."
        )
    if isinstance(tokenizer.model_max_length, bool) or not isinstance(tokenizer.model_max_length, (int, float)):
        raise OSError(
            f"`{flag}`: `model_max_length` in the tokenizer_config.json of {name!r} is "
            f"{tokenizer.model_max_length!r}; it must be a number."
        )
    return tokenizer


def update_digest(digest: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Add the names and values of weights to a running hash."""
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        for part in _plain_tensors(tensor.detach()):
            digest.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def checksum_of_embeddings(model: Any) -> str | None:
    """Return a checksum of a model's embeddings, which distinguishes models of the same shape; `None` without any."""
    try:
        weight = model.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):
        return None
    digest = xxhash.xxh3_128()
    update_digest(digest, {"embeddings": weight})
    return digest.hexdigest()


def _plain_tensors(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The plain tensors inside a tensor: itself, or the integers and scales of a quantised tensor."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        yield from _plain_tensors(getattr(tensor, name))
