"""Tree → condition: connectives, terms and functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import and_, exists, false, not_, or_, select, true

from outreach.conditions.comparing import COMPARED, ago, alone, between, comparison, in_, is_, like
from outreach.conditions.dialects import Matches
from outreach.conditions.parsing import tree
from outreach.conditions.scope import Bool, Scope, Value, nearest, no_function, refusal, value_of, what_it_is
from outreach.conditions.vocabulary import FUNCTIONS, MAX_TERMS, SUBJECTS
from outreach.errors import ConditionError
from outreach.models import Customer, CustomerTag, Order, OrderLine, table
from outreach.settings import Settings
from outreach.values import Duration, parse_duration

_customers, _tags = table(Customer), table(CustomerTag)
_orders, _lines = table(Order), table(OrderLine)


def read(expression: str, subject: str, settings: Settings, now: datetime) -> tuple[Bool, list[ConditionError]]:
    scope = Scope(expression, subject, settings, now)
    return read_in(scope), scope.found


def read_in(scope: Scope) -> Bool:
    """The condition; what is wrong with it, and the attributes it names, are added to the scope's."""
    if scope.subject not in SUBJECTS:
        raise ValueError(f"subject is one of {', '.join(SUBJECTS)}")
    try:
        return condition_of(tree(scope.text), scope)
    except ConditionError as error:
        scope.found.append(error)
    except RecursionError:
        scope.found[:] = [ConditionError("the condition is too deeply nested: use fewer brackets and `not`s")]
    return false()


def condition_of(node: Any, scope: Scope) -> Bool:
    if node.key in ("and", "or"):
        parts = [condition_of(part, scope) for part in _flat(node)]
        return and_(*parts) if node.key == "and" else or_(*parts)
    if node.key == "paren":
        return condition_of(node.this, scope)
    if node.key == "not":
        return not_(condition_of(node.this, scope))
    scope.spend("terms", MAX_TERMS)
    try:
        return _term(node, scope)
    except ConditionError as error:
        scope.found.append(error)
        return false()


def _flat(node: Any) -> list[Any]:
    """The parts of a chain of the same connective, however long, without recursion."""
    parts, waiting = [], [node]
    while waiting:
        top = waiting.pop()
        if top.key == node.key:
            waiting += [top.expression, top.this]
        else:
            parts.append(top)
    return parts


def _term(node: Any, scope: Scope) -> Bool:
    if node.key == "boolean":
        return true() if node.this else false()
    if node.key == "anonymous":
        return _call(node, scope)
    if node.key in COMPARED:
        return comparison(COMPARED[node.key], node, scope)
    if node.key in ("in", "between", "like", "is"):
        read: Callable[[Any, Scope], Bool] = {"in": in_, "between": between, "like": like, "is": is_}[node.key]
        condition = read(node, scope)
        return not_(condition) if node.args.get("negate") else condition
    if node.key in ("column", "bracket"):
        return alone(node, scope)
    raise refusal(node, scope, what_it_is(node, scope))


def _call(node: Any, scope: Scope) -> Bool:
    calls = {"tagged": _tagged, "bought": _bought, "segment": _segment}
    if node.name not in calls:
        raise refusal(node, scope, no_function(node.name[:40]))
    return calls[node.name](node, scope)


def _one_text(node: Any, scope: Scope) -> str:
    form = next(function.form for function in FUNCTIONS if function.name == node.name)
    values = [value_of(part, scope) for part in node.expressions if part.key == "literal"]
    if len(node.expressions) != 1 or len(values) != 1 or not isinstance(values[0], str):
        raise refusal(node, scope, f"{node.name} takes one text in single quotes: {form}")
    return values[0]


def _tagged(node: Any, scope: Scope) -> Bool:
    tags = _tags.alias()
    wanted = select(tags.c.customer_id).where(
        tags.c.customer_id == _customers.c.id, tags.c.tag == _one_text(node, scope)
    )
    return exists(wanted.correlate(_customers))


def _segment(node: Any, scope: Scope) -> Bool:
    name, segments = _one_text(node, scope), scope.settings.segments
    if name not in segments:
        known = ", ".join(sorted(segments)) or "the settings define none"
        raise refusal(node, scope, f"there is no segment {name[:40]!r}: {known}{nearest(name, segments)}")
    if name in scope.inside:
        raise refusal(node, scope, f"segments run in a circle: {' → '.join([*scope.inside, name])}")
    inner = replace(scope, text=segments[name], subject="customer", found=[], inside=(*scope.inside, name))
    try:
        condition = condition_of(tree(inner.text), inner)
    except ConditionError as error:
        inner.found.append(error)
    if inner.found:
        raise refusal(node, scope, f"in segment {name}: {inner.found[0]}")
    return condition


_PATTERNS = ("sku", "category", "product")


def _bought(node: Any, scope: Scope) -> Bool:
    given = _arguments(node, scope)
    orders, lines = _orders.alias(), _lines.alias()
    wanted = select(orders.c.id).where(
        orders.c.customer_id == _customers.c.id, orders.c.counted, orders.c.placed_at <= scope.now
    )
    patterns = [
        Matches(lines.c[name], str(given[name]), "*", "?", any_case=True) for name in _PATTERNS if name in given
    ]
    if patterns:
        wanted = wanted.join(lines, lines.c.order_id == orders.c.id).where(*patterns)
    if "within" in given:
        since = _since(given["within"], node, scope)
        wanted = wanted.where(orders.c.placed_at >= since) if since else wanted
    return exists(wanted.correlate(_customers))


def _arguments(node: Any, scope: Scope) -> dict[str, Value]:
    form = FUNCTIONS[1].form
    given: dict[str, Value] = {}
    for part in node.expressions:
        if part.key != "kwarg":
            raise refusal(part, scope, f"bought takes named arguments: {form}")
        name = part.this.name
        if name not in (*_PATTERNS, "within") or name in given:
            problem = "is given twice" if name in given else f"is unknown{nearest(name, (*_PATTERNS, 'within'))}"
            raise refusal(part, scope, f"argument {name} {problem}: {form}")
        given[name] = value_of(part.expression, scope)
        if name != "within" and not isinstance(given[name], str):
            raise refusal(part, scope, f"argument {name} is text in single quotes: {form}")
    if not given:
        raise refusal(node, scope, f"bought takes at least one argument: {form}")
    return given


def _since(within: Value, node: Any, scope: Scope) -> datetime | None:
    if isinstance(within, str):
        try:
            return ago(parse_duration(within), scope)
        except ValueError as error:
            raise refusal(node, scope, f"within: {error}") from error
    if not isinstance(within, Decimal) or within != within.to_integral_value() or within < 1:
        raise refusal(node, scope, "within counts whole days: write within => 60")
    return ago(Duration(days=int(within)), scope)
