"""Why a contextualized corpus helps: size, diversity and common words of corpora (Tables 1 and 3, Figure 3).

    python benchmarks/corpus_statistics.py --tasks glue/rte glue/mrpc --data_dir glue --corpora runs/corpora \
        --general runs/general --output benchmarks/results/corpus_statistics.json --figures docs/figures
    python benchmarks/corpus_statistics.py --page docs/compare.md   # its tables, from the results

`--corpora` holds, for every task, a folder `cc_TASK` of `hf-distill corpus` and `taskda_TASK` of `hf-distill augment`
(such as `cc_rte`), made from the same training rows; exactly these rows are the task's own text in the comparison.
Results of other tasks in the output are kept.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from record import head_commit, script_command

from hf_distill.corpus.compare.report import markdown_table

TASK, AUGMENTED, RETRIEVED, GENERAL = "task", "taskda", "cc", "general"
# Maximum relative difference between two corpora (of the larger one) that count as equally diverse.
ALIKE = 0.1
RESULTS = "benchmarks/results/corpus_statistics.json"
BETWEEN = re.compile(r"(<!-- tables:begin[^\n]*-->\n)(.*?)(<!-- tables:end -->)", flags=re.DOTALL)


# --- measuring ------------------------------------------------------------------------------------------------------


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The comparison of one task's corpora, without folders of this machine."""
    from hf_distill.commands.compare import run as compare
    from hf_distill.settings import ComparisonArguments, TaskArguments

    short = name.split("/")[-1]
    folders = {corpus: Path(options.corpora) / f"{corpus}_{short}" for corpus in (RETRIEVED, AUGMENTED)}
    settings = {corpus: yaml.safe_load((path / "arguments.yaml").read_text()) for corpus, path in folders.items()}
    rows = {settings[corpus]["max_train_samples"] for corpus in folders}
    if len(rows) != 1:
        raise ValueError(f"The corpora of {name} are of different training rows: {sorted(rows)}.")
    with tempfile.TemporaryDirectory() as output:
        found = compare(
            TaskArguments(name, data_dir=options.data_dir, max_train_samples=rows.pop()),
            ComparisonArguments(
                [
                    f"{AUGMENTED}={folders[AUGMENTED]}",
                    f"{RETRIEVED}={folders[RETRIEVED]}",
                    f"{GENERAL}={options.general}",
                ],
                num_draws=options.num_draws,
                seed=options.seed,
                output_dir=output,
            ),
        )
    built = {corpus: json.loads((path / "statistics.json").read_text()) for corpus, path in folders.items()}
    kept = ("reference", "corpora", "distinct", "overlap", "top_shares", "settings", "seconds")
    return {
        **{key: found[key] for key in kept},
        "built": {
            RETRIEVED: {key: built[RETRIEVED][key] for key in ("anchors", "top_k", "hits", "kept_share")},
            AUGMENTED: {
                **{key: built[AUGMENTED][key] for key in ("source_rows", "rows_per_source_row")},
                "masked_lm": built[AUGMENTED]["masked_lm"]["name"],
                "dtype": built[AUGMENTED]["masked_lm"]["dtype"],
            },
        },
    }


def draw(tasks: dict[str, Any], folder: Path) -> None:
    """Figure 3 of all tasks, the curves over the top shares, and all pairs of one task's corpora."""
    from hf_distill.corpus.compare.figures import draw_overlap, draw_top_shares

    folder.mkdir(parents=True, exist_ok=True)
    shown = {name: dict(with_task(facts)) for name, facts in tasks.items()}
    columns = list(next(iter(shown.values())))
    values = [[line[column] for column in columns] for line in shown.values()]
    top = f"{next(iter(tasks.values()))['settings']['top_words']:,} most frequent words"
    title = f"Words in common with the task's text ({top})"
    draw_overlap(values, list(shown), columns, folder / "corpus_overlap.png", title=title)
    curves = {name: facts["top_shares"][RETRIEVED] for name, facts in tasks.items()}
    draw_top_shares(curves, {}, folder / "corpus_top_shares.png", title=f"{top}, retrieved corpora")
    first = next(iter(tasks))
    overlap = tasks[first]["overlap"]
    names = overlap["names"]
    draw_overlap(overlap["share"], names, names, folder / "corpus_matrix.png", title=f"{first}: {top}")


# --- reading --------------------------------------------------------------------------------------------------------


def with_task(facts: dict[str, Any]) -> list[tuple[str, float]]:
    """Corpus -> words in common with the task's text, in the order of the paper's Figure 3; evaluation texts last."""
    overlap = facts["overlap"]
    return list(zip(overlap["names"], overlap["share"][overlap["names"].index(TASK)], strict=True))


def equal_sizes(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The two blocks of the paper's Table 3: samples of the task's size, and of the smaller corpus made for it."""
    return [
        next(group for group in facts["distinct"]["groups"] if group["size_of"] == TASK),
        next(group for group in facts["distinct"]["groups"] if group["size_of"] in (AUGMENTED, RETRIEVED)),
    ]


def orderings(facts: dict[str, Any]) -> dict[str, bool]:
    """The paper's orderings -> whether they hold here."""
    overlap = dict(with_task(facts))
    shares = [overlap[point["name"]] for point in facts["top_shares"][RETRIEVED]]
    found = {
        "overlap: Task > TaskDA": overlap[TASK] > overlap[AUGMENTED],
        "overlap: TaskDA > CC20": overlap[AUGMENTED] > shares[0],
        "overlap: CC20 ≥ CC40 ≥ CC60 ≥ CC80 ≥ CC100": shares == sorted(shares, reverse=True),
        "overlap: CC100 > general": shares[-1] > overlap[GENERAL],
    }
    for block, size in zip(equal_sizes(facts), ("Task's size", "larger size"), strict=True):
        for n in map(str, facts["distinct"]["orders"]):
            means = {name: sample[n]["mean"] for name, sample in block["corpora"].items()}
            pair = means[RETRIEVED], means[GENERAL]
            found[f"D-{n}, {size}: CC ≈ general"] = max(pair) - min(pair) <= ALIKE * max(pair)
            found[f"D-{n}, {size}: CC > TaskDA"] = means[RETRIEVED] > means[AUGMENTED]
            found[f"D-{n}, {size}: general > TaskDA"] = means[GENERAL] > means[AUGMENTED]
    return found


# --- tables ---------------------------------------------------------------------------------------------------------


def tables(results: dict[str, Any]) -> str:
    """Tables 1 and 3, Figure 3 and the orderings as Markdown."""
    tasks = results["tasks"]
    return "\n".join(
        part
        for title, make in (
            ("Table 1: rows, bytes, k", sizes_table),
            ("Table 3: Distinct-n in samples of equal size", distinct_table),
            ("Figure 3: words in common with the task", overlap_table),
            ("The paper's orderings", orderings_table),
        )
        for part in (f"\n### {title}\n", make(tasks))
    )


def sizes_table(tasks: dict[str, Any]) -> str:
    """What the paper's Table 1 has, and words."""
    rows = [
        [f"{task} {name}", *(f"{sizes[key]:,}" for key in ("rows", "bytes")), f"{sizes['top_k'] or '–'}"]
        + [f"{sizes[key]:,}" for key in ("words", "different_words", "mean_words")]
        for task, facts in tasks.items()
        for name, sizes in facts["corpora"].items()
    ]
    return markdown_table(["corpus", "rows", "bytes", "k", "words", "different words", "words per text"], rows)


def distinct_table(tasks: dict[str, Any]) -> str:
    """D-1 / D-2 with the spread over the samples; a column for a task, both blocks of the paper."""
    blocks = {task: equal_sizes(facts) for task, facts in tasks.items()}
    rows = []
    for block, size in enumerate(("Task", "the smaller of TaskDA and CC")):
        rows += [
            [f"{name}, size of {size}", *(_pair(blocks[task][block]["corpora"].get(name)) for task in tasks)]
            for name in ((TASK, AUGMENTED, RETRIEVED, GENERAL) if block == 0 else (AUGMENTED, RETRIEVED, GENERAL))
        ]
        rows.append(["words of a sample", *(f"{blocks[task][block]['words']:,}" for task in tasks)])
    return markdown_table(["D-1 / D-2, %", *tasks], rows)


def _pair(sample: dict[str, Any] | None) -> str:
    if sample is None:
        return "–"
    return " / ".join(
        f"{sample[n]['mean']:.2f}" + (f" ± {sample[n]['spread']:.2f}" if sample[n]["spread"] else "") for n in "12"
    )


def overlap_table(tasks: dict[str, Any]) -> str:
    """Percent of the most frequent words in common with the task's text; Jaccard in brackets."""
    rows = []
    for task, facts in tasks.items():
        jaccard = facts["overlap"]["jaccard"][facts["overlap"]["names"].index(TASK)]
        cells = zip(with_task(facts), jaccard, strict=True)
        rows.append([task, *(f"{share:.1f} ({value:.1f})" for (_, share), value in cells)])
    return markdown_table(["words in common, %", *(name for name, _ in with_task(next(iter(tasks.values()))))], rows)


def orderings_table(tasks: dict[str, Any]) -> str:
    """Which of the paper's orderings hold for which task."""
    found = {task: orderings(facts) for task, facts in tasks.items()}
    rows = [
        [claim, *("yes" if found[task][claim] else "**no**" for task in tasks)] for claim in next(iter(found.values()))
    ]
    return markdown_table(["ordering", *tasks], rows)


def with_tables(text: str, results: dict[str, Any]) -> str:
    """A page's text with the tables in their place."""
    return BETWEEN.sub(lambda match: f"{match[1]}{tables(results)}\n\n{match[3]}", text)


def write(path: Path, tasks: dict[str, Any]) -> None:
    """Add the results of some tasks to a file; those of others stay in it."""
    there = json.loads(path.read_text(encoding="utf-8"))["tasks"] if path.is_file() else {}
    there |= tasks
    results = {
        "tasks": dict(sorted(there.items())),
        "orderings": {name: orderings(facts) for name, facts in sorted(there.items())},
    }
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the results, or write the tables of earlier results into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=[])
    parser.add_argument("--data_dir")
    parser.add_argument("--corpora", help="folder of the corpora made for the tasks")
    parser.add_argument("--general", help="general corpus")
    parser.add_argument("--num_draws", type=int, default=5)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--num_proc", type=int, default=1, help="tasks that are measured at a time")
    parser.add_argument("--commit", help="commit that the package is of, where this is no checkout")
    parser.add_argument("--output", default=RESULTS)
    parser.add_argument("--figures", help="folder for the figures")
    parser.add_argument("--page", help="page to put the tables into")
    options = parser.parse_args(argv)
    if options.tasks:
        with ProcessPoolExecutor(options.num_proc, multiprocessing.get_context("spawn")) as processes:
            found = processes.map(measure, options.tasks, [options] * len(options.tasks))
            tasks = dict(zip(options.tasks, found, strict=True))
        made = {
            "command": script_command("corpus_statistics", argv),
            "seed": options.seed,
            "commit": options.commit or head_commit(),
            "machine": {"processor": platform.machine(), "cpus": os.cpu_count(), "python": platform.python_version()},
            "versions": {name: version(name) for name in ("datasets", "numpy", "pyarrow")},
        }
        write(Path(options.output), {name: {**facts, "made": made} for name, facts in tasks.items()})
    results = json.loads(Path(options.output).read_text(encoding="utf-8"))
    if options.figures:
        draw(results["tasks"], Path(options.figures))
    if options.page:
        page = Path(options.page)
        page.write_text(with_tables(page.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(tables(results))


if __name__ == "__main__":
    main()
