"""Comparisons → SQL: each false where its fact is missing, `!=` the exact opposite of `=`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from math import ceil, floor
from operator import eq, ge, gt, le, lt
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Float, Text, and_, false, literal, not_, or_, true

from outreach.conditions.dialects import AsNumber, ByteOrder, Matches
from outreach.conditions.parsing import line_of
from outreach.conditions.scope import (
    Bool,
    Named,
    Scope,
    Value,
    named_by,
    nearest,
    offset,
    refusal,
    value_of,
    what_it_is,
)
from outreach.conditions.vocabulary import MAX_TERMS
from outreach.models import Order, table
from outreach.timing import at_local, local_midnight, subtract
from outreach.values import Duration

MAX_WHOLE = 2**62  # beyond it no stored integer lies

_orders = table(Order)

COMPARED = {"eq": "=", "neq": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_FLIPPED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def comparison(operator: str, node: Any, scope: Scope) -> Bool:
    left, right = node.this, node.expression
    if any(side.key in COMPARED for side in (left, right)):
        raise refusal(node, scope, "comparisons do not chain: write `a between 1 and 5`, or `a >= 1 and a < 5`")
    first, second = named_by(left, scope), named_by(right, scope)
    if first and second:
        return _between_facts(operator, first, second, node, scope)
    if second:
        first, right, operator = second, left, _FLIPPED[operator]
    if not first:
        strange = next((side for side in (left, right) if side.key not in ("literal", "neg", "boolean", "null")), node)
        raise refusal(strange, scope, what_it_is(strange, scope) if strange is not node else _NO_FACT)
    value = value_of(right, scope)
    if operator == "!=":
        return not_(_compared("=", first, value, right, scope))
    return _compared(operator, first, value, right, scope)


_NO_FACT = "two values are compared: compare a fact with a value, such as country = 'MX'"


def _between_facts(operator: str, first: Named, second: Named, node: Any, scope: Scope) -> Bool:
    families = {"text": "text", "attribute": "text", "time": "time", "date": "date", "number": "number"}
    family = families.get(first.fact.type)
    if family is None or family != families.get(second.fact.type):
        raise refusal(node, scope, f"{first.name} and {second.name} cannot be compared: compare each with a value")
    if operator == "!=":
        return not_(_between_facts("=", first, second, node, scope))
    left, right = first.column, second.column
    if family == "text" and operator != "=":
        left, right = ByteOrder(left), ByteOrder(right)
    return and_(first.present, second.present, _apply(operator, left, right))


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {"=": eq, "<": lt, "<=": le, ">": gt, ">=": ge}


def _apply(operator: str, left: ColumnElement[Any], right: Any) -> Bool:
    condition: Bool = _OPERATIONS[operator](left, right)
    return condition


def _compared(operator: str, named: Named, value: Value, node: Any, scope: Scope) -> Bool:
    """`fact operator value`, false where the fact is missing; every operator but `!=`."""
    _check_type(named, value, node, scope)
    kind = named.fact.type
    if kind == "boolean":
        if operator != "=":
            raise refusal(node, scope, f"{named.name} is yes or no: write `{named.name}` or `not {named.name}`")
        return named.column if value else not_(named.column)
    if isinstance(value, Decimal):
        return and_(named.present, _numeric(operator, named, value, scope))
    if kind == "time":
        start, end = _span(str(value), node, scope)
        return and_(named.present, _in_time(operator, named.column, start, end))
    if kind == "date":
        value = _day(str(value), node, scope).isoformat()
    _check_word(named, str(value), node, scope)
    column = named.column if operator == "=" else ByteOrder(named.column)
    return and_(named.present, _apply(operator, column, literal(value, Text())))


_WANTED = {
    "text": "text: write it in single quotes",
    "number": "a number: write it without quotes",
    "money": "an amount: write a number without quotes",
    "days": "a number of days: write it without quotes",
    "time": "a time: write a date in single quotes, such as '2026-05-31'",
    "date": "a date: write it in single quotes, such as '1990-05-31'",
    "boolean": "yes or no: write it alone, or `= true`",
    "attribute": "text: write it in single quotes, or compare it with a number",
}


def _check_type(named: Named, value: Value, node: Any, scope: Scope) -> None:
    kind = named.fact.type
    fits = {
        bool: kind == "boolean",
        Decimal: kind in ("number", "money", "days", "attribute"),
        str: kind in ("text", "time", "date", "attribute"),
    }[type(value)]
    if fits:
        return
    hint = ""
    if isinstance(value, Decimal) and kind == "text":
        hint = f": {_with(node, len(node.name), repr(node.name), scope)}"
    if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value) and kind in ("number", "money", "days"):
        hint = f": {_with(node, len(value) + 2, value, scope)}"
    raise refusal(node, scope, f"{named.name} is {_WANTED[kind]}{hint}")


def _with(node: Any, length: int, replacement: str, scope: Scope) -> str:
    """The line of a value, with another in its place."""
    text, start = scope.text, offset(node)
    return line_of(text[:start] + replacement + text[start + length :], text, start)


def _check_word(named: Named, value: str, node: Any, scope: Scope) -> None:
    """Refuse a value that the fact can never have: a slip that would silently match nobody."""
    allowed = named.fact.values
    if allowed and value not in allowed:
        raise refusal(node, scope, f"{named.name} is one of {', '.join(allowed)}{nearest(value, allowed)}")
    if named.name == "country" and not re.fullmatch("[A-Z]{2}", value):
        near = f": {value.upper()!r}" if re.fullmatch("[A-Za-z]{2}", value) else ", such as 'MX'"
        raise refusal(node, scope, f"country is written as two capital letters (ISO 3166){near}")
    if named.name == "order.currency" and not re.fullmatch("[A-Z]{3}", value):
        raise refusal(node, scope, "order.currency is written as three capital letters, such as 'MXN'")


def _numeric(operator: str, named: Named, value: Decimal, scope: Scope) -> Bool:
    kind = named.fact.type
    if kind == "attribute":
        number = AsNumber(named.column)
        whole = value == value.to_integral_value() and abs(value) < MAX_WHOLE
        given = literal(int(value), BigInteger()) if whole else literal(float(value), Float())
        return and_(number.is_not(None), _apply(operator, number, given))
    if kind == "days":
        return _whole(operator, value, lambda days: _days_ago(named.column, days, scope))
    if named.name == "order.total":
        return _own_currency(operator, named.column, value)
    if kind == "money":
        value = value.scaleb(minor_digits(scope.settings.business.currency))
    return _whole(operator, value, lambda bound: _at_least(named.column, bound))


def _whole(operator: str, value: Decimal, at_least: Callable[[int], Bool]) -> Bool:
    """`x operator value` for a whole x, from `x >= n` alone."""
    if operator == "=":
        if value != value.to_integral_value():
            return false()
        return and_(at_least(int(value)), not_(at_least(int(value) + 1)))
    bound = at_least(ceil(value) if operator in (">=", "<") else floor(value) + 1)
    return bound if operator in (">=", ">") else not_(bound)


def _at_least(column: ColumnElement[Any], bound: int) -> Bool:
    if abs(bound) >= MAX_WHOLE:
        return false() if bound > 0 else true()
    return column >= literal(bound, BigInteger())


def _own_currency(operator: str, column: ColumnElement[Any], value: Decimal) -> Bool:
    """The order's total against an amount in its own currency, whose minor unit may be another."""
    by_digits: dict[int, list[str]] = {}
    for currency in _currencies():
        by_digits.setdefault(minor_digits(currency), []).append(currency)
    usual = by_digits.pop(2, [])
    unusual = [currency for currencies in by_digits.values() for currency in currencies]

    def compared(digits: int) -> Bool:
        return _whole(operator, value.scaleb(digits), lambda bound: _at_least(column, bound))

    parts = [and_(_orders.c.currency.in_(names), compared(digits)) for digits, names in sorted(by_digits.items())]
    return or_(and_(_orders.c.currency.not_in(unusual), compared(2)), *parts) if usual else or_(*parts)


@lru_cache(maxsize=512)
def minor_digits(currency: str) -> int:
    """How many decimals the currency's minor unit stands for (MXN 2, CLP 0), as the Unicode CLDR has it."""
    from babel.numbers import get_currency_precision

    return int(get_currency_precision(currency))


@lru_cache(maxsize=1)
def _currencies() -> tuple[str, ...]:
    from babel.numbers import list_currencies

    return tuple(sorted(list_currencies()))


def _days_ago(column: ColumnElement[Any], days: int, scope: Scope) -> Bool:
    """Whether the time lies `days` whole days back or more."""
    if days <= 0:
        return true()
    before = ago(Duration(days=days), scope)
    return column <= before if before else false()


def ago(length: Duration, scope: Scope) -> datetime | None:
    """That much before `now`, in the business's calendar; None when it is before all calendars."""
    try:
        return subtract(scope.now, length, scope.settings.business.timezone)
    except (OverflowError, ValueError):
        return None


_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)(Z|[+-]\d\d:?\d\d)?)?")


def _span(value: str, node: Any, scope: Scope) -> tuple[datetime, datetime]:
    """The time written, as [start, end): the whole local day of a date, the instant of a timestamp."""
    match = _TIMESTAMP.fullmatch(value.strip())
    if match is None:
        raise refusal(node, scope, f"{value[:40]!r} is not a time: write '2026-05-31' or '2026-05-31 14:30'")
    zone_name = scope.settings.business.timezone
    try:
        day = date.fromisoformat(match[1])
        if match[2] is None:
            return local_midnight(day, zone_name), local_midnight(day + timedelta(days=1), zone_name)
        clock = time.fromisoformat(match[2] + (match[3] or ""))
        start = datetime.combine(day, clock).astimezone(UTC) if match[3] else at_local(day, clock, zone_name)
        return start, start + timedelta(microseconds=1)
    except (ValueError, OverflowError) as error:
        raise refusal(node, scope, f"{value[:40]!r} does not exist: {error}") from error


def _in_time(operator: str, column: ColumnElement[Any], start: datetime, end: datetime) -> Bool:
    if operator == "=":
        return and_(column >= start, column < end)
    if operator in (">=", "<"):
        return column >= start if operator == ">=" else column < start
    return column >= end if operator == ">" else column < end


def _day(value: str, node: Any, scope: Scope) -> date:
    if re.fullmatch(r"\d{4}-\d\d-\d\d", value.strip()):
        try:
            return date.fromisoformat(value.strip())
        except ValueError as error:
            raise refusal(node, scope, f"{value!r} does not exist: {error}") from error
    raise refusal(node, scope, f"{value[:40]!r} is not a date: write '1990-05-31'")


def _subject_of(node: Any, scope: Scope, word: str) -> Named:
    named = named_by(node.this, scope)
    if named is None:
        raise refusal(node, scope, f"`{word}` follows a fact: country {word} …")
    return named


def in_(node: Any, scope: Scope) -> Bool:
    named = _subject_of(node, scope, "in")
    if not node.expressions:
        raise refusal(node, scope, f"`in` is followed by values in brackets: {named.name} in ('a', 'b')")
    found = [(value_of(item, scope), item) for item in node.expressions]
    texts = [value for value, item in found if isinstance(value, str) and named.fact.type in ("text", "attribute")]
    for value, item in found:
        if value in texts:
            _check_word(named, str(value), item, scope)
    parts = []
    for value, item in found:
        if value not in texts:
            scope.spend("terms", MAX_TERMS)
            parts.append(_compared("=", named, value, item, scope))
    if texts:
        parts.append(and_(named.present, named.column.in_(texts)))
    return or_(*parts)


def between(node: Any, scope: Scope) -> Bool:
    named = _subject_of(node, scope, "between")
    if named.fact.type == "boolean":
        raise refusal(node, scope, f"{named.name} is {_WANTED['boolean']}")
    low, high = node.args["low"], node.args["high"]
    values = value_of(low, scope), value_of(high, scope)
    if type(values[0]) is not type(values[1]):
        raise refusal(node, scope, "the two ends of `between` are both numbers or both text")
    return and_(
        _compared(">=", named, values[0], low, scope),
        _compared("<=", named, values[1], high, scope),
    )


def like(node: Any, scope: Scope) -> Bool:
    named = _subject_of(node, scope, "like")
    if named.fact.type not in ("text", "attribute"):
        raise refusal(node, scope, f"{named.name} is {_WANTED[named.fact.type]}; `like` is for text")
    pattern = value_of(node.expression, scope)
    if not isinstance(pattern, str):
        raise refusal(node.expression, scope, "`like` is followed by text in single quotes: 'B%'")
    return and_(named.present, Matches(named.column, pattern, "%", "_"))


def is_(node: Any, scope: Scope) -> Bool:
    named = _subject_of(node, scope, "is")
    if node.expression.key == "null":
        return false() if named.always else named.column.is_(None)
    if node.expression.key == "boolean" and named.fact.type == "boolean":
        return named.column if node.expression.this else not_(named.column)
    raise refusal(node, scope, f"after `is` stands null or not null: {named.name} is null")


def alone(node: Any, scope: Scope) -> Bool:
    named = named_by(node, scope)
    if named is None:
        raise refusal(node, scope, what_it_is(node, scope))
    if named.fact.type != "boolean":
        raise refusal(node, scope, f"{named.name} alone is no condition: compare it, such as {named.name} is not null")
    return named.column
