"""Settings for writing down what a model says about texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .task import ColumnArguments
from .values import check_least, setting


@dataclass
class PredictionArguments(ColumnArguments):
    """The model, the texts that it reads, and the file of what it says."""

    model: str | None = setting(
        None, "Hub id or local folder of a classifier of texts; the first word may stand for it."
    )
    revision: str | None = setting(None, "Branch, tag or commit of the model.")
    text: list[str] | None = setting(
        None, "Texts to read: files, folders or Hub ids, with a column `text_pair` where a row is two."
    )
    text_column: str = setting("text", "Column of the text.")
    task: str | None = setting(
        None, "Read the rows of a task instead: a registered one, or a file or folder of your own."
    )
    data_dir: str | None = setting(
        None, "Local files of the task, or a parent with a folder of its name. Default: the Hub."
    )
    split: str | None = setting(None, "Split of the task. Default: its first test split that is there.")
    output_dir: str = setting("outputs/predictions", "Folder of the predictions.")
    file_format: Literal["jsonl", "csv"] = setting("jsonl", "Form of predictions.jsonl or predictions.csv.")
    submission: bool = setting(
        False, "Write the file that the leaderboard of GLUE or CLUE takes for this task and split too."
    )
    max_length: int | None = setting(
        None,
        "Longest row in tokens; the rest is cut off. Default: the task's, of --text that of the model's training as "
        "its tokenizer.json says, else 128.",
    )
    eval_batch_size: int = setting(64, "Rows per batch.")
    bf16: bool = setting(False, "Compute in bfloat16 autocast.")
    use_cpu: bool = setting(False, "Stay on the CPU even where there is a GPU.")

    def __post_init__(self) -> None:
        """Check the numbers, and that something is to be read; one text may be given as a string."""
        if isinstance(self.text, str):
            self.text = [self.text]
        check_least(self, 1, "max_length", "eval_batch_size")
        if (self.text is None) == (self.task is None):
            raise ValueError("Give the texts to read as `--text`, or a task as `--task`.")
        if self.task is not None and self.text_column != "text":
            raise ValueError(
                f"`--text_column {self.text_column}` is the column of `--text`; those of a task are `--text_columns`."
            )
        if self.text is not None and self.column_flags():
            raise ValueError(
                f"`{self.column_flags()[0]}` is about the rows of a task; the column of `--text` is `--text_column`."
            )
        if self.submission and self.task is None:
            raise ValueError("`--submission` writes the file of a task's leaderboard: name it by `--task`.")
