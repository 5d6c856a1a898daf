"""The documentation site: `make docs` builds it from the pages as they stand in the repository.

The source folder is the repository itself, so every relative link means on the site what it means on a code host, and
the README is the start page. Pages that no chapter names come last, so that none can be forgotten.
"""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import hf_distill

ROOT = Path(__file__).parent.parent
REFERENCE = "docs/api"

project = "hf_distill"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = [
    *("*.md", "docs/*.md", "benchmarks/*.md", "examples/*.md", "examples/*/*.md"),
    *("model_cards/*.md", "model_cards/*/*.md"),
]
exclude_patterns = [".*", "outputs", "runs", "build", "dist"]

html_theme = "furo"
html_title = "hf_distill"
html_copy_source = False
html_show_copyright = False

# Anchors as code hosts make them.
myst_heading_anchors = 4

# Docstrings are Markdown where they are more than text: a single backtick means code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

CHAPTERS = {
    "Tutorials": ["from_a_csv", "first_student", "small_encoder", "paper_table"],
    "How to": [
        *("install", "verbs", "corpus", "cluster", "general", "augment", "compare", "teach", "mtl", "distill"),
        *(
            "students",
            "sentence_encoders",
            "rerankers",
            "several_teachers",
            "precompute",
            "other_models",
            "watching",
            "adapt",
            "generate",
            "grid",
        ),
        *("ship", "export", "bench", "card", "hub", "gpu", "convert", "extending", "troubleshooting"),
    ],
    "Reference": ["objectives", "presets", "paper_index", "tasks", "architectures", "defaults", "api"],
    "Explanation": ["architecture", "results"],
}


def navigation(source: Path = ROOT) -> str:
    """The chapters as hidden tables of contents; what belongs to none stands in the last one."""
    chapters = {title: [f"docs/{page}" for page in pages] for title, pages in CHAPTERS.items()}
    named = {root_doc, *(page for pages in chapters.values() for page in pages)}
    found = (page.relative_to(source).as_posix()[:-3] for pattern in include_patterns for page in source.glob(pattern))
    chapters["More"] = sorted(page for page in found if page not in named)
    return "".join(
        "\n".join(["\n```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```", ""])
        for title, pages in chapters.items()
    )


def reference() -> str:
    """The docstrings of all public names, below the table of `api.md`."""
    lines = ["", "## In full", "", "```{eval-rst}"]
    for name in hf_distill.__all__:
        kind = "class" if inspect.isclass(getattr(hf_distill, name)) else "function"
        lines += [f".. auto{kind}:: hf_distill.{name}", *(["   :members:", ""] if kind == "class" else [""])]
    return "\n".join([*lines, "```", ""])


def without_folders(text: str, page: Path) -> str:
    """The text with links to folders as their words: a code host lists a folder, a site has no page of one."""

    def words_of(link: re.Match[str]) -> str:
        return link["words"] if (page.parent / link["target"]).is_dir() else link[0]

    return re.sub(r"(?<!!)\[(?P<words>[^][]*)\]\((?P<target>[^()#:\s]+)\)", words_of, text)


def adapt_page(app: Sphinx, name: str, source: list[str]) -> None:
    """What is different on the site: the navigation, the docstrings, and folders."""
    source[0] = without_folders(source[0], Path(app.srcdir) / f"{name}.md")
    if name == root_doc:
        source[0] += navigation(Path(app.srcdir))
    elif name == REFERENCE:
        source[0] += reference()


def shorten_signature(
    app: Sphinx, what: str, name: str, found: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Argument classes have a hundred fields, those of transformers among them: `--help` is their page."""
    return ("(...)" if what == "class" and name.endswith("Arguments") else signature), returns


def add_index(app: Sphinx, error: Exception | None) -> None:
    """A web server looks for `index.html`."""
    if error is None and app.builder.name == "html":
        shutil.copyfile(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    """Connect them."""
    app.connect("source-read", adapt_page)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("build-finished", add_index)
