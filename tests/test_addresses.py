"""Addresses in one form, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outreach.addresses import country_code, normal_email, normal_phone


@pytest.mark.parametrize(
    ("text", "country", "normal"),
    [
        ("+52 55 1234 5678", None, "+525512345678"),
        ("55 1234 5678", "MX", "+525512345678"),
        ("525512345678", "MX", "+525512345678"),  # the country code without a +
        ("00 52 55 1234 5678", "MX", "+525512345678"),
        ("+52 1 55 1234 5678", None, "+525512345678"),  # the old mobile form, PROVIDERS E
        ("'+34612345678", None, "+34612345678"),  # Shopify's apostrophe
        ("5512345678.0", "MX", "+525512345678"),  # a float written out, exact
        ("011 15-2345-6789", "AR", "+5491123456789"),
        ("11 2345-6789", "AR", "+541123456789"),  # a landline form is not guessed to be a mobile
        ("(202) 555-0123", "US", "+12025550123"),
        ("+44 7700 900123", None, "+447700900123"),  # reserved for fiction
    ],
)
def test_a_phone_number_becomes_e164(text: str, country: str | None, normal: str) -> None:
    assert normal_phone(text, country) == normal


@pytest.mark.parametrize(
    ("text", "country", "why"),
    [
        ("5,43517E+11", "AR", "mangled by a spreadsheet"),
        ("5.43517E+11", "AR", "mangled by a spreadsheet"),
        ("5E+11", "AR", "mangled by a spreadsheet"),
        ("5512345678", None, "no +country code"),
        ("1234567", "MX", "no number that can exist in MX"),
        ("+521234", None, "no number that can exist"),
        ("55 1234 5678 / 55 8765 4321", "MX", "write one number"),
        ("55 1234 5678 ext 12", "MX", "write one number"),
        ("no tiene", "MX", "write one number"),
        ("0000000000", "MX", "placeholder"),
        ("+52 55 5555 5555", "MX", "placeholder"),
        ("", "MX", "write one number"),
    ],
)
def test_what_is_no_phone_number_is_refused_with_the_reason(text: str, country: str | None, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("+", r"\+")):
        normal_phone(text, country)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (" Ana.Perez@Example.COM ", "ana.perez@example.com"),
        ("mailto:ana@example.com", "ana@example.com"),
        ("ana+luna@tienda.example", "ana+luna@tienda.example"),
        ("ñandú@example.com", "ñandú@example.com"),
    ],
)
def test_an_email_address_becomes_lower_case(text: str, normal: str) -> None:
    assert normal_email(text) == normal


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("email@noinformado.com", "placeholder"),
        ("email@naoinformado.com", "placeholder"),
        ("no_tiene@gmail.com", "placeholder"),
        ("ana", "is no e-mail address"),
        ("ana@localhost", "is no e-mail address"),
        ("ana@tienda", "has no dot"),
        ("Ana <ana@example.com>", "is no e-mail address"),
        ("a@example.com, b@example.com", "is no e-mail address"),
        ("x" * 300 + "@example.com", "longer than 254"),
    ],
)
def test_what_is_no_email_address_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        normal_email(text)


def normal(read: Callable[[str], str], text: str) -> str | None:
    try:
        return read(text)
    except ValueError:
        return None


@given(st.text(max_size=40))
def test_any_text_is_either_normal_for_good_or_refused(text: str) -> None:
    for read in (normal_email, lambda cell: normal_phone(cell, "MX"), country_code):
        once = normal(read, text)
        assert once is None or normal(read, once) == once


@pytest.mark.parametrize(("text", "code"), [("mx", "MX"), ("México", "MX"), ("Brasil", "BR"), ("united kingdom", "GB")])
def test_a_country_is_known_by_its_code_or_name(text: str, code: str) -> None:
    assert country_code(text) == code


def test_an_unknown_country_is_refused() -> None:
    with pytest.raises(ValueError, match="two-letter code"):
        country_code("Atlantis")
