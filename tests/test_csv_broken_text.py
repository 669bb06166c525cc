"""Files whose text is UTF-8 but for a byte, and headers that are nearly a known one."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from outreach.errors import ImportFileError
from outreach.sources.csv import CsvSource

HEADER = "customer_id,city\n"


def rows(folder: Path, data: bytes) -> list[list[str]]:
    path = folder / "customers.csv"
    path.write_bytes(data)
    (table,) = CsvSource({"customers": path}).tables()
    return [list(row) for batch in table.batches() for row in batch.rows]


@pytest.mark.parametrize("far", ["", "c0,plain\n" * 200_000])
@pytest.mark.parametrize("broken", [b"c3,Canc\xc3\n", b"c3,M\xe9xico\n", b"c3,Canc\xc3"])
def test_a_broken_byte_in_a_utf8_file_is_refused_with_its_line(tmp_path: Path, far: str, broken: bytes) -> None:
    data = (HEADER + "c1,Mérida\n" + far).encode() + broken
    line = data[:-2].count(b"\n") + 1
    with pytest.raises(ImportFileError, match=rf"customers\.csv:{line}: holds a byte") as error:
        rows(tmp_path, data)
    assert "Canc" not in str(error.value)


def test_the_accent_that_tells_utf8_may_come_after_the_broken_byte(tmp_path: Path) -> None:
    data = (HEADER + "c1,").encode() + b"Canc\xfan\n" + b"c0,plain\n" * 200_000 + "c2,“León”\n".encode()
    for packed in (data, gzip.compress(data)):
        with pytest.raises(ImportFileError, match=r"customers\.csv:2: holds a byte"):
            rows(tmp_path, packed)


def test_windows_1252_with_accents_before_curly_quotes_is_still_read(tmp_path: Path) -> None:
    text = HEADER + "c1,“CAFÉ”\nc2,aquí…”\nc3,Niño\n"
    assert rows(tmp_path, text.encode("cp1252")) == [["c1", "“CAFÉ”"], ["c2", "aquí…”"], ["c3", "Niño"]]


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("Customer ID;E-mail;Código-Postal;First-Name", ("customer_id", "email", "Código_Postal", "first_name")),
        ("customerid;E mail;PostalCode;Ciudad", ("customer_id", "email", "postal_code", "Ciudad")),
        ("customer_id;email;e-mail;Ágio", ("customer_id", "email", "e_mail", "Ágio")),
        ("customer_id;phone;Teléfono;x", ("customer_id", "phone", "Teléfono", "x")),
    ],
)
def test_a_header_is_known_whatever_its_case_accents_and_separators(
    tmp_path: Path, header: str, columns: tuple[str, ...]
) -> None:
    path = tmp_path / "customers.csv"
    path.write_text(header + "\n", encoding="utf-8")
    (table,) = CsvSource({"customers": path}).tables()
    assert table.columns == columns


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("customer_id,Teléfono", "Teléfono .*did you mean phone"),
        ("customer_id,Correo electrónico", "Correo_electrónico .*did you mean email"),
        ("customer_id,E-mail,E mail", "email stands twice"),
    ],
)
def test_an_address_under_another_name_is_not_taken_for_an_attribute(tmp_path: Path, header: str, why: str) -> None:
    path = tmp_path / "customers.csv"
    path.write_text(header + "\n", encoding="utf-8")
    with pytest.raises(ImportFileError, match=rf"customers\.csv:1: the column {why}"):
        CsvSource({"customers": path}).tables()
