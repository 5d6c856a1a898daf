"""Settings of the card of a student."""

from __future__ import annotations

from dataclasses import dataclass, field

from .values import setting


@dataclass
class CardArguments:
    """The folder of a student, and what is known of it besides."""

    folder: str = field(metadata={"help": "Folder of a student; it can also be given as the first word."})
    repo: str | None = setting(
        None,
        "Repository on the Hub (owner/name) from which the code on the card loads the student. "
        "Default: the one to which it was pushed, else the name of the folder, which a push replaces.",
    )
    example: list[str] | None = setting(
        None, "A text of your own, or the two of a pair, to show on the card with the student's answer."
    )
    language: list[str] | None = setting(None, "ISO codes of the student's languages (en).")
    licence: str | None = setting(None, "Licence of the student, as the Hub calls it (apache-2.0).")
    check: bool = setting(False, "Write nothing; fail if the existing card lacks something.")
