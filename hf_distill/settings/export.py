"""Settings of an export to ONNX."""

from __future__ import annotations

from dataclasses import dataclass, field

from .task import TaskArguments
from .values import check_least, setting


@dataclass
class ScoredTaskArguments(TaskArguments):
    """`TaskArguments` where a task is optional."""

    task: str | None = setting(  # type: ignore[assignment]
        None,
        "Score the exported files on this task: a registered one (glue/sst2), or your own file or "
        "folder. Default: nothing is scored.",
    )


@dataclass
class ExportArguments:
    """A model for ONNX Runtime."""

    model: str = field(
        metadata={"help": "Hub id or local folder of the model; it can also be given as the first word."}
    )
    revision: str | None = setting(None, "Branch, tag or commit of the model.")
    output_dir: str | None = setting(None, "Output folder. Default: `onnx` in the model's own folder.")
    tolerance: float = setting(
        1e-3, "Largest allowed absolute difference between the outputs of PyTorch and of ONNX Runtime."
    )
    quantize: bool = setting(True, "Also write an int8 model; --no_quantize writes fp32 only.")
    reduce_range: bool = setting(
        False, "int8: use 7 bits of the weights, for processors without VNNI (before about 2019)."
    )
    eval_batch_size: int = setting(64, "Rows per batch when a task is scored.")

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.tolerance > 0:
            raise ValueError(f"`--tolerance` is {self.tolerance}; it must be above 0.")
        check_least(self, 1, "eval_batch_size")
