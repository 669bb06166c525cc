"""
What a message template may name, documented once.

The same table serves `outreach facts`, the reference pages, the check of templates before they are published,
and the sample facts that check renders them with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

from outreach.values import Money

_WHEN = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Variable:
    """
    One documented name.

    `[]` in a name stands for an element of a list, a last `*` for any name. `subjects` are the triggers whose
    templates have it (empty: all), `optional` says that some records lack it: guard it with `{% if %}`.
    """

    name: str
    type: str  # text | number | money | time | date | yes_no | list | record | any | function
    text: str
    sample: Any = None
    optional: bool = False
    subjects: tuple[str, ...] = ()


def _order(root: str, what: str, *, optional: bool = False, subjects: tuple[str, ...] = ()) -> list[Variable]:
    rows = [
        ("", "record", what, None, optional),
        (".id", "text", "the shop's order number", "MX-10482", False),
        (".status", "text", "the shop's own word", "delivered", True),
        (".placed_at", "time", "when it was placed", _WHEN, False),
        (".paid_at", "time", "when it was paid", _WHEN, True),
        (".shipped_at", "time", "when it was shipped", _WHEN, True),
        (".delivered_at", "time", "when it was delivered", _WHEN, True),
        (".cancelled_at", "time", "when it was cancelled", _WHEN, True),
        (".refunded_at", "time", "when it was refunded", _WHEN, True),
        (".currency", "text", "ISO 4217 code", "MXN", False),
        (".total", "money", "its amount", Money(123450, "MXN"), False),
        (".counted", "yes_no", "whether it counts as an order: not cancelled, amount over zero", True, False),
        (".coupon_code", "text", "the coupon used", "VUELVE15", True),
        (".attributes", "record", "further columns of the orders file", None, False),
        (".attributes.*", "any", "one further column", "sample", True),
        (".lines", "list", "its lines, in order; may be empty", None, False),
        *((".lines[]" + end, type_, text, sample, lacks) for end, type_, text, sample, lacks in _LINE),
    ]
    return [Variable(root + end, type_, text, sample, lacks, subjects) for end, type_, text, sample, lacks in rows]


_LINE: tuple[tuple[str, str, str, Any, bool], ...] = (
    ("", "record", "one line", None, False),
    (".sku", "text", "stock-keeping unit", "CAF-250", True),
    (".product", "text", "name of the product", "Cafe de Chiapas 250 g", True),
    (".category", "text", "its category", "cafe", True),
    (".quantity", "text", "how many, as the shop wrote it", "2", True),
    (".unit_price", "money", "price of one", Money(19900, "MXN"), True),
)

_CASE: tuple[tuple[str, str, str, Any, bool], ...] = (
    ("", "record", "the complaint, cancellation, return, refund request or question", None, False),
    (".id", "text", "the shop's number of the case", "C-778", False),
    (".kind", "text", "complaint, cancellation, return, refund or question", "complaint", False),
    (".category", "text", "the shop's own word", "envio", True),
    (".sku", "text", "the product concerned", "CAF-250", True),
    (".opened_at", "time", "when it was opened", _WHEN, False),
    (".answered_at", "time", "when it was first answered", _WHEN, True),
    (".closed_at", "time", "when it was closed", _WHEN, True),
    (".outcome", "text", "resolved, unresolved, kept or lost", "resolved", True),
    (".note", "text", "the note kept with it", "sample", True),
    (".attributes", "record", "further columns of the cases file", None, False),
    (".attributes.*", "any", "one further column", "sample", True),
)

VARIABLES: tuple[Variable, ...] = (
    Variable("customer", "record", "the person written to"),
    Variable("customer.first_name", "text", "first name", "Maria Fernanda", optional=True),
    Variable("customer.last_name", "text", "last name", "Hernandez", optional=True),
    Variable(
        "customer.name", "text", "first and last name, those there are", "Maria Fernanda Hernandez", optional=True
    ),
    Variable("customer.locale", "text", "language, as in es-MX", "es-MX", optional=True),
    Variable("customer.country", "text", "ISO 3166 code", "MX", optional=True),
    Variable("customer.region", "text", "state or province", "Jalisco", optional=True),
    Variable("customer.city", "text", "city", "Guadalajara", optional=True),
    Variable("customer.postal_code", "text", "postal code", "44100", optional=True),
    Variable("customer.timezone", "text", "time zone, as the shop gave it", "America/Mexico_City", optional=True),
    Variable("customer.birthday", "date", "birthday", "1990-03-14", optional=True),
    Variable("customer.created_at", "time", "when the shop first knew them", _WHEN, optional=True),
    Variable("customer.tags", "list", "the shop's tags"),
    Variable("customer.tags[]", "text", "one tag", "vip"),
    Variable("customer.attributes", "record", "further columns of the customers file"),
    Variable("customer.attributes.*", "any", "one further column", "sample", optional=True),
    Variable("customer.orders_count", "number", "orders that count", 3),
    Variable("customer.total_spent", "money", "what they add up to, in the business's currency", Money(370350, "MXN")),
    Variable("customer.first_order_at", "time", "when the first of them was placed", _WHEN, optional=True),
    Variable("customer.last_order_at", "time", "when the last of them was placed", _WHEN, optional=True),
    *_order("customer.last_order", "the last order that counts", optional=True),
    *_order("order", "the order that started the campaign", subjects=("order",)),
    Variable("matched", "list", "the order's lines that fit the trigger's patterns", subjects=("order",)),
    *(Variable("matched[]" + end, type_, text, sample, lacks, ("order",)) for end, type_, text, sample, lacks in _LINE),
    *(Variable("case" + end, type_, text, sample, lacks, ("case",)) for end, type_, text, sample, lacks in _CASE),
    Variable("event", "record", "the shop's own event that started the campaign", subjects=("event",)),
    Variable("event.name", "text", "its name", "cart.abandoned", subjects=("event",)),
    Variable("event.at", "time", "when it happened", _WHEN, subjects=("event",)),
    Variable("event.*", "any", "one of its fields", "sample", optional=True, subjects=("event",)),
    Variable("answer", "record", "the answer to a survey that started the campaign", subjects=("answer",)),
    Variable("answer.survey", "text", "the survey's name", "csat", subjects=("answer",)),
    Variable("answer.scale", "text", "its scale: 1-5, 1-10, 0-10 or yes_no", "1-5", subjects=("answer",)),
    Variable("answer.score", "number", "the score; yes is 1 and no is 0", 2, subjects=("answer",)),
    Variable("answer.satisfied", "yes_no", "whether the score counts as satisfied", False, subjects=("answer",)),
    Variable("answer.comment", "text", "why, in their own words", "Tardó", optional=True, subjects=("answer",)),
    Variable("answer.at", "time", "when it was given", _WHEN, subjects=("answer",)),
    Variable("coupon", "record", "the step's coupon; only in steps that name an offer", subjects=("offer",)),
    Variable("coupon.code", "text", "the code", "VUELVE15", subjects=("offer",)),
    Variable("coupon.kind", "text", "percent, amount, gift or free_shipping", "percent", subjects=("offer",)),
    Variable("coupon.value", "text", "what it is worth, as the offer says", "15", subjects=("offer",)),
    Variable("coupon.minimum", "text", "the smallest order it holds for", "300", optional=True, subjects=("offer",)),
    Variable("coupon.expires_at", "time", "until when it holds", _WHEN, optional=True, subjects=("offer",)),
    Variable("business", "record", "the shop, from outreach.yaml"),
    Variable("business.name", "text", "its name"),
    Variable("business.timezone", "text", "its time zone"),
    Variable("business.currency", "text", "its currency"),
    Variable("business.locale", "text", "its language"),
    Variable("business.country", "text", "its country", optional=True),
    Variable("business.postal_address", "text", "its postal address", optional=True),
    Variable("business.links", "record", "addresses named under `links:` in outreach.yaml"),
    Variable("business.links.*", "text", "one of them; `| link` tracks it", optional=True),
    Variable("links", "record", "links made for this one message"),
    Variable("links.unsubscribe", "text", "where the person stops these messages"),
    Variable("links.preferences", "text", "where the person chooses what to receive"),
    Variable("links.survey", "text", "the step's survey; only in steps that name one", subjects=("survey",)),
    Variable(
        "links.survey_score", "function", "links.survey_score(5): answers the survey with 5", subjects=("survey",)
    ),
    Variable("email", "record", "the e-mail's front matter, for layouts", subjects=("email",)),
    Variable("email.subject", "text", "its subject", "Gracias por tu compra", subjects=("email",)),
    Variable("email.preheader", "text", "its preheader", "Dos minutos", optional=True, subjects=("email",)),
)


@dataclass(frozen=True)
class Known:
    """What the check knows about a value: its documented path, its type, and what may be named below it."""

    path: str
    type: str
    optional: bool = False
    fields: Mapping[str, Known] = field(default_factory=dict)
    element: Known | None = None
    subjects: tuple[str, ...] = ()

    @property
    def any_name(self) -> bool:
        """Whether names that are not documented one by one may stand below it."""
        return "*" in self.fields


@cache
def known_names() -> Known:
    """VARIABLES as one tree, whose root's fields are the top-level names."""
    return _known("", [(variable.name.replace("[]", ".[]").split("."), variable) for variable in VARIABLES])


def _known(path: str, below: Sequence[tuple[list[str], Variable]]) -> Known:
    own = next((variable for steps, variable in below if not steps), None)
    groups: dict[str, list[tuple[list[str], Variable]]] = {}
    for steps, variable in below:
        if steps:
            groups.setdefault(steps[0], []).append((steps[1:], variable))
    parts = {
        name: _known(path + ("[]" if name == "[]" else f".{name}" if path else name), group)
        for name, group in groups.items()
    }
    element = parts.pop("[]", None)
    if own is None:
        return Known(path, "record", fields=parts, element=element)
    return Known(path, own.type, own.optional, parts, element, own.subjects)


def sample_facts(subjects: Iterable[str], named: Iterable[str] = ()) -> dict[str, Any]:
    """
    Sample facts of the given subjects, every optional name filled; lists hold two elements.

    `named` are the paths that a template reads: those under a `*` get a value, too.
    """
    tree, wanted = known_names(), set(subjects)
    samples = {variable.name: variable.sample for variable in VARIABLES}
    return {
        name: _sample(known, samples, tuple(named))
        for name, known in tree.fields.items()
        if name not in ("business", "links", "email") and (not known.subjects or wanted & set(known.subjects))
    }


def _sample(known: Known, samples: Mapping[str, Any], named: tuple[str, ...]) -> Any:
    if known.type == "list":
        return [_sample(known.element, samples, named) for _ in range(2)] if known.element else []
    if known.type != "record":
        return samples[known.path]
    found = {name: _sample(part, samples, named) for name, part in known.fields.items() if name != "*"}
    if known.any_name:
        free = [path for path in named if path.startswith(f"{known.path}.")]
        found |= {path[len(known.path) + 1 :].partition(".")[0]: "sample" for path in free} | found
    return found
