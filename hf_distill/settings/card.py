"""Settings of the card of a student."""

from __future__ import annotations

from dataclasses import dataclass, field

from .values import setting


@dataclass
class CardArguments:
    """The folder of a student, and what is known of it besides."""

    folder: str = field(metadata={"help": "Folder of a student; the first word may stand for it."})
    repo: str | None = setting(
        None,
        "Repository on the Hub, as owner/name, that the code of the card loads the student from. Default: "
        "the one that it was pushed to, or the name of the folder, which a push replaces.",
    )
    example: list[str] | None = setting(
        None, "A text of yours, or the two of a pair, to show with the student's answer."
    )
    language: list[str] | None = setting(None, "ISO codes of the student's languages (en).")
    licence: str | None = setting(None, "Licence of the student, as the Hub calls it (apache-2.0).")
    check: bool = setting(False, "Write nothing; where the card that is there lacks something, end with an error.")
