"""Settings of what is shown about this installation."""

from __future__ import annotations

from dataclasses import dataclass

from .values import setting


@dataclass
class InfoArguments:
    """What is shown."""

    topic: str | None = setting(
        None,
        "objectives, presets, tasks, shapes, engines, architectures or extras; the first word may stand "
        "for it. Default: an overview.",
    )
