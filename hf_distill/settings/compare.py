"""Settings for comparing corpora."""

from __future__ import annotations

from dataclasses import dataclass, field

from .values import check_least, setting


@dataclass
class ComparisonArguments:
    """Corpora beside a task's own text: size, diversity, words in common (Contextualized Corpus, section 4)."""

    corpora: list[str] = field(
        metadata={
            "help": "What is compared with the task's own text: NAME=WHERE each, or just where: a folder that corpus, "
            "augment or general wrote, a file, a folder or a Hub id."
        }
    )
    text_column: str = setting("text", "Column of the text; `text_pair` is read too where it is there.")
    language: str | None = setting(
        None, "Language of the stop words, and of a segmenter for Chinese. Default: the task's."
    )
    top_words: int = setting(5000, "How many of the most frequent words are compared (the paper: 5000).")
    top_shares: list[float] = setting(
        [0.2, 0.4, 0.6, 0.8, 1.0], "Shares of a corpus that was retrieved, best ranks first, whose words are compared."
    )
    num_draws: int = setting(5, "Samples of equal size that Distinct-n is the mean of.")
    seed: int = setting(42, "Draws the samples, and the task's rows where they are limited.")
    output_dir: str = setting("outputs/comparison", "Folder for comparison.json, comparison.md and the figures.")
    write_cards: bool = setting(
        False, "Also put tables and figures into the cards of the corpora that were built here; push sends them."
    )

    def __post_init__(self) -> None:
        """Check what can be checked without the data; a single corpus may be given as a string."""
        if isinstance(self.corpora, str):
            self.corpora = [self.corpora]
        check_least(self, 1, "top_words", "num_draws")
        wrong = [share for share in self.top_shares if not 0 < share <= 1]
        if wrong:
            raise ValueError(f"`--top_shares` has {wrong}; shares are above 0 and at most 1.")
