"""Names and values: which fact or value a node of the tree stands for, and what to say when it is none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, func, select, true

from outreach.conditions.dialects import JsonText
from outreach.conditions.parsing import error_at
from outreach.conditions.vocabulary import FACTS, FUNCTIONS, MAX_VALUES, Fact
from outreach.errors import ConditionError
from outreach.models import Answer, Case, Customer, CustomerStats, Order, ShopEvent, table
from outreach.settings import Settings

Bool = ColumnElement[bool]

_PLAIN = {fact.name: fact for fact in FACTS if not fact.name.endswith((".NAME", ".FIELD"))}
_OPEN = {fact.name.rpartition(".")[0]: fact for fact in FACTS if fact.name.endswith((".NAME", ".FIELD"))}
_PERSONAL = {"email": "has_email", "phone": "has_phone", "external_id": "", "customer_id": "", "id": ""}

_customers, _stats = table(Customer), table(CustomerStats)
_orders, _cases, _events, _answers = table(Order), table(Case), table(ShopEvent), table(Answer)
_OPEN_COLUMNS = {
    "attributes": _customers.c.attributes,
    "order.attributes": _orders.c.attributes,
    "case.attributes": _cases.c.attributes,
    "event": _events.c.attributes,
}


@dataclass(frozen=True)
class Attribute:
    """A further column that an expression names, such as `order.attributes.gift`, and where."""

    of: str  # attributes | order.attributes | case.attributes
    name: str
    line: int
    column: int


@dataclass(frozen=True)
class Scope:
    """What an expression is read in; `found` and `spent` are shared with the segments inside it."""

    text: str
    subject: str
    settings: Settings
    now: datetime
    found: list[ConditionError] = field(default_factory=list)
    spent: dict[str, int] = field(default_factory=lambda: {"terms": 0, "values": 0})
    attributes: list[Attribute] = field(default_factory=list)  # those named outside of segments
    inside: tuple[str, ...] = ()  # the segments being expanded

    def spend(self, what: str, limit: int) -> None:
        self.spent[what] += 1
        if self.spent[what] > limit:
            raise ConditionError(f"the condition is too large: more than {limit:,} {what}, segments included")


def offset(node: Any) -> int:
    return min((part.meta["start"] for part in node.walk() if "start" in part.meta), default=0)


def refusal(node: Any, scope: Scope, message: str) -> ConditionError:
    return error_at(scope.text, offset(node), message)


def _source(node: Any, scope: Scope) -> str:
    """The words of the text under a node, as far as the parser remembers their places."""
    places = [part.meta for part in node.walk() if "start" in part.meta]
    if not places:
        return str(node.key)
    text = scope.text[min(place["start"] for place in places) : max(place["end"] for place in places) + 1]
    return " ".join(text.split())[:60]


_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%", "neg": "-"}


def what_it_is(node: Any, scope: Scope) -> str:
    if node.key in _ARITHMETIC:
        return f"`{_ARITHMETIC[node.key]}` is not available: compare one fact with one value"
    if node.key in ("literal", "tuple", "null"):
        return "a value alone is no condition: compare a fact with it, such as country = 'MX'"
    if re.match(r"\w+\s*\(", scope.text[offset(node) :]):
        return no_function(_source(node, scope).partition("(")[0].strip())
    return f"`{_source(node, scope)}` is not available in a condition"


def no_function(name: str) -> str:
    names = [function.name for function in FUNCTIONS]
    return f"there is no function {name}: use {', '.join(names)}{nearest(name, names)}"


def nearest(name: str, names: Iterable[str]) -> str:
    lower = {known.lower(): known for known in names}
    near = get_close_matches(name.lower(), lower, 1, 0.6)
    return f" (did you mean {lower[near[0]]}?)" if near else ""


@dataclass(frozen=True)
class Named:
    """A fact found in an expression, with the SQL that gives it."""

    fact: Fact
    name: str
    column: ColumnElement[Any]
    always: bool = False  # never missing

    @property
    def present(self) -> Bool:
        return true() if self.always else self.column.is_not(None)


Value = str | Decimal | bool


def named_by(node: Any, scope: Scope) -> Named | None:
    """The fact a node names; None when it names none; ConditionError when nobody knows it."""
    if node.key == "column":
        return _fact(node, node.name, scope)
    if node.key != "bracket" or node.this.key != "column":
        return None
    keys = node.expressions
    if node.this.name not in _OPEN or len(keys) != 1 or keys[0].key != "literal" or not keys[0].is_string:
        raise refusal(node, scope, "square brackets hold the name of an attribute: attributes['A NAME']")
    return _fact(node, f"{node.this.name}.{keys[0].name}", scope)


def _fact(node: Any, name: str, scope: Scope) -> Named:
    fact, key = _PLAIN.get(name), ""
    if fact is None:
        head, key = _split(name)
        fact = _OPEN.get(head) if key else None
    if fact is None:
        raise refusal(node, scope, _unknown(name, scope))
    if fact.subject not in ("customer", scope.subject):
        raise refusal(
            node, scope, f"{name} is known only where the campaign's trigger is one of {_TRIGGERED[fact.subject]}"
        )
    if not key:
        return _plain(fact, scope)
    if fact.subject == "event" and key not in _fields(scope):
        known = ", ".join(sorted(_fields(scope))) or "none"
        raise refusal(node, scope, f"no event declares a field {key}: {known}{nearest(key, _fields(scope))}")
    if any(character in key for character in '"\\'):
        raise refusal(node, scope, 'the name of an attribute holds no `"` and no `\\`')
    if fact.subject != "event" and not scope.inside:
        place = error_at(scope.text, offset(node), "")
        scope.attributes.append(Attribute(head, key, place.line, place.column))
    return Named(fact, name, JsonText(_OPEN_COLUMNS[head], key))


_TRIGGERED = {"order": "order.*", "case": "case.*", "answer": "survey.answered", "event": "the shop's own events"}


def _split(name: str) -> tuple[str, str]:
    """`order.attributes.A.B` as its record and the attribute's name, which may hold dots."""
    for head in sorted(_OPEN, key=len, reverse=True):
        if name.startswith(head + "."):
            return head, name[len(head) + 1 :]
    return name, ""


def _fields(scope: Scope) -> set[str]:
    return {name for names in scope.settings.events.values() for name in names}


def _plain(fact: Fact, scope: Scope) -> Named:
    head, _, tail = fact.name.rpartition(".")
    if head:
        columns = {"order": _orders, "case": _cases, "answer": _answers}[head].c
        return Named(fact, fact.name, columns[tail], always=not columns[tail].nullable)
    if fact.name in ("has_email", "has_phone"):
        return Named(fact, fact.name, _customers.c[f"{fact.name[4:]}_id"].is_not(None), always=True)
    if fact.name in ("orders_count", "total_spent"):
        return Named(fact, fact.name, func.coalesce(_stats.c[fact.name], 0, type_=BigInteger()), always=True)
    if fact.name in ("first_order_at", "last_order_at"):
        return Named(fact, fact.name, _stats.c[fact.name])
    if fact.name in ("last_csat", "last_nps"):
        return Named(fact, fact.name, _last_score(fact.name.removeprefix("last_"), scope.now))
    if fact.type == "days":
        return Named(fact, fact.name, _stats.c[fact.name.removeprefix("days_since_") + "_at"])
    return Named(fact, fact.name, _customers.c[fact.name])


def _last_score(kind: str, now: datetime) -> ColumnElement[Any]:
    """The customer's last score in a survey of this kind; a yes or a no has no place among numbers."""
    c = _answers.alias().c
    last = select(c.score).where(c.customer_id == _customers.c.id, c.kind == kind, c.changed_at <= now)
    last = last.where(c.scale != "yes_no").order_by(c.changed_at.desc(), c.id.desc()).limit(1)
    return last.correlate(_customers).scalar_subquery()


def _unknown(name: str, scope: Scope) -> str:
    if name in _PERSONAL:
        instead = f": ask {_PERSONAL[name]}" if _PERSONAL[name] else ""
        return f"{name} cannot be compared{instead or ', single people are not picked by a condition'}"
    known = [fact.name for fact in FACTS if fact.subject in ("customer", scope.subject)]
    near = nearest(name, known)
    if not near and any(fact.name.partition(".")[2] == name for fact in FACTS):
        near = f" (did you mean {scope.subject}.{name}?)"
    return f"there is no fact {name[:60]}{near}; facts: {', '.join(known)}"


def value_of(node: Any, scope: Scope) -> Value:
    """The value a node writes; ConditionError when it writes none."""
    scope.spend("values", MAX_VALUES)
    if node.key == "paren":
        return value_of(node.this, scope)
    if node.key == "boolean":
        return bool(node.this)
    if node.key == "neg" and node.this.key == "literal" and not node.this.is_string:
        return -_number(node.this, scope)
    if node.key == "literal":
        return str(node.this) if node.is_string else _number(node, scope)
    if node.key == "null":
        raise refusal(node, scope, "nothing equals null: write `is null` or `is not null`")
    raise refusal(node, scope, f"{what_it_is(node, scope)}; a value is a number, or text in single quotes")


def _number(node: Any, scope: Scope) -> Decimal:
    try:
        value = Decimal(node.name)
    except InvalidOperation as error:
        raise refusal(node, scope, f"`{node.name[:20]}` is not a number") from error
    if re.fullmatch(r"[1-9]\d{0,2}(\.\d{3})+", node.name):
        whole = node.name.replace(".", "")
        raise refusal(
            node, scope, f"`{node.name}` may be thousands or a fraction: write {whole}, or {value.normalize():f}"
        )
    if not value.is_finite() or abs(value.adjusted()) > 30:
        raise refusal(node, scope, "the number is too large or too small")
    return value
