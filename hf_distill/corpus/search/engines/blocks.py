"""BM25 on this package's own inverted index: memory-mapped, in blocks of rows, with statistics applied at search time.

The rows are divided into blocks; each block is an inverted index in one file. A batch of queries is run on a block in
windows of 131,072 rows, so that the sums of a window stay in the level 2 cache and its postings in the level 3 cache.
Within a window a query adds up its terms one after the other, and only rows with a posting are looked at again. An
index stores occurrences and lengths, but no scores: N, document frequencies and mean length are applied at search
time. So a shard is built once, and is scored with the statistics of any corpus that it is part of.

A build needs memory for one block and for the vocabulary. Finished blocks stay on the disk: a killed build continues
after the last one and gives the same bytes.

Shape legend: N rows, V terms, Q queries, D distinct terms of a batch of queries or of a block, P postings of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from datasets.utils import logging, tqdm

from ....storage.files import write_arrays
from ....storage.steps import damage_of_noted, finish, go_on, note, read_marker
from ...text.analysis import TokenStreams
from ..retrieval import Engine
from ..scoring import CorpusStatistics, Hits, available_cores, hash_terms, inverse_document_frequency, length_norms

logger = logging.get_logger(__name__)

# Queries that are run on the blocks together, and the memory that their hits may take.
_BATCH = 2_000
_HIT_BYTES = 64_000_000
# Maximum rows of a block: smaller blocks repeat the lists of terms more often, larger ones need more memory to build.
_BLOCK_ROWS = 1 << 20


class BlocksEngine(Engine):
    """Builds and searches an inverted index in blocks."""

    name = "blocks"
    # Row numbers have 32 bits.
    max_rows = 4_000_000_000
    # A folder with finished blocks of the same build is continued.
    continues = True

    def __init__(self, folder: Path) -> None:
        """Open a saved index, memory-mapped.

        Raises:
            ValueError: If a file is missing or has the wrong length.
        """
        self._hashes, self._frequencies = _load(folder, "hashes"), _load(folder, "frequencies")
        size, (self._k1, self._b, self._mean_length) = _load(folder, "size"), _load(folder, "bm25").tolist()
        self.num_rows, self._corpus_rows = size.tolist()
        blocks = read_blocks(folder / "blocks")
        self._blocks = [(block, open_block(folder / "blocks", number, block)) for number, block in enumerate(blocks)]

    @classmethod
    def version(cls) -> str:
        """Return the version of the format and of the arithmetic."""
        return "1"

    @staticmethod
    def build(
        streams: TokenStreams, folder: Path, *, k1: float, b: float, statistics: CorpusStatistics | None = None
    ) -> None:
        """Index token streams into `folder`, or continue where a killed build of the same streams stopped.

        Args:
            streams: The streams to index.
            folder: Destination; its complete blocks of the same streams are kept.
            k1: BM25's k1.
            b: BM25's b.
            statistics: Statistics of the whole corpus if the rows are a shard; `with_statistics` can replace them
                later.
        """
        hashes = hash_terms(streams.vocabulary)
        order = np.argsort(hashes)
        frequencies = _write_blocks(streams, folder / "blocks", order)
        corpus_rows, mean_length = streams.num_texts, len(streams.ids) / max(1, streams.num_texts)
        if statistics is not None:
            statistics.idf_of(streams.vocabulary)  # raises an error that names a missing term
            frequencies = statistics.frequencies_of_hashes(hashes[order])
            corpus_rows, mean_length = statistics.num_rows, float(statistics.mean_length)
        narrow = np.uint32 if corpus_rows < 2**32 else np.int64
        arrays = {
            "hashes": hashes[order],
            "frequencies": frequencies.astype(narrow),
            "size": np.array([streams.num_texts, corpus_rows]),
            "bm25": np.array([k1, b, mean_length]),
        }
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)

    def with_statistics(self, statistics: CorpusStatistics) -> BlocksEngine:
        """Return this index as a shard of a corpus with these statistics; nothing is built or copied.

        Raises:
            ValueError: If the statistics lack a term of the index, so they are not those of all shards.
        """
        frequencies = statistics.frequencies_of_hashes(self._hashes)
        if not frequencies.all():
            raise ValueError(
                f"The statistics of the corpus lack {int((frequencies == 0).sum())} terms that the index has: merge "
                "those of all shards."
            )
        engine = object.__new__(BlocksEngine)
        engine.__dict__.update(self.__dict__)
        engine._frequencies = frequencies
        engine._corpus_rows, engine._mean_length = statistics.num_rows, float(statistics.mean_length)
        return engine

    def search(self, queries: Sequence[Sequence[str]], k: int, *, num_threads: int | None = None) -> Hits:
        """Run batches of queries on the blocks; see `Engine.search`."""
        k = min(k, max(1, self.num_rows))
        threads = min(num_threads or available_cores(), max(1, len(queries)))
        size = max(1, min(_BATCH, _HIT_BYTES // (8 * _kept(k)), -(-len(queries) // threads)))
        batches = [queries[start : start + size] for start in range(0, len(queries), size)] or [queries]
        _kernel()
        if threads == 1:
            found = [self._search(batch, k) for batch in batches]
        else:
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(lambda batch: self._search(batch, k), batches))
        counts = np.concatenate([counts for counts, _, _ in found])
        return Hits(
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
            rows=np.concatenate([rows for _, rows, _ in found]),
            scores=np.concatenate([scores for _, _, scores in found]),
        )

    def _search(self, queries: Sequence[Sequence[str]], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the number of hits of each query (Q,), then rows and scores of all hits, query after query."""
        kernel = _kernel()
        terms, places, offsets = self._known_terms(queries)
        idf = inverse_document_frequency(self._frequencies[terms], self._corpus_rows)
        hits = np.empty((len(queries), _kept(k)), np.uint64)
        sizes, bars = np.zeros(len(queries), np.int64), np.zeros(len(queries), np.uint64)
        for block, arrays in self._blocks:
            starts, stops = _spans(arrays, terms)
            occurrences, denominators = self._pairs(block)
            kernel.search_block(
                arrays.postings,
                block.row_bits,
                block.rows,
                block.first_row,
                starts,
                stops,
                idf,
                self._k1 + 1,
                occurrences,
                denominators,
                places,
                offsets,
                k,
                hits,
                sizes,
                bars,
                kernel.WINDOW,
            )
        rows, scores = kernel.best_hits(hits, sizes, k)
        return sizes, rows, scores

    def _known_terms(self, queries: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the distinct known terms, ascending (D,), the queries' terms as indices into them, and starts."""
        number_of: dict[str, int] = {}
        numbers = [[number_of.setdefault(term, len(number_of)) for term in query] for query in queries]
        hashes = hash_terms(number_of)
        found = np.searchsorted(self._hashes, hashes)
        known = found < len(self._hashes)
        known[known] = self._hashes[found[known]] == hashes[known]
        terms = np.unique(found[known])
        place_of = np.where(known, np.searchsorted(terms, found), -1).tolist()
        places = [[place for number in query if (place := place_of[number]) >= 0] for query in numbers]
        offsets = np.cumsum([0, *map(len, places)], dtype=np.int64)
        flat = np.fromiter((place for query in places for place in query), np.int32, count=int(offsets[-1]))
        return terms, flat, offsets

    def _pairs(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Return (C,) float64 each: occurrences, and occurrences plus norm, of every pair of a block."""
        norms = length_norms(np.array(block.lengths), self._mean_length, self._k1, self._b)
        occurrences = np.repeat(np.array(block.occurrences, dtype=np.float64), len(norms))
        return occurrences, occurrences + np.tile(norms, len(block.occurrences))


def _kept(k: int) -> int:
    """Return the number of hits kept for each query before the k best are selected."""
    return max(4 * k, 1024)


def _spans(arrays: BlockArrays, terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (D,) int64 each: start and stop of the postings of some terms in a block; equal if there are none."""
    places = np.searchsorted(arrays.terms, terms.astype(np.uint32))
    there = places < len(arrays.terms)
    there[there] = arrays.terms[places[there]] == terms[there]
    places = np.where(there, places, 0)
    starts = arrays.starts[places].astype(np.int64)
    return starts, np.where(there, arrays.starts[np.minimum(places + 1, len(arrays.terms))].astype(np.int64), starts)


def _write_blocks(streams: TokenStreams, folder: Path, order: np.ndarray) -> np.ndarray:
    """Write the missing blocks.

    Args:
        streams: The streams to index.
        folder: Destination of the blocks.
        order: (V,) the streams' terms in the order of the index.

    Returns:
        (V,) int64, document frequency of each term, in the order of the index.
    """
    size = len(streams.vocabulary)
    place = np.empty(size, np.int32)
    place[order] = np.arange(size, dtype=np.int32)
    scratch = _Scratch(place)
    frequencies = np.zeros(size, np.int64)
    settings = {"streams": streams.checksum(), "rows": _BLOCK_ROWS, "tokens": _BLOCK_TOKENS}
    marker = go_on(folder, settings)
    with tqdm(total=streams.num_texts, desc="Indexing (blocks)", unit=" rows", unit_scale=True) as bar:
        for number, (start, stop) in enumerate(block_bounds(streams.offsets, _BLOCK_ROWS)):
            block = finished_block(folder, number, marker)
            if block is None:
                block = _write_block(streams, start, stop, folder / block_name(number), scratch)
                note(folder, marker, files={block_name(number): vars(block)})
            arrays = open_block(folder, number, block)
            frequencies[arrays.terms] += np.diff(arrays.starts.astype(np.int64))
            bar.update(stop - start)
    finish(folder, settings)
    return frequencies


class _Scratch:
    """Arrays over the vocabulary that every block reuses: counts, last rows, and positions in the index's order."""

    def __init__(self, places: np.ndarray) -> None:
        self.counts, self.last_rows, self.places = np.zeros_like(places), np.empty_like(places), places


def _write_block(streams: TokenStreams, start: int, stop: int, file: Path, scratch: _Scratch) -> Block:
    """Invert some rows and write their block."""
    kernel = _kernel()
    offsets = np.asarray(streams.offsets[start : stop + 1])
    ids = streams.ids[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    scratch.counts.fill(0)
    scratch.last_rows.fill(-1)
    kernel.count_rows(ids, offsets, scratch.counts, scratch.last_rows)
    terms = np.flatnonzero(scratch.counts)
    # Use the order of the index here; with the order of the streams the postings would have to be moved again.
    terms = terms[np.argsort(scratch.places[terms])]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(scratch.counts[terms], dtype=np.int64)])
    scratch.counts[terms] = starts[:-1]
    scratch.last_rows.fill(-1)
    lengths = np.diff(offsets)
    different_lengths = np.unique(lengths)
    row_bits = max(1, (stop - start - 1).bit_length())
    postings, repeats = np.empty(starts[-1], np.uint32), np.empty(starts[-1], np.int32)
    kernel.fill_postings(ids, offsets, scratch.counts, scratch.last_rows, postings, repeats)
    different_repeats = np.flatnonzero(np.bincount(repeats))
    wide = (len(different_lengths) * len(different_repeats)) << row_bits > 2**32
    postings = postings.astype(np.uint64) if wide else postings
    pair_of_row = np.searchsorted(different_lengths, lengths)
    kernel.add_pairs(postings, repeats, _rank(different_repeats) * len(different_lengths), pair_of_row, row_bits)
    facts: dict[str, Any] = {
        "first_row": start,
        "rows": stop - start,
        "postings": len(postings),
        "terms": len(terms),
        "row_bits": row_bits,
        "wide": wide,
        "occurrences": different_repeats.tolist(),
        "lengths": different_lengths.tolist(),
    }
    arrays = BlockArrays(postings, starts.astype(np.uint32), scratch.places[terms].astype(np.uint32))
    num_bytes, checksum = write_arrays(file, [arrays.postings, arrays.starts, arrays.terms])
    return Block(**facts, bytes=num_bytes, checksum=checksum)


def _rank(values: np.ndarray) -> np.ndarray:
    """Return a table from every value to its rank among ascending values."""
    table = np.zeros(int(values[-1]) + 1 if len(values) else 1, np.int64)
    table[values] = np.arange(len(values))
    return table


def _load(folder: Path, name: str) -> np.ndarray:
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))


@lru_cache(maxsize=1)
def _kernel() -> ModuleType:
    """Return the compiled kernels; numba is imported on first use."""
    from . import _blocks_kernel

    return _blocks_kernel


# --- files of blocks -------------------------------------------------------------------------------------------------

# Maximum tokens of a block: limits the memory of a build if rows are long.
_BLOCK_TOKENS = 16_000_000


@dataclass(frozen=True)
class Block:
    """The content of a block's file, and the position of its rows in the corpus.

    Attributes:
        first_row: Row number of its first row.
        rows: Number of rows.
        postings: P.
        terms: D.
        row_bits: Number of lower bits of a posting that hold its row; the bits above hold its pair.
        wide: Whether a posting has 64 bits instead of 32.
        occurrences: Distinct numbers of occurrences of a term in a row, ascending.
        lengths: Distinct lengths of rows, ascending. A posting's pair is the index of its occurrences times the number
            of lengths, plus the index of its length.
        bytes: Size of the file.
        checksum: Checksum of its content.
    """

    first_row: int
    rows: int
    postings: int
    terms: int
    row_bits: int
    wide: bool
    occurrences: list[int]
    lengths: list[int]
    bytes: int
    checksum: str


@dataclass(frozen=True)
class BlockArrays:
    """The arrays of a block, memory-mapped.

    Attributes:
        postings: (P,) uint32 or uint64, term after term, rows ascending within a term.
        starts: (D + 1,) uint32, first posting of each term.
        terms: (D,) uint32, ids of the block's terms, ascending.
    """

    postings: np.ndarray
    starts: np.ndarray
    terms: np.ndarray


def block_bounds(offsets: np.ndarray, block_rows: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of every block: at most `block_rows` rows, or fewer if rows are long.

    Args:
        offsets: starts of the rows in their streams, and the end.
        block_rows: Maximum rows of a block.
    """
    start, num_rows = 0, len(offsets) - 1
    while start < num_rows:
        within = int(np.searchsorted(offsets, offsets[start] + _BLOCK_TOKENS, side="right")) - 1
        stop = min(num_rows, start + block_rows, max(start + 1, within))
        yield start, stop
        start = stop


def block_name(number: int) -> str:
    """Return the file name of a block."""
    return f"{number:06d}.bin"


def finished_block(folder: Path, number: int, marker: Mapping[str, Any]) -> Block | None:
    """Return an earlier written block if it is complete; otherwise it is written again."""
    noted = marker["files"].get(block_name(number))
    if noted is None or damage_of_noted(folder / block_name(number), noted) is not None:
        return None
    return Block(**noted)


def read_blocks(folder: Path) -> list[Block]:
    """Read the blocks that the marker of a finished index records.

    Raises:
        ValueError: If the marker is missing or damaged.
    """
    try:
        files = (read_marker(folder) or {})["files"]
        return [Block(**files[block_name(number)]) for number in range(len(files))]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"The index in {str(folder)!r} is damaged ({error}): build it again.") from error


def open_block(folder: Path, number: int, block: Block) -> BlockArrays:
    """Memory-map the arrays of a block.

    Raises:
        ValueError: If the file is missing or has the wrong length.
    """
    file = folder / block_name(number)
    damage = damage_of_noted(file, vars(block), content=False)
    if damage is not None:
        raise ValueError(f"The index is damaged: {damage}. Build it again.")
    width = 8 if block.wide else 4
    content = np.asarray(np.memmap(file, dtype=np.uint8, mode="r"))
    starts = block.postings * width
    terms = starts + 4 * (block.terms + 1)
    return BlockArrays(
        postings=content[:starts].view(f"u{width}"),
        starts=content[starts:terms].view(np.uint32),
        terms=content[terms:].view(np.uint32),
    )
