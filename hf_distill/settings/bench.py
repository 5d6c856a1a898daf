"""Settings for timing models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class BenchmarkArguments:
    """A teacher, its students, and what is timed."""

    teacher_model: str | None = field(default=None, metadata={"help": "Hub id or local folder of the teacher."})
    teacher_shape: str | None = field(
        default=None, metadata={"help": "A BERT of this shape with random weights as the teacher, e.g. 12x768."}
    )
    student_models: list[str] | None = field(
        default=None, metadata={"help": "Hub ids or local folders of students; their results.json gives the scores."}
    )
    student_shapes: list[str] | None = field(
        default=None, metadata={"help": "Students with random weights, cut from the teacher, e.g. 6x384 4x312."}
    )
    engines: list[str] = field(
        default_factory=lambda: ["sdpa", "eager", "compiled", "onnx", "onnx_int8"],
        metadata={
            "help": "How models are run; the first that runs all of them is that of the protocol. What cannot be run "
            "is left out with the reason."
        },
    )
    task: str | None = field(
        default=None,
        metadata={
            "help": "Take rows from this task (glue/qnli), of its training split if it is there. Default: random "
            "tokens."
        },
    )
    data_dir: str | None = field(
        default=None, metadata={"help": "Local files of the task, or a parent with a folder of its name."}
    )
    batch_size: int = field(default=32, metadata={"help": "Protocol: rows of a batch."})
    seq_length: int = field(default=128, metadata={"help": "Protocol: tokens of a row, padding included."})
    num_batches: int = field(default=100, metadata={"help": "Protocol: batches that count."})
    warmup: int = field(default=10, metadata={"help": "Protocol: batches before them that do not."})
    grid_batch_sizes: list[int] = field(
        default_factory=lambda: [1, 32], metadata={"help": "Grid of every engine: rows of a batch."}
    )
    grid_seq_lengths: list[int] = field(
        default_factory=lambda: [32, 128], metadata={"help": "Grid of every engine: tokens of a row."}
    )
    grid_batches: int = field(default=3, metadata={"help": "Grid of every engine: batches that count."})
    fp32_matmul: Literal["auto", "strict", "fast"] = field(
        default="auto",
        metadata={
            "help": "fp32 products of PyTorch on the CPU: fast (oneDNN, may round to bf16), strict, or auto: fast if "
            "a check at start-up shows true fp32 accuracy."
        },
    )
    use_cpu: bool = field(default=False, metadata={"help": "Stay on the CPU even where there is a GPU."})
    seed: int = field(default=42, metadata={"help": "Seed of random weights, tokens and rows."})
    output_dir: str = field(
        default="outputs/bench", metadata={"help": "Folder of bench.json, bench.md and the figure."}
    )

    def __post_init__(self) -> None:
        """Check which models are named.

        Raises:
            ValueError: If there is not one teacher and at least one student.
        """
        if (self.teacher_model is None) == (self.teacher_shape is None):
            raise ValueError("Name the teacher, by `--teacher_model` or by `--teacher_shape`, not both.")
        if not self.student_models and not self.student_shapes:
            raise ValueError("Name at least one student: `--student_models` or `--student_shapes`.")
        if self.task is not None and self.teacher_model is None:
            raise ValueError(
                "`--task` needs a tokenizer, and `--teacher_shape` has none: give `--teacher_model`, or leave the "
                "task out for random tokens."
            )
