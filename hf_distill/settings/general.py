"""Settings of a general corpus that is mixed from several."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .values import check_choices, check_least, setting


@dataclass
class GeneralCorpusArguments:
    """General text of one corpus or several, in chosen shares, without repeats (the paper's WikiBook)."""

    corpora: list[str] | None = setting(
        None,
        "General corpora: files, folders or Hub ids, with a configuration after a colon "
        "(wikimedia/wikipedia:20231101.en); NAME=WHERE gives a corpus another name.",
    )
    rows: list[int] | None = setting(
        None, "Rows to draw: one number for all together, or one for each corpus. Default: all."
    )
    weights: list[float] | None = setting(
        None, "Share of each corpus in --rows, on any scale (2 1: twice as many rows of the first). Default: by size."
    )
    corpus_split: str = setting("train", "Split of every corpus.")
    corpus_licence: str | None = setting(None, "Licence of the corpora, for the card.")
    text_column: str = setting("text", "Column with the text.")
    source_column: str = setting("source", "Column that names where a row comes from, if a corpus has one.")
    unit: Literal["row", "sentence", "passage"] = setting(
        "row",
        "What a row of the result is: row (a row of a corpus as it is), sentence, or passage (consecutive sentences).",
    )
    passage_words: int = setting(
        100, "Largest number of words in a passage; a longer sentence is a passage of its own."
    )
    language: str = setting("english", "Language of the sentence rules; none for any other language.")
    max_chars: int = setting(4000, "Rows with more characters are left out and counted.")
    min_words: int = setting(1, "Rows with fewer words are left out and counted.")
    max_words: int | None = setting(None, "Rows with more words are left out and counted.")
    deduplicate: Literal["normalized", "exact", "none"] = setting(
        "normalized",
        "Which duplicates are removed: normalized (equal without case, punctuation and spacing), exact "
        "(exactly equal), or none.",
    )
    seed: int = setting(42, "Seed of the sample and of the order of its rows.")
    corpus_dir: str = setting("outputs/general", "Folder for the corpus, card and statistics.")
    work_dir: str | None = setting(
        None, "Folder for finished steps, from which an interrupted run continues. Default: `work` in --corpus_dir."
    )
    num_proc: int | None = setting(None, "Number of processes that split documents. Default: one.")

    def __post_init__(self) -> None:
        """Check what can be checked without the data; single values may be given without a list."""
        for name in ("corpora", "rows", "weights"):
            value = getattr(self, name)
            if isinstance(value, (str, int, float)):
                setattr(self, name, [value])
        if any(rows < 1 for rows in self.rows or ()):
            raise ValueError(f"`--rows` is {self.rows}; each must be at least 1.")
        if not all(0 < weight < math.inf for weight in self.weights or ()):
            raise ValueError(f"`--weights` is {self.weights}; each must be above 0 and finite.")
        check_least(self, 1, "passage_words", "max_chars", "max_words", "num_proc")
        if self.weights is not None and (self.rows is None or len(self.rows) > 1):
            raise ValueError("`--weights` are shares of one number of `--rows`, for all corpora together.")
        if self.max_words is not None and self.max_words < self.min_words:
            raise ValueError(f"`--max_words` ({self.max_words}) is below `--min_words` ({self.min_words}).")
        check_choices(self, "unit", "deduplicate")
