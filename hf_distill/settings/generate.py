"""Settings for fine-tuning an encoder that writes, and for its writing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..tasks.catalogue.generation import GenerationDefaults
from .teach import FineTuningArguments
from .values import check_least, setting

Way = Literal["pseudo", "shift"]


@dataclass
class GenerationTaskArguments:
    """The task, and the place of its rows."""

    task: str = field(
        metadata={
            "help": "A generation task (qg/squad, xsum, cnn_dailymail, dialogsum), or your own folder with train "
            "and validation files (parquet, jsonl, tsv, csv), described by its task.yaml or by the flags "
            "below."
        }
    )
    data_dir: str | None = setting(
        None,
        "Local files of the task: its own folder, or a parent folder with a folder of its name. "
        "Default: the task's data set on the Hub.",
    )
    source_template: str | None = setting(
        None,
        "Template of the source with column names in braces, such as '{document}' or "
        "'{context}{separator}{answer}'. Default: the task's.",
    )
    target_column: str | None = setting(None, "Column of the text that is to be generated. Default: the task's.")
    max_source_length: int | None = setting(
        None,
        "Largest number of tokens in a source, special tokens included; the rest is truncated. Default: the task's.",
    )
    max_target_length: int | None = setting(
        None,
        "Largest number of tokens in a target, its end token included, in training and in decoding. "
        "Default: the task's.",
    )
    max_train_samples: int | None = setting(None, "Number of training rows, drawn with the seed. Default: all.")
    max_eval_samples: int | None = setting(
        None, "Number of evaluation rows of each split, drawn with the seed. Default: all."
    )
    evaluation_splits: list[str] | None = setting(
        None, "Splits to evaluate on, the main one first. Default: the task's (validation)."
    )
    metrics: list[str] | None = setting(
        None, "Scores, the main one first: bleu, meteor, rouge1, rouge2, rougeL, rougeLsum. Default: the task's."
    )

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: If one is too small.
        """
        check_least(self, 3, "max_source_length")
        check_least(self, 2, "max_target_length")
        check_least(self, 1, "max_train_samples", "max_eval_samples")

    def spec_fields(self) -> dict[str, Any]:
        """Fields of `GenerationSpec` that were given; they go to `load_generation_task`."""
        return {
            "template": self.source_template,
            "target_column": self.target_column,
            "evaluation_splits": None if self.evaluation_splits is None else tuple(self.evaluation_splits),
            "metrics": None if self.metrics is None else tuple(self.metrics),
        }


@dataclass
class GenerationArguments:
    """The encoder that is to write, and how it writes."""

    student_model: str | None = setting(
        None,
        "Hub id or folder of an encoder (one without a masked-LM head gets one), or of a model that this verb wrote.",
    )
    student_revision: str | None = setting(None, "Branch, tag or commit of the student.")
    tokenizer_name: str | None = setting(None, "Hub id or folder of the tokenizer. Default: the student's.")
    eval_only: bool = setting(False, "Do not train: decode and score a model that this verb wrote.")
    way: Way | None = setting(
        None,
        "How the model is trained: pseudo (masks after the target, UniLM v2) or shift (each token "
        "predicts the next one; rows are shorter). Default: as the model was trained before, else "
        "pseudo.",
    )
    num_beams: int | None = setting(None, "Number of beams; 1 is greedy decoding. Default: the task's (5).")
    length_penalty: float | None = setting(
        None,
        "Alpha of the length penalty; larger values prefer longer texts. Default: the task's "
        "(qg/squad: 1.3, xsum: 0.9, cnn_dailymail: 0.7).",
    )
    min_new_tokens: int | None = setting(None, "Smallest number of tokens in a text. Default: no limit.")
    no_repeat_ngram_size: int | None = setting(
        None,
        "n-grams of this length cannot occur twice in a text; 0: no limit. Default: the task's (3 for summaries).",
    )
    ngram_ignore: list[str] | None = setting(
        None, "Tokens whose n-grams may repeat nevertheless. Default: the task's (a full stop)."
    )
    decode_batch_size: int = setting(32, "Number of sources that are decoded together.")

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: If one is out of its range.
        """
        check_least(self, 1, "num_beams", "decode_batch_size")
        check_least(self, 0, "length_penalty", "min_new_tokens", "no_repeat_ngram_size")

    def decoding(self) -> dict[str, Any]:
        """Fields of `GenerationSettings` that were given."""
        names = ("num_beams", "length_penalty", "min_new_tokens", "no_repeat_ngram_size", "ngram_ignore")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return given | {"batch_size": self.decode_batch_size}


@dataclass
class GenerationTrainingArguments(FineTuningArguments):
    """`TrainingArguments` whose unset learning rate, epochs, batch size, smoothing and the like are the task's."""

    learning_rate: float | None = setting(
        None, "Peak learning rate. Default: the task's for the number of layers of the model (3e-5 to 1.5e-4)."
    )
    num_train_epochs: float | None = setting(None, "Number of epochs. Default: the task's (25 to 50).")
    per_device_train_batch_size: int | None = setting(
        None, "Rows per device and step. Default: the task's batch size (32 or 64) divided among all devices."
    )
    per_device_eval_batch_size: int = setting(16, "Rows per device when the loss is evaluated.")
    warmup_steps: float | None = setting(
        None, "Linear warm-up: a number of steps, or a share of all steps if below 1. Default: the task's (0.01)."
    )
    label_smoothing_factor: float | None = setting(  # type: ignore[assignment]
        None,
        "Label smoothing in training: share of every target that is spread over the vocabulary. "
        "Default: the task's (0.1).",
    )

    def __post_init__(self) -> None:
        """As the base class, with the loss as what chooses the best checkpoint.

        Raises:
            ValueError: If the smoothing is no share, or a checkpoint is to be chosen by a score.
        """
        smoothing = self.label_smoothing_factor
        if smoothing is not None and not 0 <= smoothing < 1:
            raise ValueError(f"`--label_smoothing_factor` is {smoothing}; it must be at least 0 and below 1.")
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model = "loss"
        if self.metric_for_best_model not in (None, "loss", "eval_loss"):
            raise ValueError(
                f"`--metric_for_best_model` is {self.metric_for_best_model!r}; while an encoder learns to write there "
                "is the loss alone, its texts are scored at the end."
            )
        self.label_smoothing_factor = smoothing or 0.0
        super().__post_init__()
        self.label_smoothing_factor = smoothing

    def with_generation_defaults(self, defaults: GenerationDefaults, num_layers: int) -> GenerationTrainingArguments:
        """A copy in which everything left unset has a task's value for a model of so many layers."""
        filled = self.with_defaults(defaults.fine_tuning(num_layers), "loss")
        if filled.label_smoothing_factor is None:
            filled.label_smoothing_factor = defaults.label_smoothing
        return filled
