"""A teacher is a source of signals: the base class of teachers, and the live teacher, which runs beside a student.

Some models are placed already: spread over devices, offloaded to memory or disk, or quantised. accelerate has put
hooks on their modules, which bring inputs and weights together while they run, or their quantised weights may not
leave their device. A live teacher of this kind is never moved: inputs go to its first device, and signals are copied
back.

Shape legend: B rows, T padded length, C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple, get_args

import torch
import xxhash
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..capture.architectures import forward_columns, has_label_outputs, without_adapters
from ..capture.batch import on_host
from ..capture.signals import SignalRequest, Signals, check_weights
from ..capture.transformer import capture_of
from ..hub.loading import update_digest
from ..hub.model_card import shown_name
from ..kernels.cpu import PackedLinears
from ..objectives import WeightedObjective
from ..settings.distill import TeacherDtype
from ..students.sentence import SentenceHead, as_encoder, head_of
from ..tasks.label_names import label_permutation
from .int8 import int8_copy
from .offload import host_weights, weights_of

logger = logging.get_logger(__name__)
CPU = torch.device("cpu")


class TokenColumns(NamedTuple):
    """The columns of a row's text in another tokenizer than the student's.

    Attributes:
        prefix: Begins their names.
        tokenizer: Makes them.
        text_column: The column that it reads, where that is not the student's text.
        prompt: Put before the text.
    """

    prefix: str
    tokenizer: Any
    text_column: str | None = None
    prompt: str = ""

    @property
    def is_other_text(self) -> bool:
        """Whether it reads another text than the student does, so that no token of one is one of the other."""
        return self.text_column is not None or bool(self.prompt)

    def owns(self, column: str) -> bool:
        """Whether a column is one of them."""
        return column.startswith(self.prefix)

    def select(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Those of them that are there, without their prefix."""
        return {name.removeprefix(self.prefix): value for name, value in columns.items() if self.owns(name)}


class TeacherSource:
    """The base class of teachers: everything that a trainer uses of a teacher, with defaults.

    A source of your own needs only `signals`. These parts of the package use the other methods, in this order:

    - the opening (`hf_distill.teachers.opening`): `dataset`, `tokenizer`, `own_tokens`, `read_ids`; it sets
      `shared_ids`;
    - the trainer, once: `of`, `connect` (which calls `request` and `match_labels`), `to`, `probe`, `check_rows`,
      `collator`, `input_columns`, `kept_columns`, `members`;
    - the trainer, in every step: `signals`, and where teachers are offloaded `on_device` and `fetch`; in `predict`:
      `required_columns`;
    - checkpoints and cards: `fingerprint`, `describe`, `source`, `skeleton`, `place`.

    Attributes:
        num_layers: Layers that objectives may name; `None` for a source without any.
        model_type: `config.model_type` of the teacher, which decides defaults of some objectives; "" if unknown.
        config: Configuration of the teacher's model, whose vocabulary and labels are compared with the student's.
        model: The model that runs in this process; `None` if none does.
        dtype: The dtype that was chosen for it, a value of `--teacher_dtype`.
        device: The device on which it computes; batches are copied there.
        head: Pooling and further modules of a sentence encoder (`SentenceHead`); `None` for other teachers.
        dataset: The rows of a stored teacher, which are the only ones that it can be used with.
        own_tokens: The columns that it reads instead of the student's tokens, if it has another tokenizer.
        shared_ids: Number of token ids that teacher and student are known to have in common, if they are.
        input_columns: Columns of a batch that it reads in addition to those that the student reads.
        required_columns: Columns of a batch without which it cannot give signals.
        kept_columns: Columns of the rows that it reads, and that tokenizing must not drop.
    """

    num_layers: int | None = None
    model_type: str = ""
    config: PreTrainedConfig | None = None
    model: Any = None
    dtype: str = "auto"
    device: torch.device = CPU
    head: SentenceHead | None = None
    dataset: Any = None
    own_tokens: TokenColumns | None = None
    shared_ids: int | None = None
    input_columns: Sequence[str] = ()
    required_columns: Sequence[str] = ()
    kept_columns: Sequence[str] = ()

    def signals(self, inputs: Mapping[str, Tensor]) -> Any:
        """The signals of one batch, without gradient, on the batch's device.

        Args:
            inputs: `input_ids` (B, T), `attention_mask` (B, T) and all other columns of the batch.

        Returns:
            `Signals`, or, where objectives learn from different teachers, those of each objective by its name.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks `signals`.")

    def probe(self, inputs: Mapping[str, Tensor]) -> Any:
        """As `signals`, for a tiny batch of made-up tokens of which only the shapes count.

        Raises:
            ValueError: If what the teacher says cannot be compared with a student.
        """
        return self.signals(inputs)

    @property
    def members(self) -> list[TeacherSource]:
        """The single teachers in it, in the order in which they are counted."""
        return [self]

    def of(self, item: WeightedObjective) -> TeacherSource:
        """The teacher that an objective learns from.

        Raises:
            ValueError: If the objective names a teacher that does not exist.
        """
        if item.teacher not in (None, 0):
            raise ValueError(
                f"The objective {item.name!r} has `teacher` {item.teacher}, but there is one teacher, number 0; "
                "MultiTeacherTrainer has several."
            )
        return self

    def connect(self, objectives: Sequence[WeightedObjective], student_config: PreTrainedConfig) -> None:
        """Take over what the objectives need, and compare vocabulary and labels with the student's.

        Args:
            objectives: The objectives, after their `bind`.
            student_config: The student's configuration.

        Raises:
            ValueError: If the teacher cannot give what they need, or does not fit the student.
        """
        self.ask_for(SignalRequest.union(item.objective.teacher_request for item in objectives), student_config)

    def ask_for(self, request: SignalRequest, student_config: PreTrainedConfig) -> None:
        """As `connect`, for signals instead of objectives.

        Raises:
            ValueError: If the teacher cannot give them, or does not fit the student.
        """
        self.request(request)
        if self.config is None:
            return  # Somebody's own source of signals, of which nothing more is known.
        sizes = self.config.vocab_size, student_config.vocab_size
        # Tables of embeddings may have more rows than the tokenizer has ids, and not the same number.
        are_padded = self.shared_ids is not None and min(sizes) >= self.shared_ids
        if sizes[0] != sizes[1] and not are_padded and self.own_tokens is None:
            raise ValueError(
                f"The teacher's vocabulary has {sizes[0]} entries, the student's {sizes[1]}, but both read the same "
                "`input_ids`. Create the student from the teacher: create_student(teacher, shape); or, where both "
                "have one tokenizer and padded embeddings, give the teacher's as `teacher_processing_class`."
            )
        if request.logits:
            self.match_labels(student_config)

    def request(self, request: SignalRequest) -> None:
        """Set which signals `signals` must return; a source of your own may return more.

        Raises:
            ValueError: If it cannot give one of them.
        """

    def match_labels(self, student_config: PreTrainedConfig) -> None:
        """Compare label names with the student's, and give logits in the student's order from now on.

        Raises:
            ValueError: If the two sides name different labels.
        """

    def for_one_more(self) -> TeacherSource:
        """The source for one more trainer, so that its requests do not change those of earlier trainers."""
        return self

    def read_ids(self, ids: Sequence[int] | None) -> None:
        """From now on read token ids of a trimmed tokenizer, and give logits over its vocabulary.

        Args:
            ids: For every id of the student's tokenizer the teacher's id of the same piece; `None`: they are the same.

        Raises:
            ValueError: If the teacher reads the ids of one tokenizer only.
        """
        if ids is not None:
            raise ValueError(f"{self.describe()} reads the ids of its own tokenizer, not those of a trimmed one.")

    def to(self, device: torch.device) -> None:
        """Move to the device of training."""

    def share_out(self, settings: Mapping[str, Any]) -> None:
        """Keep a part of the weights in this process, if the student is sharded by ZeRO-3.

        Args:
            settings: `zero_optimization` of the student's engine.
        """

    @contextmanager
    def on_device(self, device: torch.device) -> Iterator[None]:
        """Be on a device within this context, and in the host's memory before and after it."""
        self.to(device)
        try:
            yield
        finally:
            self.to(CPU)

    def fetch(self, device: torch.device) -> None:
        """Prepare to be on a device soon, while something else computes there."""

    def tokenizer(self) -> Any:
        """The tokenizer of the rows that it knows; `None` for a teacher that reads any rows."""
        return None

    def check_rows(self, dataset: Any, what: str) -> None:
        """Refuse rows that it cannot read.

        Args:
            dataset: A data set of any kind, a mapping of several, or `None`.
            what: Its name in the message.

        Raises:
            ValueError: If there are such.
        """

    def collator(self, inner: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        """A collator that adds to the batches of `inner` what the teacher reads of the rows."""
        return inner

    @property
    def kind(self) -> str:
        """Name of its class, for messages."""
        return type(self).__name__

    @property
    def reads_any_rows(self) -> bool:
        """Whether it reads whatever rows were tokenized for the student."""
        return all(one.dataset is None and one.own_tokens is None for one in self.members)

    def fingerprint(self) -> dict[str, Any]:
        """Values that identify the teacher; a resumed run must find the same."""
        return {"teacher": self.kind}

    def describe(self) -> str:
        """Describe the teacher in words."""
        return self.kind

    def source(self) -> dict[str, Any]:
        """Return the origin of the model: `name`, and `hub_id` and `revision` if that is the Hub."""
        return {"name": self.kind, "hub_id": None, "revision": None}

    def skeleton(self) -> Any:
        """A model with the teacher's shape, perhaps without weights, to count parameters; `None` if there is none."""
        return self.model

    @property
    def place(self) -> str | None:
        """The folder or the id of the Hub that it came from, if it came from one."""
        return getattr(self.config, "name_or_path", None) or None


def own_tokens_of(teachers: Iterable[TeacherSource]) -> list[TokenColumns]:
    """The columns of all teachers that do not read the student's tokens; each once."""
    found = [teacher.own_tokens for teacher in teachers]
    return list({columns.prefix: columns for columns in found if columns is not None}.values())


class LiveTeacher(TeacherSource):
    """A frozen model, always in evaluation mode, that runs beside the student.

    It is no part of the trained model: optimizer, checkpoints and `save_model` do not include it. Its forward pass
    stops right after the last signal that was requested. A model that is placed already is not moved.
    """

    def __init__(
        self,
        model: Any,
        dtype: str = "auto",
        device: str | torch.device | None = None,
        head: SentenceHead | None = None,
    ) -> None:
        """Freeze `model`.

        Args:
            model: The teacher, a transformers model with or without head and adapters, or a `SentenceTransformer`. Its
                parameters stop requiring gradients.
            dtype: dtype of its forward pass: `float32`, `bfloat16`, `float16` (by autocast, so that normalisations
                stay in float32), `int8` (on the CPU, see `hf_distill.teachers.int8`), or `auto`: that of the training.
            device: Its device, if it is not that of the training.
            head: Pooling and further modules of a sentence encoder. Default: those of the `SentenceTransformer`, or of
                the folder or repository from which the model was loaded.

        Raises:
            ValueError: If there is no such dtype or device, one of them is not possible for the model, a weight is not
                finite, or this process has only parts of the weights.
        """
        if dtype not in get_args(TeacherDtype):
            raise ValueError(f"`--teacher_dtype` is {dtype!r}; allowed are {', '.join(get_args(TeacherDtype))}.")
        self.own_device = None if device is None else _existing_device(device)
        # Such as a `SentenceTransformer`.
        model, own_head = as_encoder(model) if isinstance(model, nn.Sequential) else (model, None)
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        self.head = head or own_head
        _refuse_parts(model)
        self.placed = place_of(model)
        if self.placed and (dtype == "int8" or device is not None):
            flag = f"--teacher_device {device}" if dtype != "int8" else "--teacher_dtype int8"
            raise ValueError(f"`{flag}` cannot be used on a teacher that cannot be moved ({self.placed}).")
        check_weights(model, "The teacher's")
        frozen = model.requires_grad_(False).eval()
        self.model: Any = int8_copy(frozen) if dtype == "int8" else frozen
        self.dtype = dtype
        # Weights of classes of their own (rounded by somebody else, sharded) know best how they move.
        is_plain = dtype != "int8" and all(type(weight.data) is Tensor for weight in self.model.parameters())
        self._goes_and_comes = is_plain and not self.placed and self.own_device is None
        self.label_order: Tensor | None = None
        self._ids: Tensor | None = None
        # Of a teacher that is shared out: what gathers its weights, and what they were when they were whole.
        self._engine: Any = None
        self._fingerprint: dict[str, str] | None = None
        self._capture = capture_of(self.model, SignalRequest())
        self._capture.prefer_products()
        self._packed_linears = PackedLinears(self.model)
        self.num_layers = self._capture.num_layers
        self.config: PreTrainedConfig = self.model.config
        self.model_type = self.config.model_type
        self.input_columns = forward_columns(self.model)

    def request(self, request: SignalRequest) -> None:
        """Say which signals `signals` must give."""
        if request.pooled:
            self.head = self.head or head_of(self.model) or self._mean()
            self.head.requires_grad_(False).eval().to(self.device)
        self._capture = capture_of(self.model, request, self.head)
        self._capture.prefer_products()

    def for_one_more(self) -> LiveTeacher:
        """Itself, or where somebody asks it already another one with the same model."""
        return copy.copy(self) if self._capture.request else self

    def _mean(self) -> SentenceHead:
        """The head of a model that does not say how its tokens become one vector."""
        logger.warning_once(
            f"The teacher {self.source()['name']} does not say how it pools (it has no modules.json of "
            "sentence-transformers): the mean over the tokens is the vector of a text. Give `LiveTeacher(model, "
            "head=SentenceHead(...))` for another pooling."
        )
        return SentenceHead("mean")

    def to(self, device: torch.device) -> None:
        """Move to the device of training, or to the own one.

        Raises:
            ValueError: If int8 would have to leave the CPU.
        """
        if self.placed:
            return
        device = device if self.own_device is None else self.own_device
        if self.dtype == "int8":
            if device.type != "cpu":
                raise ValueError(
                    f"`--teacher_dtype int8` computes on the CPU, but the teacher is to be on {str(device)!r}: add "
                    "`--teacher_device cpu`, or take bfloat16."
                )
            return
        self.model.to(device)
        if self.head is not None:
            self.head.to(device)

    def share_out(self, settings: Mapping[str, Any]) -> None:
        """Leave this process a part of the weights; an engine of DeepSpeed gathers those of a layer while it runs.

        A teacher that has a place already, or a device of its own, stays whole.
        """
        if not self._goes_and_comes or self._engine is not None:
            return
        import deepspeed

        self._fingerprint, self._goes_and_comes = self.fingerprint(), False
        # Packing reads whole weights.
        self._packed_linears = PackedLinears(nn.Module())
        # There is no optimizer to put elsewhere; `auto` stands for what the student's engine chooses for itself.
        zero = {k: v for k, v in settings.items() if v != "auto" and k != "offload_optimizer"}
        config: dict[str, Any] = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero}
        name = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(self.model.dtype)
        self._engine = deepspeed.initialize(
            model=self.model, config=config if name is None else {**config, name: {"enabled": True}}
        )[0]
        self.model.eval()

    @contextmanager
    def on_device(self, device: torch.device) -> Iterator[None]:
        """Be on a device within this context, and in the host's memory before and after it."""
        with ExitStack() as stack:
            if self._goes_and_comes and device.type != "cpu":
                for module in self._modules():
                    stack.enter_context(host_weights(module, device).in_place())
            else:
                stack.enter_context(super().on_device(device))
            yield

    def fetch(self, device: torch.device) -> None:
        """Begin to copy the weights to a device, for `on_device`."""
        for module in self._modules() if self._goes_and_comes and device.type != "cpu" else ():
            host_weights(module, device).fetch()

    def _modules(self) -> list[nn.Module]:
        return [self.model] if self.head is None else [self.model, self.head]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where it reads its inputs."""
        return first_device(self.model) if self.placed else self.model.device

    def read_ids(self, ids: Sequence[int] | None) -> None:
        """Read the ids of a trimmed tokenizer from now on, and speak about its vocabulary; `None`: its own ids."""
        self._ids = None if ids is None else torch.tensor(ids)

    def match_labels(self, student_config: PreTrainedConfig) -> None:
        """Compare label names with the student's, and permute the teacher's logits to the student's order."""
        classes = [base.__name__ for base in type(without_adapters(self.model)).__mro__]
        order = label_permutation(self.model.config, student_config) if has_label_outputs(classes) else None
        self.label_order = None if order is None else torch.tensor(order)

    @torch.no_grad()
    def signals(self, inputs: Mapping[str, Tensor]) -> Signals:
        """The requested signals for one batch.

        Args:
            inputs: `input_ids` (B, T), `attention_mask` (B, T) and what else the teacher's `forward` knows; other
                columns are ignored.

        Returns:
            Signals on the device of the inputs, wherever the teacher is.
        """
        if self.model.training:
            # Someone called `.train()` on it: dropout noise must never reach a target.
            self.model.eval()
        known = {name: value for name, value in inputs.items() if name in self.input_columns and name != "labels"}
        there = next(value.device for value in known.values() if torch.is_tensor(value))
        here = self.device
        if here != there:
            known = {name: _moved(value, here) if torch.is_tensor(value) else value for name, value in known.items()}
        if self._ids is not None and "input_ids" in known:
            self._ids = self._ids.to(here)
            known["input_ids"] = self._ids[known["input_ids"]]
        with self._arithmetic(), self._packed_linears.in_place():
            signals = self._capture(**known)
        if self._ids is not None and signals.logits and self.model.get_output_embeddings() is not None:
            # A masked-LM head: the student's vocabulary is part of the teacher's.
            signals.logits = {
                name: values.index_select(-1, self._ids.to(values.device)) for name, values in signals.logits.items()
            }
        signals = signals.to(there)
        if self.label_order is not None and "logits" in signals.logits:
            self.label_order = self.label_order.to(there)
            signals.logits["logits"] = signals.logits["logits"].index_select(-1, self.label_order)
        return signals

    def fingerprint(self) -> dict[str, str]:
        """Class and a hash of every weight, as it is in memory."""
        if self._fingerprint is not None:
            return self._fingerprint
        digest = xxhash.xxh3_128()
        model = getattr(self.model, "_orig_mod", self.model)  # Below `torch.compile`.
        for name, weight in weights_of(model):
            update_digest(digest, {name: weight})
        head = self.head if self._capture.request.pooled else None
        if head is not None:
            update_digest(digest, head.state_dict())
        found = {"teacher": type(model).__name__, "teacher_weights": digest.hexdigest()}
        found |= {} if head is None else {"teacher_vector": head.describe()}
        # Other arithmetic rounds the same weights; int8 weights are others.
        return {**found, "teacher_dtype": "int8"} if self.dtype == "int8" else found

    def describe(self) -> str:
        """Describe the teacher in words."""
        # DeepSpeed notes how many numbers a weight has that is shared out.
        size = sum(getattr(weight, "ds_numel", weight.numel()) for weight in self.model.parameters())
        arithmetic = "" if self.dtype == "auto" else f", {self.dtype}"
        place = f", {self.placed}" if self.placed else "" if self.own_device is None else f", on {self.own_device}"
        name = type(getattr(self.model, "_orig_mod", self.model)).__name__
        return f"{name}, {size:,} parameters{arithmetic}{place}"

    def source(self) -> dict[str, Any]:
        """Return the origin of the model: `name`, and `hub_id` and `revision` if that is the Hub."""
        path = self.place or type(self.model).__name__
        # Only what came from the Hub has a commit; a folder is nothing a stranger could open.
        commit = getattr(self.config, "_commit_hash", None)
        return {"name": shown_name(path), "hub_id": path if commit else None, "revision": commit}

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self.dtype == "auto":
            return nullcontext()
        device = self.device.type
        if self.dtype in ("float32", "int8"):
            return torch.autocast(device, enabled=False)
        return torch.autocast(device, dtype=getattr(torch, self.dtype))


def _existing_device(name: str | torch.device) -> torch.device:
    """The device of a name.

    Raises:
        ValueError: If this machine has no such device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    known = ["cpu"]
    if accelerator is not None:
        count = torch.accelerator.device_count()
        known += [accelerator.type, *(f"{accelerator.type}:{index}" for index in range(count))]
    if str(name) not in known:
        raise ValueError(f"`--teacher_device` is {str(name)!r}; this machine has {', '.join(known)}.")
    return torch.device(name)


def _moved(values: Tensor, device: torch.device) -> Tensor:
    """An input on another device; nobody waits where the host has it still."""
    return on_host(values) if device.type == "cpu" else values.to(device, non_blocking=True)


# ---- Models that have a place already ----


def place_of(model: Any) -> str:
    """Say in words how a model was placed; "" for one that may be moved.

    Args:
        model: A model, perhaps with adapters around it.
    """
    inner = without_adapters(model)
    words = []
    if getattr(inner, "is_quantized", False) or getattr(inner, "hf_quantizer", None) is not None:
        method = getattr(inner, "quantization_method", None)
        words.append("quantised" if method is None else f"quantised by {getattr(method, 'value', method)}")
    places = getattr(inner, "hf_device_map", None)
    if places:
        words.append(f"on {', '.join(sorted({str(place) for place in places.values()}))}")
    elif any(_hook_of(module) is not None for module in inner.modules()):
        words.append("offloaded")
    return ", ".join(words)


def _refuse_parts(model: nn.Module) -> None:
    """Refuse a model of which every process has a part and that nobody puts together before it is recorded.

    Raises:
        ValueError: If its layers are shared out (tensor parallelism), or its weights are (DeepSpeed's ZeRO-3).
    """
    sizes = [getattr(module, "_tp_size", None) or 1 for module in model.modules()]
    if max(sizes) > 1:
        raise ValueError(
            f"The teacher is tensor-parallel over {max(sizes)} processes, each of which has some of the attention "
            "heads only, and signals are of all: load it without `tp_plan`; `device_map`, quantisation or "
            "`hf-distill precompute` help where it is too large for one GPU."
        )
    if any(hasattr(weight, "ds_id") for weight in model.parameters()):
        raise ValueError(
            "The teacher was loaded in parts (DeepSpeed's ZeRO-3), so that nobody can check its weights: set "
            "`zero3_init_flag: false` in accelerate's configuration; the trainer shares out a whole teacher."
        )


def first_device(model: Any) -> torch.device:
    """The device of the embeddings while the model runs: their weights may be elsewhere meanwhile."""
    embeddings = model.get_input_embeddings()
    device = getattr(_hook_of(embeddings), "execution_device", None)
    return next(embeddings.parameters()).device if device is None else torch.device(device)


def _hook_of(module: nn.Module) -> Any:
    """The hook that accelerate put around the forward of a module."""
    return getattr(module, "_hf_hook", None)
