"""The files of the engine `blocks`: one per block of rows, whole or not there, each with a note on how to read it.

Shape legend: V terms of the index, T tokens, P postings and D distinct terms of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ....storage.files import checksum_of, read_json, write_arrays, write_json

# Tokens of a block at most: bounds the memory of a build where rows are long.
_BLOCK_TOKENS = 16_000_000


@dataclass(frozen=True)
class Block:
    """The content of a block's file, and the place of its rows in the corpus.

    Attributes:
        first_row: Its first row.
        rows: How many it has.
        postings: P.
        terms: D.
        row_bits: Lower bits of a posting that are its row; those above are its pair.
        wide: Whether a posting has 64 bits, not 32.
        occurrences: Different numbers of occurrences of a term in a row, ascending.
        lengths: Different lengths of rows, ascending. A posting's pair is the place of its occurrences times the
            number of lengths, and the place of its length.
        bytes: Size of the file.
        checksum: Of its content.
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
        starts: (D + 1,) uint32, first posting of each of its terms.
        terms: (D,) uint32, its terms, ascending.
    """

    postings: np.ndarray
    starts: np.ndarray
    terms: np.ndarray


def block_bounds(offsets: np.ndarray, block_rows: int) -> Iterator[tuple[int, int]]:
    """First row of every block, and the one after its last: a number of rows, or of tokens where rows are long.

    Args:
        offsets: where rows start in their streams, and the end.
        block_rows: Rows of a block at most.
    """
    start, num_rows = 0, len(offsets) - 1
    while start < num_rows:
        within = int(np.searchsorted(offsets, offsets[start] + _BLOCK_TOKENS, side="right")) - 1
        stop = min(num_rows, start + block_rows, max(start + 1, within))
        yield start, stop
        start = stop


def data_file(folder: Path, number: int) -> Path:
    """The file of a block."""
    return folder / f"{number:06d}.bin"


def write_block(folder: Path, number: int, block: dict[str, object], arrays: BlockArrays) -> Block:
    """Writes a block, then the note that it is finished."""
    size, checksum = write_arrays(data_file(folder, number), [arrays.postings, arrays.starts, arrays.terms])
    written = Block(**block, bytes=size, checksum=checksum)  # type: ignore[arg-type]
    write_json(_note(folder, number), asdict(written))
    return written


def finished_block(folder: Path, number: int) -> Block | None:
    """A block that was written before, if it is whole: an unfinished or damaged one is written again."""
    file = data_file(folder, number)
    try:
        block = read_block(folder, number)
        whole = file.stat().st_size == block.bytes and checksum_of(file) == block.checksum
    except (OSError, ValueError):
        return None
    return block if whole else None


def read_block(folder: Path, number: int) -> Block:
    """The note of a block.

    Raises:
        ValueError: If it is missing or damaged.
    """
    file = _note(folder, number)
    try:
        return Block(**read_json(file))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"The block {str(file)!r} is missing or damaged ({error}): build the index anew.") from error


def open_block(folder: Path, number: int, block: Block) -> BlockArrays:
    """Maps the arrays of a block.

    Raises:
        ValueError: If the file is missing or not as long as it was written.
    """
    file = data_file(folder, number)
    size = file.stat().st_size if file.is_file() else -1
    if size != block.bytes:
        raise ValueError(
            f"The index is damaged: {str(file)!r} is missing or not {block.bytes} bytes long. Build it anew."
        )
    width = 8 if block.wide else 4
    content = np.asarray(np.memmap(file, dtype=np.uint8, mode="r"))
    starts = block.postings * width
    terms = starts + 4 * (block.terms + 1)
    return BlockArrays(
        postings=content[:starts].view(f"u{width}"),
        starts=content[starts:terms].view(np.uint32),
        terms=content[terms:].view(np.uint32),
    )


def _note(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"
