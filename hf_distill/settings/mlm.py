"""Settings of a masked-LM head for an encoder that has none."""

from __future__ import annotations

from dataclasses import dataclass

from .distill import CheckedTrainingArguments
from .values import check_least, setting


@dataclass
class MLMHeadArguments:
    """The encoder that gets a masked-LM head."""

    encoder: str | None = setting(
        None, "Hub id or folder of the encoder; if it has a masked-LM head, this head is trained further."
    )
    encoder_revision: str | None = setting(None, "Branch, tag or commit of the encoder.")
    freeze_encoder: bool = setting(
        True,
        "Train only the head, whose output matrix is tied to the word embeddings; --no_freeze_encoder "
        "trains the encoder too.",
    )


@dataclass
class MaskedHeadArguments(CheckedTrainingArguments):
    """`TrainingArguments` of a masked-LM head; rate, warm-up, decay and batches are those of a distillation."""

    learning_rate: float = setting(6e-4, "Peak learning rate.")
    weight_decay: float = setting(0.01, "Weight decay.")
    adam_epsilon: float = setting(1e-6, "Epsilon of Adam.")
    warmup_steps: float = setting(0.01, "Linear warm-up: a number of steps, or a share of all steps if below 1.")
    logging_steps: float = setting(10, "Number of steps between two logs of the loss.")
    train_sampling_strategy: str = setting(
        "group_by_length", "How rows are batched: group_by_length (little padding), random or sequential."
    )
    max_length: int = setting(128, "Largest number of tokens in a row; the rest is truncated.")
    text_column: str = setting("text", "Column of the text.")
    mlm_probability: float = setting(0.15, "Share of the tokens that are masked and predicted (BERT: 0.15).")

    def __post_init__(self) -> None:
        """Check what can be checked without the model.

        Raises:
            ValueError: If a number is not finite or out of its range.
        """
        check_least(self, 2, "max_length")
        if not 0 < self.mlm_probability < 1:
            raise ValueError(f"`--mlm_probability` is {self.mlm_probability}; it must be within 0 and 1.")
        super().__post_init__()
