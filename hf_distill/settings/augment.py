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
        "Arithmetic of the model: float32, with a result that no batch size and device changes, or "
        "bfloat16, faster where there are units for it.",
    )
    embeddings: str | None = setting(
        None,
        "Word embeddings as text (GloVe, word2vec; also .gz), for words that are several tokens for the "
        "model. Default: the model's own input embeddings.",
    )
    embedding_words: int = setting(
        100_000, "How many words of --embeddings are taken, from the first on (TinyBERT: 100000)."
    )
    num_samples: int | None = setting(
        None, "Rows drawn per text. Default: what TinyBERT's code has for the task (10 to 30), else 20."
    )
    replace_probability: float = setting(0.4, "Share of the words that are replaced in a drawn row (TinyBERT: 0.4).")
    num_candidates: int = setting(15, "Candidates per word (TinyBERT: 15).")
    language: str = setting(
        "english",
        "Language of the stop words, which are never replaced; none has no such words. Outside English "
        "words of all alphabets are replaced, in Chinese every character is a word.",
    )
    exclude_original: bool = setting(False, "Do not let a word be its own candidate; TinyBERT does.")
    exclude_special: bool = setting(
        True, "Leave out candidates that are no words: special and unused tokens, punctuation; TinyBERT has them."
    )
    tinybert_compat: bool = setting(
        False,
        "Do as TinyBERT's code does: the first text of a pair stays as drawn last while the second is "
        "replaced, candidates may be special tokens, and question words (who, what, how ...) and the n of n't are "
        "words like others.",
    )
    seed: int = setting(42, "Draws the replacements.")
    corpus_dir: str = setting("outputs/augmented", "Folder for the corpus, its card and statistics.")
    work_dir: str | None = setting(
        None, "Folder for finished steps, from which a killed run continues. Default: `work` in --corpus_dir."
    )
    shard_texts: int = setting(1024, "Texts whose candidates are found and written together; a kill costs no more.")
    batch_tokens: int | None = setting(
        None, "Tokens of one forward pass, padding included. Default: 1024 on the CPU, else 16384."
    )
    num_proc: int | None = setting(None, "Processes that find candidates, each with a model of its own. Default: one.")
    use_cpu: bool = setting(False, "Stay on the CPU even where there is a GPU.")

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
