"""Scores of generated text: ROUGE, BLEU-4 and METEOR, by `rouge_score`, `sacrebleu` and `nltk` (extra `generation`).

A row is a prediction and one or several references. Chinese is split into characters; words of Latin letters and
digits stay whole, and ROUGE and METEOR ignore punctuation. Scores are fractions.

Lin 2004 (ROUGE), Papineni et al. 2002 (BLEU), Banerjee and Lavie 2005 (METEOR).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from hf_distill._optional import require
from hf_distill.tasks.catalogue.generation import GenerationSpec

EXTRA = "generation"
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_CHINESE, _NOT_LATIN = re.compile(f"[{_HAN}]"), re.compile(r"[^\W\d_A-Za-z]")
_CHINESE_TOKENS = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+")

References = Sequence[str | Sequence[str]]


def language_of(references: Sequence[Sequence[str]]) -> str:
    """`zh` of references that are Chinese by their characters, and nothing of any others."""
    return "zh" if _share(references, _CHINESE) > 0.5 else ""


def _share(references: Sequence[Sequence[str]], letters: re.Pattern[str]) -> float:
    """Share of some letters among all letters of the references; 0 where there is none."""
    text = "".join(gold for golds in references for gold in golds)
    return len(letters.findall(text)) / max(1, sum(map(str.isalpha, text)))


def characters(text: str) -> list[str]:
    """Tokens of Chinese text in lower case: every Chinese character, and every run of other letters and digits."""
    return _CHINESE_TOKENS.findall(text.lower())


def rouge_scores(
    predictions: Sequence[str], references: References, *, language: str = "en", stemming: bool = False
) -> dict[str, float]:
    """F-measures of ROUGE-1, ROUGE-2 and ROUGE-L, and of ROUGE-L over sentences, one a line (`rougeLsum`).

    Args:
        predictions: Texts.
        references: One or several texts for each; the best one counts, for each score separately.
        language: `zh` splits into characters, `en` into words of `a` to `z` and digits, as ROUGE's script does; any
            other too, but into words of their own letters where the references are mostly in other letters.
        stemming: Compare stems (Porter's stemmer) of words with more than three letters.

    Returns:
        Means over the rows. A text without tokens scores 0.

    Raises:
        ImportError: If `rouge_score` is not installed.
        ValueError: If the numbers of predictions and references differ.
    """
    rows = _rows(predictions, references)
    has_other_letters = language != "en" and _share([golds for _, golds in rows], _NOT_LATIN) > 0.5
    scorer = require("rouge_score.rouge_scorer", extra=EXTRA, needed_by="ROUGE").RougeScorer(
        list(ROUGE_TYPES),
        use_stemmer=stemming,
        tokenizer=_Characters() if language == "zh" or has_other_letters else None,
    )
    found = [scorer.score_multi(golds, prediction) for prediction, golds in rows]
    return {name: sum(row[name].fmeasure for row in found) / len(found) for name in ROUGE_TYPES}


def bleu_scores(
    predictions: Sequence[str],
    references: References,
    *,
    language: str = "en",
    tokenized: bool = False,
    lowercase: bool = False,
    smoothing: str = "exp",
) -> dict[str, Any]:
    """Corpus BLEU-4, with the length of the closest reference.

    Args:
        predictions: Texts.
        references: One or several texts for each.
        language: `zh` splits into Chinese characters; any other into the words of mteval's `13a`.
        tokenized: Whether words are already separated by spaces, as in question generation (Du et al. 2017).
        lowercase: Whether to ignore case.
        smoothing: For n-gram orders without a match, in the terms of `sacrebleu`: `exp` (its default) or `none`
            (Papineni's).

    Returns:
        `bleu`, `precisions` for one to four words, `brevity_penalty`, `length_ratio` and sacrebleu's `signature`.

    Raises:
        ImportError: If `sacrebleu` is not installed.
        ValueError: If the numbers of predictions and references differ.
    """
    rows = _rows(predictions, references)
    tokenizer = "none" if tokenized else "zh" if language == "zh" else "13a"
    metric = require("sacrebleu.metrics", extra=EXTRA, needed_by="BLEU").BLEU(
        lowercase=lowercase, tokenize=tokenizer, smooth_method=smoothing, force=True
    )
    most = max(len(golds) for _, golds in rows)
    # One stream for each reference; `None` where a row has fewer references.
    streams = [[golds[place] if place < len(golds) else None for _, golds in rows] for place in range(most)]
    score = metric.corpus_score([prediction for prediction, _ in rows], streams)
    return {
        "bleu": score.score / 100.0,
        "precisions": [precision / 100.0 for precision in score.precisions],
        "brevity_penalty": score.bp,
        "length_ratio": score.ratio,
        "signature": str(metric.get_signature()),
    }


def meteor_scores(
    predictions: Sequence[str], references: References, *, language: str = "en", synonyms: bool = False
) -> dict[str, float]:
    """METEOR with exact and stem matches, as in `nltk` (alpha 0.9, beta 3, gamma 0.5); mean over the rows.

    Synonyms come from WordNet, whose data `nltk` must download first (`python -m nltk.downloader wordnet`); without
    them scores are slightly lower than those of `evaluate`'s `meteor`. The paraphrases of METEOR 1.5 (Java), which
    papers on question generation use, are not supported.

    Args:
        predictions: Texts.
        references: One or several texts for each; the best one counts.
        language: `zh` splits into characters and has neither stems nor synonyms.
        synonyms: Whether to match synonyms too.

    Raises:
        ImportError: If `nltk` is not installed.
        LookupError: If synonyms are requested and the data of WordNet are missing.
        ValueError: If the numbers of predictions and references differ.
    """
    rows = _rows(predictions, references)
    score = require("nltk.translate.meteor_score", extra=EXTRA, needed_by="METEOR").single_meteor_score
    options: dict[str, Any] = {"wordnet": _wordnet() if synonyms and language != "zh" else _NoSynonyms()}
    tokens: Callable[[str], list[str]] = characters
    if language == "zh":
        options["stemmer"] = _NoStems()
    else:
        tokens = require("nltk.tokenize", extra=EXTRA, needed_by="METEOR").NLTKWordTokenizer().tokenize
    best = [
        max(score(tokens(gold), tokens(prediction), **options) if prediction.strip() else 0.0 for gold in golds)
        for prediction, golds in rows
    ]
    return {"meteor": sum(best) / len(best)}


class _Characters:
    """Tokenizer in the interface of `rouge_score` for Chinese, and for letters other than those of English."""

    def tokenize(self, text: str) -> list[str]:
        """See `characters`."""
        return characters(text)


class _NoSynonyms:
    """Replaces WordNet where no synonyms are matched."""

    def synsets(self, word: str) -> list[Any]:
        """The meanings of a word: none."""
        return []


class _NoStems:
    """A stemmer that leaves words as they are."""

    def stem(self, word: str) -> str:
        """Return the word unchanged."""
        return word


def _wordnet() -> Any:
    """Load WordNet.

    Raises:
        LookupError: If its data are missing.
    """
    wordnet = require("nltk.corpus", extra=EXTRA, needed_by="METEOR").wordnet
    try:
        wordnet.ensure_loaded()
    except LookupError as error:
        raise LookupError(
            "METEOR's synonyms need the data of WordNet: `python -m nltk.downloader wordnet`, or `synonyms=False`."
        ) from error
    return wordnet


def _rows(predictions: Sequence[str], references: References) -> list[tuple[str, list[str]]]:
    """Pair every prediction with its references.

    Raises:
        ValueError: If there are no rows, the numbers differ, or a row has no reference.
    """
    if len(predictions) != len(references) or not predictions:
        raise ValueError(f"{len(predictions)} predictions do not fit {len(references)} references.")
    rows = [
        (prediction, [golds] if isinstance(golds, str) else list(golds))
        for prediction, golds in zip(predictions, references, strict=True)
    ]
    without = [number for number, (_, golds) in enumerate(rows) if not golds]
    if without:
        raise ValueError(f"{len(without)} rows have no reference, the first is row {without[0]}.")
    return rows


# A word-piece tokenizer writes "john ' s", people write "John's", and the scorers of question generation expect
# "john 's".
_CLITIC = re.compile(r"(?<=\w) ?['’] ?(s|m|d|re|ve|ll|t)\b")
_WORD = re.compile(r"'(?:s|m|d|re|ve|ll|t)\b|\w+|[^\w\s]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def score_generated(
    spec: GenerationSpec, predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """The task's scores by name, as fractions.

    For BLEU and METEOR, words are lower-cased and separated from punctuation in both predictions and references, so
    that the spacing of a tokenizer's output does not affect the score. ROUGE-Lsum compares sentences: lines, or, in a
    text of one line, what ends with a full stop.

    Raises:
        ImportError: If a package of the extra `generation` is missing.
        ValueError: If the numbers of predictions and references differ.
    """
    golds = [list(texts) for texts in references]
    language = spec.language or language_of(golds)
    plain = [text.strip() for text in predictions]
    words, gold_words = list(plain), golds
    if language != "zh":
        words, gold_words = [_words(text) for text in plain], [[_words(text) for text in texts] for texts in golds]
    found: dict[str, Any] = {}
    if "bleu" in spec.metrics:
        found |= bleu_scores(words, gold_words, language=language, tokenized=language != "zh")
    if "meteor" in spec.metrics:
        found |= meteor_scores(words, gold_words, language=language)
    if any(name.startswith("rouge") for name in spec.metrics):
        lines = [[_lines(text) for text in texts] for texts in golds]
        found |= rouge_scores([_lines(text) for text in plain], lines, language=language)
    return {name: float(found[name]) for name in spec.metrics}


def check_scorers(spec: GenerationSpec) -> None:
    """Compute the task's scores once, so that missing packages are reported before hours of training.

    Raises:
        ImportError: If a package of the extra `generation` is missing.
    """
    score_generated(spec, ["a b c d"], [["a b c d"]])


def _words(text: str) -> str:
    """Words and punctuation in lower case, separated by spaces."""
    return " ".join(_WORD.findall(_CLITIC.sub(r" '\1", text.lower())))


def _lines(text: str) -> str:
    """Put each sentence on a line."""
    return text if "\n" in text else _SENTENCE_END.sub("\n", text)
