"""Gather the tables of grids, and the runs that made their models, into one JSON file under benchmarks/results.

    python benchmarks/collect_grid.py --grids all=runs/mitkd/en_100 tenth=runs/mitkd/en_10 \
        --runs mtl:teacher=runs/mitkd/mtl_teacher distilled:mitkd=runs/mitkd/mitkd \
        --commit 46b87fe --output benchmarks/results/mitkd_en.json

A run is JOB:NAME=FOLDER, where the job is one of those of `collect_run.py`, `mtl` or `generation`. Commands are
rebuilt from the arguments that every run wrote.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from collect_run import command_of, without_paths
from record import head_commit

from hf_distill.commands.grid import format_tables

# Facts about a run that readers want to know.
KEPT = (
    *("score", "headlines", "metric", "metrics", "scores", "losses", "student_shape", "student_parameters", "steps"),
    *("train_loss", "train_rows", "textbook_rows", "training_seconds", "decode_speed", "decoding", "seed"),
    *("seconds", "environment"),
)


def gather_run(job: str, folder: Path) -> dict[str, Any]:
    """Command and results of one run."""
    facts = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {"command": command_of(job, folder), **without_paths({key: facts[key] for key in KEPT if key in facts})}


def gather_grid(folder: Path) -> dict[str, Any]:
    """Command, tables and cells of one grid."""
    facts = json.loads((folder / "grid.json").read_text(encoding="utf-8"))
    cells = [
        {key: cell[key] for key in ("model", "task", "fraction", "seed", "train_rows", "score", "seconds")}
        for cell in facts["cells"]
    ]
    shared = {key: facts["cells"][0][key] for key in ("learning_rate", "epochs", "batch_size", "max_eval_samples")}
    return {
        "command": command_of("grid", folder),
        "settings": shared,
        "markdown": format_tables(facts).splitlines(),
        "tables": facts["tables"],
        "cells": cells,
    }


def named(entry: str) -> tuple[str, Path]:
    """NAME=FOLDER."""
    name, _, folder = entry.partition("=")
    return name, Path(folder)


def main() -> None:
    """Parse, gather, write, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", nargs="*", default=[], help="NAME=FOLDER of `hf-distill grid`")
    parser.add_argument("--runs", nargs="*", default=[], help="JOB:NAME=FOLDER of what made the models")
    parser.add_argument("--note", default="", help="what a reader should know")
    parser.add_argument("--commit", help="commit that the runs were made with; by default the one checked out")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    runs = {}
    for entry in options.runs:
        name, folder = named(entry)
        job, _, name = name.partition(":")
        runs[name] = gather_run(job, folder)
    gathered = {
        "note": options.note,
        "runs": runs,
        "grids": {name: gather_grid(folder) for name, folder in map(named, options.grids)},
        "machine": {"cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 1)},
        "commit": options.commit or head_commit(),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(gathered, indent=1) + "\n", encoding="utf-8")
    for name, grid in gathered["grids"].items():
        print(f"{name}\n\n" + "\n".join(grid["markdown"]) + "\n")


if __name__ == "__main__":
    main()
