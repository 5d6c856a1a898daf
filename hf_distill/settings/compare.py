"""Settings for comparing corpora."""

from __future__ import annotations

from dataclasses import dataclass, field

from .values import check_least, setting


@dataclass
class ComparisonArguments:
    """Corpora beside a task's own text: size, diversity, words in common (Contextualized Corpus, section 4)."""

    corpora: list[str] = field(
        metadata={
            "help": "Corpora to compare with the task's own text, each as NAME=WHERE or just WHERE: a folder that "
            "corpus, augment or general wrote, a file, a folder or a Hub id."
        }
    )
    text_column: str = setting("text", "Column of the text; `text_pair` is read too if it exists.")
    language: str | None = setting(
        None, "Language of the stop words, and of a segmenter for Chinese. Default: the task's."
    )
    top_words: int = setting(5000, "Number of most frequent words that are compared (the paper: 5000).")
    top_shares: list[float] = setting(
        [0.2, 0.4, 0.6, 0.8, 1.0], "Shares of a retrieved corpus, best ranks first, whose words are compared."
    )
    num_draws: int = setting(5, "Number of samples of equal size over which Distinct-n is averaged.")
    seed: int = setting(42, "Seed of the samples, and of the task's rows if their number is limited.")
    output_dir: str = setting("outputs/comparison", "Folder for comparison.json, comparison.md and the figures.")
    write_cards: bool = setting(
        False,
        "Also put tables and figures into the cards of the corpora that this package built; a push uploads them.",
    )

    def __post_init__(self) -> None:
        """Check what can be checked without the data; a single corpus may be given as a string."""
        if isinstance(self.corpora, str):
            self.corpora = [self.corpora]
        check_least(self, 1, "top_words", "num_draws")
        wrong = [share for share in self.top_shares if not 0 < share <= 1]
        if wrong:
            raise ValueError(f"`--top_shares` has {wrong}; shares are above 0 and at most 1.")
