"""Settings for trimming the vocabulary of a model."""

from __future__ import annotations

from dataclasses import dataclass

from .values import check_least, setting


@dataclass
class VocabularyArguments:
    """The model whose vocabulary is trimmed, and the text that it is trimmed by."""

    model: str | None = setting(None, "Hub id or local folder of a model; the first word may stand for it.")
    textbook: list[str] | None = setting(
        None, "Text like that which the model will read: files, folders, Hub ids or names of tasks."
    )
    data_dir: str | None = setting(None, "Local files of a task named by --textbook, or a parent of such folders.")
    text_column: str = setting("text", "Column with the text.")
    max_textbook_rows: int | None = setting(
        None, "How many rows of each text, from the first on, are read for the count. Default: all."
    )
    size: int | None = setting(None, "Most pieces to keep, the most frequent ones. Default: all that the text needs.")
    output_dir: str = setting("outputs/vocabulary", "Folder for the smaller model and its tokenizer.")

    def __post_init__(self) -> None:
        """Check the numbers; a single text may be given as a string."""
        if isinstance(self.textbook, str):
            self.textbook = [self.textbook]
        check_least(self, 1, "max_textbook_rows", "size")
