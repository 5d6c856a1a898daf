"""Sentence encoders: the modules that make one vector of a text from the outputs of an encoder.

A folder of sentence-transformers lists modules: the encoder, a pooling, and perhaps dense layers and a normalisation.
They are read, computed and written here, so that sentence-transformers is not needed. A written folder is loaded with
`SentenceTransformer(folder)`, and its encoder with `AutoModel.from_pretrained(folder)`.

Shape legend: B rows, T padded length, H hidden size, D width of the vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, cast, get_args

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from transformers.utils import logging

from ..capture.architectures import forward_columns, without_adapters
from ..capture.signals import SignalRequest
from ..capture.transformer import capture_of
from ..hub.loading import find_file
from ..hub.selection import MODULES_FILE
from ..settings.distill import PoolingMode
from ..storage.files import new_file, read_json, read_mapping, write_json
from ..storage.plain_values import as_hint
from ..tasks.rows.text import say_cut

logger = logging.get_logger(__name__)

POOLING_MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)
# Fields of a pooling's file, in the order in which the vectors of several stand side by side.
_POOLING_FIELDS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
SETTINGS_FILE = "config_sentence_transformers.json"
ENCODER_FILE = "sentence_bert_config.json"
_MODULE_TYPES = "sentence_transformers.models."
# Those that give as many numbers as they take, and need no settings or weights.
_ACTIVATIONS = {
    name: getattr(nn, name)
    for name in ("Identity", *nn.modules.activation.__all__)
    if name not in ("GLU", "MultiheadAttention", "PReLU", "RReLU", "Softmax2d", "Threshold")
}


class Dense(nn.Module):
    """A linear layer after the pooling, with an activation behind it."""

    def __init__(self, in_width: int, out_width: int, bias: bool = True, activation: str = "Identity") -> None:
        """Make the layer.

        Args:
            in_width: Numbers of the vector before it.
            out_width: Numbers after it.
            bias: Whether there is a bias.
            activation: Name of a module of `torch.nn`.

        Raises:
            ValueError: If the activation is unknown.
        """
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(f"A dense module has the activation {activation!r}; known are {sorted(_ACTIVATIONS)}.")
        self.linear = nn.Linear(in_width, out_width, bias=bias)
        self.activation = _ACTIVATIONS[activation]()

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, D) -> (B, D'), in the layer's own type."""
        return self.activation(self.linear(vectors.to(self.linear.weight.dtype)))


class Normalize(nn.Module):
    """Divides every vector by its length."""

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return nn.functional.normalize(vectors, dim=-1)


class SentenceHead(nn.Module):
    """Turns the last hidden states of a text into its vector.

    Attributes:
        pooling: The pooling mode, or several, whose vectors are concatenated.
        steps: Dense layers and normalisations, in order.
        prompts: Prompts, by their names; a prompt is put before every text.
        default_prompt: The name of the prompt that is used if none is named.
        max_length: Number of tokens at which texts are truncated; `None`: that of the tokenizer.
        include_prompt: Whether the tokens of a prompt are pooled too.
        similarity: Name of the similarity by which vectors are compared; `None` is the cosine.
        truncate_dim: Number of first dimensions of the vector that are kept; `None` is all.
        dense_is_new: Whether a dense layer was made for a student, with random weights.
        not_pooled: Number of tokens at the beginning of every text that are not pooled: those of a prompt
            (`leave_out`).
    """

    dense_is_new = False
    not_pooled = 0

    def __init__(
        self,
        pooling: Sequence[str] | str = "mean",
        steps: Iterable[nn.Module] = (),
        *,
        prompts: Mapping[str, str] | None = None,
        default_prompt: str | None = None,
        max_length: int | None = None,
        include_prompt: bool = True,
        similarity: str | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        """Make the head.

        Raises:
            ValueError: If a mode of pooling is unknown, or no number of the vector is kept.
        """
        super().__init__()
        modes = (pooling,) if isinstance(pooling, str) else tuple(pooling)
        wrong = [mode for mode in modes if mode not in POOLING_MODES]
        if wrong or not modes:
            raise ValueError(f"The pooling is {wrong or 'empty'}; allowed are {', '.join(POOLING_MODES)}.")
        self.pooling = cast(tuple[PoolingMode, ...], modes)
        self.steps = nn.ModuleList(steps)
        self.prompts = dict(prompts or {})
        self.default_prompt = default_prompt
        self.max_length = max_length
        self.include_prompt = include_prompt
        self.similarity = similarity
        if truncate_dim is not None and truncate_dim < 1:
            raise ValueError(f"`truncate_dim` of a sentence encoder is {truncate_dim}; it must be at least 1.")
        self.truncate_dim = truncate_dim

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """The vectors of a batch, fp32 unless a dense layer has another type.

        Args:
            states: (B, T, H) last hidden states.
            mask: (B, T), 1 on real tokens, padded on either side.

        Returns:
            (B, D).
        """
        # Of a teacher that is spread over devices the last layer is not where the text came in.
        states = states.float().to(mask.device)
        counted = mask if not self.not_pooled else mask * (mask.cumsum(1) > self.not_pooled)
        vectors = torch.cat([_pool(states, mask, counted, mode) for mode in self.pooling], dim=-1)
        for step in self.steps:
            vectors = step(vectors)
        return vectors[:, : self.truncate_dim]

    @property
    def prompt(self) -> str:
        """The prompt that is put before a text if none is named; empty if there is no default."""
        return self.prompts.get(self.default_prompt or "", "")

    def leave_out(self, prompt: str, tokenizer: Any) -> None:
        """From now on texts begin with a prompt; where its tokens are not to be pooled, they are left out.

        Args:
            prompt: It may be empty.
            tokenizer: Of the encoder.
        """
        self.not_pooled = 0
        if prompt and not self.include_prompt:
            ids = tokenizer(prompt)["input_ids"]
            self.not_pooled = len(ids) - (ids[-1] in tokenizer.all_special_ids)

    @contextmanager
    def leaving_out(self, prompt: str, tokenizer: Any) -> Iterator[None]:
        """Within this context texts begin with a prompt (see `leave_out`); afterwards they are pooled as before."""
        before = self.not_pooled
        self.leave_out(prompt, tokenizer)
        try:
            yield
        finally:
            self.not_pooled = before

    @property
    def normalizes(self) -> bool:
        """Whether the vectors have length 1."""
        return self.truncate_dim is None and len(self.steps) > 0 and isinstance(self.steps[-1], Normalize)

    def width(self, hidden_size: int) -> int:
        """D for an encoder of a hidden size."""
        dense = self.last_dense
        width = hidden_size * len(self.pooling) if dense is None else dense.out_features
        return min(width, self.truncate_dim or width)

    @property
    def last_dense(self) -> nn.Linear | None:
        """The matrix of the last dense layer."""
        return next((step.linear for step in reversed(self.steps) if isinstance(step, Dense)), None)

    def for_student(
        self, hidden_size: int, *, pooling: str | None = None, dense_width: int | None = None
    ) -> SentenceHead:
        """The head of a student of this teacher: the same pooling and normalisation, no dense layers of the teacher's.

        Args:
            hidden_size: H of the student.
            pooling: Another mode of pooling.
            dense_width: Let a dense layer, which is trained, lead to this width.
        """
        modes = (pooling,) if pooling is not None else self.pooling
        steps: list[nn.Module] = []
        if dense_width is not None:
            # Without a bias: directions, which a normalisation leaves alone, are all that is learnt.
            steps.append(Dense(hidden_size * len(modes), dense_width, bias=False))
        if self.normalizes:
            steps.append(Normalize())
        head = SentenceHead(
            modes,
            steps,
            prompts=self.prompts,
            default_prompt=self.default_prompt,
            max_length=self.max_length,
            include_prompt=self.include_prompt,
            similarity=self.similarity,
        )
        head.dense_is_new = dense_width is not None
        return head

    def describe(self) -> str:
        """The modules in words, such as `mean, dense 312 -> 768, normalize`."""
        words = ["+".join(self.pooling)]
        for step in self.steps:
            linear = getattr(step, "linear", None)
            words.append("normalize" if linear is None else f"dense {linear.in_features} -> {linear.out_features}")
        words += [] if self.truncate_dim is None else [f"the first {self.truncate_dim} numbers"]
        return ", ".join(words)

    def save(self, folder: str | Path, hidden_size: int) -> None:
        """Write the modules beside an encoder, so that the folder is one of sentence-transformers.

        Args:
            folder: Where the encoder is saved.
            hidden_size: H of the encoder.
        """
        root = Path(folder)
        listed = [("", "Transformer"), ("1_Pooling", "Pooling")]
        fields: dict[str, Any] = {name: mode in self.pooling for name, mode in _POOLING_FIELDS.items()}
        if self.pooling != tuple(mode for mode in _POOLING_FIELDS.values() if mode in self.pooling):
            # The fields, which every release reads, have an order of their own.
            fields = {"pooling_mode": list(self.pooling)}
        write_json(
            root / "1_Pooling" / "config.json",
            {"word_embedding_dimension": hidden_size, **fields, "include_prompt": self.include_prompt},
        )
        for number, step in enumerate(self.steps, start=2):
            kind = type(step).__name__
            listed.append((f"{number}_{kind}", kind))
            if isinstance(step, Dense):
                _save_dense(root / f"{number}_{kind}", step)
        write_json(root / ENCODER_FILE, {"max_seq_length": self.max_length, "do_lower_case": False})
        write_json(
            root / SETTINGS_FILE,
            {
                "prompts": self.prompts,
                "default_prompt_name": self.default_prompt,
                "similarity_fn_name": self.similarity or "cosine",
                **({} if self.truncate_dim is None else {"truncate_dim": self.truncate_dim}),
            },
        )
        write_json(
            root / MODULES_FILE,
            [
                {"idx": index, "name": str(index), "path": path, "type": _MODULE_TYPES + kind}
                for index, (path, kind) in enumerate(listed)
            ],
        )


def _pool(states: Tensor, mask: Tensor, counted: Tensor, mode: PoolingMode) -> Tensor:
    """(B, T, H) fp32 states -> (B, H); of the real tokens (B, T) those are pooled that are counted (B, T)."""
    rows = torch.arange(len(mask), device=mask.device)
    if mode == "cls":
        return states[rows, counted.int().argmax(1)]
    if mode == "lasttoken":
        places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
        return states[rows, (places * mask).argmax(1)]
    shown = counted[..., None].to(states.dtype)
    if mode == "max":
        return states.masked_fill(shown == 0, -math.inf).amax(1)
    # A weighted mean counts the tokens of the row: the first weighs 1.
    weights = mask.cumsum(1)[..., None] * shown if mode == "weightedmean" else shown
    total = weights.sum(1).clamp(min=1e-9)
    return (states * weights).sum(1) / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)


def _save_dense(folder: Path, dense: Dense) -> None:
    linear = dense.linear
    activation = type(dense.activation)
    if repr(dense.activation) != repr(activation()):
        raise ValueError(
            f"The dense module has the activation {dense.activation}, of whose settings its file keeps none: "
            f"SentenceTransformer would load {activation()}."
        )
    write_json(
        folder / "config.json",
        {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "bias": linear.bias is not None,
            "activation_function": f"{activation.__module__}.{activation.__name__}",
        },
    )
    state = {f"linear.{name}": value.detach().cpu().contiguous() for name, value in linear.state_dict().items()}
    with new_file(folder / "model.safetensors") as part:
        safetensors.torch.save_file(state, part, metadata={"format": "pt"})


@torch.no_grad()
def encode_texts(
    model: Any,
    head: SentenceHead,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    batch_size: int = 64,
    max_length: int | None = None,
    prompt: str = "",
) -> np.ndarray:
    """The vectors of texts by a sentence encoder as it is.

    Args:
        model: The encoder, in evaluation mode.
        head: Its head.
        tokenizer: Its tokenizer.
        texts: N texts.
        batch_size: Texts of one forward pass; those of like length run together.
        max_length: Tokens at which a text is cut; by default those of the head, else of the tokenizer.
        prompt: Put before every text.

    Returns:
        (N, D) fp32, in the order of the texts. A warning counts those that were cut.
    """
    capture = capture_of(model, SignalRequest(pooled=True), head)
    columns, device = forward_columns(model), next(model.parameters()).device
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    options = {"truncation": True, "padding": True, "max_length": max_length or head.max_length}
    limit = options["max_length"] or tokenizer.model_max_length
    found: dict[int, Any] = {}
    at_limit = 0
    with head.leaving_out(prompt, tokenizer):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            inputs = tokenizer([prompt + texts[row] for row in rows], return_tensors="pt", **options)
            at_limit += int((inputs["attention_mask"].sum(1) >= limit).sum())
            signals = capture(**{name: value.to(device) for name, value in inputs.items() if name in columns})
            found |= dict(zip(rows, cast(Tensor, signals.pooled).float().cpu().numpy(), strict=True))
    say_cut(at_limit, len(texts), limit, "texts")
    return np.stack([found[row] for row in range(len(texts))])


# ---- Reading ----


def read_head(name: str, revision: str | None = None) -> SentenceHead | None:
    """The head of a folder of sentence-transformers; `None` of a model that is none.

    Args:
        name: Local folder or Hub id.
        revision: Branch, tag or commit on the Hub.

    Raises:
        ValueError: If a module is of a kind that is unknown here, or a file is damaged.
    """
    listed = find_file(name, MODULES_FILE, revision)
    if listed is None:
        return None
    modules = as_hint(read_json(listed), list[dict[str, Any]], f"{name!r}: {MODULES_FILE}")
    kinds = [(str(module.get("type")).rpartition(".")[2], str(module.get("path", ""))) for module in modules]
    if [kind for kind, _ in kinds] == ["Transformer"]:
        # A reranker: its head is the model's own.
        return None
    if not kinds or kinds[0][0] != "Transformer" or [kind for kind, _ in kinds[1:2]] != ["Pooling"]:
        raise ValueError(
            f"{name!r} has the modules {[kind for kind, _ in kinds]} ({MODULES_FILE}); a sentence encoder begins "
            "with Transformer and Pooling."
        )
    pooling = _read_config(name, kinds[1][1], revision)
    encoder = _read_optional(name, ENCODER_FILE, revision)
    if encoder.get("do_lower_case"):
        logger.warning_once(
            f"{name!r} lowers the case of every text before its tokenizer (do_lower_case in {ENCODER_FILE}), which "
            "is not done here: give lower-case text."
        )
    settings = _read_optional(name, SETTINGS_FILE, revision)

    def setting(field: str, hint: Any) -> Any:
        return as_hint(settings.get(field), hint | None, f"{name!r}: {SETTINGS_FILE}: `{field}`")

    return SentenceHead(
        _modes(pooling),
        [_read_step(name, kind, path, revision) for kind, path in kinds[2:]],
        prompts={key: text for key, text in (setting("prompts", dict[str, str | None]) or {}).items() if text},
        default_prompt=setting("default_prompt_name", str),
        max_length=as_hint(encoder.get("max_seq_length"), int | None, f"{name!r}: {ENCODER_FILE}: `max_seq_length`"),
        include_prompt=bool(pooling.get("include_prompt", True)),
        similarity=setting("similarity_fn_name", str),
        truncate_dim=setting("truncate_dim", int),
    )


def head_of(model: Any) -> SentenceHead | None:
    """The head in the folder, or the repository, that a model was loaded from; `None` if there is none."""
    inner = without_adapters(model)
    config = getattr(inner, "config", None)
    name = getattr(config, "name_or_path", None) or ""
    return read_head(name, getattr(config, "_commit_hash", None)) if name else None


def as_encoder(given: Any) -> tuple[Any, SentenceHead | None]:
    """The encoder and the head of a `SentenceTransformer`; anything else as it is, with no head.

    Of a `CrossEncoder` the model with its own head, whose configuration keeps the activation behind its scores.

    Raises:
        ValueError: If one of its modules is of a kind that is unknown here.
    """
    names = {kind.__name__ for kind in type(given).__mro__}
    if "CrossEncoder" in names:
        model, activation = given[0].auto_model, type(given.activation_fn)
        model.config.sentence_transformers = {"activation_fn": f"{activation.__module__}.{activation.__name__}"}
        return model, None
    if "SentenceTransformer" not in names:
        return given, None
    encoder, pooling, *rest = given
    if type(pooling).__name__ != "Pooling":
        raise ValueError(f"The SentenceTransformer has a {type(pooling).__name__} where its Pooling should be.")
    head = SentenceHead(
        _modes(pooling.get_config_dict()),
        [_step_of(module) for module in rest],
        prompts={key: text for key, text in given.prompts.items() if text},
        default_prompt=given.default_prompt_name,
        max_length=given.max_seq_length,
        include_prompt=pooling.include_prompt,
        similarity=given.similarity_fn_name,
        truncate_dim=getattr(given, "truncate_dim", None),
    )
    return encoder.auto_model, head


def keep_activation(student: Any, teachers: Iterable[Any]) -> None:
    """Give a student the activation function that `CrossEncoder` applies to its teacher's scores.

    Args:
        student: A model with one score; only its configuration changes.
        teachers: Sources of signals, or models.
    """
    if hasattr(student.config, "sentence_transformers"):
        return
    for config in (teacher.config for teacher in teachers if teacher.config is not None):
        found = getattr(config, "sentence_transformers", None)
        if found is None and config.name_or_path:
            saved = _read_optional(config.name_or_path, SETTINGS_FILE, getattr(config, "_commit_hash", None))
            found = {"activation_fn": saved["activation_fn"]} if saved.get("activation_fn") else None
        if found is not None:
            student.config.sentence_transformers = found
            return


def _step_of(module: Any) -> nn.Module:
    """Our module for one of a `SentenceTransformer`, with the same parameters."""
    kind = type(module).__name__
    if kind == "Normalize":
        return Normalize()
    _check_kind(kind, module.__dict__)
    linear = module.linear
    step = Dense(
        linear.in_features,
        linear.out_features,
        linear.bias is not None,
        type(module.activation_function).__name__,
    )
    # With its own parameters, such as a slope.
    step.linear, step.activation = linear, module.activation_function
    return step


def _read_step(name: str, kind: str, path: str, revision: str | None) -> nn.Module:
    if kind == "Normalize":
        return Normalize()
    config = _read_config(name, path, revision) if kind == "Dense" else {}
    _check_kind(kind, config)
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    file = f"{name!r}: {path}/config.json"
    entering, leaving = (
        as_hint(config.get(field), int, f"{file}: `{field}`") for field in ("in_features", "out_features")
    )
    step = Dense(entering, leaving, bool(config.get("bias", True)), activation)
    weights = find_file(name, f"{path}/model.safetensors", revision)
    old = None if weights else find_file(name, f"{path}/pytorch_model.bin", revision)
    if weights is None and old is None:
        raise ValueError(f"{name!r} lacks the weights of its module {path!r} (model.safetensors).")
    state = safetensors.torch.load_file(weights) if weights else torch.load(cast(str, old), weights_only=True)
    given = {key.removeprefix("linear."): value.float() for key, value in state.items()}
    theirs, ours = ({key: tuple(one.shape) for key, one in each.items()} for each in (given, step.linear.state_dict()))
    if theirs != ours:
        raise ValueError(f"{file} describes the weights {ours}, but they are {theirs}.")
    step.linear.load_state_dict(given)
    return step


def _check_kind(kind: str, config: Mapping[str, Any]) -> None:
    if kind != "Dense" or config.get("use_residual"):
        what = "a Dense with a residual" if kind == "Dense" else kind
        raise ValueError(f"A sentence encoder has the module {what}; known are Pooling, Dense and Normalize.")


def _modes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The modes of a pooling's file, in the form of any release."""
    mode = config.get("pooling_mode")
    if mode is None:
        return tuple(mode for name, mode in _POOLING_FIELDS.items() if config.get(name)) or ("mean",)
    return tuple(as_hint([mode] if isinstance(mode, str) else mode, list[str], "The `pooling_mode` of a pooling"))


def _read_config(name: str, path: str, revision: str | None) -> dict[str, Any]:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{name!r}: the path {path!r} in {MODULES_FILE} leads out of the folder.")
    file = find_file(name, f"{path}/config.json", revision)
    if file is None:
        raise ValueError(f"{name!r} lacks {path}/config.json, which {MODULES_FILE} names.")
    return read_mapping(Path(file))


def _read_optional(name: str, file: str, revision: str | None) -> dict[str, Any]:
    found = find_file(name, file, revision)
    return {} if found is None else read_mapping(Path(found))
