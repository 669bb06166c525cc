"""
Canonical CSV files, plain or gzip (DESIGN 6.4).

Each file is read twice: first whole, to find its encoding, its delimiter, its header and the keys
whose rows stand apart; then row by row, in batches. Memory grows with the file by eight bytes a key
while it is looked through, and by the rows whose key stands in several places: those are kept until
its end and handed over together.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from array import array
from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO, TextIOWrapper
from itertools import chain, groupby, islice
from operator import methodcaller
from pathlib import Path
from typing import IO, Any
from unicodedata import combining, normalize

from outreach.errors import ImportFileError
from outreach.models import Scope
from outreach.sources import KEYS, OPTIONAL, REQUIRED, TABLES, Batch, Refusal, Table

LONGEST_CELL = 131_072  # characters; a longer cell is a broken quote or a pasted file, and its row is refused
LONGEST_NAME = 100  # of a column
FORMATS = ("auto", "canonical")
_ROWS = 1_000
_PARTS = 256  # of the keys of a file
_DELIMITERS = ",;\t|"
_UTF8 = re.compile(rb"[\xc2\xc3][\x80-\xbf]|\xe2[\x80-\x84][\x80-\xbf]|\xf0\x9f[\x80-\xbf]{2}")
_FIRST_BYTES = {
    b"PK\x03\x04": "an Excel workbook or a ZIP",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
}
_ADDRESS_NAMES = ("address", "email", "e-mail", "mail", "correo", "phone", "number", "telefono", "teléfono", "telefone")

_OTHER_NAMES = {
    **dict.fromkeys(("mail", "emailaddress", "correo", "correoelectronico"), "email"),
    **dict.fromkeys(("phonenumber", "mobile", "telefono", "telefone", "celular", "movil"), "phone"),
}  # under these an address would be an attribute that nobody can be reached by


@dataclass(frozen=True)
class CsvSource:
    """Canonical files by table name: customers, orders, cases, events, suppressions."""

    files: Mapping[str, Path]
    format: str = "auto"
    suppression_scope: str = "marketing"  # what the list blocks, see models.Scope

    def tables(self) -> list[Table]:
        """See Source.tables; every file is looked through before any is imported."""
        if self.format not in FORMATS:
            raise ImportFileError(f"the format {self.format!r} is unknown: use {' or '.join(FORMATS)}")
        if unknown := sorted(set(self.files) - set(TABLES)):
            raise ImportFileError(f"there is no table {unknown[0]!r}: use {', '.join(TABLES)}")
        if self.suppression_scope not in tuple(Scope):
            raise ImportFileError(f"the scope {self.suppression_scope!r} is unknown: use {', '.join(Scope)}")
        return [self._table(name, Path(self.files[name])) for name in TABLES if name in self.files]

    def _table(self, name: str, path: Path) -> Table:
        layout = _survey(name, path)
        return Table(
            name,
            str(path),
            layout.columns,
            path.stat().st_size,
            lambda: _batches(name, path, layout),
            self.suppression_scope,
        )


@dataclass(frozen=True)
class _Layout:
    encoding: str
    delimiter: str
    columns: tuple[str, ...]
    header: int  # physical lines before the first row
    takes: int  # the column of a suppression list that holds the addresses
    apart: frozenset[int]  # hashes of the keys whose rows stand apart
    quoted: bool  # a row may span several lines
    nul: bool  # there are NUL characters, which no database stores


# --- looking through ------------------------------------------------------------------------------


def _survey(name: str, path: Path) -> _Layout:
    """The file's layout; ImportFileError says what is wrong with it and what to do."""
    try:
        _refuse_other_kinds(path)
        for encoding in _encodings(path):
            try:
                return _layout(name, path, encoding)
            except UnicodeDecodeError:
                if encoding == "utf-8-sig":
                    _refuse_broken_utf8(path)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or ("it is a broken gzip file" if path.exists() else "it is missing")
        raise ImportFileError(f"{path}: cannot be read: {reason}") from None
    raise ImportFileError(f"{path}: is neither UTF-8 nor Windows-1252 text: save it as CSV UTF-8")


def _refuse_other_kinds(path: Path) -> None:
    if path.is_dir():
        raise ImportFileError(f"{path}: is a folder: name the CSV file in it")
    if not path.exists():
        raise ImportFileError(f"{path}: there is no such file")
    with _opened(path) as (_, file):
        start = file.read(4)
    if not start:
        raise ImportFileError(f"{path}: is empty: a header line with the column names is needed")
    if start in _FIRST_BYTES:
        raise ImportFileError(f"{path}: is {_FIRST_BYTES[start]} file: save it as CSV UTF-8")


def _encodings(path: Path) -> tuple[str, ...]:
    with _opened(path) as (_, file):
        start = file.read(2)
    return ("utf-16",) if start in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")


def _refuse_broken_utf8(path: Path) -> None:
    """
    Refuse a file of which some text is UTF-8 and some is not: read as Windows-1252, its accents would all be mangled.

    UTF-8 is told by what nobody writes in Windows-1252, where it reads as `Ã©` or `â€™`; just any valid
    sequence would not do: there an accent before a closing quotation mark is one, too.
    """
    decoder = getincrementaldecoder("utf-8")()
    line, broken, before, is_utf8 = 1, 0, b"", False
    with _opened(path) as (_, file):
        while block := file.read(1 << 20):
            is_utf8 = is_utf8 or _UTF8.search(before + block) is not None
            before = (before + block)[-3:]
            if not broken:
                try:
                    decoder.decode(block)
                except UnicodeDecodeError as error:
                    broken = line + error.object[: error.start].count(b"\n")
            line += block.count(b"\n")
    if is_utf8:
        raise ImportFileError(f"{path}:{broken or line}: holds a byte that is not UTF-8, as the rest of the file is")


def columns_of(name: str, path: Path) -> tuple[str, ...] | None:
    """The columns that the file of this table has now, as an import would name them; None if it cannot be read."""
    with suppress(ImportFileError, OSError, EOFError, zlib.error):
        for encoding in _encodings(path):
            with suppress(UnicodeDecodeError), _text(path, encoding, None) as (_, file):
                cells, _, skipped = _head(name, path, file)
                return _columns(name, path, skipped + 1, cells)
    return None


def _head(name: str, path: Path, file: IO[str]) -> tuple[list[str], str, int]:
    """The cells of the first line, the delimiter, and how many lines stand before it."""
    first, skipped, delimiter = file.readline(), 0, ""
    if match := re.fullmatch(r'"?sep=(.)"?\s*', first):  # Excel's own first line
        first, skipped, delimiter = file.readline(), 1, match[1]
    if not first.strip():
        raise ImportFileError(f"{path}:{skipped + 1}: is blank: the first line must hold the column names")
    found = delimiter or _delimiter(name, first)
    return [cell.strip() for cell in next(_reader([first], found), [])], found, skipped


def _layout(name: str, path: Path, encoding: str) -> _Layout:
    with _text(path, encoding, None) as (_, file):
        cells, found, skipped = _head(name, path, file)
        if name == "suppressions":
            header = _is_header(cells)
            _read_through(file)
            return _Layout(
                encoding, found, ("address",), skipped + header, _address_column(cells, header), frozenset(), True, True
            )
        columns = _columns(name, path, skipped + 1, cells)
        return _Layout(encoding, found, columns, skipped + 1, 0, *_apart(file, found, columns.index(KEYS[name])))


def _delimiter(name: str, line: str) -> str:
    """The one under which most column names are known; among equals, the one that gives most columns."""
    known = {*REQUIRED[name], *OPTIONAL[name]}

    def fit(delimiter: str) -> tuple[int, int]:
        cells: list[str] = next(_reader([line], delimiter), [])
        return sum(cell in known for cell in _named(known, cells)), len(cells)

    return max(_DELIMITERS, key=fit)


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _squeezed(name: str) -> str:
    """A name without case, accents, blanks, hyphens and underscores."""
    letters = normalize("NFKD", name.lower())
    return re.sub(r"[\s_-]+", "", "".join(letter for letter in letters if not combining(letter)))


def _named(known: set[str], cells: Sequence[str]) -> tuple[str, ...]:
    """The known columns by their own names, or nearly; a near name of one that is there as well is a further column."""
    exact = {_plain(cell) for cell in cells} & known
    near = {_squeezed(column): column for column in known - exact}
    return tuple(
        _plain(cell) if _plain(cell) in known else near.get(_squeezed(cell)) or re.sub(r"\W+", "_", cell).strip("_")
        for cell in cells
    )


def _columns(name: str, path: Path, line: int, cells: Sequence[str]) -> tuple[str, ...]:
    columns = _named({*REQUIRED[name], *OPTIONAL[name]}, cells)
    for column in filter(None, columns):
        meant = _OTHER_NAMES.get(_squeezed(column)) if name == "customers" else None
        if meant and meant not in columns:
            raise ImportFileError(
                f"{path}:{line}: the column {column} would be an attribute, not an address: did you mean {meant}? rename it"
            )
        if columns.count(column) > 1:
            raise ImportFileError(f"{path}:{line}: the column {column} stands twice: name each column once")
        if len(column) > LONGEST_NAME:
            raise ImportFileError(f"{path}:{line}: a column name is longer than {LONGEST_NAME} characters")
    for wanted in REQUIRED[name]:
        if wanted not in columns:
            near = get_close_matches(wanted, columns, 1)
            found = ", ".join(filter(None, columns))[:200]
            raise ImportFileError(
                f"{path}:{line}: the column {wanted} is missing: a file of {name} needs"
                f" {', '.join(REQUIRED[name])}; found {found}" + (f" (rename {near[0]} to {wanted}?)" if near else "")
            )
    return columns


def _is_header(cells: Sequence[str]) -> bool:
    """Whether the first line of a list names its columns, rather than an address or a number."""
    return not any("@" in cell or re.search(r"\d", cell) for cell in cells)


def _address_column(cells: Sequence[str], header: bool) -> int:
    names = [cell.lower() for cell in cells]
    return next((names.index(name) for name in _ADDRESS_NAMES if header and name in names), 0)


def _read_through(file: IO[str]) -> None:
    while file.read(1 << 20):
        pass


def _apart(file: IO[str], delimiter: str, at: int) -> tuple[frozenset[int], bool, bool]:
    """
    Hashes of the keys that come again after another key came; whether any cell is quoted; whether any character is NUL.

    Eight bytes a key, in parts that are looked through one by one: a set of a million keys would take a hundred.
    """
    parts = [array("q") for _ in range(_PARTS)]
    keep = [part.append for part in parts]
    before: str | None = None
    quoted = nul = False
    for keys, has_quote, has_nul in _keys(file, delimiter, at):
        quoted, nul = quoted or has_quote, nul or has_nul
        firsts = [key for key, _ in groupby(keys)]
        if firsts and firsts[0] == before:
            del firsts[0]
        for hashed in map(hash, firsts):
            keep[hashed % _PARTS](hashed)
        before = keys[-1] if keys else before
    repeated = (Counter(part) for part in parts if len(set(part)) < len(part))
    apart = {hashed for times in repeated for hashed, count in times.items() if count > 1}
    return frozenset(apart - {hash("")}), quoted, nul


def _keys(file: IO[str], delimiter: str, at: int) -> Iterator[tuple[list[str], bool, bool]]:
    """The keys of the rows by the block, whether it has a quotation mark, whether it has a NUL; quick until the first."""
    rest = ""
    while block := file.read(1 << 20):
        block = rest + block
        if '"' in block or "\x00" in block:
            yield from _keys_of_rows(chain(StringIO(block + file.readline()), file), delimiter, at)
            return
        *lines, rest = block.split("\n")
        yield _keys_of_lines(lines, delimiter, at), False, False
    yield _keys_of_lines([rest], delimiter, at), False, False


def _keys_of_lines(lines: Sequence[str], delimiter: str, at: int) -> list[str]:
    if at == 0:
        return [line.partition(delimiter)[0].strip() for line in lines]
    return [cells[at].strip() for line in lines if len(cells := line.split(delimiter, at + 1)) > at]


def _keys_of_rows(lines: Iterator[str], delimiter: str, at: int) -> Iterator[tuple[list[str], bool, bool]]:
    reader = _reader(map(methodcaller("replace", "\x00", ""), lines), delimiter)
    more = True
    while more:
        rows: list[list[str]] = []
        with suppress(csv.Error):
            rows.extend(islice(reader, _ROWS))
            more = len(rows) == _ROWS
        yield [row[at].strip() for row in rows if len(row) > at], True, True


# --- reading --------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The file as it lies on the disk, for its position, and its bytes, unzipped when they are gzip."""
    with path.open("rb") as disk:
        zipped = disk.read(2) == b"\x1f\x8b"
        disk.seek(0)
        if not zipped:
            yield disk, disk
            return
        with gzip.open(disk) as file:
            yield disk, file  # type: ignore[misc]


@contextmanager
def _text(path: Path, encoding: str, newline: str | None = "") -> Iterator[tuple[IO[bytes], IO[str]]]:
    with _opened(path) as (disk, file), TextIOWrapper(file, encoding, newline=newline) as text:
        yield disk, text


def _reader(lines: Any, delimiter: str) -> Any:
    csv.field_size_limit(LONGEST_CELL)
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True)


def _batches(name: str, path: Path, layout: _Layout) -> Iterator[Batch]:
    """The rows in batches of about a thousand; one key's rows are never parted."""
    with _text(path, layout.encoding) as (disk, file):
        for _ in range(layout.header):
            file.readline()
        lines = map(methodcaller("replace", "\x00", ""), file) if layout.nul else file
        rows = _rows(_reader(lines, layout.delimiter), layout)
        if name == "suppressions":
            batches: Iterator[_Rows] = _taken(rows, layout.takes)
        else:
            batches = _together(rows, layout.columns.index(KEYS[name]), layout.apart)
        for numbers, cells, refusals in batches:
            yield Batch(numbers, cells, refusals, disk.tell() if not disk.closed else 0)


_Rows = tuple[list[int], list[list[str]], list[Refusal]]


def _rows(reader: Any, layout: _Layout) -> Iterator[_Rows]:
    """The rows a thousand at a time, each with the line it begins on; those that are no rows as refusals."""
    more = True
    while more:
        lines: list[int] = []
        rows: list[list[str]] = []
        refusals: list[Refusal] = []
        before = reader.line_num + layout.header + 1
        try:
            if layout.quoted:
                for row in islice(reader, _ROWS):
                    rows.append(row)
                    lines.append(before)
                    before = reader.line_num + layout.header + 1
            else:
                rows.extend(islice(reader, _ROWS))
            more = len(rows) == _ROWS
        except csv.Error:
            reason = f"a cell is longer than {LONGEST_CELL:,} characters: is a quotation mark missing?"
            refusals.append(Refusal(before if layout.quoted else before + len(rows), "", "", reason))
        if not layout.quoted:
            lines = list(range(before, before + len(rows)))
        yield _whole(lines, rows, refusals, layout)


def _whole(lines: list[int], rows: list[list[str]], refusals: list[Refusal], layout: _Layout) -> _Rows:
    """Without blank rows and, refused, those with more or fewer cells than the header."""
    width = len(layout.columns)
    if layout.columns == ("address",) or set(map(len, rows)) <= {width}:
        return lines, rows, refusals
    kept = [(line, row) for line, row in zip(lines, rows, strict=True) if len(row) == width]
    for line, row in zip(lines, rows, strict=True):
        if len(row) != width and any(row):
            reason = f"the row has {len(row)} cells, the header {width}: is a delimiter or a quotation mark missing?"
            refusals.append(Refusal(line, "", layout.delimiter.join(row), reason))
    return [line for line, _ in kept], [row for _, row in kept], refusals


def _taken(batches: Iterator[_Rows], at: int) -> Iterator[_Rows]:
    """Only the column of a suppression list that holds the addresses."""
    for lines, rows, refusals in batches:
        cells = [row[at] if len(row) > at else "" for row in rows]
        kept = [(line, cell) for line, cell in zip(lines, cells, strict=True) if cell.strip()]
        yield [line for line, _ in kept], [[cell] for _, cell in kept], refusals


def _together(batches: Iterator[_Rows], at: int, apart: frozenset[int]) -> Iterator[_Rows]:
    """Batches in which all rows of one key stand together: neighbours are joined, the rest is kept to the end."""
    late: dict[str, list[tuple[int, list[str]]]] = {}
    lines: list[int] = []
    rows: list[list[str]] = []
    for more_lines, more_rows, refusals in batches:
        keys = [row[at].strip() for row in more_rows]
        if "" in keys or (apart and not apart.isdisjoint(map(hash, keys))):
            for line, row, key in zip(more_lines, more_rows, keys, strict=True):
                if hash(key) in apart:
                    late.setdefault(key, []).append((line, row))
                elif key or any(row):
                    lines.append(line)
                    rows.append(row)
        else:
            lines += more_lines
            rows += more_rows
        end = _last_key_begins(rows, at)
        yield lines[:end], rows[:end], refusals
        lines, rows = lines[end:], rows[end:]
    yield lines, rows, []
    yield from _in_batches(late)


def _last_key_begins(rows: list[list[str]], at: int) -> int:
    """Where the rows of the last key begin: the next batch may bring more of them."""
    end = len(rows) - 1
    while end > 0 and rows[end - 1][at].strip() == rows[-1][at].strip():
        end -= 1
    return max(end, 0)


def _in_batches(late: dict[str, list[tuple[int, list[str]]]]) -> Iterator[_Rows]:
    lines: list[int] = []
    rows: list[list[str]] = []
    while late:
        for line, row in late.pop(next(iter(late))):
            lines.append(line)
            rows.append(row)
        if len(rows) >= _ROWS or not late:
            yield lines, rows, []
            lines, rows = [], []
