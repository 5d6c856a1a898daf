"""Settings for timing models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .task import ColumnArguments
from .values import setting


@dataclass
class BenchmarkArguments(ColumnArguments):
    """A teacher, its students, and what is timed."""

    teacher_model: str | None = setting(None, "Hub id or local folder of the teacher.")
    teacher_shape: str | None = setting(None, "A BERT of this shape with random weights as the teacher, e.g. 12x768.")
    student_models: list[str] | None = setting(
        None, "Hub ids or local folders of students; their results.json gives the scores."
    )
    student_shapes: list[str] | None = setting(
        None, "Students with random weights, cut from the teacher, e.g. 6x384 4x312."
    )
    engines: list[str] = setting(
        ["sdpa", "eager", "compiled", "onnx", "onnx_int8"],
        "Engines that run the models; the papers' protocol uses the first one that can run all of "
        "them. An engine that cannot run is left out, with the reason.",
    )
    task: str | None = setting(
        None,
        "Take rows from this task (glue/qnli, reviews.csv), of its training split if there is one. "
        "Default: random tokens.",
    )
    data_dir: str | None = setting(None, "Local files of the task, or a parent folder with a folder of its name.")
    batch_size: int = setting(32, "Papers' protocol: rows in a batch.")
    seq_length: int = setting(128, "Papers' protocol: tokens in a row, padding included.")
    num_batches: int = setting(100, "Papers' protocol: number of timed batches.")
    warmup: int = setting(10, "Papers' protocol: number of batches before them that are not timed.")
    grid_batch_sizes: list[int] = setting([1, 32], "Grid of every engine: rows in a batch.")
    grid_seq_lengths: list[int] = setting([32, 128], "Grid of every engine: tokens in a row.")
    grid_batches: int = setting(3, "Grid of every engine: number of timed batches.")
    fp32_matmul: Literal["auto", "strict", "fast"] = setting(
        "auto",
        "fp32 matrix products of PyTorch on the CPU: fast (oneDNN, may round to bf16), strict "
        "(PyTorch), or auto (fast if a check at start-up shows true fp32 accuracy).",
    )
    use_cpu: bool = setting(False, "Use the CPU even if there is a GPU.")
    seed: int = setting(42, "Seed of random weights, tokens and rows.")
    output_dir: str = setting("outputs/bench", "Folder of bench.json, bench.md and the figure.")

    def __post_init__(self) -> None:
        """Check which models are named.

        Raises:
            ValueError: If there is not one teacher and at least one student.
        """
        if (self.teacher_model is None) == (self.teacher_shape is None):
            raise ValueError("Name the teacher, by `--teacher_model` or by `--teacher_shape`, not both.")
        if not self.student_models and not self.student_shapes:
            raise ValueError("Name at least one student: `--student_models` or `--student_shapes`.")
        if self.task is None and self.column_flags():
            raise ValueError(f"`{self.column_flags()[0]}` is about the rows of a task: name it by `--task`.")
        if self.task is not None and self.teacher_model is None:
            raise ValueError(
                "`--task` needs a tokenizer, and `--teacher_shape` has none: give `--teacher_model`, or leave the "
                "task out for random tokens."
            )
