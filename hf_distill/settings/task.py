"""The settings of the task, which many verbs share."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from .values import check_least, setting


@dataclass(kw_only=True)
class ColumnArguments:
    """The columns and labels of a file or folder of your own."""

    text_columns: list[str] | None = setting(None, "One column of text, or two for pairs. Default: the task's.")
    label_column: str | None = setting(None, "Column of the labels. Default: the task's.")
    several_labels: bool = setting(
        False,
        "A row can have any number of labels. Default: the task's; for your own file or folder without "
        "--class_names: if the column has lists.",
    )
    label_separator: str | None = setting(
        None,
        "Several labels a row: the separator between them in a column of text, such as ';'. A column "
        "of lists needs none.",
    )
    class_names: list[str] | None = setting(
        None,
        "Names of the classes in their order. Default: the task's; for your own file or folder those in its rows.",
    )

    def column_settings(self) -> dict[str, Any]:
        """The settings among these that were given."""
        return {item.name: value for item in fields(ColumnArguments) if (value := getattr(self, item.name))}

    def column_flags(self) -> list[str]:
        """Their flags."""
        return [f"--{name}" for name in self.column_settings()]

    def column_fields(self) -> dict[str, Any]:
        """Fields of `TaskSpec` that were given; they go to `load_task` or `load_tasks`."""
        given: dict[str, Any] = {
            "text_columns": self.text_columns,
            "label_column": self.label_column,
            # `--label_names` is taken: `TrainingArguments` means columns by it.
            "label_names": self.class_names,
            "label_separator": self.label_separator,
            "several_labels": self.several_labels or self.label_separator is not None or None,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass
class TaskArguments(ColumnArguments):
    """The task, and the place of its rows."""

    task: str = field(
        metadata={
            "help": "A registered task (glue/sst2, see `hf-distill info tasks`), your own file (csv, tsv, jsonl, "
            "parquet, conll), or a folder with train and validation files. Columns are found automatically "
            "and printed, unless a task.yaml in the folder or the flags below name them."
        }
    )
    data_dir: str | None = setting(
        None,
        "Local files of the task: its own folder, or a parent folder with a folder of its name. "
        "Default: the task's data set on the Hub.",
    )
    max_length: int | None = setting(
        None, "Largest number of tokens in a row; the rest is truncated. Default: the task's (GLUE: 128)."
    )
    doc_stride: int | None = setting(
        None,
        "Question answering: number of tokens by which two windows of a context overlap. Default: the "
        "task's (128), or less if a window is too short for it.",
    )
    max_train_samples: int | None = setting(None, "Number of training rows, drawn with the seed. Default: all.")
    max_eval_samples: int | None = setting(
        None, "Number of evaluation rows of each split, drawn with the seed. Default: all."
    )
    evaluation_splits: list[str] | None = setting(
        None, "Splits to evaluate on, the main one first. Default: the task's (validation)."
    )
    metrics: list[str] | None = setting(
        None,
        "Scores, the main one first: accuracy, f1, f1_macro, matthews_correlation; regression: pearson, "
        "spearman; several labels a row: f1_micro, f1_macro, ranking_average_precision, exact_match. Default: the "
        "task's.",
    )

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_least(self, 1, "max_length", "max_train_samples", "max_eval_samples")

    def spec_fields(self) -> dict[str, Any]:
        """Fields of `TaskSpec` that were given; they go to `load_task`."""
        splits = {} if self.evaluation_splits is None else {"evaluation_splits": self.evaluation_splits}
        # The first metric named is the main one, whatever the task's own was.
        scores = {} if self.metrics is None else {"metrics": self.metrics, "headline_metric": self.metrics[0]}
        return {**self.column_fields(), **splits, **scores}
