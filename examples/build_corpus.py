"""Build a contextualized corpus: the sentences of a general corpus that are similar to the sentences of a task.

    python examples/build_corpus.py --task glue/sst2 --corpus general.parquet --top_k 150 --corpus_dir outputs/corpus

Then distil a student on it:

    python examples/run_distillation.py --teacher_model outputs/teacher --train_file outputs/corpus/train.parquet \
        --output_dir outputs/student

Every training sentence of the task is an anchor: its keywords are searched in the general corpus with BM25, and the
best rows of all anchors form the corpus, without the sentences of the task's validation and test sets. If a build is
killed, the same command continues it. `hf-distill corpus` can also build in shards and on a cluster.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from hf_distill import CorpusArguments, build_contextualized_corpus, load_general_corpus, load_task


@dataclass
class TaskDataArguments:
    """The task whose sentences are the anchors."""

    task: str = field(metadata={"help": "Name of a registered task, or a folder of your own with a task.yaml."})
    data_dir: str | None = field(
        default=None, metadata={"help": "Local files of a registered task. Default: its data set on the Hub."}
    )
    hub_repo: str | None = field(
        default=None, metadata={"help": "Push the corpus to this data set on the Hub. Default: do not push."}
    )


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Build the corpus, write it as one Parquet file with its statistics, and return the statistics."""
    parser = HfArgumentParser((TaskDataArguments, CorpusArguments), description=__doc__)
    task_args, args = parser.parse_args_into_dataclasses(argv)
    if args.corpus is None:
        parser.error("--corpus names no general corpus.")
    folder = Path(args.corpus_dir)
    folder.mkdir(parents=True, exist_ok=True)

    task = load_task(task_args.task, task_args.data_dir)
    columns = task.spec.text_columns
    held_out = [rows for split, rows in task.dataset.items() if split != task.spec.train_split]
    general = load_general_corpus(
        args.corpus, args.corpus_config, split=args.corpus_split, max_rows=args.max_corpus_rows
    )

    result = build_contextualized_corpus(
        task.train,
        general,
        args,
        anchor_columns=columns,
        evaluation_texts=(text for rows in held_out for column in columns for text in rows[column]),
        work_dir=args.work_dir or folder / "work",
    )

    statistics = result.statistics
    print(f"{len(result.dataset):,} rows for {statistics['anchors']['anchors']:,} anchors of {task.spec.name}")
    print(f"Engine: {statistics['engine']['name']} ({statistics['engine']['why']})")
    print(f"Dropped after the search: {statistics['dropped']}")
    result.dataset.to_parquet(folder / "train.parquet")
    (folder / "statistics.json").write_text(json.dumps(statistics, indent=2), encoding="utf-8")
    if task_args.hub_repo is not None:
        result.dataset.push_to_hub(task_args.hub_repo)
    return statistics


if __name__ == "__main__":
    main()
