"""Settings of what is shown about this installation."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class InfoArguments:
    """What is shown."""

    topic: str | None = field(
        default=None,
        metadata={
            "help": "objectives, presets, tasks, shapes, engines, architectures or extras; the first word may stand "
            "for it. Default: an overview."
        },
    )
