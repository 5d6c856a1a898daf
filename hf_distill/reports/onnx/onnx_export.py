"""PyTorch to ONNX: an fp32 file that agrees with the model, and an int8 file that is made from it.

Shape legend: B rows, T padded length.
"""

from __future__ import annotations

import copy
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_distill._optional import require
from hf_distill.capture.architectures import forward_columns
from hf_distill.capture.forward import evaluating
from hf_distill.reports.onnx.onnx_model import DATA_FILE, INT8_FILE, ONNX_FILE, OnnxModel
from hf_distill.storage.files import new_file, new_files, remove
from hf_distill.students.sentence import SentenceHead

# Names of the outputs of a sentence encoder; readers of its files expect them.
TOKENS, VECTOR = "last_hidden_state", "sentence_embedding"
# Shape of the inputs for tracing the graph. A dimension of 1 would become a constant.
EXAMPLE_SHAPE = (2, 8)
# Settings with which a model returns only its named outputs. The one for attention maps is set through its private
# name, because its setter refuses to restore some valid configurations.
PLAIN_OUTPUTS = {"use_cache": False, "output_hidden_states": False, "_output_attentions": False, "return_dict": True}
# An ONNX file can hold 2 GB; the weights of larger models go into a second file.
LARGEST_FILE = 2_000_000_000
# Number of texts in a row of a multiple-choice model.
NUM_CHOICES = 2
# Shapes for comparing file and model: one short row, rows with padding, a length that was not traced.
COMPARED_SHAPES = ((1, 2), (4, 24), (3, 128))


def export_onnx(
    model: PreTrainedModel,
    folder: str | os.PathLike[str],
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    head: SentenceHead | None = None,
    tolerance: float = 1e-3,
) -> float:
    """Write `model.onnx`, in fp32, for any batch size and length, and compare it with the model.

    The file computes the same as the model in eval mode; the model is unchanged afterwards. Weights of more than 2 GB
    are stored beside it in `model.onnx_data`. Files of an earlier export in the folder are deleted, including an int8
    file.

    Args:
        model: A transformers model with or without head, on the CPU.
        folder: Destination.
        tokenizer: Determines the inputs; without one they are `input_ids` and `attention_mask`.
        head: For a sentence encoder: the file then also outputs the vector of every text (`sentence_embedding`).
        tolerance: Maximum absolute difference of any output at a real token.

    Returns:
        The largest difference found.

    Raises:
        ValueError: If torch cannot export the model, or the outputs differ by more than `tolerance`; no file is left.
        ImportError: If a package of the extra `onnx` is missing.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, extra="onnx", needed_by="ONNX export")
    names, model = input_names(model, tokenizer), _in_fp32(model)
    drawn = model if head is None else VectorModel(model, head)
    with new_files(folder) as part:
        path = part / ONNX_FILE
        try:
            with _ready_for_export(model):
                _draw_graph(drawn, names, path)
        except torch.onnx.OnnxExporterError as error:
            raise ValueError(
                f"{type(model).__name__} cannot be exported to ONNX: {_first_line(_root(error))}"
            ) from error
        difference = largest_difference(drawn, OnnxModel(path))
        if not difference <= tolerance:
            raise ValueError(
                f"The ONNX file of {type(model).__name__} differs from the model by {difference:.2g}; `--tolerance` "
                f"allows {tolerance:g}: it was not written."
            )
        written = {file.name for file in part.iterdir()}
    for name in {DATA_FILE, INT8_FILE} - written:
        remove(Path(folder) / name)
    return difference


class VectorModel(nn.Module):
    """A sentence encoder whose outputs are the states of the tokens and the vector of every text.

    Attributes:
        config: Configuration of the encoder.
    """

    def __init__(self, encoder: PreTrainedModel, head: SentenceHead) -> None:
        """Combine encoder and head."""
        super().__init__()
        self.encoder, self.head, self.config = encoder, head, encoder.config

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return (B, T, H) `last_hidden_state` and (B, D) `sentence_embedding`."""
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.encoder(input_ids, attention_mask=attention_mask, **segments).last_hidden_state
        return {TOKENS: states, VECTOR: self.head(states, attention_mask)}


def quantize_onnx(folder: str | os.PathLike[str], *, reduce_range: bool = False) -> Path:
    """Write `model_quantized.onnx` beside `model.onnx`, with int8 weights and a scale for every output channel.

    Activations are quantised at run time (dynamic quantisation), so no calibration data is needed. The embeddings are
    quantised too, so the file has about a quarter of the original size.

    Args:
        folder: Folder of `model.onnx`.
        reduce_range: Use 7 of 8 bits, for processors that accumulate products of 8-bit numbers in 16 bits (AVX2 and
            AVX512 without VNNI), where 8 bits overflow.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If `model.onnx` does not exist.
    """
    onnx = require("onnx", extra="onnx", needed_by="int8 quantisation")
    quantization = require("onnxruntime.quantization", extra="onnx", needed_by="int8 quantisation")
    source, target = Path(folder) / ONNX_FILE, Path(folder) / INT8_FILE
    if not source.is_file():
        raise FileNotFoundError(f"There is no {ONNX_FILE} in {str(folder)!r} to quantise.")
    graph = onnx.load(source)
    # The exporter's intermediate shapes are from before its optimiser; they are inferred again.
    del graph.graph.value_info[:]
    large: dict[str, Any] = {}
    if (Path(folder) / DATA_FILE).is_file():
        large = {"save_as_external_data": True, "all_tensors_to_one_file": True, "external_data_location": DATA_FILE}
    with tempfile.TemporaryDirectory(dir=source.parent) as scratch, new_file(target) as part:
        prepared = Path(scratch) / ONNX_FILE
        with _restored_root_logger():
            quantization.quant_pre_process(graph, prepared, skip_optimization=True, skip_symbolic_shape=True, **large)
            quantization.quantize_dynamic(
                prepared, part, weight_type=quantization.QuantType.QInt8, per_channel=True, reduce_range=reduce_range
            )
    return target


def input_names(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None) -> list[str]:
    """The inputs of an exported model: those that the tokenizer makes and the model accepts."""
    made = ["input_ids", "attention_mask"] if tokenizer is None else tokenizer.model_input_names
    known = forward_columns(model)
    return [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in made and name in known]


def largest_difference(model: PreTrainedModel | VectorModel, exported: OnnxModel) -> float:
    """The largest absolute difference of any output at a real token, over random rows of several lengths.

    Args:
        model: The model in PyTorch, on the CPU.
        exported: Its ONNX file.
    """
    largest = 0.0
    with evaluating(model), _plain_outputs(model.config):
        for shape in COMPARED_SHAPES:
            inputs = _random_rows(model, exported.input_names, shape)
            expected, found = model(**inputs), exported(**inputs)
            for name in exported.output_names:
                difference = _at_real_tokens((expected[name] - found[name]).abs(), inputs.get("attention_mask"), name)
                # A NaN on either side counts as an infinite difference.
                largest = max(largest, float(difference.nan_to_num(nan=float("inf")).max()))
    return largest


def _draw_graph(model: PreTrainedModel | VectorModel, names: list[str], path: Path) -> None:
    example = _random_rows(model, names, EXAMPLE_SHAPE)
    outputs: Mapping[str, Any] = model(**example)
    sizes = ("batch", "choices", "sequence") if _chooses(model) else ("batch", "sequence")
    program: Any = torch.onnx.export(
        model,
        (),
        kwargs=example,
        input_names=names,
        output_names=list(outputs),
        dynamic_shapes={name: dict(enumerate(sizes)) for name in names},
        dynamo=True,
        verbose=False,
    )
    graph = program.model
    # Remove the metadata of nodes: it contains source paths of this machine.
    require("onnx_ir.passes.common", extra="onnx", needed_by="ONNX export").ClearMetadataAndDocStringPass()(graph)
    size = sum(value.const_value.nbytes for value in graph.graph.initializers.values())
    external = {"external_data": DATA_FILE} if size > LARGEST_FILE else {}
    require("onnx_ir", extra="onnx", needed_by="ONNX export").save(graph, path, **external)


def _in_fp32(model: PreTrainedModel) -> PreTrainedModel:
    """The model, or a copy in fp32 if a weight has another dtype: the CPU kernels support nothing else."""
    types = {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()}
    return model if types <= {torch.float32} else copy.deepcopy(model).float()


def _root(error: BaseException) -> BaseException:
    """Return the root cause of an error; torch's own error at the top only says how to report it."""
    return error if error.__cause__ is None else _root(error.__cause__)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _random_rows(model: PreTrainedModel | VectorModel, names: list[str], shape: tuple[int, int]) -> dict[str, Tensor]:
    """Inputs (B, T) of random tokens; with several rows, the second half of the last one is padding.

    A multiple-choice model gets (B, `NUM_CHOICES`, T).
    """
    positions = getattr(model.config, "max_position_embeddings", None) or 0
    # Two fewer, because RoBERTa's positions begin at 2; XLNet has -1, which means no limit.
    longest = positions - 2 if positions > 0 else shape[1]
    rows, length = shape[0] * (NUM_CHOICES if _chooses(model) else 1), min(shape[1], longest)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    pad = model.config.pad_token_id or 0
    # A padding token among the words would shift RoBERTa's positions.
    ids[ids == pad] = (pad + 1) % model.config.vocab_size
    if rows > 1:
        mask[-1, length // 2 :] = 0
        ids[-1, length // 2 :] = pad
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: given[name].view(shape[0], NUM_CHOICES, -1) if _chooses(model) else given[name] for name in names}


def _chooses(model: PreTrainedModel | VectorModel) -> bool:
    """Whether a model is a multiple-choice model."""
    return type(model).__name__.endswith("ForMultipleChoice")


def _at_real_tokens(values: Tensor, mask: Tensor | None, name: str) -> Tensor:
    """Drop padding from outputs with a value per token; outputs per row are unchanged."""
    of_tokens = values.dim() == 3 or name in ("start_logits", "end_logits")
    return values[mask.bool()] if of_tokens and mask is not None else values


@contextmanager
def _ready_for_export(model: PreTrainedModel) -> Iterator[None]:
    """Put a model into eval mode with plain attention and without key-value cache, and restore it afterwards.

    SDPA is exported with guards for rows without any key; without them the int8 file is a tenth faster.
    """
    attention = model.config._attn_implementation
    switches = attention is not None and model._can_set_attn_implementation()
    noise = logging.getLogger("torch.onnx")
    level = noise.level
    if switches:
        model.set_attn_implementation("eager")
    noise.setLevel(logging.ERROR)
    try:
        with evaluating(model), _plain_outputs(model.config), warnings.catch_warnings():
            # torch's exporter calls deprecated functions of torch.
            warnings.simplefilter("ignore")
            yield
    finally:
        noise.setLevel(level)
        if switches:
            model.set_attn_implementation(attention)


@contextmanager
def _plain_outputs(config: Any) -> Iterator[None]:
    """Let a model return named outputs without cache and states; restore its settings afterwards."""
    before = {name: getattr(config, name) for name in PLAIN_OUTPUTS if getattr(config, name, None) is not None}
    for name in before:
        setattr(config, name, PLAIN_OUTPUTS[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)


@contextmanager
def _restored_root_logger() -> Iterator[None]:
    """Restore the root logger: ONNX Runtime adds a handler to it, which would print everybody's lines."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    root.addHandler(logging.NullHandler())
    try:
        yield
    finally:
        root.handlers[:] = handlers
