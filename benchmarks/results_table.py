"""The table of scores in the README, from the runs under benchmarks/results.

    python benchmarks/results_table.py            # prints it
    python benchmarks/results_table.py --write    # puts it into README.md

Every row is one file that `collect_run.py` wrote.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BETWEEN = re.compile(r"(<!-- results:begin[^\n]*-->\n)(.*?)(<!-- results:end -->)", flags=re.DOTALL)
HEADER = """| task | student | metric | teacher | student | baseline without teacher | student / teacher | speed-up |
|---|---|---|---:|---:|---:|---:|---:|
"""


def rows() -> list[dict[str, Any]]:
    """The summaries of all runs, by file name."""
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    return [json.loads(file.read_text(encoding="utf-8"))["summary"] | {"file": file.name} for file in files]


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


def with_table(text: str) -> str:
    """The README's text with the table in its place."""
    return BETWEEN.sub(lambda match: f"{match[1]}\n{table()}\n{match[3]}", text)


def main() -> None:
    """Print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    readme = ROOT / "README.md"
    if parser.parse_args().write:
        readme.write_text(with_table(readme.read_text(encoding="utf-8")), encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
