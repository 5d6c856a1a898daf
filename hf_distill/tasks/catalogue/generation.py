"""Generation tasks, whose label is a text: the class `GenerationSpec`, and the tasks of `generation.yaml`.

A source is written by a template: `{document}`, or `{context}{separator}{answer}`, whose parts are tokenized
separately and joined by the tokenizer's separator token.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_origin, get_type_hints

from hf_distill.storage.plain_values import as_fields, as_hint, as_mapping, check_range, did_you_mean
from hf_distill.tasks.catalogue.registry import read_family
from hf_distill.tasks.spec_values import FineTuningDefaults, SplitsSpec

SEPARATOR = "separator"
GENERATION_METRICS = ("bleu", "meteor", "rouge1", "rouge2", "rougeL", "rougeLsum")
SUMMARY_METRICS = ("rouge2", "rouge1", "rougeL", "bleu", "meteor")
# A model with fewer layers is trained with the settings that the paper's table gives for 6-layer students.
DEEP = 12


@dataclass(frozen=True)
class GenerationDefaults:
    """Settings of a paper, used for everything that the user does not set.

    Attributes:
        learning_rate: Peak learning rate of a model with twelve or more layers.
        shallow_learning_rate: Peak learning rate of a smaller model.
        epochs: Passes over the training rows, for a model with twelve or more layers.
        shallow_epochs: Passes over the training rows, for a smaller model.
        batch_size: Rows per update.
        warmup: Share of the steps that are warm-up.
        weight_decay: AdamW weight decay.
        label_smoothing: Probability mass of the target that is spread over the vocabulary.
        max_source_length: Maximum tokens of a source, special tokens included.
        max_target_length: Maximum tokens of a target, the end token included.
        num_beams: Hypotheses of the beam search.
        length_penalty: The exponent alpha of GNMT's length penalty.
        no_repeat_ngram_size: N-grams of this many tokens may not occur twice; 0 allows repetition.
        ngram_ignore: Tokens that may repeat nevertheless.
        source: The place in the paper that gives the values.
    """

    learning_rate: float = 1e-4
    shallow_learning_rate: float = 1.5e-4
    epochs: float = 30.0
    shallow_epochs: float = 50.0
    batch_size: int = 64
    warmup: float = 0.01
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    max_source_length: int = 464
    max_target_length: int = 48
    num_beams: int = 5
    length_penalty: float = 0.9
    no_repeat_ngram_size: int = 3
    ngram_ignore: tuple[str, ...] = (".",)
    source: str = "settings of XSum (MiniLM's supplement, section 5)"

    def __post_init__(self) -> None:
        """Refuse values that no training or search can use.

        Raises:
            ValueError: If a value is out of its range.
        """
        least = {name: 0 for name in ("epochs", "shallow_epochs", "learning_rate", "shallow_learning_rate", "warmup")}
        least |= {"weight_decay": 0, "label_smoothing": 0, "length_penalty": 0, "no_repeat_ngram_size": 0}
        least |= {"batch_size": 1, "num_beams": 1, "max_source_length": 3, "max_target_length": 2}
        for name, smallest in least.items():
            check_range(getattr(self, name), f"`settings`: `{name}`", least=smallest)
        if self.label_smoothing >= 1:
            raise ValueError(f"`settings`: `label_smoothing` is {self.label_smoothing}; it must be below 1.")

    def fine_tuning(self, num_layers: int) -> FineTuningDefaults:
        """Return the training settings for a model with this many layers."""
        deep = num_layers >= DEEP
        return FineTuningDefaults(
            epochs=self.epochs if deep else self.shallow_epochs,
            learning_rate=self.learning_rate if deep else self.shallow_learning_rate,
            batch_size=self.batch_size,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            max_length=self.max_source_length + self.max_target_length,
            source=self.source,
        )


GENERATION_DEFAULTS = GenerationDefaults()


@dataclass(frozen=True)
class GenerationSpec(SplitsSpec):
    """A task whose label is a text: the fields of `SplitsSpec`, and these.

    Attributes:
        name: Registered name, or the name of the user's folder.
        template: The source as a format string with columns in braces; `{separator}` separates its parts. A source
            that is too long loses tokens of its first part.
        target_column: Column of the text to generate.
        metrics: Names of metrics, the main one first.
        kept_column: Column with a passage of the first part that is kept when the part is truncated. It begins at the
            character in column `<kept_column>_start`, or else at its first occurrence.
        first_answer: Whether the rows are those of question answering (`answers` with lists `text` and
            `answer_start`), whose first answer becomes the columns `answer` and `answer_start`.
        merge_references: Whether evaluation rows with equal sources become one row with several references.
        settings: The paper's settings.

    Raises:
        ValueError: If the fields contradict each other.
    """

    name: str
    template: str
    target_column: str
    metrics: tuple[str, ...] = SUMMARY_METRICS
    kept_column: str | None = None
    first_answer: bool = False
    merge_references: bool = False
    settings: GenerationDefaults = GENERATION_DEFAULTS

    def __post_init__(self) -> None:
        self.check_names(self.name)
        unknown = [metric for metric in self.metrics if metric not in GENERATION_METRICS]
        if unknown or not self.metrics:
            raise ValueError(
                f"Task {self.name!r}: `--metrics` has {unknown or 'no entry'}; allowed are {list(GENERATION_METRICS)}."
            )
        if not self.evaluation_splits:
            raise ValueError(f"Task {self.name!r}: `--evaluation_splits` is empty; name one, such as validation.")
        empty = [part for part in self.parts if not _columns(part)]
        if empty:
            raise ValueError(
                f"Task {self.name!r}: `--source_template` {self.template!r} has a part without a column; write it as "
                "'{document}' or '{context}{separator}{answer}'."
            )

    @property
    def parts(self) -> tuple[str, ...]:
        """The templates of the source's parts."""
        return tuple(part.strip() for part in self.template.split(f"{{{SEPARATOR}}}"))

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns that the template uses, each once."""
        return tuple(dict.fromkeys(column for part in self.parts for column in _columns(part)))

    @property
    def label_column(self) -> str:
        """The column of the targets."""
        return self.target_column

    @property
    def headline(self) -> str:
        """The main metric of the task."""
        return self.metrics[0]

    @property
    def split_sources(self) -> Mapping[str, tuple[str, ...]]:
        """Return an empty mapping: generation tasks join no splits."""
        return {}

    @property
    def headerless_columns(self) -> tuple[str, ...]:
        """Return no columns: files of generation tasks have header lines."""
        return ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GenerationSpec:
        """Make a spec from plain values, as read from YAML.

        Raises:
            ValueError: If a field is unknown or missing.
        """
        hints = get_type_hints(cls)
        values = as_mapping(values, "A generation task")
        unknown = sorted(set(values) - set(hints))
        if unknown:
            raise ValueError(f"A generation task has no fields {unknown}; known are {sorted(hints)}.")
        missing = [name for name in ("name", "template", "target_column") if not values.get(name)]
        if missing:
            raise ValueError(
                f"A generation task needs the fields {missing}: give `--source_template` ('{{document}}') and "
                "`--target_column`, or write them into its task.yaml."
            )
        return cls(**{key: _plain_field(key, value, hints[key]) for key, value in values.items()})


def _plain_field(key: str, value: Any, hint: Any) -> Any:
    """One field of a spec from its YAML value; a single name stands for a list of it."""
    if key == "settings" and not isinstance(value, GenerationDefaults):
        return _settings(value)
    if get_origin(hint) is tuple and isinstance(value, str):
        value = [value]
    return as_hint(value, hint, f"The task field `{key}`")


def _settings(values: Any) -> GenerationDefaults:
    """Settings from a mapping; `1e-5` may be text, as YAML reads it."""
    given = as_fields(values, get_type_hints(GenerationDefaults), "The task field `settings`")
    return GenerationDefaults(**{"source": "the user's task file"} | given)


def _columns(template: str) -> list[str]:
    """Return the column names in the braces of a template.

    Raises:
        ValueError: If a brace is not closed.
    """
    try:
        return [name for _, name, _, _ in string.Formatter().parse(template) if name]
    except ValueError as error:
        raise ValueError(f"`--source_template` has the part {template!r}, which cannot be read: {error}.") from error


GENERATION_TASKS: dict[str, GenerationSpec] = {
    name: GenerationSpec.from_dict(fields) for name, fields in read_family("generation").items()
}


def get_generation_task(name: str) -> GenerationSpec:
    """Return the generation task of that name.

    Raises:
        ValueError: If there is none; the message lists the known names.
    """
    if name in GENERATION_TASKS:
        return GENERATION_TASKS[name]
    hint = did_you_mean(name, GENERATION_TASKS)
    raise ValueError(
        f"`--task` {name!r} is neither a generation task nor a folder.{hint} There are {sorted(GENERATION_TASKS)}; "
        "for your own data give a folder, with `--source_template` and `--target_column` or a `task.yaml` in it."
    )
