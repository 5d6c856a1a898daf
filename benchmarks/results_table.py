"""The tables of scores in README.md and the documentation, from the results in benchmarks/results.

    python benchmarks/results_table.py            # prints them
    python benchmarks/results_table.py --write    # puts them into the pages

In the README every row is a file from `collect_run.py`; in the page of presets every row is a line from `presets.py`.
Other pages contain the tables of a file from `collect_grid.py` where they name it: `<!-- tables:begin FILE -->`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BETWEEN = re.compile(r"(<!-- results:begin[^\n]*-->\n)(.*?)(<!-- results:end -->)", flags=re.DOTALL)
TABLES = re.compile(r"(<!-- tables:begin (\S+) -->\n)(.*?)(<!-- tables:end -->)", flags=re.DOTALL)
HEADER = """| task | student | metric | teacher | student | baseline without teacher | student / teacher | speed-up |
|---|---|---|---:|---:|---:|---:|---:|
"""
PRESETS_HEADER = """| preset | student | first weights | parameters | learning rate | scored | accuracy |
|---|---|---|---:|---:|---|---:|
"""


def rows() -> list[dict[str, Any]]:
    """The summaries of all runs, by file name."""
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    found = [json.loads(file.read_text(encoding="utf-8")) | {"file": file.name} for file in files]
    return [run["summary"] | {"file": run["file"]} for run in found if "summary" in run]


def table() -> str:
    """The table as Markdown."""
    lines = []
    for row in rows():
        percent = (f"{100 * row[role]:.1f}" for role in ("teacher", "student", "baseline"))
        retention = f"{row['student'] / row['teacher']:.1%}"
        task = f"[{row['task']}](benchmarks/results/{row['file']})"
        cells = (task, row["student_shape"], row["metric"], *percent, retention, f"{row['speedup']:.1f}x")
        lines.append(f"| {' | '.join(cells)} |\n")
    return HEADER + "".join(lines)


def presets_table() -> str:
    """The presets' students as Markdown, the one without a teacher last."""
    lines = (ROOT / "benchmarks" / "results" / "presets.jsonl").read_text(encoding="utf-8").splitlines()
    found = sorted(map(json.loads, lines), key=lambda line: (line["preset"].startswith("none"), line["preset"]))
    cells = (
        (
            line["preset"],
            line["student"],
            line["init"].replace("_", " "),
            f"{line['parameters'] / 1e6:.1f} M",
            f"{line['learning_rate']:g}",
            "adapted" if line["adapted"] else "as it is",
            f"{100 * line['score']:.1f}",
        )
        for line in found
    )
    return PRESETS_HEADER + "".join(f"| {' | '.join(row)} |\n" for row in cells)


PAGES = {
    "README.md": table,
    "docs/results.md": lambda: table().replace("](benchmarks/", "](../benchmarks/"),
    "docs/presets.md": presets_table,
}


def with_table(text: str, make: Callable[[], str] = table) -> str:
    """A page's text with the table in its place."""
    return BETWEEN.sub(lambda match: f"{match[1]}\n{make()}\n{match[3]}", text)


def with_grids(text: str) -> str:
    """A page's text with the tables of the grids that it names."""

    def tables(match: re.Match[str]) -> str:
        facts = json.loads((ROOT / match[2]).read_text(encoding="utf-8"))
        return "\n\n".join("\n".join(grid["markdown"]) for grid in facts["grids"].values())

    return TABLES.sub(lambda match: f"{match[1]}\n{tables(match)}\n\n{match[4]}", text)


def main() -> None:
    """Print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into the pages")
    write = parser.parse_args().write
    for name, make in PAGES.items():
        page = ROOT / name
        if write:
            page.write_text(with_table(page.read_text(encoding="utf-8"), make), encoding="utf-8")
        print(make())
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if write and with_grids(text) != text:
            page.write_text(with_grids(text), encoding="utf-8")


if __name__ == "__main__":
    main()
