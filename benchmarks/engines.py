"""Every BM25 engine on synthetic text of any size: rows and queries per CPU-second, bytes, peak memory.

    python benchmarks/engines.py --rows 1000000 --output benchmarks/results/engines.jsonl

The text is drawn from a Zipf-Mandelbrot distribution over a million words, with 6 to 32 words in a sentence; the 150
most frequent words are stop words, and nothing is stemmed. A query is ten different words of a sentence that are not
stop words. The measurements are those of `corpus_build.py`; retriv's library runs only up to five million rows,
because it needs more than 2 GB per million.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from corpus_build import add_engines, measure_all, versions
from datasets import Dataset, Features, Value
from datasets.arrow_writer import ArrowWriter
from record import head_commit, script_command, script_parser

from hf_distill.corpus.text.analysis import Analyzer
from hf_distill.corpus.text.rows import UsableTexts

NUM_WORDS, NUM_STOP_WORDS = 1_000_000, 150
SHORTEST, LONGEST, QUERY_WORDS = 6, 32, 10
MAX_RETRIV_ROWS = 5_000_000
BATCH = 100_000


def draw_rows(random: np.random.Generator, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Words of some sentences, flat, and where each begins."""
    weights = np.cumsum(1 / (np.arange(NUM_WORDS) + 3.7))
    lengths = random.integers(SHORTEST, LONGEST + 1, num_rows)
    words = np.searchsorted(weights, random.random(lengths.sum()) * weights[-1])
    return words.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)])


def write_text(file: Path, num_rows: int, seed: int, num_queries: int) -> tuple[list[list[str]], str]:
    """Writes the rows to an Arrow file; returns queries from rows spread over it, and the checksum of the text."""
    random, digest = np.random.default_rng(seed), xxhash.xxh3_64()
    names = np.array([f"w{word:x}" for word in range(NUM_WORDS)])
    spellings = pa.array(names)
    queries: list[list[str]] = []
    with ArrowWriter(path=str(file), features=Features({"text": Value("string")})) as writer:
        for start in range(0, num_rows, BATCH):
            words, offsets = draw_rows(random, min(BATCH, num_rows - start))
            rows = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), spellings.take(pa.array(words)))
            texts = pc.binary_join(rows, " ")
            digest.update("\n".join(texts.to_pylist()).encode())
            writer.write_table(pa.table({"text": texts}))
            wanted = num_queries * (start + len(texts)) // num_rows
            while len(queries) < wanted:
                row = random.integers(len(texts))
                content = np.unique(words[offsets[row] : offsets[row + 1]])
                content = random.permutation(content[content >= NUM_STOP_WORDS])[:QUERY_WORDS]
                if len(content) == QUERY_WORDS:
                    queries.append(names[content].tolist())
        writer.finalize()
    return queries, digest.hexdigest()


def main() -> None:
    """Draw the text, measure every engine on it."""
    parser = script_parser(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--num_queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="draws the text and the queries")
    add_engines(parser)
    options = parser.parse_args()
    engines = [name for name in options.engines if not (name.startswith("retriv") and options.rows > MAX_RETRIV_ROWS)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "text.arrow"
        queries, checksum = write_text(file, options.rows, options.seed, options.num_queries)
        analyzer = Analyzer("none", stopwords=[f"w{word:x}" for word in range(NUM_STOP_WORDS)])
        facts = {
            "benchmark": "engines",
            "command": script_command("engines"),
            "seed": options.seed,
            "data": {
                "text": f"Zipf-Mandelbrot, {NUM_WORDS} words, {SHORTEST} to {LONGEST} in a row, "
                f"{NUM_STOP_WORDS} stop words",
                "rows": options.rows,
                "checksum": checksum,
                "queries": len(queries),
                "query_terms": QUERY_WORDS,
            },
            "commit": head_commit(),
            "versions": versions(),
        }
        texts = UsableTexts(Dataset.from_file(str(file)), "text", np.arange(options.rows))
        measure_all(engines, texts, analyzer, queries, options.k, facts, options.output)


if __name__ == "__main__":
    main()
