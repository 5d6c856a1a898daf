"""The engines that run a model: PyTorch with SDPA or eager attention, compiled, ONNX Runtime in fp32 and in int8."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_distill.capture.architectures import shows_its_signals
from hf_distill.reports.onnx.onnx_export import export_onnx, quantize_onnx
from hf_distill.reports.onnx.onnx_model import INT8_FILE, ONNX_FILE, OnnxModel
from hf_distill.reports.speed.latency import Batch, weight_bytes

# The first engine that runs every model is the reference for speed-ups.
ENGINES = ("sdpa", "eager", "compiled", "onnx", "onnx_int8")

Run = Callable[[Batch], Any]


class EngineUnavailableError(RuntimeError):
    """A model cannot be run on an engine here; the message gives the reason."""


class Engines:
    """Runs one model on several engines; PyTorch's engines share its weights.

    Attributes:
        model: The loaded model, in eval mode.
        bytes: Engine -> size in bytes of the weights on disk, for the engines opened so far.
    """

    def __init__(self, model: PreTrainedModel, folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Use a model.

        Args:
            model: The model.
            folder: Folder for ONNX files.
            tokenizer: Determines the inputs of an ONNX file.
        """
        self.model = model.eval()
        self.folder = folder
        self.tokenizer = tokenizer
        self.bytes: dict[str, int] = {}

    def open(self, engine: str, example: Batch) -> Run:
        """Return a function that runs one batch.

        Args:
            engine: One of `ENGINES`.
            example: A first batch, on the model's device; compilation happens on it.

        Raises:
            EngineUnavailableError: If the model cannot be run on the engine here.
        """
        run = self._onnx(engine) if engine.startswith("onnx") else self._torch(engine, example)
        file = {"onnx": ONNX_FILE, "onnx_int8": INT8_FILE}.get(engine)
        self.bytes[engine] = weight_bytes(self.model) if file is None else (self.folder / file).stat().st_size
        return run

    def _torch(self, engine: str, example: Batch) -> Run:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        twin: Any = copy.deepcopy(self.model, {id(tensor): tensor for tensor in tensors})
        if engine == "compiled":
            # Compile one graph for all lengths and batch sizes, as in serving.
            twin.forward = torch.compile(twin.forward, dynamic=True)
        else:
            _choose_attention(twin, engine)

        def run(batch: Batch) -> Any:
            with torch.no_grad():
                return twin(**batch)

        try:
            run(example)
        except RuntimeError as error:
            if engine != "compiled":
                raise
            raise EngineUnavailableError(f"torch.compile: {_first_line(error)}") from error
        return run

    def _onnx(self, engine: str) -> Run:
        if self.model.device.type != "cpu":
            raise EngineUnavailableError(
                f"ONNX Runtime runs on the CPU here, the model on {self.model.device}: give `--use_cpu` to compare."
            )
        try:
            if not (self.folder / ONNX_FILE).is_file():
                export_onnx(self.model, self.folder, self.tokenizer)
            if engine == "onnx_int8":
                quantize_onnx(self.folder)
        except (ImportError, ValueError, RuntimeError) as error:
            raise EngineUnavailableError(_first_line(error)) from error
        exported = OnnxModel(self.folder / (INT8_FILE if engine == "onnx_int8" else ONNX_FILE))
        return lambda batch: exported(**batch)


def _choose_attention(model: PreTrainedModel, attention: str) -> None:
    """Switch to `sdpa` or `eager`; a model without attention is unchanged.

    Raises:
        EngineUnavailableError: If the architecture does not support it.
    """
    if shows_its_signals(model) or model.config._attn_implementation == attention:
        return
    if not model._can_set_attn_implementation():
        raise EngineUnavailableError(f"{type(model).__name__} has no {attention} attention.")
    try:
        model.set_attn_implementation(attention)
    except (ValueError, ImportError) as error:
        raise EngineUnavailableError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
