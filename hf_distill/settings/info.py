"""Settings of what is shown about this installation."""

from __future__ import annotations

from dataclasses import dataclass

from .values import setting


@dataclass
class InfoArguments:
    """What is shown."""

    topic: str | None = setting(
        None,
        "objectives, presets, tasks, shapes, engines, architectures or extras; it can also be given as "
        "the first word. Default: an overview.",
    )
