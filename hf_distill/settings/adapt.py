"""Settings for adapting a student to a task."""

from __future__ import annotations

from dataclasses import dataclass, field

from .values import setting


@dataclass
class AdaptationArguments:
    """The student to adapt, and what it is compared with."""

    student_model: str = field(metadata={"help": "Hub id or local folder of the student."})
    student_revision: str | None = setting(None, "Branch, tag or commit of the student.")
    tokenizer_name: str | None = setting(None, "Hub id or local folder of the tokenizer. Default: the student's.")
    from_scratch: bool = setting(
        False, "Also train the baseline without a teacher: the same student with random weights."
    )
