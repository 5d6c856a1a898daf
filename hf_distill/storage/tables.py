"""Looks at files with rows before they are read: how a table is written, and what a reader would silently get wrong.

The rows of tasks and plain text both go through it.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from hf_distill.storage.files import DamagedFileError, PathLike

# Suffixes that may follow that of the format.
COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz", ".lz4")
SEPARATORS = ",;\t"
# A cell with more characters than the first number must have a wrong quotation mark; the second number is how many
# characters of a tab-separated table are looked at.
_LONGEST_CELL, _LOOKED_AT = 1 << 26, 1 << 24
# A cell as a writer of quoted tables writes it, with the separator after it; and a cell that is still open at the end.
_CELL = re.compile(r'(?:"(?:[^"]|"")*+"|[^"\t\r\n]*+)(\t|\r\n|\n|\r|\Z)')
_OPEN_CELL = re.compile(r'"(?:[^"]|"")*+\Z')
# Number of lines from which the separator of a table is determined.
_FEW_LINES = 1_000
_TEXT: dict[str, Any] = {"encoding": "utf-8-sig", "newline": ""}
# First bytes of files that are not UTF-8 text -> what kind of file it is.
_NO_TEXT = {b"\xff\xfe": "in UTF-16", b"\xfe\xff": "in UTF-16", b"\x1f\x8b": "compressed", b"PK": "a spreadsheet"}


def suffix_of(path: PathLike) -> str:
    """The suffix that gives the format of a file, in lower case: `.csv` for `Reviews.CSV.gz`."""
    return Path(_without_compression(path)).suffix.lower()


def stem_of(path: PathLike) -> str:
    """The name of a file without the suffixes of its format: `Reviews` for `Reviews.CSV.gz`."""
    return Path(_without_compression(path)).stem


def _without_compression(path: PathLike) -> str:
    name = Path(path).name
    return name.rpartition(".")[0] if name.lower().endswith(COMPRESSIONS) else name


@dataclass(frozen=True)
class TableForm:
    """How the cells of a table are written.

    Attributes:
        path: The file.
        separator: The character between two cells.
        quoted: Whether cells may stand in quotation marks, which are then not part of the cell.
        escape: The character before a quotation mark inside a cell; `None` where the mark is doubled instead.
        header: The cells of the first line.
        row: The cells of the second line; empty if there is none.
    """

    path: str
    separator: str
    quoted: bool
    escape: str | None
    header: tuple[str, ...]
    row: tuple[str, ...]

    def check(self, columns: Sequence[str] | None = None) -> None:
        """Refuse a table that pandas would misread: it silently turns the surplus cells of a row into an index.

        Args:
            columns: Names of the columns, if the first line does not hold them.

        Raises:
            DamagedFileError: If a row has more cells than there are columns, or two columns have one name.
        """
        names, row = (self.header, self.row) if columns is None else (columns, self.header)
        if len(row) > len(names):
            raise DamagedFileError(
                f"{self.path!r}: the first row has {len(row)} cells for {len(names)} columns; put texts with "
                f"{self.separator!r} between quotes."
            )
        twice = [name for name, count in Counter(names).items() if name and count > 1]
        if twice:
            raise DamagedFileError(f"{self.path!r} has several columns of the name {twice[0]!r}: rename them.")


def form_of_table(path: PathLike) -> TableForm:
    """Look at how a table is written: cells of a csv file are separated by commas, semicolons or tabs, others by tabs.

    Spreadsheets write csv files with semicolons in countries whose decimal mark is a comma. In a tab-separated file a
    quotation mark is an ordinary character (as in the files of GLUE), unless every one of them is placed as a writer
    of quoted tables places it: around whole cells, and doubled inside them.

    Args:
        path: The file, which may be compressed.

    Raises:
        DamagedFileError: If it is not a table.
        UnicodeDecodeError: If it is not in UTF-8.
    """
    from fsspec.implementations.local import LocalFileSystem

    lines: Iterable[str]
    escape = None
    with (
        LocalFileSystem().open(os.fspath(path), "rt", compression="infer", **_TEXT) as stream,
        _long_cells(path),
    ):
        if suffix_of(path) == ".csv":
            start = list(islice(stream, _FEW_LINES))
            separator, quoted, lines = _separator(start), True, chain(start, stream)
            escape = _escape(start, separator)
        else:
            content = stream.read(_LOOKED_AT)
            separator, quoted, lines = "\t", _is_quoted(content), io.StringIO(content, newline="")
        quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        cells = csv.reader(lines, delimiter=separator, quoting=quoting, escapechar=escape, doublequote=escape is None)
        rows = (tuple(row) for row in cells if row)
        return TableForm(os.fspath(path), separator, quoted, escape, next(rows, ()), next(rows, ()))


def _separator(lines: Sequence[str]) -> str:
    """The separator that splits the first row into as many cells as the header, and into the most cells."""
    found: dict[str, tuple[bool, int]] = {}
    for mark in SEPARATORS:
        rows = (len(row) for row in csv.reader(lines, delimiter=mark) if row)
        header, row = next(rows, 0), next(rows, 0)
        found[mark] = (header > 1 and row in (0, header), header)
    return max(SEPARATORS, key=lambda mark: found[mark])


def _escape(lines: Sequence[str], separator: str) -> str | None:
    """A backslash, where quotation marks inside cells are escaped with it (as Spark does) and not doubled."""
    if not any('\\"' in line for line in lines):
        return None
    for escape in (None, "\\"):
        try:
            options: Any = {"escapechar": escape, "doublequote": escape is None, "strict": True}
            deque(csv.reader(lines, delimiter=separator, **options), maxlen=0)
        except csv.Error:
            continue
        return escape
    return None


def _is_quoted(content: str) -> bool:
    """Whether a tab-separated table has quoted cells: every mark fits, and all rows have equally many cells.

    Args:
        content: The table, or its first `_LOOKED_AT` characters.
    """
    is_cut = len(content) == _LOOKED_AT
    if '"' not in content:
        return not is_cut
    place, cells, wanted = 0, 0, 0
    while place < len(content):
        found = _CELL.match(content, place)
        if found is None:
            # A cell that fills half of the characters looked at is not a cell.
            is_open = _OPEN_CELL.match(content, place) is not None
            return is_cut and is_open and len(content) - place < _LOOKED_AT // 2
        place, cells = found.end(), cells + 1
        if found[1] == "\t" or (is_cut and place == len(content)):
            continue
        is_empty = cells == 1 and not found[0].strip()
        if not is_empty and wanted not in (0, cells):
            return False
        wanted, cells = wanted if is_empty else cells, 0
    return True


@contextmanager
def _long_cells(path: PathLike) -> Iterator[None]:
    """Allow cells that are longer than the limit of Python's csv module.

    Raises:
        DamagedFileError: If a cell is longer than any real text.
    """
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    except csv.Error as error:
        raise DamagedFileError(
            f"{os.fspath(path)!r} cannot be read as a table, it may be cut short: {error}"
        ) from error
    finally:
        csv.field_size_limit(before)


def check_rows_of_json(path: PathLike) -> None:
    """Check the beginning of a file of JSON lines.

    Arrow's reader ends the process without an error where the first row is `null`, and it reads any bytes as text.
    Compressed files are not checked.

    Raises:
        DamagedFileError: If the first row is not a mapping (and the file is not a list of mappings).
        UnicodeDecodeError: If it is not in UTF-8.
    """
    if Path(path).name.lower().endswith(COMPRESSIONS):
        return
    with open(path, "rb") as stream:
        start = stream.read(_LOOKED_AT)
    codecs.getincrementaldecoder("utf-8")().decode(start)
    first = start.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
    if re.match(rb"(null|true|false|[-\d\"])", first):
        shown = first[:40].decode(errors="replace")
        raise DamagedFileError(f"{os.fspath(path)!r}: the first row is {shown}; a row is a mapping (column: value).")


def encoding_hint(path: PathLike, error: BaseException) -> str:
    """The end of an error message about a file that is not in UTF-8: its likely encoding; else empty."""
    if not isinstance(error, UnicodeDecodeError):
        return ""
    start = b""
    if not Path(path).name.lower().endswith(COMPRESSIONS):
        with open(path, "rb") as stream:
            start = stream.read(2)
    return f" It seems to be {_NO_TEXT.get(start, 'in Latin-1 or Windows-1252')}: save it as UTF-8."


def says_no_rows(error: BaseException) -> bool:
    """Whether an error of a reader means that a table, or a parquet file of pandas, has no rows."""
    return any(words in str(error) for words in ("corresponds to no data", "BatchSize must be greater than 0"))
