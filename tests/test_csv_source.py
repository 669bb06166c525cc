"""Reading canonical CSV files: encodings, delimiters, headers, ragged rows, and keys that stand apart."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outreach.errors import ImportFileError
from outreach.settings import SourceSettings
from outreach.sources import Batch, Table, open_source
from outreach.sources.csv import CsvSource

HEADER = "order_id,customer_id,placed_at,total\n"
ROW = "o1,c1,2026-06-01 10:00,10.50\n"


def table(path: Path, name: str = "orders") -> Table:
    return CsvSource({name: path}).tables()[0]


def batches(path: Path, name: str = "orders") -> list[Batch]:
    return list(table(path, name).batches())


def rows_of(path: Path, name: str = "orders") -> list[list[str]]:
    return [list(row) for batch in batches(path, name) for row in batch.rows]


def write(folder: Path, data: str | bytes, name: str = "orders.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_any_usual_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    path = write(tmp_path, (HEADER + ROW).replace(",", delimiter))

    assert rows_of(path) == [["o1", "c1", "2026-06-01 10:00", "10.50"]]


def test_excels_own_first_line_names_the_delimiter(tmp_path: Path) -> None:
    path = write(tmp_path, "sep=;\n" + (HEADER + ROW).replace(",", ";"))

    assert [batch.lines[0] for batch in batches(path) if batch.rows] == [3]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_utf8_utf16_and_windows_1252_are_read(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, ("customer_id,city\n" + "c0,x\n" * 3000 + "c1,México\n").encode(encoding))

    assert rows_of(path, "customers")[-1] == ["c1", "México"]


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match="neither UTF-8 nor Windows-1252"):
        table(write(tmp_path, HEADER.encode() + b"o1,\x81\x8d,2026-06-01,1\n"))


def test_a_gzip_file_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    assert rows_of(write(tmp_path, gzip.compress((HEADER + ROW).encode()))) == [
        ["o1", "c1", "2026-06-01 10:00", "10.50"]
    ]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"\n\n", "is blank"),
        (b"PK\x03\x04rest", "Excel workbook"),
        (b"\xd0\xcf\x11\xe0rest", "Excel workbook"),
        (gzip.compress((HEADER + ROW * 500).encode())[:-20], "cannot be read"),
        (b"order_id,placed_at\no1,2026-06-01\n", "the column customer_id is missing"),
        (b"order_id,customer_id,placed_at,total,total\n", "total stands twice"),
        (b"order_id,customer_id,placed_at," + b"x" * 200 + b"\n", "longer than 100"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_with_the_reason(tmp_path: Path, data: bytes, why: str) -> None:
    path = write(tmp_path, data)

    with pytest.raises(ImportFileError, match=why) as error:
        table(path)

    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_column_names_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match=r"rename costumer_id to customer_id\?"):
        table(write(tmp_path, "order_id,costumer_id,placed_at\n"))


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match="is a folder"):
        table(tmp_path)
    with pytest.raises(ImportFileError, match="there is no such file"):
        table(tmp_path / "gone.csv")


def test_no_file_is_handed_over_when_another_cannot_be_read(tmp_path: Path) -> None:
    files = {"orders": write(tmp_path, HEADER + ROW), "customers": tmp_path / "gone.csv"}

    with pytest.raises(ImportFileError):
        CsvSource(files).tables()


def test_an_unknown_table_format_or_kind_of_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match="no table 'order'"):
        CsvSource({"order": tmp_path}).tables()
    with pytest.raises(ImportFileError, match="format 'shopify' is unknown"):
        CsvSource({}, "shopify").tables()
    with pytest.raises(ImportFileError, match="kind 'ftp' is unknown"):
        open_source(SourceSettings("ftp"), tmp_path)


def test_a_source_of_the_settings_takes_its_files_from_the_workspace(tmp_path: Path) -> None:
    write(tmp_path, HEADER + ROW, "mine.csv")

    assert open_source(SourceSettings("csv", {"orders": "mine.csv"}), tmp_path).tables()[0].name == "orders"


def test_headers_are_known_in_any_case_and_further_ones_keep_theirs(tmp_path: Path) -> None:
    columns = table(write(tmp_path, " Order ID ,CUSTOMER-ID,Placed_At,Gift wrap?,favouriteColour,\n")).columns

    assert columns == ("order_id", "customer_id", "placed_at", "Gift_wrap", "favouriteColour", "")


def test_a_ragged_row_is_refused_with_its_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + ROW + "o2,c2,2026-06-01\n\n" + "o3,c3,2026-06-01,1,1\n" + "o4,c4,2026-06-01,1\n")
    found = batches(path)

    assert [row[0] for batch in found for row in batch.rows] == ["o1", "o4"]
    assert [(r.line, r.reason[:21]) for batch in found for r in batch.refusals] == [
        (3, "the row has 3 cells, "),
        (5, "the row has 5 cells, "),
    ]


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_cell_of_5_mb_is_refused_and_the_rest_goes_on(tmp_path: Path, quote: str) -> None:
    huge = f"o2,{quote}{'x' * 5_000_000}{quote},2026-06-01,1\n"
    found = batches(write(tmp_path, HEADER + ROW + huge + "o3,c3,2026-06-01,1\n"))

    assert [row[0] for batch in found for row in batch.rows] == ["o1", "o3"]
    assert [(r.line, "longer than 131,072" in r.reason) for batch in found for r in batch.refusals] == [(3, True)]


def test_a_row_over_several_lines_is_known_by_its_first(tmp_path: Path) -> None:
    text = 'order_id,customer_id,placed_at,note\no1,c1,2026-06-01,"one\ntwo\nthree"\no2,c2,2026-06-01,x\n'
    found = batches(write(tmp_path, text))

    assert [line for batch in found for line in batch.lines] == [2, 5]


def test_nul_characters_are_left_out(tmp_path: Path) -> None:
    assert rows_of(write(tmp_path, HEADER + "o\x001,c1,2026-06-01,1\n"))[0][0] == "o1"


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("ana@example.com\n+525512345678\n\n", ["ana@example.com", "+525512345678"]),
        ("email\nana@example.com\n", ["ana@example.com"]),
        ("name;phone\nAna;+525512345678\nEva;\n", ["+525512345678"]),
    ],
)
def test_a_list_of_addresses_may_have_a_header(tmp_path: Path, text: str, addresses: list[str]) -> None:
    assert [row[0] for row in rows_of(write(tmp_path, text), "suppressions")] == addresses


KEYS = st.lists(st.integers(0, 30), max_size=60)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=KEYS, quoted=st.booleans(), times=st.sampled_from([1, 40]))
def test_rows_of_one_key_come_together_in_the_files_order(
    tmp_path: Path, keys: list[int], quoted: bool, times: int
) -> None:
    names = [f'"o{key}"' if quoted else f"o{key}" for key in keys] * times
    lines = [f"{name},c,2026-06-01,{n}\n" for n, name in enumerate(names)]
    found = batches(write(tmp_path, HEADER + "".join(lines)))
    rows = [row for batch in found for row in batch.rows]
    groups = [
        [row for row in batch.rows if row[0] == name] for batch in found for name in {row[0] for row in batch.rows}
    ]

    assert Counter(row[3] for row in rows) == Counter(str(n) for n in range(len(names)))
    assert len(groups) == len({row[0] for row in rows})
    for group in groups:
        assert [int(row[3]) for row in group] == sorted(int(row[3]) for row in group)
    for batch in found:
        runs = [row[0] for n, row in enumerate(batch.rows) if n == 0 or batch.rows[n - 1][0] != row[0]]
        assert len(runs) == len(set(runs))


def test_in_a_long_quoted_file_a_key_that_stands_apart_is_found_beyond_a_broken_cell(tmp_path: Path) -> None:
    plain = [f'o{n},"c1",2026-06-01,1\n' for n in range(2_500)]
    broken = f"b1,{'x' * 200_000},2026-06-01,1\n"
    path = write(tmp_path, HEADER + "".join(plain[:1_500]) + broken + "".join(plain[1_500:]) + plain[7])
    found = batches(path)

    together = [[row[0] for row in batch.rows].count("o7") for batch in found]
    assert sorted(together)[-1] == sum(together) == 2
    assert sum(len(batch.rows) for batch in found) == 2_501
    assert [refusal.line for batch in found for refusal in batch.refusals] == [1_502]
