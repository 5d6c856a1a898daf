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
        None, "Hub id or local folder of a text classifier; it can also be given as the first word."
    )
    revision: str | None = setting(None, "Branch, tag or commit of the model.")
    text: list[str] | None = setting(
        None, "Texts to classify: files, folders or Hub ids; pairs have a second column `text_pair`."
    )
    text_column: str = setting("text", "Column of the text.")
    task: str | None = setting(
        None, "Classify the rows of a task instead: a registered one, or your own file or folder."
    )
    data_dir: str | None = setting(
        None, "Local files of the task, or a parent folder with a folder of its name. Default: the Hub."
    )
    split: str | None = setting(None, "Split of the task. Default: the first of its test splits that exists.")
    output_dir: str = setting("outputs/predictions", "Folder of the predictions.")
    file_format: Literal["jsonl", "csv"] = setting(
        "jsonl", "Format of the predictions: predictions.jsonl or predictions.csv."
    )
    submission: bool = setting(
        False, "Also write the file that the leaderboard of GLUE or CLUE accepts for this task and split."
    )
    max_length: int | None = setting(
        None,
        "Largest number of tokens in a row; the rest is truncated. Default: the task's; for --text "
        "that of the model's training, which its tokenizer.json says, else 128.",
    )
    eval_batch_size: int = setting(64, "Rows per batch.")
    bf16: bool = setting(False, "Compute in bfloat16 autocast.")
    use_cpu: bool = setting(False, "Use the CPU even if there is a GPU.")

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
