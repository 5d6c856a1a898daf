"""The dataset card of a corpus that was built here: its content, how it was made, and how to make it again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from ..storage.files import read_text, write_text
from .citations import resolve_citations
from .disclosure import public
from .rendering import render_template, write_card_text

# Templates by kind of corpus.
TEMPLATES = {"contextualized": "dataset_card.md", "augmented": "augmented_card.md", "general": "general_card.md"}
# The path in the card's code until the corpus is pushed, when the repository's id replaces it.
LOCAL_FOLDER = "path/to/this/folder"

# Folder of a card's images.
FIGURES_FOLDER = "figures"
# The last part of every card; added sections go before it.
_LAST_PARTS = "\n## Licence\n"

# The Hub's size categories of data sets.
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass
class CorpusCardFacts:
    """The facts that the card of a corpus states.

    Attributes:
        name: Title of the card.
        statistics: Statistics of the build (`CorpusResult`, `AugmentedCorpus`, `GeneralCorpus`).
        kind: Kind of corpus: retrieved from general text, augmented from the task's own text, or mixed from general
            text.
        task: Task whose sentences were the anchors, or were augmented.
        task_licence: Licence of the task's data, if known.
        corpus_licence: Licence of the general corpus, if given.
        language: ISO code.
        settings: Arguments that differ from their defaults.
        command: The command line that makes the corpus again.
        versions: Package -> version.
        citations: Keys of `hf_distill.hub.citations` or BibTeX entries.
    """

    name: str
    statistics: Mapping[str, Any]
    kind: Literal["contextualized", "augmented", "general"] = "contextualized"
    task: str | None = None
    task_licence: str | None = None
    corpus_licence: str | None = None
    language: str | None = "en"
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    citations: Sequence[str] = ("contextualized_corpus", "rake", "bm25")


def render_dataset_card(facts: CorpusCardFacts) -> str:
    """The card as Markdown with its YAML header.

    Raises:
        ValueError: If a citation is unknown.
    """
    filters: dict[str, Callable[..., str]] = {"number": _number, "words": _words, "cell": _cell}
    citations = resolve_citations(facts.citations)
    text = render_template(
        TEMPLATES[facts.kind],
        filters,
        facts=facts,
        statistics=facts.statistics,
        citations=citations,
        folder=LOCAL_FOLDER,
    )
    header = yaml.safe_dump(dataset_metadata(facts), sort_keys=False, allow_unicode=True).strip()
    return f"---\n{header}\n---\n\n{text}\n"


def dataset_metadata(facts: CorpusCardFacts) -> dict[str, Any]:
    """The card's header as the Hub reads it."""
    rows = int(facts.statistics["rows"])
    header: dict[str, Any] = {"pretty_name": facts.name}
    if facts.language:
        header["language"] = [facts.language]
    header["license"] = facts.corpus_licence or "other"
    header["tags"] = ["hf_distill", f"{facts.kind}-corpus", "knowledge-distillation"]
    header["size_categories"] = [next((name for bound, name in _SIZES if rows < bound), "1M<n<10M")]
    header["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}]
    return header


def write_dataset_card(folder: str | os.PathLike[str], facts: CorpusCardFacts) -> Path:
    """Write `README.md` into a folder, without secrets and local folders.

    Returns:
        The file.
    """
    path = Path(folder) / "README.md"
    return write_card_text(path, render_dataset_card(CorpusCardFacts(**public(facts))))


def write_section(folder: str | os.PathLike[str], name: str, text: str) -> Path:
    """Write a section into the card of a corpus; it replaces a section of the same name, else it precedes the licence.

    Args:
        folder: Folder of the corpus.
        name: Name of the section, used to find it again; it is not visible.
        text: Markdown.

    Returns:
        The card.

    Raises:
        FileNotFoundError: If there is no card.
    """
    path = Path(folder) / "README.md"
    begin, end = (f"<!-- {name}:{place} -->" for place in ("begin", "end"))
    before, found, rest = read_text(path).partition(begin)
    after = rest.partition(end)[2] if found else ""
    if not found:
        before, last_parts, after = before.partition(_LAST_PARTS)
        before, after = f"{before.rstrip()}\n\n", f"\n{last_parts}{after}"
    return write_text(path, f"{before}{begin}\n{public(text.strip())}\n{end}{after}")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: Any) -> str:
    """Format a value as a table cell, without line breaks and unescaped bars."""
    values: Iterable[Any] = value if isinstance(value, (list, tuple)) else [value]
    return " ".join(", ".join(str(item) for item in values).replace("|", "\\|").split())
