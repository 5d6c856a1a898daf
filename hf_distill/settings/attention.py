"""Settings of attention maps."""

from __future__ import annotations

from dataclasses import dataclass, field

from .values import setting

FORMATS = (".png", ".svg", ".pdf")


@dataclass
class AttentionArguments:
    """Whose attention is drawn, and on what."""

    models: list[str] = field(
        metadata={
            "help": "Hub ids or folders of the models, the teacher first; each reads the text with its own tokenizer."
        }
    )
    text: str = field(metadata={"help": "The sentence."})
    layers: list[int] | None = setting(
        None, "One layer for each model, counted from 1, or from the end if negative. Default: the last of each."
    )
    heads: list[int] | None = setting(
        None, "Heads to draw beside the mean over all heads, counted from 1. Default: only the mean."
    )
    output: str = setting("attention.png", "Image to write; its ending chooses the format: png, svg or pdf.")

    def __post_init__(self) -> None:
        """A single model may be given as a string; layers go with models."""
        if isinstance(self.models, str):
            self.models = [self.models]
        if not self.output.lower().endswith(FORMATS):
            raise ValueError(f"`--output` is {self.output!r}; its ending must be one of {', '.join(FORMATS)}.")
        if self.layers is not None and len(self.layers) != len(self.models):
            raise ValueError(
                f"`--layers` has {len(self.layers)} numbers for {len(self.models)} models; give one for each."
            )
