"""Settings of a push to the Hub: the folder, and the repository it goes to."""

from __future__ import annotations

from dataclasses import dataclass, field

from .values import setting


@dataclass
class PushArguments:
    """A folder and its repository."""

    folder: str = field(
        metadata={"help": "Folder of a student or of a corpus; it can also be given as the first word."}
    )
    repo: str = field(
        metadata={"help": "Repository on the Hub, as name or owner/name; it can also be given as the second word."}
    )
    dry_run: bool = setting(False, "Only show what would be uploaded, and what is left out and why; nothing is sent.")
    private: bool = setting(False, "Make the repository private; an existing public repository is refused.")
    revision: str | None = setting(
        None, "Branch to push to; it is created if it does not exist. Default: the main branch."
    )
    token: str | None = setting(
        None, "Token of the Hub with write permission. Default: that of HF_TOKEN or of `hf auth login`."
    )
