"""An ONNX file with the interface of a PyTorch model: the same inputs, and the same outputs by name.

Shape legend: B rows, T padded length.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from hf_distill._optional import require

# The file names that optimum and Transformers.js expect.
ONNX_FILE = "model.onnx"
INT8_FILE = "model_quantized.onnx"
# The file of the weights, if they do not fit into `model.onnx`.
DATA_FILE = "model.onnx_data"


class OnnxModel(nn.Module):
    """A model that ONNX Runtime runs on the CPU.

    Attributes:
        path: The file.
        input_names: Inputs of the file: `input_ids`, `attention_mask` and, if the tokenizer makes them,
            `token_type_ids`.
        output_names: Its outputs, such as `logits`.
    """

    def __init__(
        self, path: str | os.PathLike[str], config: PreTrainedConfig | None = None, *, num_threads: int | None = None
    ) -> None:
        """Open a file.

        Args:
            path: The ONNX file.
            config: Configuration of the original model.
            num_threads: Threads of one forward pass; by default as many as torch uses.

        Raises:
            FileNotFoundError: If the file does not exist.
            ImportError: If ONNX Runtime is missing.
        """
        super().__init__()
        runtime = require("onnxruntime", extra="onnx", needed_by="`OnnxModel`")
        self.path, self.config = Path(path), config
        if not self.path.is_file():
            raise FileNotFoundError(f"There is no ONNX file {str(path)!r}: `hf-distill export` writes one.")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() if num_threads is None else num_threads
        self.session = runtime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        self.input_names = [item.name for item in self.session.get_inputs()]
        self.output_names = [item.name for item in self.session.get_outputs()]

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], *, file_name: str = ONNX_FILE) -> OnnxModel:
        """Open the model of a folder that `hf-distill export` wrote.

        Args:
            folder: The folder.
            file_name: `model.onnx`, or `model_quantized.onnx` for int8.

        Raises:
            FileNotFoundError: If the folder has no such file.
        """
        return cls(Path(folder) / file_name, AutoConfig.from_pretrained(folder))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the outputs by name, on the device of the inputs.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), 1 on real tokens; `None` for all ones.
            token_type_ids: (B, T), 1 on the second text of a pair; `None` for zeros. Ignored if the file has no such
                input.
        """
        given: dict[str, Any] = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids) if attention_mask is None else attention_mask,
            "token_type_ids": torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids,
        }
        found = self.session.run(None, {name: given[name].long().cpu().numpy() for name in self.input_names})
        return {
            name: torch.from_numpy(array).to(input_ids.device)
            for name, array in zip(self.output_names, found, strict=True)
        }
