"""
The filters of message templates: money, dates, greetings and links in the reader's language and zone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import TemplateRuntimeError, Undefined, pass_context
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.runtime import Context

from outreach.render.sandbox import CONTROLS, LARGEST_TEXT, RUN, TOO_LARGE, Missing, Run
from outreach.values import Money


@pass_context
def _join(context: Context, values: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    kept = list(values)
    if len(kept) * len(separator) > LARGEST_TEXT:
        raise TemplateRuntimeError(TOO_LARGE)
    text: str = JINJA_FILTERS["join"](context.eval_ctx, kept, separator, attribute)
    return text


@pass_context
def _replace(context: Context, text: str, old: str, new: str) -> str:
    whole = text if isinstance(text, str) else str(text)
    if not old or len(whole) + whole.count(old) * len(new) > LARGEST_TEXT:
        raise TemplateRuntimeError(TOO_LARGE if old else "replace needs the text to be replaced")
    replaced: str = JINJA_FILTERS["replace"](context.eval_ctx, whole, old, new)
    return replaced


@pass_context
def money(context: Context, value: Any) -> str:
    """A Money in the reader's way of writing it, without the no-break spaces that would double an SMS."""
    if isinstance(value, Missing):
        value.fail()
    if not isinstance(value, Money):
        raise TemplateRuntimeError("`money` is for amounts such as order.total")
    return _money(value.amount, value.currency, context.parent[RUN].locale)


@lru_cache(maxsize=8192)
def _money(amount: int, currency: str, locale: str) -> str:
    from babel.numbers import format_currency, get_currency_precision

    exact = Decimal(amount).scaleb(-get_currency_precision(currency))
    return _plain_spaces(format_currency(exact, currency, locale=locale))


@pass_context
def date_(context: Context, value: Any, style: str = "long") -> str:
    """The day of a time in the reader's zone, or a date, as `short`, `medium`, `long` or `full`."""
    run: Run = context.parent[RUN]
    day = _moment(value, "date")
    local = day.astimezone(run.zone).date() if isinstance(day, datetime) else day
    return _date(local, _style(style), run.locale)


@pass_context
def datetime_(context: Context, value: Any, style: str = "long") -> str:
    """Day and time of day in the reader's zone, the day as `short`, `medium`, `long` or `full`."""
    from babel.dates import format_time

    run: Run = context.parent[RUN]
    at = _moment(value, "datetime")
    if not isinstance(at, datetime):
        raise TemplateRuntimeError("`datetime` is for times; use `date` for a day")
    local = at.astimezone(run.zone)
    return f"{_date(local.date(), _style(style), run.locale)}, {_plain_spaces(format_time(local, 'short', locale=run.locale))}"


@lru_cache(maxsize=8192)
def _date(day: date, style: str, locale: str) -> str:
    from babel.dates import format_date

    return _plain_spaces(format_date(day, style, locale=locale))


def _moment(value: Any, name: str) -> datetime | date:
    if isinstance(value, Missing):
        value.fail()
    if isinstance(value, datetime | date):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise TemplateRuntimeError(f"`{name}` is for times and dates such as order.placed_at") from None


def _style(style: str) -> str:
    if style not in ("short", "medium", "long", "full"):
        raise TemplateRuntimeError("a date is written short, medium, long or full")
    return style


def _plain_spaces(text: str) -> str:
    return text.replace("\u00a0", " ").replace("\u202f", " ")


_GREETINGS = {"es": "Hola", "pt": "Olá", "en": "Hi"}
LONGEST_NAME = 30


@pass_context
def greeting(context: Context, value: Any) -> str:
    """
    `Hola, Ana`, or `Hola` for a customer without a first name; in Spanish, Portuguese or else English.

    Takes the customer or a name. A name over 30 characters is a company or a slip, and is left out.
    """
    word = _GREETINGS.get(context.parent[RUN].locale[:2], "Hi")
    name = value.get("first_name") if isinstance(value, Mapping) else value
    name = "" if name is None or isinstance(name, Undefined) else _as_called(str(name))
    return f"{word}, {name}" if name else word


@lru_cache(maxsize=4096)
def _as_called(name: str) -> str:
    """The name on one line, or nothing where nobody can be called so."""
    name = " ".join(CONTROLS.sub(" ", name).split())
    if not any(unicodedata.category(character)[0] in "LNS" for character in name) or len(name) > LONGEST_NAME:
        return ""
    return name


@pass_context
def link(context: Context, value: Any) -> str:
    """A short address that leads to this one, and tells that it was followed."""
    url = str(value).strip()
    if not re.match(r"https?://[^\s/]", url, re.IGNORECASE) or len(url) > 2000 or re.search(r"\s", url):
        raise TemplateRuntimeError("`link` is for addresses that begin with https:// or http://")
    short: str = context.parent[RUN].url("url", url)
    return short


def _jinja(*names: str) -> dict[str, tuple[Callable[..., Any], str]]:
    return {name: (JINJA_FILTERS[name], "") for name in names}


_FILTERS: dict[str, tuple[Callable[..., Any], str]] = {
    "money": (money, "an amount, the way the reader writes it: {{ order.total | money }}"),
    "date": (date_, "a day in the reader's zone: {{ order.placed_at | date }}; short, medium, long or full"),
    "datetime": (datetime_, "day and time of day in the reader's zone"),
    "greeting": (greeting, "Hola, Ana; or Hola where the first name is not known: {{ customer | greeting }}"),
    "link": (link, "a short, tracked address: {{ business.links.review | link }}"),
    "join": (_join, ""),
    "replace": (_replace, ""),
    **_jinja("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "int"),
    **_jinja("items", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse"),
    **_jinja("round", "select", "selectattr", "sort", "striptags", "sum", "title", "trim", "truncate", "unique"),
    **_jinja("upper", "urlencode", "wordcount"),
}
FILTERS: dict[str, str] = {name: text or "as in Jinja2" for name, (_, text) in _FILTERS.items()}
FUNCTIONS: dict[str, Callable[..., Any]] = {name: function for name, (function, _) in _FILTERS.items()}


@lru_cache(maxsize=4096)
def zone_of(name: str) -> ZoneInfo:
    """The zone of that IANA name; KeyError for an unknown one."""
    return ZoneInfo(name)
