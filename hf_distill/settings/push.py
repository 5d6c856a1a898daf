"""Settings of a push to the Hub: the folder, and the repository it goes to."""

from __future__ import annotations

from dataclasses import dataclass, field

from .values import setting


@dataclass
class PushArguments:
    """A folder and its repository."""

    folder: str = field(metadata={"help": "Folder of a student or of a corpus; the first word may stand for it."})
    repo: str = field(
        metadata={"help": "Repository on the Hub, as name or owner/name; the second word may stand for it."}
    )
    dry_run: bool = setting(False, "Only show what would be uploaded, and what is left out and why; nothing is sent.")
    private: bool = setting(False, "Make the repository private; one that is public already is refused.")
    revision: str | None = setting(None, "Branch to push to; it is made if it is missing. Default: the main branch.")
    token: str | None = setting(
        None, "Token of the Hub that may write. Default: that of HF_TOKEN or of `hf auth login`."
    )
