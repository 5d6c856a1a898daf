"""What a task is: data, no code."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

ProblemType = Literal["single_label_classification", "regression"]
TaskKind = Literal["text_classification", "token_classification", "question_answering"]

HIDDEN_LABEL = -1
CLASSIFICATION_METRICS = ("accuracy", "f1", "f1_macro", "matthews_correlation")
REGRESSION_METRICS = ("pearson", "spearman")
# Of entities, but for the accuracy, which is that of words (conlleval).
ENTITY_METRICS = ("f1", "precision", "recall", "accuracy")
ANSWER_METRICS = ("f1", "exact_match")
OUTSIDE_TAG = "O"


@dataclass(frozen=True)
class FineTuningDefaults:
    """Fine-tuning settings of a paper, used wherever the user gives none.

    Attributes:
        epochs: Passes over the training split.
        learning_rate: Peak learning rate (linear decay).
        batch_size: Rows per update.
        warmup: Share of the steps spent warming up.
        weight_decay: AdamW weight decay.
        max_length: Tokens per row; longer rows are truncated, contexts of questions are cut into windows.
        doc_stride: Tokens that two windows of one context share.
        source: Where in which paper the values stand.
    """

    epochs: float = 10.0
    learning_rate: float = 2e-5
    batch_size: int = 16
    warmup: float = 0.06
    weight_decay: float = 0.01
    max_length: int = 128
    doc_stride: int = 128
    source: str = "Contextualized Corpus, section 3, training details (fine-tuning; small tasks)"


@dataclass(frozen=True)
class TaskSpec:
    """A task as data.

    Attributes:
        name: Registered name, `family/task` (`glue/sst2`).
        text_columns: One column (single sentence) or two (pair); of token classification one column with lists of
            words; of question answering those of question and context.
        label_names: Names of the classes in the order of the head's outputs; `None` for regression and for question
            answering. Those of token classification are tags (`O`, `B-PER`, `I-PER`).
        label_column: Column of the labels in the source; of token classification lists of tags; of question
            answering `answers`, with lists `text` and `answer_start`.
        kind: What the head speaks about: a row, its words, or the span of an answer.
        metrics: Names of bundled metrics (`hf_distill.tasks.metrics`).
        headline_metric: The one number of the task; `None` takes the first of `metrics`.
        train_split: Split to train on.
        evaluation_splits: Splits to report, the headline split first.
        test_splits: Splits loaded where they are there; their labels may be hidden.
        hub_path: Data set on the Hub.
        hub_config: Its configuration.
        folder_names: Other names that the task's folder has in known distributions (`SST-2`).
        split_aliases: Split -> other names of its files (`validation` -> `dev`).
        column_aliases: Column -> names it has in other distributions of the same data.
        headerless_columns: Columns of a tab-separated file that has no header line, empty if there is none such.
        label_range: Smallest and largest label of a regression task.
        fine_tuning: Fine-tuning settings of the paper.
        language: ISO code, for model cards.
        licence: Licence of the data as known.

    Raises:
        ValueError: If the fields contradict each other.
    """

    name: str
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...] | None
    label_column: str = "label"
    kind: TaskKind = "text_classification"
    metrics: tuple[str, ...] = ("accuracy",)
    headline_metric: str | None = None
    train_split: str = "train"
    evaluation_splits: tuple[str, ...] = ("validation",)
    test_splits: tuple[str, ...] = ("test",)
    hub_path: str | None = None
    hub_config: str | None = None
    folder_names: tuple[str, ...] = ()
    split_aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    column_aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    headerless_columns: tuple[str, ...] = ()
    label_range: tuple[float, float] | None = None
    fine_tuning: FineTuningDefaults = FineTuningDefaults()
    language: str = "en"
    licence: str | None = None

    def __post_init__(self) -> None:
        self._check_columns_and_labels()
        allowed = self.allowed_metrics
        unknown = [metric for metric in self.metrics if metric not in allowed]
        if unknown or not self.metrics:
            raise ValueError(
                f"Task {self.name!r} ({self.problem_type or self.kind}): `metrics` has {unknown or 'no entry'}; "
                f"allowed are {list(allowed)}."
            )
        if self.kind == "text_classification" and "f1" in self.metrics and self.num_labels != 2:
            raise ValueError(
                f"Task {self.name!r}: the metric 'f1' needs two classes, this task has {self.num_labels}; "
                "take 'f1_macro'."
            )
        if self.headline_metric is None:
            object.__setattr__(self, "headline_metric", self.metrics[0])
        elif self.headline_metric not in self.metrics:
            raise ValueError(
                f"Task {self.name!r}: `headline_metric` {self.headline_metric!r} is not in `metrics` "
                f"{list(self.metrics)}."
            )

    def _check_columns_and_labels(self) -> None:
        """What each kind of task asks of its columns and labels."""
        if self.kind not in get_args(TaskKind):
            raise ValueError(f"Task {self.name!r}: `kind` is {self.kind!r}; allowed are {list(get_args(TaskKind))}.")
        counts = {"text_classification": (1, 2), "token_classification": (1,), "question_answering": (2,)}[self.kind]
        if len(self.text_columns) not in counts:
            meaning = {
                "text_classification": "one column (sentence) or two (pair)",
                "token_classification": "the one column with the lists of words",
                "question_answering": "two columns, question and context",
            }[self.kind]
            raise ValueError(f"Task {self.name!r}: `text_columns` must name {meaning}, got {list(self.text_columns)}.")
        if self.is_span and self.label_names is not None:
            raise ValueError(f"Task {self.name!r}: question answering has no classes; got {self.label_names}.")
        if self.kind == "token_classification" and set(self.metrics) != {"accuracy"}:
            self._check_tags()
        if self.label_names is not None and len(set(self.label_names)) != len(self.label_names):
            raise ValueError(f"Task {self.name!r}: `label_names` has duplicates: {list(self.label_names)}.")
        if self.label_names is not None and len(self.label_names) < 2:
            raise ValueError(f"Task {self.name!r}: classification needs two label names, got {self.label_names}.")

    def _check_tags(self) -> None:
        """Tags must be such that entities can be read off them."""
        tags = self.label_names or ()
        wrong = [tag for tag in tags if tag != OUTSIDE_TAG and tag[:2] not in ("B-", "I-", "E-")]
        if wrong or OUTSIDE_TAG not in tags:
            raise ValueError(
                f"Task {self.name!r}: entities are scored by the tag `O` and tags such as `B-PER` and `I-PER`; "
                f"`label_names` are {list(tags)}. For other tags take `metrics: [accuracy]`."
            )

    @property
    def allowed_metrics(self) -> tuple[str, ...]:
        """Metrics that a task of this kind can have."""
        if self.is_span:
            return ANSWER_METRICS
        if self.kind == "token_classification":
            return ENTITY_METRICS
        return CLASSIFICATION_METRICS if self.label_names is not None else REGRESSION_METRICS

    @property
    def is_span(self) -> bool:
        """Whether the answer is a span of the context."""
        return self.kind == "question_answering"

    @property
    def problem_type(self) -> ProblemType | None:
        """The value of `config.problem_type` in transformers; only heads that speak about a row have one."""
        if self.kind != "text_classification":
            return None
        return "regression" if self.label_names is None else "single_label_classification"

    @property
    def num_labels(self) -> int:
        """Outputs of the head: one per class, one for regression, start and end of an answer."""
        if self.is_span:
            return 2
        return 1 if self.label_names is None else len(self.label_names)

    @property
    def is_pair(self) -> bool:
        """Whether a row is a pair of texts."""
        return len(self.text_columns) == 2

    @property
    def headline(self) -> str:
        """The metric that stands for the task."""
        return self.headline_metric or self.metrics[0]

    @property
    def headline_split(self) -> str:
        """The split that the headline metric is reported on."""
        return self.evaluation_splits[0]

    @property
    def short_name(self) -> str:
        """The name without its family: `sst2` of `glue/sst2`."""
        return self.name.rsplit("/", maxsplit=1)[-1]

    @property
    def id2label(self) -> dict[int, str]:
        """Index -> label name; regression has the single output `score`, an answer `start` and `end`."""
        return dict(enumerate(self.label_names or (("start", "end") if self.is_span else ("score",))))

    @property
    def label2id(self) -> dict[str, int]:
        """Label name -> index."""
        return {name: index for index, name in self.id2label.items()}

    def visible(self, labels: np.ndarray) -> np.ndarray:
        """Which labels are known, as a boolean array: the hidden label -1 (and padding, and NaN) is not.

        A regression label of -1 is hidden only where it lies outside `label_range`; without a range only NaN is.
        """
        if self.label_names is not None:
            return labels >= 0
        shown = ~np.isnan(labels.astype(np.float64))
        if self.label_range is not None and self.label_range[0] > HIDDEN_LABEL:
            shown &= labels != HIDDEN_LABEL
        return shown

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-able values; `TaskSpec.from_dict` takes them back."""
        values = dataclasses.asdict(dataclasses.replace(self, split_aliases={}, column_aliases={}))
        values["split_aliases"] = {key: list(names) for key, names in self.split_aliases.items()}
        values["column_aliases"] = {key: list(names) for key, names in self.column_aliases.items()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskSpec:
        """Make a spec of plain values, as read from YAML or JSON.

        Raises:
            ValueError: If a field is unknown or missing, or has a value of the wrong kind.
        """
        known = {item.name: item for item in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"A task has no fields {unknown}; known are {sorted(known)}.")
        if values.get("kind") == "question_answering":
            values = {"label_names": None, "label_column": "answers", "metrics": list(ANSWER_METRICS)} | dict(values)
        missing = [name for name in ("name", "text_columns", "label_names") if name not in values]
        if missing:
            raise ValueError(f"A task needs the fields {missing} (`label_names: null` stands for regression).")
        plain = {key: _plain(key, value) for key, value in values.items()}
        return cls(**plain)


def _plain(key: str, value: Any) -> Any:
    """One field of a spec from its YAML value."""
    if key == "fine_tuning":
        return _fine_tuning(value)
    if key in ("split_aliases", "column_aliases"):
        return {str(name): _names(key, aliases) for name, aliases in (value or {}).items()}
    if key == "label_range":
        return None if value is None else (float(value[0]), float(value[1]))
    if key == "label_names" and value is None:
        return None
    if key in (
        "name",
        "label_column",
        "train_split",
        "language",
        "kind",
        "headline_metric",
        "hub_path",
        "hub_config",
        "licence",
    ):
        return value
    return _names(key, value)


def _names(key: str, value: Any) -> tuple[str, ...]:
    """A tuple of names from a YAML list or a single name."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence):
        raise ValueError(f"The task field `{key}` must be a list of names, got {value!r}.")
    return tuple(_label_text(item) for item in value)


def _label_text(value: Any) -> str:
    """Text of a label name; YAML reads unquoted `yes`, `no`, `true` and `1` as other types."""
    if isinstance(value, bool):
        raise ValueError(f"YAML read a label or column name as {value}; put it between quotes.")
    return str(value)


def _fine_tuning(value: Any) -> FineTuningDefaults:
    """Fine-tuning settings from a mapping; `1e-5` may be text, as YAML reads it."""
    if isinstance(value, FineTuningDefaults):
        return value
    known = {item.name: item for item in dataclasses.fields(FineTuningDefaults)}
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ValueError(f"`fine_tuning` has no fields {unknown}; known are {sorted(known)}.")
    kinds = {"int": int, "float": float, "str": str}
    settings = {key: kinds[str(known[key].type)](item) for key, item in value.items()}
    if any(isinstance(item, float) and not math.isfinite(item) for item in settings.values()):
        raise ValueError(f"`fine_tuning` has a value that is not finite: {settings}.")
    return FineTuningDefaults(**{"source": "the user's task file"} | settings)
