"""Build a contextualized corpus: the sentences of a general corpus that are like a task's.

    python examples/build_corpus.py --task glue/sst2 --corpus general.parquet --corpus_dir outputs/cc

Flags, or one YAML file with flags after it: `python examples/build_corpus.py corpus.yaml --top_k 50`.
A killed build continues where it stopped when it is started again. `--num_shards 8` does it in eight shards, with
`--shard 3` or `--merge` one step of that, on any machine (docs/cluster.md).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hf_distill.commands.corpus import build_corpus
from hf_distill.commands.corpus_shards import format_shard
from hf_distill.commands.ending import run_command
from hf_distill.settings import CorpusArguments, ShardArguments, TaskArguments
from hf_distill.settings.parsing import parse


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, build, print what came out."""
    results = build_corpus(*parse((TaskArguments, CorpusArguments, ShardArguments), argv, __doc__))
    if "shard" in results:
        print(format_shard(results))
        return results
    statistics = results["statistics"]
    print(
        f"{results['task']}: {results['rows']:,} rows ({statistics['bytes'] / 1e6:.1f} MB) from "
        f"{statistics['anchors']['anchors']:,} anchors x top {statistics['top_k']['used']} of "
        f"{statistics['general_corpus']['rows']:,} rows in {results['seconds']:.0f} s"
    )
    print(f"Engine: {statistics['engine']['name']} ({statistics['engine']['why']})")
    print(f"Dropped after retrieval: {statistics['dropped']}")
    print(f"Corpus, card and statistics written to {results['corpus_dir']}")
    return results


if __name__ == "__main__":
    sys.exit(run_command("build_corpus.py", main))
