"""Files with rows before they are read: the form of a table, and what would be read wrongly without a word.

Rows of tasks and plain text are read by it alike.
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
# Characters of a cell, above which a quotation mark must be wrong; and of a tab-separated table that are looked at.
_LONGEST_CELL, _LOOKED_AT = 1 << 26, 1 << 24
# A cell as a writer of quoted tables writes it, with what follows it; and one whose end was not looked at.
_CELL = re.compile(r'(?:"(?:[^"]|"")*+"|[^"\t\r\n]*+)(\t|\r\n|\n|\r|\Z)')
_OPEN_CELL = re.compile(r'"(?:[^"]|"")*+\Z')
# Lines by which the separators of a table are told.
_FEW_LINES = 1_000
_TEXT: dict[str, Any] = {"encoding": "utf-8-sig", "newline": ""}
# First bytes of files that are no text in UTF-8 -> what they are.
_NO_TEXT = {b"\xff\xfe": "in UTF-16", b"\xfe\xff": "in UTF-16", b"\x1f\x8b": "compressed", b"PK": "a spreadsheet"}


def suffix_of(path: PathLike) -> str:
    """The suffix that says the format of a file, in small letters: `.csv` of `Reviews.CSV.gz`."""
    return Path(_without_compression(path)).suffix.lower()


def stem_of(path: PathLike) -> str:
    """The name of a file without the suffixes of its format: `Reviews` of `Reviews.CSV.gz`."""
    return Path(_without_compression(path)).stem


def _without_compression(path: PathLike) -> str:
    name = Path(path).name
    return name.rpartition(".")[0] if name.lower().endswith(COMPRESSIONS) else name


@dataclass(frozen=True)
class TableForm:
    """How the cells of a table are written.

    Attributes:
        path: The file.
        separator: What stands between two cells.
        quoted: Whether cells may stand between quotation marks, which are no part of them then.
        escape: What stands before a quotation mark within a cell; `None` where the mark is doubled.
        header: Cells of the first line.
        row: Cells of the line behind it; empty if there is none.
    """

    path: str
    separator: str
    quoted: bool
    escape: str | None
    header: tuple[str, ...]
    row: tuple[str, ...]

    def check(self, columns: Sequence[str] | None = None) -> None:
        """Refuse a table of which pandas would lose cells: it takes what a row has too many for its index.

        Args:
            columns: Names of the columns, where the first line does not have them.

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
    """Look at a table: cells of a csv file stand between commas, semicolons or tabs, of any other between tabs.

    Spreadsheets write csv files with semicolons in countries whose numbers have commas. In a tab-separated file a
    quotation mark is a character (it is in the files of GLUE), unless all of them stand as a writer of quoted tables
    puts them: around whole cells, and doubled within.

    Args:
        path: The file, which may be compressed.

    Raises:
        DamagedFileError: If it is no table.
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
    """What parts the first lines of a table into cells: into as many in the first row as in the header, and most."""
    found: dict[str, tuple[bool, int]] = {}
    for mark in SEPARATORS:
        rows = (len(row) for row in csv.reader(lines, delimiter=mark) if row)
        header, row = next(rows, 0), next(rows, 0)
        found[mark] = (header > 1 and row in (0, header), header)
    return max(SEPARATORS, key=lambda mark: found[mark])


def _escape(lines: Sequence[str], separator: str) -> str | None:
    """A backslash, where marks within cells are written so (Spark does), and are not doubled."""
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
    """Whether every quotation mark of a tab-separated table is a writer's, and all its rows have as many cells.

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
            # A cell of half of what is looked at is none.
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
    """Let cells be longer than the csv module of Python allows.

    Raises:
        DamagedFileError: If one is longer than any text.
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
    """Look at the beginning of JSON lines.

    Arrow's reader ends the process, without an error, where the first row is `null`, and takes any bytes for text.
    Compressed files are not looked at.

    Raises:
        DamagedFileError: If the first row is no mapping (nor the file a list of them).
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
    """The end of an error about a file that is not in UTF-8: what it seems to be; nothing for any other error."""
    if not isinstance(error, UnicodeDecodeError):
        return ""
    start = b""
    if not Path(path).name.lower().endswith(COMPRESSIONS):
        with open(path, "rb") as stream:
            start = stream.read(2)
    return f" It seems to be {_NO_TEXT.get(start, 'in Latin-1 or Windows-1252')}: save it as UTF-8."


def says_no_rows(error: BaseException) -> bool:
    """Whether an error of a reader means that there is no row, in a table or in a parquet file of pandas."""
    return any(words in str(error) for words in ("corresponds to no data", "BatchSize must be greater than 0"))
