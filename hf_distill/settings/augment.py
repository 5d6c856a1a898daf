"""Settings of an augmented corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .values import check_choices, check_least, setting


@dataclass
class AugmentationArguments:
    """An augmented corpus (TaskDA): a task's own texts with words replaced (TinyBERT, data augmentation)."""

    masked_lm: str | None = setting(
        None, "Hub id or folder of the masked language model that replaces words (TinyBERT: bert-base-uncased)."
    )
    masked_lm_revision: str | None = setting(None, "Branch, tag or commit of the model.")
    masked_lm_dtype: Literal["float32", "bfloat16"] = setting(
        "float32",
        "dtype of the model: float32 (the result does not depend on batch size and device), or "
        "bfloat16 (faster on processors that support it).",
    )
    embeddings: str | None = setting(
        None,
        "Word embeddings as text (GloVe, word2vec; also .gz), for words that have several tokens in "
        "the model. Default: the model's own input embeddings.",
    )
    embedding_words: int = setting(
        100_000, "Number of words of --embeddings that are read, the first ones (TinyBERT: 100000)."
    )
    num_samples: int | None = setting(
        None, "Number of augmented rows per text. Default: that of TinyBERT's code for the task (10 to 30), else 20."
    )
    replace_probability: float = setting(0.4, "Probability with which a word is replaced (TinyBERT: 0.4).")
    num_candidates: int = setting(15, "Number of candidates for each word (TinyBERT: 15).")
    language: str = setting(
        "english",
        "Language of the stop words, which are never replaced; none has no stop words. In English only "
        "words of the letters a to z are replaced, in other languages words of all alphabets; in "
        "Chinese every character is a word.",
    )
    exclude_original: bool = setting(False, "A word cannot be its own candidate (in TinyBERT it can).")
    exclude_special: bool = setting(
        True, "Candidates must be words: no special or unused tokens, no punctuation (TinyBERT allows these)."
    )
    tinybert_compat: bool = setting(
        False,
        "Do the same as TinyBERT's code: while the second text of a pair is changed, the first remains "
        "as it was drawn last; candidates may be special tokens; and question words (who, what, how "
        "...) and the n of n't are treated like other words.",
    )
    seed: int = setting(42, "Seed of the replacements.")
    corpus_dir: str = setting("outputs/augmented", "Folder for the corpus, its card and statistics.")
    work_dir: str | None = setting(
        None, "Folder for finished steps, from which an interrupted run continues. Default: `work` in --corpus_dir."
    )
    shard_texts: int = setting(
        1024, "Number of texts that are processed and written together; an interruption loses at most these."
    )
    batch_tokens: int | None = setting(
        None, "Number of tokens in a forward pass, padding included. Default: 1024 on the CPU, else 16384."
    )
    num_proc: int | None = setting(
        None, "Number of processes that find candidates, each with its own copy of the model. Default: one."
    )
    use_cpu: bool = setting(False, "Use the CPU even if there is a GPU.")

    def __post_init__(self) -> None:
        """Check what can be checked without the data."""
        check_least(
            self, 1, "embedding_words", "num_samples", "num_candidates", "shard_texts", "batch_tokens", "num_proc"
        )
        check_choices(self, "masked_lm_dtype")
        if not 0 < self.replace_probability <= 1:
            raise ValueError(
                f"`--replace_probability` is {self.replace_probability}; it must be above 0 and at most 1."
            )
        if self.tinybert_compat and self.exclude_original:
            raise ValueError("`--tinybert_compat` does as TinyBERT does, which does not `--exclude_original`.")

    @property
    def excludes_special(self) -> bool:
        """Whether candidates must be words: not in TinyBERT's code."""
        return self.exclude_special and not self.tinybert_compat
