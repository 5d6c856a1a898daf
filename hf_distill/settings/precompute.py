"""Settings for storing the signals of a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .distill import TeacherDtype
from .values import check_least, setting


@dataclass
class PrecomputeArguments:
    """The signals of a teacher that are stored, their format, and their folder."""

    output_dir: str = setting(
        "outputs/stored_teacher", "Folder of the stored teacher; an interrupted run continues there."
    )
    objectives: list[str] = setting(
        ["relation"], "Objectives whose signals are stored, as for `hf-distill distill`; weights do not matter."
    )
    student_shape: str | None = setting(
        None, "Shape of the future student; only its number of layers matters, for layer maps such as uniform."
    )
    store_dtype: Literal["float16", "bfloat16", "float32"] = setting(
        "float16", "dtype of the stored numbers: float16 (finer), bfloat16 (wider range), or float32 (exact)."
    )
    top_k: int | None = setting(
        None,
        "Store only this many of the largest logits, and the total probability of the others. Default: all logits.",
    )
    teacher_dtype: TeacherDtype = setting(
        "auto",
        "dtype of the teacher's forward pass; int8: linear layers in int8, on the CPU; auto: that of its weights.",
    )
    text_column: str = setting("text", "Column of the text.")
    max_length: int = setting(128, "Largest number of tokens in a row; the rest is truncated.")
    batch_size: int = setting(32, "Number of rows in a forward pass; they have similar lengths.")
    shard_rows: int = setting(2048, "Number of rows in a file; they are in memory until it is written.")
    candidate_labels: list[str] | None = setting(
        None,
        "Zero-shot: labels for texts without labels, each as name or name=description, or a file with "
        "one a line. The teacher is a model of natural language inference, and its logits for these "
        "labels are stored for the objective logits.",
    )
    hypothesis_template: str = setting(
        "This example is {}.",
        "Zero-shot: a sentence about the text, with {} in place of the label, in the language of the texts.",
    )
    multi_label: bool = setting(
        False, "Zero-shot: several labels can fit a text; each label is a decision of its own."
    )
    tokenizer_name: str | None = setting(
        None,
        "Zero-shot: Hub id or local folder of the student's tokenizer, with which the rows are stored. "
        "Default: the teacher's.",
    )
    use_cpu: bool = setting(False, "Use the CPU even if there is a GPU.")

    def __post_init__(self) -> None:
        """Check what can be checked without the teacher."""
        only_zero_shot = {
            "hypothesis_template": self.hypothesis_template != "This example is {}.",
            "multi_label": self.multi_label,
            "tokenizer_name": self.tokenizer_name is not None,
        }
        given = [name for name, chosen in only_zero_shot.items() if chosen]
        if given and not self.candidate_labels:
            raise ValueError(f"`--{given[0]}` needs `--candidate_labels`: the labels of a zero-shot teacher.")
        if self.candidate_labels and self.objectives not in (["relation"], ["logits"]):
            raise ValueError(
                f"`--candidate_labels` makes logits alone, but `--objectives` is {self.objectives}: leave it out."
            )
        check_least(self, 1, "top_k", "batch_size", "shard_rows")
        check_least(self, 2, "max_length")
