"""Settings of a masked-LM head for an encoder that has none."""

from __future__ import annotations

from dataclasses import dataclass, field

from .distill import CheckedTrainingArguments


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


@dataclass
class MaskedHeadArguments(CheckedTrainingArguments):
    """`TrainingArguments` of a masked-LM head; rate, warm-up, decay and batches are those of a distillation."""

    learning_rate: float = field(default=6e-4, metadata={"help": "Peak learning rate."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay."})
    adam_epsilon: float = field(default=1e-6, metadata={"help": "Epsilon of Adam."})
    warmup_steps: float = field(
        default=0.01, metadata={"help": "Linear warm-up: a number of steps, or below 1 a share of them."}
    )
    logging_steps: float = field(default=10, metadata={"help": "Log the loss every so many steps."})
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={"help": "How rows are batched: group_by_length (little padding), random or sequential."},
    )
    max_length: int = field(default=128, metadata={"help": "Longest row in tokens."})
    text_column: str = field(default="text", metadata={"help": "Column of the text."})
    mlm_probability: float = field(
        default=0.15, metadata={"help": "Share of the tokens that are masked and learnt (BERT: 0.15)."}
    )

    def __post_init__(self) -> None:
        """Check what can be checked without the model.

        Raises:
            ValueError: If a number is not finite or out of its range.
        """
        if self.max_length < 2:
            raise ValueError(f"`--max_length` is {self.max_length}; it must be at least 2.")
        if not 0 < self.mlm_probability < 1:
            raise ValueError(f"`--mlm_probability` is {self.mlm_probability}; it must be within 0 and 1.")
        super().__post_init__()
