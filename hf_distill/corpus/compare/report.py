"""Formats a comparison of corpora as Markdown, for a report and for a dataset card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Heading of the first column, which has names.
_CORPUS = "corpus"


def format_comparison(facts: Mapping[str, Any], figures: Mapping[str, str] | None = None, *, level: int = 2) -> str:
    """Return the tables of a comparison, with its figures.

    Args:
        facts: The result of `compare_corpora`.
        figures: Title of a figure -> its path.
        level: Level of the headings.
    """
    mark = "#" * level
    parts = [
        f"{mark} Size",
        _sizes(facts["corpora"]),
        f"{mark} Diversity (Distinct-n)",
        "Different n-grams in percent of all, in samples of equal size: whole texts are drawn until they have as many "
        f"words as the smaller corpus. Means of {len(facts['settings']['seeds'])} samples ± their standard deviation; "
        "a corpus of just that size is taken whole.",
        _distinct(facts["distinct"], list(facts["corpora"])),
        f"{mark} Words in common",
        f"The {facts['settings']['top_words']:,} most frequent words of each, without stop words "
        f"({facts['settings']['language']}): common ones in percent; Jaccard in brackets. Where a corpus has fewer "
        "words, as many are compared.",
        _overlap(facts["overlap"]),
        *(f"![{shown}]({path})" for shown, path in (figures or {}).items()),
    ]
    return "\n\n".join(parts)


def _sizes(corpora: Mapping[str, Mapping[str, Any]]) -> str:
    head = [_CORPUS, "rows", "bytes", "k", "texts", "words", "different words", "words per text"]
    keys = ("rows", "bytes", "top_k", "texts", "words", "different_words", "mean_words")
    return markdown_table(head, [[name, *(_number(sizes[key]) for key in keys)] for name, sizes in corpora.items()])


def _distinct(distinct: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return a row for each corpus and two columns for each size; the largest corpus has only its own size."""
    orders = [str(n) for n in distinct["orders"]]
    groups = distinct["groups"]
    head = [_CORPUS] + [
        f"D-{n}, {_number(group['words'])} words ({group['size_of']})" for group in groups for n in orders
    ]
    rows = [[name, *(_measured(group["corpora"].get(name), n) for group in groups for n in orders)] for name in names]
    return markdown_table(head, rows)


def _measured(sample: Mapping[str, Any] | None, n: str) -> str:
    if sample is None:
        return ""
    mean, spread = sample[n]["mean"], sample[n]["spread"]
    return f"{mean:.2f}" if spread == 0 else f"{mean:.2f} ± {spread:.2f}"


def _overlap(overlap: Mapping[str, Any]) -> str:
    names = overlap["names"]
    rows = [
        [name, *(f"{share:.1f} ({jaccard:.1f})" for share, jaccard in zip(shares, jaccards, strict=True))]
        for name, shares, jaccards in zip(names, overlap["share"], overlap["jaccard"], strict=True)
    ]
    return markdown_table(["", *names], rows)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose other columns are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,}"
