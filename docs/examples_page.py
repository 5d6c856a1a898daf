"""Write examples/README.md from what the scripts and notebooks say of themselves.

    python docs/examples_page.py

A test keeps the file as this script writes it.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
HEAD = """\
# Examples

This page is written by `python docs/examples_page.py` from the scripts and notebooks themselves.

The scripts show the trainers and the corpus builder: copy one and change it. Each parses its flags with
`transformers.HfArgumentParser` (`--help` lists them): a few of its own, and those of the training's arguments. For a
whole job, with checks, results and cards, there are the verbs (`hf-distill --help`); [`configs`](configs) has YAML
files for them. [`data`](data/README.md) has small data that may be redistributed, so that `make demo` and the Chinese
notebook need no other.
"""


def about(script: Path) -> str:
    """The first sentence of a script's docstring."""
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def command(script: Path) -> str:
    """The first command of a script's docstring, which is one line: a backslash at its end joins it with the next."""
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return next(line for line in lines if line.startswith("python examples/"))


def heading(notebook: Path) -> tuple[str, str]:
    """The title of a notebook and its first paragraph."""
    first = json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]
    title, _, rest = "".join(first["source"]).partition("\n\n")
    return title.removeprefix("# "), " ".join(rest.partition("\n\n")[0].split())


def render() -> str:
    """The whole page."""
    scripts = sorted([*EXAMPLES.glob("run_*.py"), EXAMPLES / "build_corpus.py"])
    rows = [f"| [`{path.name}`]({path.name}) | {about(path)} |" for path in scripts]
    notebooks = [(path, *heading(path)) for path in sorted((EXAMPLES / "notebooks").glob("*.ipynb"))]
    found = [f"| [{title}](notebooks/{path.name}) | {text} |" for path, title, text in notebooks]
    parts = [
        HEAD,
        "## Scripts\n",
        "\n".join(["| script | what it does |", "|---|---|", *rows]) + "\n",
        "How each is called:\n",
        "```bash\n" + "\n".join(command(path) for path in scripts) + "\n```\n",
        "## Notebooks\n",
        "The first cell of each has its parameters: models, data and sizes.\n",
        "\n".join(["| notebook | what it shows |", "|---|---|", *found]) + "\n",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    (EXAMPLES / "README.md").write_text(render(), encoding="utf-8")
