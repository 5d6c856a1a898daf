"""Settings of a masked-LM head for an encoder that has none."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class MLMHeadArguments:
    """The encoder that gets a masked-LM head."""

    encoder: str | None = field(
        default=None, metadata={"help": "Hub id or folder of the encoder; a head that it has is trained on."}
    )
    encoder_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the encoder."})
    freeze_encoder: bool = field(
        default=True, metadata={"help": "Train the head alone, whose last product is tied to the word embeddings."}
    )
