"""What a condition may name and call, and how large it may be."""

from __future__ import annotations

from dataclasses import dataclass

MAX_LENGTH = 5_000  # characters of one expression
MAX_DEPTH = 20  # brackets inside brackets: the parser needs some twenty frames for each
MAX_TERMS = 300  # comparisons, segments included: SQLite takes expressions 1,000 deep
MAX_VALUES = 2_000  # values written in them

SUBJECTS = ("customer", "order", "case", "event", "answer", "reply", "coupon")


@dataclass(frozen=True)
class Fact:
    """What an expression may name; `subject` says in which campaigns: customer facts in all of them."""

    name: str
    type: str  # text | number | money | days | time | date | boolean | attribute
    subject: str
    text: str
    values: tuple[str, ...] = ()  # the only ones it can take


@dataclass(frozen=True)
class Function:
    """What an expression may call."""

    name: str
    form: str
    text: str


KINDS = ("complaint", "cancellation", "return", "refund", "question")
OUTCOMES = ("resolved", "unresolved", "kept", "lost")

FACTS: tuple[Fact, ...] = (
    Fact("country", "text", "customer", "two capital letters (ISO 3166): 'MX'"),
    Fact("region", "text", "customer", "state or province, as imported"),
    Fact("city", "text", "customer", "city, as imported"),
    Fact("postal_code", "text", "customer", "postal code, as text: '06600'"),
    Fact("locale", "text", "customer", "language and country: 'es-MX'"),
    Fact("timezone", "text", "customer", "time zone as imported: 'America/Bogota'"),
    Fact("first_name", "text", "customer", "first name"),
    Fact("last_name", "text", "customer", "last name"),
    Fact("birthday", "date", "customer", "date of birth: '1990-05-31'"),
    Fact("created_at", "time", "customer", "when the shop first knew the customer"),
    Fact("has_email", "boolean", "customer", "whether there is a usable e-mail address"),
    Fact("has_phone", "boolean", "customer", "whether there is a usable phone number"),
    Fact("orders_count", "number", "customer", "orders so far, cancelled and zero-amount ones left out"),
    Fact("total_spent", "money", "customer", "their sum in the business's currency (orders in another one left out)"),
    Fact("first_order_at", "time", "customer", "time of the first order; missing without one"),
    Fact("last_order_at", "time", "customer", "time of the last order; missing without one"),
    Fact("days_since_first_order", "days", "customer", "whole days since the first order; missing without one"),
    Fact("days_since_last_order", "days", "customer", "whole days since the last order; missing without one"),
    Fact(
        "last_csat",
        "number",
        "customer",
        "score of the last answer to a survey of a number scale (kind csat), on that scale; missing without one",
    ),
    Fact("last_nps", "number", "customer", "score of the last answer to a survey of kind nps; missing without one"),
    Fact(
        "attributes.NAME", "attribute", "customer", "a further column of the customers file; also attributes['A NAME']"
    ),
    Fact("order.total", "money", "order", "amount of the order that starts the campaign, in the order's own currency"),
    Fact("order.currency", "text", "order", "its currency, three capital letters: 'MXN'"),
    Fact("order.status", "text", "order", "its status, as imported"),
    Fact("order.coupon_code", "text", "order", "the coupon code used on it"),
    Fact("order.placed_at", "time", "order", "when it was placed"),
    Fact("order.paid_at", "time", "order", "when it was paid"),
    Fact("order.shipped_at", "time", "order", "when it was shipped"),
    Fact("order.delivered_at", "time", "order", "when it was delivered"),
    Fact("order.cancelled_at", "time", "order", "when it was cancelled"),
    Fact("order.refunded_at", "time", "order", "when it was refunded"),
    Fact("order.attributes.NAME", "attribute", "order", "a further column of the orders file"),
    Fact("case.kind", "text", "case", "what the case is", KINDS),
    Fact("case.category", "text", "case", "its category, as imported"),
    Fact("case.outcome", "text", "case", "how it ended; missing while open", OUTCOMES),
    Fact("case.sku", "text", "case", "the article it is about"),
    Fact("case.opened_at", "time", "case", "when it was opened"),
    Fact("case.answered_at", "time", "case", "when it was first answered"),
    Fact("case.closed_at", "time", "case", "when it was closed"),
    Fact("case.attributes.NAME", "attribute", "case", "a further column of the cases file"),
    Fact("answer.survey", "text", "answer", "the survey that was answered"),
    Fact("answer.score", "number", "answer", "the score; yes is 1 and no is 0"),
    Fact("event.FIELD", "attribute", "event", "a field that the settings declare for the event"),
)

FUNCTIONS: tuple[Function, ...] = (
    Function("tagged", "tagged('vip')", "the customer has this tag"),
    Function(
        "bought",
        "bought(sku => 'A-*', category => 'shoes', product => '*boot*', within => 60)",
        "a counted order has a line that fits every pattern given (* any text, ? one character, capitals"
        " ignored), placed within so many days",
    ),
    Function("segment", "segment('name')", "the customer is in this segment of the settings"),
)
