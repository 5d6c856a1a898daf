"""Tasks as data: the dataclass `TaskSpec`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from hf_distill.storage.folders import safe_path
from hf_distill.storage.plain_values import as_mapping, check_range, did_you_mean
from hf_distill.tasks.metrics.entities import PREFIXES
from hf_distill.tasks.spec_values import FINE_TUNING, MAPPINGS, FineTuningDefaults, SplitsSpec, plain_field, types_of

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
TaskKind = Literal["text_classification", "token_classification", "question_answering", "multiple_choice"]
AnswerScorer = Literal["squad", "squad_v2", "cmrc2018", "mlqa"]

HIDDEN_LABEL = -1
CLASSIFICATION_METRICS = ("accuracy", "f1", "f1_macro", "matthews_correlation")
REGRESSION_METRICS = ("pearson", "spearman")
SEVERAL_METRICS = ("f1_micro", "f1_macro", "ranking_average_precision", "exact_match")
# Metrics of entities; only the accuracy is a metric of words (conlleval).
ENTITY_METRICS = ("f1", "precision", "recall", "accuracy")
ANSWER_METRICS = ("f1", "exact_match")
# `best_...` is at the threshold that is best on these very questions, the others are at 0 (see `squad_v2_scores`).
SQUAD_V2_METRICS = (
    *("best_f1", "best_exact", "f1", "exact", "HasAns_f1", "HasAns_exact", "NoAns_f1", "NoAns_exact"),
    *("best_f1_thresh", "best_exact_thresh"),
)
OUTSIDE_TAG = "O"


@dataclass(frozen=True)
class TaskSpec(SplitsSpec):
    """A task as data: the fields of `SplitsSpec`, and these.

    Attributes:
        name: Registered name, `family/task` (`glue/sst2`).
        text_columns: One column (single sentence) or two (pair). Token classification: one column with lists of words.
            Question answering: question and context. Multiple choice: the context, and optionally the beginning that
            every choice continues (SWAG's `sent1` and `sent2`).
        label_names: Names of the classes in the order of the head's outputs; `None` for regression and for question
            answering. For token classification these are tags (`O`, `B-PER`, `I-PER`), for multiple choice one name
            for each choice.
        label_column: Column of the labels in the source. Token classification: lists of tags. Question answering:
            `answers`, with lists `text` and `answer_start`.
        several_labels: Whether a row may have any number of labels (text classification only).
        label_separator: Separator between the labels of a row, if the column holds texts and not lists.
        kind: What the head predicts: a label of the row, labels of its words, an answer span, or one of several
            choices.
        choice_columns: For multiple choice: one column for each choice, or one column with lists of choices.
        metrics: Names of bundled metrics (`hf_distill.tasks.metrics.compute`).
        headline_metric: The main metric of the task; `None` takes the first of `metrics`.
        split_sources: Split -> source splits that are joined to it, if it does not exist under its own name:
            `train_r1`, with a configuration (or folder) `fr/validation`, from another data set
            `rajpurkar/squad:train`.
        merge_duplicates: Whether rows that occur in several of the joined splits are kept only once.
        held_out_share: Share of the training rows that becomes the headline split if the source has only one split
            (drawn with a fixed seed); `None` makes a missing headline split an error.
        split_languages: Split -> language, if it is not the task's own.
        averages: Name -> splits whose mean scores are reported under it.
        label_aliases: Label -> its names in other distributions.
        names_unverified: Whether the names were never compared with the data set on the Hub. If the rows name their
            classes, those names are used; if they only number them, the numbers become the names, and metrics that
            depend on names are refused.
        dropped_labels: Values that are not labels (OCNLI's `-`: no majority). Rows with them, and rows with a hidden
            label, are dropped from training and evaluation splits, and counted.
        preprocessing: How the text of a row is made from other columns (`hf_distill.tasks.rows.preprocessing`); `None`
            leaves it unchanged.
        headerless_columns: Columns of a tab-separated file without a header line; empty if files have headers.
        label_range: Smallest and largest label of a regression task.
        answer_scorer: The official script that scores answers.
        max_answer_length: Maximum tokens of an answer.
        fine_tuning: Fine-tuning settings of the paper.

    Raises:
        ValueError: If the fields contradict each other.
    """

    name: str
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...] | None
    label_column: str = "label"
    several_labels: bool = False
    label_separator: str | None = None
    kind: TaskKind = "text_classification"
    choice_columns: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    headline_metric: str | None = None
    split_sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    merge_duplicates: bool = False
    held_out_share: float | None = None
    split_languages: Mapping[str, str] = field(default_factory=dict, hash=False)
    averages: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    label_aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    names_unverified: bool = False
    dropped_labels: tuple[str, ...] = ()
    preprocessing: str | None = None
    headerless_columns: tuple[str, ...] = ()
    label_range: tuple[float, float] | None = None
    answer_scorer: AnswerScorer = "squad"
    max_answer_length: int = 30
    fine_tuning: FineTuningDefaults = FINE_TUNING

    def __post_init__(self) -> None:
        self._check_names()
        self._check_columns_and_labels()
        self._check_details()
        allowed = self.allowed_metrics
        unknown = [metric for metric in self.metrics if metric not in allowed]
        if unknown or not self.metrics:
            raise ValueError(
                f"Task {self.name!r} ({self.problem_type or self.kind}): `metrics` has {unknown or 'no entry'}; "
                f"allowed are {list(allowed)} (`--metrics`).{did_you_mean(unknown, allowed)}"
            )
        if self.label_separator is not None and not self.several_labels:
            raise ValueError(f"Task {self.name!r}: `label_separator` is for tasks with `several_labels`.")
        if self.several_labels and (self.kind != "text_classification" or self.label_names is None):
            raise ValueError(f"Task {self.name!r}: `several_labels` is for the classification of texts.")
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

    def _check_names(self) -> None:
        """Check that names of folders and files do not lead out of their parent folder."""
        self.check_names(self.name)
        for name in ("split_sources", "split_aliases"):
            for split, sources in getattr(self, name).items():
                for part in (part for source in (split, *sources) for part in source.split(":")):
                    safe_path(part, f"The task field `{name}`")
        if not self.evaluation_splits:
            raise ValueError(f"Task {self.name!r}: `evaluation_splits` is empty; name one, such as validation.")

    def _check_columns_and_labels(self) -> None:
        """Check that columns and labels match the kind of task."""
        if self.kind not in get_args(TaskKind):
            raise ValueError(f"Task {self.name!r}: `kind` is {self.kind!r}; allowed are {list(get_args(TaskKind))}.")
        counts, meaning = {
            "text_classification": ((1, 2), "one column (sentence) or two (pair)"),
            "token_classification": ((1,), "the one column with the lists of words"),
            "question_answering": ((2,), "two columns, question and context"),
            "multiple_choice": ((1, 2), "one column (context), or two (context, beginning of every choice)"),
        }[self.kind]
        columns = [*self.text_columns, *self.choice_columns, self.label_column]
        if len(set(columns)) < len(columns):
            raise ValueError(f"Task {self.name!r}: `text_columns` and `label_column` name a column twice: {columns}.")
        if len(self.text_columns) not in counts:
            raise ValueError(f"Task {self.name!r}: `text_columns` must name {meaning}, got {list(self.text_columns)}.")
        if self.is_span and self.label_names is not None:
            raise ValueError(f"Task {self.name!r}: question answering has no classes; got {self.label_names}.")
        if self.kind == "token_classification" and set(self.metrics) != {"accuracy"}:
            self._check_tags()
        if self.label_names is not None and len(set(self.label_names)) != len(self.label_names):
            raise ValueError(f"Task {self.name!r}: `label_names` has duplicates: {list(self.label_names)}.")
        if self.label_names is not None and len(self.label_names) < 2:
            raise ValueError(f"Task {self.name!r}: classification needs two label names, got {self.label_names}.")

    def _check_details(self) -> None:
        """Check the fields that only some tasks use."""
        if self.answer_scorer not in get_args(AnswerScorer):
            raise ValueError(
                f"Task {self.name!r}: `answer_scorer` is {self.answer_scorer!r}; allowed are "
                f"{list(get_args(AnswerScorer))}."
            )
        if (self.kind == "multiple_choice") != bool(self.choice_columns):
            raise ValueError(f"Task {self.name!r}: `kind: multiple_choice` and `choice_columns` go together.")
        if len(self.choice_columns) > 1 and len(self.choice_columns) != self.num_labels:
            raise ValueError(
                f"Task {self.name!r}: {len(self.choice_columns)} `choice_columns` need as many `label_names`, got "
                f"{self.label_names}."
            )
        check_range(self.max_answer_length, f"Task {self.name!r}: `max_answer_length`", least=1)
        if self.label_range is not None and not self.label_range[0] < self.label_range[1]:
            raise ValueError(f"Task {self.name!r}: `label_range` is {list(self.label_range)}; it must rise.")
        if self.held_out_share is not None and not 0.0 < self.held_out_share < 1.0:
            raise ValueError(
                f"Task {self.name!r}: `held_out_share` is {self.held_out_share}, it must lie between 0 and 1."
            )

    def _check_tags(self) -> None:
        """Check that the tags mark entities."""
        tags = self.label_names or ()
        wrong = [tag for tag in tags if tag != OUTSIDE_TAG and (tag[1:2] != "-" or tag[:1] not in PREFIXES)]
        if wrong or OUTSIDE_TAG not in tags:
            raise ValueError(
                f"Task {self.name!r}: entities are scored by the tag `O` and tags such as `B-PER` and `I-PER` "
                f"({', '.join(PREFIXES)}); "
                f"`label_names` are {list(tags)}. For other tags take `metrics: [accuracy]`."
            )

    @property
    def allowed_metrics(self) -> tuple[str, ...]:
        """The metrics that this kind of task may have."""
        if self.is_span:
            return SQUAD_V2_METRICS if self.answer_scorer == "squad_v2" else ANSWER_METRICS
        if self.kind == "token_classification":
            return ENTITY_METRICS
        if self.kind == "multiple_choice":
            return ("accuracy",)
        if self.several_labels:
            return SEVERAL_METRICS
        return CLASSIFICATION_METRICS if self.label_names is not None else REGRESSION_METRICS

    @property
    def is_span(self) -> bool:
        """Whether the answer is a span of the context."""
        return self.kind == "question_answering"

    @property
    def is_of_rows(self) -> bool:
        """Whether a row has one label (or value), and is scored by it."""
        return self.kind in ("text_classification", "multiple_choice")

    @property
    def may_have_no_answer(self) -> bool:
        """Whether questions may be unanswerable (SQuAD 2.0)."""
        return self.is_span and self.answer_scorer == "squad_v2"

    @property
    def problem_type(self) -> ProblemType | None:
        """The value of `config.problem_type` in transformers; only heads for whole rows have one."""
        if self.kind != "text_classification":
            return None
        if self.several_labels:
            return "multi_label_classification"
        return "regression" if self.label_names is None else "single_label_classification"

    @property
    def num_labels(self) -> int:
        """Outputs of the head: one for each class, one for regression, start and end for an answer."""
        if self.is_span:
            return 2
        return 1 if self.label_names is None else len(self.label_names)

    @property
    def is_pair(self) -> bool:
        """Whether a model reads pairs of texts."""
        return len(self.text_columns) == 2 or self.kind == "multiple_choice"

    def for_split(self, split: str) -> TaskSpec:
        """Return the task with the language of a split, which determines how its answers are scored."""
        language = self.split_languages.get(split, self.language)
        return self if language == self.language else dataclasses.replace(self, language=language)

    @property
    def headline(self) -> str:
        """The main metric of the task."""
        return self.headline_metric or self.metrics[0]

    @property
    def short_name(self) -> str:
        """The name without its family: `sst2` of `glue/sst2`."""
        return self.name.rsplit("/", maxsplit=1)[-1]

    @property
    def id2label(self) -> dict[int, str]:
        """Index -> label name; regression has the single output `score`, question answering `start` and `end`."""
        return dict(enumerate(self.label_names or (("start", "end") if self.is_span else ("score",))))

    @property
    def label2id(self) -> dict[str, int]:
        """Label name -> index."""
        return {name: index for index, name in self.id2label.items()}

    def visible(self, labels: np.ndarray) -> np.ndarray:
        """Boolean array of the labels that are known: not the hidden label -1, padding, or NaN.

        In a regression, -1 is hidden only if it lies outside `label_range`; without a range only NaN is hidden.
        """
        if self.several_labels:
            return np.asarray((labels >= 0).all(-1))
        if self.label_names is not None:
            return labels >= 0
        shown = ~np.isnan(labels.astype(np.float64))
        if self.label_range is not None and self.label_range[0] > HIDDEN_LABEL:
            shown &= labels != HIDDEN_LABEL
        return shown

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; `TaskSpec.from_dict` reads them."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        values["fine_tuning"] = dataclasses.asdict(self.fine_tuning)
        values |= {name: {key: list(names) for key, names in values[name].items()} for name in MAPPINGS}
        values["split_languages"] = dict(self.split_languages)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskSpec:
        """Make a spec from plain values, as read from YAML or JSON.

        Raises:
            ValueError: If a field is unknown, missing, or has a value of the wrong type.
        """
        hints = types_of(cls)
        values = as_mapping(values, "A task")
        unknown = sorted(set(values) - set(hints))
        if unknown:
            raise ValueError(f"A task has no fields {unknown}; known are {sorted(hints)}.")
        if values.get("kind") == "question_answering":
            scores = SQUAD_V2_METRICS if values.get("answer_scorer") == "squad_v2" else ANSWER_METRICS
            values = {"label_names": None, "label_column": "answers", "metrics": list(scores)} | dict(values)
        missing = [name for name in ("name", "text_columns", "label_names") if name not in values]
        if missing:
            raise ValueError(f"A task needs the fields {missing} (`label_names: null` stands for regression).")
        return cls(**{key: plain_field(key, value, hints[key]) for key, value in values.items()})
