"""Settings for trimming the vocabulary of a model."""

from __future__ import annotations

from dataclasses import dataclass

from .values import check_least, setting


@dataclass
class VocabularyArguments:
    """The model whose vocabulary is trimmed, and the text that it is trimmed by."""

    model: str | None = setting(None, "Hub id or local folder of a model; it can also be given as the first word.")
    textbook: list[str] | None = setting(
        None, "Text of the kind that the model will read: files, folders, Hub ids or names of tasks."
    )
    data_dir: str | None = setting(
        None, "Local files of a task named by --textbook, or a parent folder with a folder of its name."
    )
    text_column: str = setting("text", "Column with the text.")
    max_textbook_rows: int | None = setting(
        None, "Number of rows of each text, the first ones, in which pieces are counted. Default: all."
    )
    size: int | None = setting(
        None, "Largest number of pieces to keep, the most frequent ones. Default: all that occur in the text."
    )
    output_dir: str = setting("outputs/vocabulary", "Folder for the smaller model and its tokenizer.")

    def __post_init__(self) -> None:
        """Check the numbers; a single text may be given as a string."""
        if isinstance(self.textbook, str):
            self.textbook = [self.textbook]
        check_least(self, 1, "max_textbook_rows", "size")
