"""Token streams on disk: the terms of a corpus of any size, written part by part on all cores, read memory-mapped.

Three files are only ever appended to, and the marker of their step records their valid sizes. A part is appended,
flushed to the disk, and then recorded. A build that was killed truncates the files to the recorded sizes and continues
with the next part. Parts are appended in order and terms are numbered by first appearance, so the streams equal those
of `Analyzer.encode`, whatever the number of processes.

Shape legend: N texts, T terms over all texts, V distinct terms.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from datasets.utils import logging, tqdm

from ...storage.files import disk_space
from ...storage.steps import begin, end_with, go_on, note
from ..text.analysis import Analyzer, TokenStreams
from .scoring import available_cores

logger = logging.get_logger(__name__)

# Texts of a part: the work that is lost if a build is killed, and the texts that a process holds in memory.
PART_TEXTS = 100_000
FORMAT = 2

Read = Callable[[int, int], Iterable[Sequence[str]]]


def write_streams(
    analyzer: Analyzer,
    read: Read,
    num_texts: int,
    folder: Path,
    settings: dict[str, Any],
    *,
    num_proc: int | None = None,
) -> TokenStreams:
    """Return the terms of N texts, stored in files of `folder`; only the vocabulary is in memory.

    Args:
        analyzer: Analyzer from text to terms.
        read: Function that reads the texts from one number up to another, in batches of any size.
        num_texts: N.
        folder: Folder of the files. Existing files with the same settings are continued, or only opened if complete.
        settings: Everything that affects the streams, as JSON values.
        num_proc: Number of processes for the analysis; by default all cores if processes can be forked (Linux), else
            only this one.

    Raises:
        OSError: If the disk is full.
        RuntimeError: If a process died.
    """
    writer = _Writer(folder, {"format": FORMAT, **settings})
    with disk_space(folder, "token streams", "--index_dir, --work_dir"), writer:
        _fill(writer, analyzer, read, num_texts, num_proc)
    return writer.streams()


def _fill(writer: _Writer, analyzer: Analyzer, read: Read, num_texts: int, num_proc: int | None) -> None:
    """Append the missing parts."""
    bounds = list(pairwise([*range(writer.num_texts, num_texts, PART_TEXTS), num_texts]))
    if not bounds:
        return
    if writer.num_texts:
        logger.info(f"Continuing after {writer.num_texts:,} of {num_texts:,} texts in {str(writer.folder)!r}.")
    forks = sys.platform == "linux"
    processes = min(len(bounds), num_proc or (available_cores() if forks else 1))
    with tqdm(total=num_texts, initial=writer.num_texts, desc="Text to terms", unit=" rows", unit_scale=True) as bar:
        for part in _analysed(analyzer, read, bounds, processes, "fork" if forks else None):
            writer.append(part)
            bar.update(part.num_texts)


def _analysed(
    analyzer: Analyzer, read: Read, bounds: list[tuple[int, int]], processes: int, method: str | None
) -> Iterator[TokenStreams]:
    """Yield the streams of every part, in order; at most two parts per process are pending."""
    if processes == 1:
        for start, stop in bounds:
            yield analyzer.encode(read(start, stop))
        return
    # Unlike a pool of multiprocessing, an executor notices a killed process.
    work = (os.getpid(), analyzer, read)
    with ProcessPoolExecutor(processes, get_context(method), _take_work, work) as pool:
        waiting: deque[Future[TokenStreams]] = deque()
        try:
            for start, stop in bounds:
                waiting.append(pool.submit(_analyse, start, stop))
                if len(waiting) == 2 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "A process that turned text into terms died (killed, or out of memory). Start again: the build goes "
                "on after the last finished part; fewer processes (`--num_proc`) need less memory."
            ) from error


_WORK: list[tuple[Analyzer, Read]] = []


def _take_work(parent: int, analyzer: Analyzer, read: Read) -> None:
    """Store the work of this process when it starts, so that nothing large is sent for each part."""
    end_with(parent)
    _WORK[:] = [(analyzer, read)]


def _analyse(start: int, stop: int) -> TokenStreams:
    analyzer, read = _WORK[0]
    return analyzer.encode(read(start, stop))


@dataclass(frozen=True)
class _Progress:
    """The sizes up to which the files are complete.

    Attributes:
        texts: Number of complete texts.
        ids: Bytes of `ids.bin`.
        vocabulary: Bytes of `vocabulary.txt`.
    """

    texts: int = 0
    ids: int = 0
    vocabulary: int = 0

    def sizes(self) -> dict[str, int]:
        """Return the bytes of the three files."""
        offsets = 8 * (self.texts + 1) if self.texts else 0
        return {"ids.bin": self.ids, "offsets.bin": offsets, "vocabulary.txt": self.vocabulary}


@dataclass
class _Writer:
    """The open files of the streams in a folder, positioned where writing continues."""

    folder: Path
    settings: dict[str, Any]
    _numbers: dict[str, int] = field(default_factory=dict)
    _files: dict[str, BinaryIO] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._marker = go_on(self.folder, self.settings)
        self._progress = _Progress(**self._marker["facts"])
        if any(_size(self.folder / name) < size for name, size in self._progress.sizes().items()):
            begin(self.folder, self.settings)
            self._marker, self._progress = go_on(self.folder, self.settings), _Progress()
        self._stack = ExitStack()

    @property
    def num_texts(self) -> int:
        """Return the number of complete texts."""
        return self._progress.texts

    def __enter__(self) -> None:
        for name, size in self._progress.sizes().items():
            file = self._stack.enter_context((self.folder / name).open("ab"))
            if os.fstat(file.fileno()).st_size > size:
                file.truncate(size)
            if size == 0 and name == "offsets.bin":
                file.write(np.zeros(1, "<i8").tobytes())
            self._files[name] = file
        self._numbers = {term: number for number, term in enumerate(self._vocabulary())}

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def append(self, part: TokenStreams) -> None:
        """Append the streams of the next texts."""
        before, numbers, done = len(self._numbers), self._numbers, self._progress
        table = np.array([numbers.setdefault(term, len(numbers)) for term in part.vocabulary], "<i4")
        new = [term for term, number in zip(part.vocabulary, table.tolist(), strict=True) if number >= before]
        ids = (table[part.ids] if len(table) else part.ids).astype("<i4", copy=False)
        written = {
            "ids.bin": ids.data,
            "offsets.bin": (part.offsets[1:] + done.ids // 4).astype("<i8").data,
            "vocabulary.txt": "".join(f"{term}\n" for term in new).encode("utf-8", "surrogatepass"),
        }
        for name, data in written.items():
            self._files[name].write(data)
            self._files[name].flush()
            os.fsync(self._files[name].fileno())
        self._progress = _Progress(
            done.texts + part.num_texts, done.ids + ids.nbytes, done.vocabulary + len(written["vocabulary.txt"])
        )
        note(self.folder, self._marker, facts=vars(self._progress))

    def streams(self) -> TokenStreams:
        """Return the complete streams, memory-mapped."""
        return TokenStreams(
            _mapped(self.folder / "ids.bin", "<i4"), _mapped(self.folder / "offsets.bin", "<i8"), list(self._numbers)
        )

    def _vocabulary(self) -> list[str]:
        data = (self.folder / "vocabulary.txt").read_bytes()[: self._progress.vocabulary]
        return data.decode("utf-8", "surrogatepass").split("\n")[:-1]


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _mapped(file: Path, dtype: str) -> np.ndarray:
    """Return a file as a memory-mapped array; an empty file cannot be mapped."""
    return np.asarray(np.memmap(file, dtype, "r")) if file.stat().st_size else np.empty(0, dtype)
