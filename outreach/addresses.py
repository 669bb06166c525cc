"""
E-mail addresses, phone numbers and country names in one form, or refused: nothing is guessed.
"""

from __future__ import annotations

import re
from functools import lru_cache

# Digits once dialled before a number (in Mexico to or from a mobile or far away, in Chile to a mobile), by country
# calling code; the group is the number of today.
_ABOLISHED = {52: r"(?:1|01|044|045)([1-9]\d{9})", 56: r"0(9\d{8})"}

LONGEST = 254  # characters of an address that can be delivered to (RFC 5321)

# What carts and cashiers write when a customer gives no address, in Spanish and Portuguese as well.
PLACEHOLDER_DOMAINS = frozenset({"noinformado.com", "naoinformado.com", "sinemail.com", "noemail.com", "semail.com"})
PLACEHOLDER_NAMES = frozenset({
    "noemail", "nomail", "noinformado", "naoinformado", "notiene", "notienecorreo", "notieneemail", "sincorreo",
    "sinemail", "sinmail", "semail", "sememail", "naotem", "naopossui",
})  # fmt: skip


def any_email(text: str) -> str:
    """
    The address in lower case, whatever it is for, checked without asking the network.

    Raises:
        ValueError: it is no address.
    """
    from email_validator import EmailNotValidError, validate_email

    if len(text) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters, so it is no e-mail address")
    if text.lower().endswith("@localhost"):  # the machine's own mail, which the library refuses
        return any_email(f"{text.lower()}.localdomain").removesuffix(".localdomain")
    try:
        return validate_email(text, check_deliverability=False, globally_deliverable=False).normalized.lower()
    except EmailNotValidError as error:
        raise ValueError(f"is no e-mail address: {str(error).rstrip('.')}") from None


def normal_email(text: str) -> str:
    """
    A customer's address in lower case.

    Raises:
        ValueError: it is no address, or a placeholder such as email@noinformado.com.
    """
    found = any_email(text.strip().strip("'").removeprefix("mailto:"))
    name, _, domain = found.rpartition("@")
    if "." not in domain:
        raise ValueError("is no e-mail address: the part after the @ has no dot")
    if domain in PLACEHOLDER_DOMAINS or re.sub(r"[._-]", "", name) in PLACEHOLDER_NAMES:
        raise ValueError("is a placeholder for customers without an e-mail address: leave the cell empty")
    return found


def normal_phone(text: str, country: str | None) -> str:
    """
    The number in E.164; `country` (ISO 3166) is where numbers without a + belong.

    Mexican numbers in the old forms +52 1, 01, 044 and 045 lose these digits (PROVIDERS E), Chilean mobiles
    the 0 of 09. A landline form stays one:
    whether an Argentine number is a mobile is not guessed.

    Raises:
        ValueError: it is no number, lacks its country, or was mangled by a spreadsheet.
    """
    text = text.strip().lstrip("'").strip()
    _refuse_mangled(text)
    return _e164(re.sub(r"(?<=\d)\.0$", "", text) if re.fullmatch(r"\+?\d{7,15}\.0", text) else text, country)


def normal_messenger(text: str) -> str:
    """
    The id by which Messenger knows somebody to your page (a page-scoped id: digits).

    Raises:
        ValueError: it is no such id, or was mangled by a spreadsheet.
    """
    text = text.strip().lstrip("'").removeprefix("messenger:").strip()
    _refuse_exponent(text)
    if not re.fullmatch(r"\d{5,25}", text):
        raise ValueError("is no Messenger id: write its digits, such as 4812345678901234")
    return text


def _refuse_exponent(text: str) -> None:
    if re.fullmatch(r"[+-]?\d+([.,]\d+)?[eE]\s*\+?\d+", text):
        raise ValueError("was mangled by a spreadsheet, which lost its last digits: export it again as text")


def _refuse_mangled(text: str) -> None:
    _refuse_exponent(text)
    if not re.fullmatch(r"\+?[\d\s().\-\u2010-\u2015\u00a0]{4,40}", text):
        raise ValueError("is no phone number: write one number, such as +52 55 1234 5678")
    digits = re.sub(r"\D", "", text)
    if len(set(digits[-7:])) == 1 and len(digits) >= 7:
        raise ValueError("is a placeholder: it repeats one digit")


@lru_cache(maxsize=8192)
def _e164(text: str, country: str | None) -> str:
    import phonenumbers

    try:
        number = phonenumbers.parse(text, country)
    except phonenumbers.NumberParseException:
        raise ValueError(_unreadable(text, country)) from None
    written = phonenumbers.national_significant_number(number)
    if old := re.fullmatch(_ABOLISHED.get(number.country_code or 0, "(?!)"), written):
        number = phonenumbers.PhoneNumber(country_code=number.country_code, national_number=int(old[1]))
    if not (phonenumbers.is_valid_number(number) or _is_fiction(number)):
        raise ValueError(
            "is no number that can exist" + ("" if text.startswith("+") else f" in {country}: add its +country code")
        )
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def _unreadable(text: str, country: str | None) -> str:
    if not country and not text.startswith("+"):
        return "has no +country code, and no country is known: add one, or set business.country"
    return "is no phone number: write one number, such as +52 55 1234 5678"


def _is_fiction(number: object) -> bool:
    """Ofcom's range for drama, +44 7700 900000 to 900999: never given out, so safe in samples."""
    return 447700900000 <= int(f"{number.country_code}{number.national_number}") <= 447700900999  # type: ignore[attr-defined]


@lru_cache(maxsize=4096)
def country_code(text: str) -> str:
    """
    The ISO 3166 code of a country given as code or by its exact English, Spanish or Portuguese name.

    Raises:
        ValueError: no country is called that.
    """
    names = _country_names()
    found = text.strip()
    if found.upper() in names.values():
        return found.upper()
    if found.casefold() not in names:
        raise ValueError("is no country: write its two-letter code, such as MX")
    return names[found.casefold()]


@lru_cache(maxsize=1)
def _country_names() -> dict[str, str]:
    from babel import Locale

    return {
        name.casefold(): code
        for language in ("pt", "es", "en")
        for code, name in Locale.parse(language).territories.items()
        if re.fullmatch(r"[A-Z]{2}", code) and code not in ("ZZ", "EU", "EZ", "UN", "XA", "XB")
    }
