"""Settings for storing the signals of a teacher."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .distill import TeacherDtype


@dataclass
class PrecomputeArguments:
    """The signals of a teacher that are stored, their format, and their folder."""

    output_dir: str = field(
        default="outputs/stored_teacher", metadata={"help": "Folder of the stored teacher; a killed run is continued."}
    )
    objectives: list[str] = field(
        default_factory=lambda: ["relation"],
        metadata={"help": "Objectives whose signals are stored, as for `hf-distill distill`; weights do not matter."},
    )
    student_shape: str | None = field(
        default=None,
        metadata={
            "help": "Shape of the student to come; only its depth matters, and only to maps of layers such as uniform."
        },
    )
    store_dtype: Literal["float16", "bfloat16", "float32"] = field(
        default="float16",
        metadata={"help": "Type of the stored numbers: float16 (finer), bfloat16 (wider range), or float32 (exact)."},
    )
    top_k: int | None = field(
        default=None,
        metadata={"help": "Store so many of the largest logits and the mass of the rest. Default: all logits."},
    )
    teacher_dtype: TeacherDtype = field(
        default="auto",
        metadata={"help": "Arithmetic of the teacher's forward pass; int8: on the CPU; auto: that of its weights."},
    )
    text_column: str = field(default="text", metadata={"help": "Column of the text."})
    max_length: int = field(default=128, metadata={"help": "Longest row in tokens; the rest is cut off."})
    batch_size: int = field(default=32, metadata={"help": "Rows of one forward pass; they are of like length."})
    shard_rows: int = field(
        default=2048, metadata={"help": "Rows of one file, which is held in memory until it is written."}
    )
    use_cpu: bool = field(default=False, metadata={"help": "Stay on the CPU even where there is a GPU."})

    def __post_init__(self) -> None:
        """Check what can be checked without the teacher."""
        for name, least in {"top_k": 1, "max_length": 2, "batch_size": 1, "shard_rows": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"`--{name}` is {value}; it must be at least {least}.")
