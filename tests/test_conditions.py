"""
Conditions: what `where:` means, checked against an independent reading in plain Python, and what it refuses.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, not_, select

from outreach.conditions import FACTS, FUNCTIONS, MAX_LENGTH, compile_condition, minor_digits, problems
from outreach.errors import ConditionError
from outreach.models import (
    Case,
    Customer,
    CustomerStats,
    CustomerTag,
    Order,
    OrderLine,
    ShopEvent,
    table,
)
from outreach.settings import Business, Settings
from outreach.store import Database

NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
ZONE = ZoneInfo("America/Mexico_City")
SETTINGS = Settings(
    workspace=Path(),
    business=Business("Tienda Luna", "America/Mexico_City", "MXN"),
    segments={
        "vip": "orders_count >= 3 or tagged('vip')",
        "near": "segment('vip') and country in ('MX', 'CO')",
        "snake": "segment('tail')",
        "tail": "not segment('snake')",
    },
    events={"cart.abandoned": ("url", "total")},
)

customers, stats, tags = table(Customer), table(CustomerStats), table(CustomerTag)
orders, lines, cases, events = table(Order), table(OrderLine), table(Case), table(ShopEvent)


# A small shop, once as plain Python values and once as rows


@dataclass(frozen=True)
class Line:
    sku: str | None
    category: str | None


@dataclass(frozen=True)
class Bought:
    placed_at: datetime
    total: int
    lines: tuple[Line, ...] = ()
    currency: str = "MXN"
    coupon_code: str | None = None
    counted: bool = True


@dataclass(frozen=True)
class Person:
    country: str | None = None
    city: str | None = None
    birthday: str | None = None
    email: bool = False
    tags: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=dict)
    orders: tuple[Bought, ...] = ()

    @property
    def counted(self) -> list[Bought]:
        return sorted((order for order in self.orders if order.counted), key=lambda order: order.placed_at)


def add(connection: Connection, number: int, person: Person) -> None:
    connection.execute(
        insert(customers),
        {
            "id": number,
            "external_id": f"c{number}",
            "country": person.country,
            "city": person.city,
            "birthday": person.birthday,
            "email_id": 1 if person.email else None,
            "zones": "",
            "tags": sorted(person.tags),
            "attributes": dict(person.attributes),
            "row_hash": b"",
        },
    )
    for tag in person.tags:
        connection.execute(insert(tags), {"customer_id": number, "tag": tag, "by_campaign": False})
    for place, order in enumerate(person.orders):
        _add_order(connection, number, number * 100 + place, order)
    counted = person.counted
    if counted:  # as for a customer who never ordered, no row otherwise
        connection.execute(
            insert(stats),
            {
                "customer_id": number,
                "orders_count": len(counted),
                "total_spent": sum(order.total for order in counted if order.currency == "MXN"),
                "first_order_at": counted[0].placed_at,
                "last_order_at": counted[-1].placed_at,
            },
        )


def _add_order(connection: Connection, customer: int, number: int, order: Bought) -> None:
    connection.execute(
        insert(orders),
        {
            "id": number,
            "external_id": f"o{number}",
            "customer_id": customer,
            "placed_at": order.placed_at,
            "currency": order.currency,
            "total": order.total,
            "counted": order.counted,
            "coupon_code": order.coupon_code,
            "attributes": {"gift": "3"},
            "row_hash": b"",
        },
    )
    for place, line in enumerate(order.lines, 1):
        row = {"order_id": number, "number": place, "sku": line.sku, "category": line.category}
        connection.execute(insert(lines), row)


@contextmanager
def shop(db: Database, people: list[Person]) -> Iterator[Connection]:
    """The people in the database, for as long as the block runs."""
    with db.engine.connect() as connection:
        transaction = connection.begin()
        for number, person in enumerate(people, 1):
            add(connection, number, person)
        yield connection
        transaction.rollback()


def picked(connection: Connection, expression: str, *, negated: bool = False) -> set[int]:
    condition = compile_condition(expression, subject="customer", settings=SETTINGS, now=NOW)
    joined = customers.outerjoin(stats, stats.c.customer_id == customers.c.id)
    wanted = select(customers.c.id).select_from(joined).where(not_(condition) if negated else condition)
    return set(connection.execute(wanted).scalars())


# An independent reading: each piece of text comes with a Python function that says what it means


@dataclass(frozen=True)
class Piece:
    text: str
    means: Any  # Person -> bool

    def __repr__(self) -> str:
        return self.text


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


TEXTS = st.sampled_from(
    ["", "MX", "Bogotá", "bogotá", "B", "O'Higgins", "a%b", "a_b", "[x]", "a*b", "a\\b", "10", "ñ", "Zz", "a\nb"]
)
COUNTRIES = st.sampled_from(["MX", "CO", "AR"])
NUMBERS = st.sampled_from(
    ["0", "1", "2", "3", "2.5", "-1", "10", "99.99", "100", "1e2", "0.005", "99999999999999999999"]
)
NUMERIC_TEXTS = st.sampled_from(
    ["1", "2.5", "-3", "+3", "007", "10", "1e2", ".5", "5.", "1,5", " 1", "", "x", "1.2.3", "٣", "-", "9" * 40]
)
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
MIRRORED = {"=": "=", "!=": "!=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
OPERATORS = st.sampled_from(sorted(COMPARE))


def holds(operator: str, left: Any, right: Any) -> bool:
    """Missing compares as false, and `!=` is the opposite of `=`."""
    if left is None or right is None:
        return operator in ("!=", "<>")
    return bool(COMPARE[operator](left, right))


def as_number(text: str | None) -> Decimal | None:
    plain = text is not None and len(text) <= 30 and re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", text)
    return Decimal(text) if plain and text is not None else None


def money(person: Person) -> Decimal:
    return sum((Decimal(o.total) / 100 for o in person.counted if o.currency == "MXN"), Decimal(0))


def last_order(person: Person) -> datetime | None:
    return person.counted[-1].placed_at if person.counted else None


def days_since_last(person: Person) -> int | None:
    """Walked one day at a time on the wall clock; the zone has had no clock change since 2022."""
    last = last_order(person)
    if last is None:
        return None
    days = 0
    local = NOW.astimezone(ZONE)
    while last <= local - timedelta(days=days + 1):
        days += 1
    return days


NUMERIC: dict[str, Callable[[Person], Decimal | int | None]] = {
    "orders_count": lambda person: Decimal(len(person.counted)),
    "total_spent": money,
    "days_since_last_order": days_since_last,
    "attributes.size": lambda person: as_number(person.attributes.get("size")),
    "attributes['talla única']": lambda person: as_number(person.attributes.get("talla única")),
}
TEXTUAL: dict[str, Callable[[Person], str | None]] = {
    "city": lambda person: person.city,
    "attributes.size": lambda person: person.attributes.get("size"),
    "attributes.order": lambda person: person.attributes.get("order"),
}


@st.composite
def comparisons(draw: st.DrawFn) -> Piece:
    operator = draw(OPERATORS)
    if draw(st.booleans()):
        name, value = draw(st.sampled_from(sorted(NUMERIC))), draw(NUMBERS)
        get, literal, known = NUMERIC[name], value, Decimal(value)
    else:
        name, text = draw(st.sampled_from(sorted(TEXTUAL))), draw(TEXTS | NUMERIC_TEXTS)
        get, literal, known = TEXTUAL[name], quoted(text), text  # type: ignore[assignment]
    if draw(st.booleans()):
        return Piece(f"{literal} {MIRRORED[operator]} {name}", lambda person: holds(operator, get(person), known))
    return Piece(f"{name} {operator} {literal}", lambda person: holds(operator, get(person), known))


@st.composite
def lists(draw: st.DrawFn) -> Piece:
    word, opposite = draw(st.sampled_from([("in", False), ("not in", True), ("NOT IN", True)]))
    if draw(st.booleans()):
        values = draw(st.lists(NUMBERS, min_size=1, max_size=4))
        name = draw(st.sampled_from(sorted(NUMERIC)))
        known = [Decimal(value) for value in values]
        return Piece(
            f"{name} {word} ({', '.join(values)})", lambda person: (NUMERIC[name](person) in known) != opposite
        )
    texts = draw(st.lists(TEXTS, min_size=1, max_size=4))
    name = draw(st.sampled_from(sorted(TEXTUAL)))
    written = ", ".join(quoted(text) for text in texts)
    return Piece(f"{name} {word} ({written})", lambda person: (TEXTUAL[name](person) in texts) != opposite)


@st.composite
def ranges(draw: st.DrawFn) -> Piece:
    word, opposite = draw(st.sampled_from([("between", False), ("not between", True)]))
    name, low, high = draw(st.sampled_from(sorted(NUMERIC))), draw(NUMBERS), draw(NUMBERS)

    def within(person: Person) -> bool:
        value = NUMERIC[name](person)
        return (value is not None and Decimal(low) <= value <= Decimal(high)) != opposite

    return Piece(f"{name} {word} {low} and {high}", within)


@st.composite
def likes(draw: st.DrawFn) -> Piece:
    word, opposite = draw(st.sampled_from([("like", False), ("not like", True)]))
    name = draw(st.sampled_from(sorted(TEXTUAL)))
    pattern = draw(st.text("aBb%_[]*?\\'ñ^$.-\n", max_size=5) | st.sampled_from(["Bogot%", "%'%", "_", "%"]))
    regex = "".join(".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern)

    def fits(person: Person) -> bool:
        value = TEXTUAL[name](person)
        return (value is not None and re.fullmatch(regex, value, re.DOTALL) is not None) != opposite

    return Piece(f"{name} {word} {quoted(pattern)}", fits)


def _day(at: datetime) -> str:
    return at.astimezone(ZONE).date().isoformat()


@st.composite
def times(draw: st.DrawFn) -> Piece:
    operator, day = draw(OPERATORS), draw(st.integers(-3, 120))
    local = NOW.astimezone(ZONE) - timedelta(days=day)
    if draw(st.booleans()):
        written = local.date().isoformat()
        return Piece(
            f"last_order_at {operator} '{written}'",
            lambda person: holds(operator, _day(last) if (last := last_order(person)) else None, written),
        )
    form = draw(st.sampled_from(["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]))
    return Piece(
        f"last_order_at {operator} '{local.strftime(form)}'", lambda person: holds(operator, last_order(person), local)
    )


@st.composite
def purchases(draw: st.DrawFn) -> Piece:
    sku = draw(st.none() | st.sampled_from(["A-*", "a-1", "?-2", "*", "[A]*", "É*"]))
    category = draw(st.none() | st.sampled_from(["Shoes", "sho*", "x"]))
    within = draw(st.none() | st.integers(1, 100))
    if (sku, category, within) == (None, None, None):
        within = 30
    written = [f"sku => {quoted(sku)}"] if sku is not None else []
    written += [f"category => {quoted(category)}"] if category is not None else []
    written += [f"within => {within}"] if within is not None else []

    def fits(text: str | None, pattern: str | None) -> bool:
        plain = (pattern or "").lower().replace("[", "[[]")
        return pattern is None or (text is not None and fnmatch.fnmatchcase(text.lower(), plain))

    def bought(person: Person) -> bool:
        since = NOW - timedelta(days=within or 100_000)
        recent = [order for order in person.counted if since <= order.placed_at <= NOW]
        if sku is None and category is None:
            return bool(recent)
        return any(fits(line.sku, sku) and fits(line.category, category) for order in recent for line in order.lines)

    return Piece(f"bought({', '.join(written)})", bought)


def _in_vip(person: Person) -> bool:
    return len(person.counted) >= 3 or "vip" in person.tags


PLAIN = st.sampled_from(
    [
        Piece("true", lambda _: True),
        Piece("FALSE", lambda _: False),
        Piece("has_email", lambda person: person.email),
        Piece("has_email = false", lambda person: not person.email),
        Piece("has_email is not true", lambda person: not person.email),
        Piece("country is null", lambda person: person.country is None),
        Piece("attributes.size is not null", lambda person: "size" in person.attributes),
        Piece("last_order_at is null", lambda person: not person.counted),
        Piece("orders_count is null", lambda _: False),
        Piece("tagged('vip')", lambda person: "vip" in person.tags),
        Piece("tagged('it''s')", lambda person: "it's" in person.tags),
        Piece("segment('vip')", _in_vip),
        Piece("segment('near')", lambda person: _in_vip(person) and person.country in ("MX", "CO")),
        Piece("country = 'MX'", lambda person: person.country == "MX"),
        Piece("country != 'MX'", lambda person: person.country != "MX"),
        Piece("country not in ('MX', 'CO')", lambda person: person.country not in ("MX", "CO")),
        Piece("birthday < '1990-01-01'", lambda person: person.birthday is not None and person.birthday < "1990-01-01"),
        Piece("city = attributes.size", lambda person: holds("=", person.city, person.attributes.get("size"))),
        Piece("city <> attributes.size", lambda person: holds("!=", person.city, person.attributes.get("size"))),
        Piece("city < attributes.size", lambda person: holds("<", person.city, person.attributes.get("size"))),
        Piece("first_order_at = last_order_at", lambda person: len({o.placed_at for o in person.counted}) == 1),
    ]
)


def _joined(word: str, parts: list[Piece]) -> Piece:
    said = all if word == "and" else any
    return Piece(
        f"({f' {word} '.join(part.text for part in parts)})",
        lambda person: said(part.means(person) for part in parts),
    )


def _denied(part: Piece) -> Piece:
    return Piece(f"not ({part.text})", lambda person: not part.means(person))


EXPRESSIONS = st.recursive(
    comparisons() | lists() | ranges() | likes() | times() | purchases() | PLAIN,
    lambda inner: (
        st.builds(_joined, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3))
        | st.builds(_denied, inner)
    ),
    max_leaves=6,
)

LINES = st.builds(
    Line, st.sampled_from([None, "A-1", "a-2", "B-2", "[A]", "élite"]), st.sampled_from([None, "Shoes", "x"])
)
BOUGHT = st.builds(
    Bought,
    placed_at=st.integers(0, 100 * 24 * 60).map(lambda minutes: NOW - timedelta(minutes=minutes))
    | st.sampled_from([NOW - timedelta(days=days) for days in (0, 1, 30, 60)]),
    total=st.sampled_from([0, 1, 9999, 10000]),
    lines=st.lists(LINES, max_size=2).map(tuple),
    currency=st.sampled_from(["MXN", "USD"]),
    counted=st.booleans(),
)
PEOPLE = st.builds(
    Person,
    country=st.none() | COUNTRIES,
    city=st.none() | TEXTS,
    birthday=st.none() | st.sampled_from(["1989-12-31", "1990-01-01", "2000-02-29"]),
    email=st.booleans(),
    tags=st.frozensets(st.sampled_from(["vip", "it's", "VIP"])),
    attributes=st.dictionaries(st.sampled_from(["size", "order", "talla única"]), TEXTS | NUMERIC_TEXTS),
    orders=st.lists(BOUGHT, max_size=4).map(tuple),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(people=st.lists(PEOPLE, min_size=1, max_size=5), pieces=st.lists(EXPRESSIONS, min_size=1, max_size=4))
def test_every_expression_means_what_an_independent_reading_says(
    db: Database, people: list[Person], pieces: list[Piece]
) -> None:
    with shop(db, people) as connection:
        for piece in pieces:
            expected = {number for number, person in enumerate(people, 1) if piece.means(person)}
            everybody = set(range(1, len(people) + 1))
            assert picked(connection, piece.text) == expected, piece.text
            assert picked(connection, piece.text, negated=True) == everybody - expected, piece.text


# Anything at all, and hostile things


WORDS = [
    "country", "city", "orders_count", "attributes.x", "order.total", "and", "or", "not", "in", "(", ")", ",", "=", "!=", "<", "'a'",
    "'", '"', "5", "1e9", "-", ".", "is", "null", "like", "between", "=>", "tagged", "bought", "segment", "'vip'", "select", "from",
    "union", ";", "--", "/*", "*/", "[", "]", "case", "when", "then", "end", "cast", "as", "::", "{{", "{%", "@", "?", ":x", "$1",
    "\\", "`", "exists", "any", "interval", "date", "distinct", "over", "*", "count", "true", "«", "’", "\x00", "\ud800", "\n",
]  # fmt: skip
ANYTHING = st.text(max_size=60) | st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(expression=ANYTHING, subject=st.sampled_from(["customer", "order", "case", "event"]))
def test_any_text_either_compiles_or_is_refused_with_a_sentence(expression: str, subject: str) -> None:
    found = problems(expression, subject=subject, settings=SETTINGS)
    for problem in found:
        assert "\n" not in str(problem)
        assert problem.line >= 1
        assert problem.column >= 1
    if not found:
        compiled = compile_condition(expression, subject=subject, settings=SETTINGS, now=NOW)
        assert str(compiled)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(expressions=st.lists(ANYTHING, min_size=5, max_size=10))
def test_whatever_compiles_also_runs(db: Database, expressions: list[str]) -> None:
    with shop(db, [Person(attributes={"x": "1e999"})]) as connection:
        for expression in expressions:
            if not problems(expression, subject="customer", settings=SETTINGS):
                assert picked(connection, expression) | picked(connection, expression, negated=True) == {1}


HOSTILE = [
    "'; DROP TABLE customers; --",
    "x' OR '1'='1",
    "\\'; SELECT 1",
    "%s %(x)s :x ?",
    "{{ 7*7 }}",
    "' || (select 1) || '",
    "$$;$$",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_data(db: Database, text: str) -> None:
    person = Person(city=text, tags=frozenset({text}), attributes={"x": text, "a' or \x27": "y"})
    with shop(db, [person, Person(city="elsewhere")]) as connection:
        for expression in (
            f"city = {quoted(text)}",
            f"city like {quoted(text)}",
            f"tagged({quoted(text)})",
            f"attributes.x in ({quoted(text)})",
        ):
            assert picked(connection, expression) >= {1}
            assert picked(connection, expression) <= ({1, 2} if "%" in text else {1})
        named = quoted(text.replace("\\", ""))
        assert picked(connection, f"attributes[{named}] = 'y'") == set()
        assert picked(connection, "attributes['a'' or '''] = 'y'") == {1}


@pytest.mark.parametrize("size", ["9" * 200_000, "1" + "." * 10, "0x10", "NaN", "Infinity", "1e400000"])
def test_an_attribute_that_is_no_number_never_raises(db: Database, size: str) -> None:
    with shop(db, [Person(attributes={"size": size})]) as connection:
        assert picked(connection, "attributes.size > 1 or attributes.size <= 1") == set()
        assert picked(connection, "attributes.size != 1") == {1}


# Places and wordings of what is refused


def refused(expression: str, subject: str = "customer") -> tuple[str, int, int]:
    with pytest.raises(ConditionError) as caught:
        compile_condition(expression, subject=subject, settings=SETTINGS, now=NOW)
    return str(caught.value), caught.value.line, caught.value.column


@pytest.mark.parametrize(
    ("expression", "corrected", "column"),
    [
        ('country = "MX"', "country = 'MX'", 11),
        ("country = “MX”", "country = 'MX'", 11),
        ('city = "O\'Higgins"', "city = 'O''Higgins'", 8),
        ("country == 'MX' && has_email", "country = 'MX' and has_email", 9),
        ('has_email || city == "Lima"', "has_email or city = 'Lima'", 11),
        ("city = 'a \"b\" && c' && has_email", "city = 'a \"b\" && c' and has_email", 21),
        ("!has_email", "not has_email", 1),
        ("where country = 'MX'", "country = 'MX'", 1),
        ("orders_count = '5'", "orders_count = 5", 16),
        ("postal_code = 6600", "postal_code = '6600'", 15),
        ("country = 'mx'", "'MX'", 11),
    ],
)
def test_a_slip_is_shown_with_its_correction_and_place(expression: str, corrected: str, column: int) -> None:
    message, line, found = refused(expression)
    assert message.endswith(f": {corrected}")
    assert (line, found) == (1, column)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("contry = 'MX'", "did you mean country?"),
        ("Country = 'MX'", "did you mean country?"),
        ("attribute.size = 'x'", "there is no fact attribute.size"),
        ("order.total > 5", "order.*"),
        ("last_cast < 3", "did you mean last_csat?"),
        ("last_nps < '3'", "last_nps is a number"),
        ("answer.score < 3", "survey.answered"),
        ("email = 'a@example.com'", "has_email"),
        ("country = 'Mexico'", "two capital letters"),
        ("country = null", "is null"),
        ("country c = 'MX'", "cannot be read at `c`"),
        ("country as c", "aliases"),
        ("country = 'MX'; drop table customers", "`;`"),
        ("drop table customers", "statements"),
        ("country in (select country)", "queries"),
        ("exists (1)", "queries"),
        ("country = 'MX' -- all of them", "comments"),
        ("/* all */ has_email", "comments"),
        ("upper(city) = 'LIMA'", "no function upper"),
        ("taged('vip')", "did you mean tagged?"),
        ("count(*) > 1", "`*` is not part"),
        ("total_spent >= 5.000", "`5.000` may be thousands or a fraction: write 5000, or 5"),
        ("total_spent >= 12.500", "`12.500` may be thousands or a fraction: write 12500, or 12.5"),
        ("total_spent / orders_count > 5", "`/` is not part"),
        ("total_spent - 5 > 5", "`-` is not available"),
        ("1 < orders_count < 5", "between"),
        ("country", "compare it"),
        ("'MX'", "a value alone"),
        ("1 = 1", "two values"),
        ("city like 5", "single quotes"),
        ("city ilike 'b%'", "like"),
        ("city = 'a' 'b'", "single quotes"),
        ("has_email = 'yes'", "yes or no"),
        ("total_spent > orders_count", "compare each with a value"),
        ("total_spent > 1e40", "too large"),
        ("last_order_at > 'yesterday'", "'2026-05-31'"),
        ("last_order_at > '2026-02-30'", "does not exist"),
        ("last_order_at > 5", "is a time"),
        ("birthday = '05-31'", "is not a date"),
        ("tagged(vip)", "tagged('vip')"),
        ("bought('A-1')", "named arguments"),
        ("bought()", "at least one"),
        ("bought(skus => 'A')", "did you mean sku?"),
        ("bought(sku => 'A', sku => 'B')", "given twice"),
        ("bought(within => 0)", "whole days"),
        ("bought(within => 'soon')", "length of time"),
        ("segment('vpi')", "did you mean vip?"),
        ("segment('snake')", "circle: snake → tail → snake"),
        ("country = 'MX", "not closed"),
        ("orders_count >=", "missing after `>=`"),
        ("", "empty"),
        ("city = 'a\x00'", "control character"),
        ("(" * 30 + "true" + ")" * 30, "nested"),
        ("not " * 600 + "true", "nested"),
        (" or ".join(["has_email"] * 301), "too large"),
        ("city = '" + "x" * MAX_LENGTH + "'", "too long"),
    ],
)
def test_what_is_not_documented_is_refused_with_a_clear_sentence(expression: str, said: str) -> None:
    assert said in refused(expression)[0]


@pytest.mark.parametrize(
    ("expression", "subject", "said"),
    [
        ("case.kind = 'retrun'", "case", "did you mean return?"),
        ("case.outcome in ('kept', 'gone')", "case", "resolved, unresolved, kept, lost"),
        ("total > 5", "order", "did you mean"),
        ("event.totl > 5", "event", "did you mean total?"),
        ("case.kind = 'return'", "order", "case.*"),
        ("order.currency = 'pesos'", "order", "'MXN'"),
    ],
)
def test_facts_of_records_are_checked_too(expression: str, subject: str, said: str) -> None:
    assert said in refused(expression, subject)[0]


def test_every_problem_of_an_expression_is_found_at_once_with_its_line_and_column() -> None:
    found = problems(
        "contry = 'MX'\n  and orders_count > '3'\n  and tagged(vip)", subject="customer", settings=SETTINGS
    )
    assert [(problem.line, problem.column) for problem in found] == [(1, 1), (2, 22), (3, 7)]


def test_an_expression_of_the_permitted_size_runs(db: Database) -> None:
    long = " or ".join(["orders_count = 1"] * 240) + " or " + "(" * 19 + "has_email" + ")" * 19
    with shop(db, [Person(email=True), Person()]) as connection:
        assert picked(connection, long) == {1}
        assert picked(connection, " and ".join(["country = 'MX'"] * 250)) == set()


# Facts of the records that start a campaign


def test_an_order_is_compared_in_its_own_currency(db: Database) -> None:
    people = [
        Person(orders=(Bought(NOW, total, currency=currency),))
        for total, currency in ((50000, "MXN"), (500, "CLP"), (500, "MXN"))
    ]
    assert (minor_digits("MXN"), minor_digits("CLP"), minor_digits("KWD")) == (2, 0, 3)
    with shop(db, people) as connection:
        condition = compile_condition(
            "order.total >= 500 and order.attributes.gift = 3 and order.coupon_code is null and order.status is null",
            subject="order", settings=SETTINGS, now=NOW,
        )  # fmt: skip
        wanted = select(customers.c.id).join(orders, orders.c.customer_id == customers.c.id)
        wanted = wanted.outerjoin(stats, stats.c.customer_id == customers.c.id).where(condition)
        assert set(connection.execute(wanted).scalars()) == {1, 2}


def test_what_was_bought_is_looked_up_apart_from_the_order_that_starts_the_campaign(db: Database) -> None:
    old = Bought(NOW - timedelta(days=50), 100, (Line("A-1", None),))
    with shop(db, [Person(orders=(old, Bought(NOW, 100, (Line("B-1", None),))))]) as connection:
        condition = compile_condition(
            "bought(sku => 'a-*') and order.placed_at >= '2026-06-15'", subject="order", settings=SETTINGS, now=NOW
        )
        wanted = select(orders.c.id).join(customers, orders.c.customer_id == customers.c.id)
        wanted = wanted.outerjoin(stats, stats.c.customer_id == customers.c.id).where(condition)
        assert connection.execute(wanted).scalars().all() == [101]


def test_cases_and_events_have_facts(db: Database) -> None:
    with shop(db, [Person()]) as connection:
        connection.execute(
            insert(cases),
            {
                "id": 1,
                "external_id": "k",
                "customer_id": 1,
                "kind": "return",
                "opened_at": NOW,
                "attributes": {"size": "9"},
                "row_hash": b"",
            },
        )
        connection.execute(
            insert(events),
            {
                "id": 1,
                "external_id": "e",
                "customer_id": 1,
                "name": "cart.abandoned",
                "at": NOW,
                "attributes": {"total": "90.5"},
                "row_hash": b"",
            },
        )
        for subject, source, expression in (
            (
                "case",
                cases,
                "case.kind = 'return' and case.closed_at is null and case.attributes.size > 8 and case.outcome != 'kept'",
            ),
            ("event", events, "event.total between 90 and 91 and event.url is null"),
        ):
            condition = compile_condition(expression, subject=subject, settings=SETTINGS, now=NOW)
            wanted = select(source.c.id).join(customers, source.c.customer_id == customers.c.id).where(condition)
            assert connection.execute(wanted).scalars().all() == [1], expression


def test_days_since_counts_back_over_a_clock_change_to_the_same_time_of_day(db: Database) -> None:
    madrid = Settings(workspace=Path(), business=Business("Tienda", "Europe/Madrid", "EUR"))
    now = datetime(2026, 3, 30, 10, 0, tzinfo=ZoneInfo("Europe/Madrid"))  # the clocks went forward on the 29th
    joined = customers.outerjoin(stats, stats.c.customer_id == customers.c.id)
    people = [
        Person(orders=(Bought(datetime(2026, 3, 28, hour, minute, tzinfo=ZoneInfo("Europe/Madrid")), 1),))
        for hour, minute in ((10, 0), (10, 1))
    ]
    with shop(db, people) as connection:
        condition = compile_condition("days_since_last_order >= 2", subject="customer", settings=madrid, now=now)
        assert connection.execute(select(customers.c.id).select_from(joined).where(condition)).scalars().all() == [1]
        far = compile_condition("days_since_last_order < 9999999999", subject="customer", settings=madrid, now=now)
        assert len(connection.execute(select(customers.c.id).select_from(joined).where(far)).all()) == 2


def test_every_documented_fact_and_function_compiles() -> None:
    samples = {
        "text": "= 'x'",
        "number": "> 1",
        "money": "> 1.5",
        "days": "> 1",
        "time": "> '2026-01-01'",
        "date": "> '2026-01-01'",
        "boolean": "= true",
        "attribute": "> 1",
    }
    for fact in FACTS:
        name = fact.name.replace("NAME", "anything").replace("FIELD", "url")
        sample = f"= '{fact.values[0]}'" if fact.values else samples[fact.type]
        sample = {"country": "= 'MX'", "order.currency": "= 'MXN'"}.get(name, sample)
        assert problems(f"{name} {sample}", subject=fact.subject, settings=SETTINGS) == [], name
    for function in FUNCTIONS:
        form = function.form.replace("'name'", "'vip'")
        assert problems(form, subject="customer", settings=SETTINGS) == [], form


def test_attributes_are_found_however_their_json_was_written(db: Database) -> None:
    person = Person(attributes={"talla única": "40", "a.b": "1", "Ω": "x"})
    with shop(db, [person]) as connection:
        assert picked(connection, "attributes['talla única'] = 40 and attributes.a.b = 1 and attributes.Ω = 'x'") == {1}
        plain = json.dumps(dict(person.attributes), ensure_ascii=False)
        connection.exec_driver_sql("UPDATE customers SET attributes = '" + plain + "'")
        assert picked(connection, "attributes['talla única'] = 40 and attributes.a.b = 1 and attributes.Ω = 'x'") == {1}
