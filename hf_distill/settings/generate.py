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
            "help": "A generation task (qg/squad, xsum, cnn_dailymail, dialogsum), or a folder of your own with train "
            "and validation files (parquet, jsonl, tsv, csv), described by its task.yaml or by the flags below."
        }
    )
    data_dir: str | None = setting(
        None,
        "Local files of the task: its own folder, or a parent with a folder of its name. "
        "Default: the task's data set on the Hub.",
    )
    source_template: str | None = setting(
        None,
        "Source of columns in braces, such as '{document}' or '{context}{separator}{answer}'. Default: the task's.",
    )
    target_column: str | None = setting(None, "Column of the text to be written. Default: the task's.")
    max_source_length: int | None = setting(
        None, "Longest source in tokens, special ones included; the rest is cut off. Default: the task's."
    )
    max_target_length: int | None = setting(
        None, "Longest text in tokens, its end included, to learn and to write. Default: the task's."
    )
    max_train_samples: int | None = setting(None, "Rows to train on, drawn with the seed. Default: all.")
    max_eval_samples: int | None = setting(
        None, "Rows of each split to evaluate on, drawn with the seed. Default: all."
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
        "Hub id or folder of an encoder (a student, or any other; without a masked-LM head it gets one), "
        "or of a model that this job wrote.",
    )
    student_revision: str | None = setting(None, "Branch, tag or commit of the student.")
    tokenizer_name: str | None = setting(None, "Hub id or folder of the tokenizer. Default: the student's.")
    eval_only: bool = setting(False, "Do not train: decode and score a model that this job wrote.")
    way: Way | None = setting(
        None,
        "What it learns to predict: pseudo (masks behind the target, UniLM v2) or shift (the next token, "
        "fewer tokens a row). Default: as the model was trained, else pseudo.",
    )
    num_beams: int | None = setting(None, "Hypotheses of the search; 1 is greedy. Default: the task's (5).")
    length_penalty: float | None = setting(
        None,
        "Alpha of the length penalty; larger prefers longer texts. Default: the task's (qg/squad: 1.3, "
        "xsum: 0.9, cnn_dailymail: 0.7).",
    )
    min_new_tokens: int | None = setting(None, "Tokens before a text may end. Default: none.")
    no_repeat_ngram_size: int | None = setting(
        None,
        "Length of runs of tokens that may not come twice in a text; 0: any may. Default: the task's (3 for "
        "summaries).",
    )
    ngram_ignore: list[str] | None = setting(
        None, "Tokens whose runs may repeat all the same. Default: the task's (a full stop)."
    )
    decode_batch_size: int = setting(32, "Sources that are decoded together.")

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
        None, "Peak learning rate. Default: the task's for the depth of the model (8e-5 to 1.5e-4)."
    )
    num_train_epochs: float | None = setting(None, "Passes over the training rows. Default: the task's (25 to 50).")
    per_device_train_batch_size: int | None = setting(
        None, "Rows per device and step. Default: the task's batch (32 or 64) over all devices."
    )
    per_device_eval_batch_size: int = setting(16, "Rows per device where the loss is measured.")
    warmup_steps: float | None = setting(
        None, "Linear warm-up: a number of steps, or below 1 a share of them. Default: the task's (0.01)."
    )
    label_smoothing_factor: float | None = setting(  # type: ignore[assignment]
        None, "Share of every target that is spread over the vocabulary, in training. Default: the task's (0.1)."
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
