"""
The sample shop as files: canonical CSV of everything, or of what changed between two moments.

Every record can be written as it stood at any moment, so a replay can feed the files in the order of time. Times
are the shop's own wall clock (`market.ZONE`), without offset, exactly as they stand in the files.
"""

from __future__ import annotations

import csv
import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from itertools import groupby
from pathlib import Path

from outreach.demo import lives
from outreach.demo.lives import Person, Purchase, Trouble
from outreach.demo.market import CATALOGUE, Country, Product

MONTHS = 18

CUSTOMER_COLUMNS = (
    "customer_id", "email", "phone", "first_name", "last_name", "locale", "country", "region", "city", "postal_code",
    "timezone", "birthday", "created_at", "tags", "email_consent", "sms_consent", "whatsapp_consent", "call_consent",
    "consent_at", "consent_source",
)  # fmt: skip
ORDER_COLUMNS = (
    "order_id", "customer_id", "placed_at", "status", "paid_at", "shipped_at", "delivered_at", "cancelled_at",
    "refunded_at", "currency", "total", "coupon_code", "sku", "product", "category", "quantity", "unit_price",
)  # fmt: skip
CASE_COLUMNS = (
    "case_id", "customer_id", "kind", "category", "sku", "opened_at", "answered_at", "closed_at", "outcome", "order_id",
    "note",
)  # fmt: skip
SUPPRESSION_COLUMNS = ("address",)
COLUMNS = {
    "customers": CUSTOMER_COLUMNS,
    "orders": ORDER_COLUMNS,
    "cases": CASE_COLUMNS,
    "suppressions": SUPPRESSION_COLUMNS,
}
FILES = {
    "customers": "customers.csv",
    "orders": "orders.csv",
    "cases": "cases.csv",
    "suppressions": "do_not_contact.csv",
}


@dataclass(frozen=True)
class BadRow:
    """A row that is wrong on purpose, as shops' exports are; `value` is what an import must refuse."""

    kind: str
    at: datetime
    row: tuple[str, ...]
    column: str
    value: str


@dataclass(frozen=True)
class Shop:
    """The sample: its files as of `end`, and the records they were written from, for replaying."""

    folder: Path
    start: datetime
    end: datetime  # nothing in the files is later
    files: Mapping[str, Path]
    people: tuple[Person, ...] = field(repr=False)
    purchases: list[Purchase] = field(repr=False)  # in the order of time; a replay writes the codes in that they use
    troubles: tuple[Trouble, ...] = field(repr=False)
    bad: tuple[BadRow, ...]
    barred: tuple[str, ...]  # numbers on the do-not-contact list
    timeline: tuple[tuple[datetime, str, int], ...] = field(repr=False, default=())  # when which record changed


def write_shop(folder: Path, *, today: date, seed: int = 1, customers: int = 2000) -> Shop:
    """
    Write customers, orders, cases and a do-not-contact list into `folder`; same arguments, same bytes.

    The records run over the 18 months that end at the first minute of `today` in ZONE; nothing is later. A few
    rows are wrong on purpose (`Shop.bad`), and one customer id comes twice.
    """
    shop = sample(folder, today=today, seed=seed, customers=customers)
    write_slice(shop, folder, None, shop.end)
    return shop


def sample(folder: Path, *, today: date, seed: int = 1, customers: int = 2000) -> Shop:
    """The shop that `write_shop` writes, without writing it."""
    end = datetime.combine(today, time())
    start = datetime.combine(_months_before(today, MONTHS), time())
    chance = random.Random(f"{seed} {today.isoformat()} {customers}")  # noqa: S311 (a sample, nothing secret)
    people = lives.people(chance, customers, start, end)
    purchases = tuple(lives.purchases(chance, people, end))
    troubles = tuple(lives.troubles(chance, purchases, end))
    refunded = list(lives.with_refunds(purchases, troubles))
    bad, barred = _bad_rows(people, start, end), lives.barred(chance, people)
    files = {kind: folder / name for kind, name in FILES.items()}
    shop = Shop(folder, start, end, files, people, refunded, troubles, bad, barred)
    return replace(shop, timeline=tuple(sorted(_timeline(shop))))


def write_slice(shop: Shop, folder: Path, since: datetime | None, until: datetime) -> dict[str, Path]:
    """
    Write what changed after `since` (None: everything) up to `until`, each record as it stood at `until`.

    Returns the files by kind; a kind without a row gets no file.
    """
    rows = known(shop, since, until)
    folder.mkdir(parents=True, exist_ok=True)
    return {kind: _write(folder / FILES[kind], COLUMNS[kind], lines) for kind, lines in rows.items() if lines}


def known(shop: Shop, since: datetime | None, until: datetime) -> dict[str, list[tuple[str, ...]]]:
    """The rows, by kind, of the records that changed in (since, until], as they stood at `until`, or at the end."""
    until = min(until, shop.end)
    first = 0 if since is None else bisect_right(shop.timeline, since, key=lambda entry: entry[0])
    last = bisect_right(shop.timeline, until, key=lambda entry: entry[0])
    changed = sorted({(kind, index) for _, kind, index in shop.timeline[first:last]})
    rows: dict[str, list[tuple[str, ...]]] = {kind: [] for kind in COLUMNS}
    for kind, entries in groupby(changed, key=lambda entry: entry[0]):
        for _, index in entries:
            rows[kind.removesuffix(".bad")].extend(_rows(shop, kind, index, until))
    return rows


def _rows(shop: Shop, kind: str, index: int, until: datetime) -> Iterable[tuple[str, ...]]:
    if kind == "customers":
        return [customer_row(shop.people[index], until)]
    if kind == "orders":
        return order_rows(shop.purchases[index], until)
    if kind == "cases":
        return [_case_row(shop.troubles[index], until)]
    if kind == "suppressions":
        return [(shop.barred[index],)]
    return [shop.bad[index].row]


def _timeline(shop: Shop) -> Iterator[tuple[datetime, str, int]]:
    for index, person in enumerate(shop.people):
        yield from ((at, "customers", index) for at in (person.created_at, person.revoked_at) if at)
    for index, purchase in enumerate(shop.purchases):
        yield from ((at, "orders", index) for at in _order_times(purchase) if at)
    for index, trouble in enumerate(shop.troubles):
        times = (trouble.opened_at, trouble.answered_at, trouble.closed_at)
        yield from ((at, "cases", index) for at in times if at)
    for index, _ in enumerate(shop.barred):
        yield shop.start, "suppressions", index
    for index, bad in enumerate(shop.bad):
        yield bad.at, f"{bad.kind}.bad", index


def _write(path: Path, columns: Sequence[str], rows: Iterable[tuple[str, ...]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    return path


# Rows as of a moment


def _text(at: datetime | None, until: datetime) -> str:
    return at.isoformat(" ") if at is not None and at <= until else ""


def customer_row(person: Person, until: datetime) -> tuple[str, ...]:
    """The customer's row as the shop would export it at `until`."""
    revoked = person.revoked_at is not None and person.revoked_at <= until
    consents = tuple("no" if revoked and given == "yes" else given for given in person.consents)
    consent_at = person.revoked_at if revoked else person.created_at
    return (
        person.id, person.email, person.phone, person.first_name, person.last_name, person.locale,
        person.country.code if person.knows_country else "", *person.place, person.timezone, person.birthday,
        _text(person.created_at, until), person.tags, *consents,
        _text(consent_at, until) if any(consents) else "", person.source if any(consents) else "",
    )  # fmt: skip


def _order_times(purchase: Purchase) -> tuple[datetime | None, ...]:
    delivered = purchase.delivered_at if purchase.records_delivery else None
    return (
        purchase.placed_at, purchase.paid_at, purchase.shipped_at, delivered, purchase.cancelled_at,
        purchase.refunded_at,
    )  # fmt: skip


def order_rows(purchase: Purchase, until: datetime) -> list[tuple[str, ...]]:
    """The order's rows, one a line, as the shop would export them at `until`."""
    texts = [_text(at, until) for at in _order_times(purchase)]
    status = "placed"
    for name, at in zip(("paid", "shipped", "delivered", "cancelled"), texts[1:-1], strict=True):
        status = name if at else status
    country = purchase.person.country
    head = (purchase.id, purchase.person.id, texts[0], status, *texts[1:], country.currency, _decimal(total(purchase)))
    return [
        (
            *head,
            purchase.coupon,
            product.sku,
            product.name,
            product.category,
            str(count),
            _decimal(_price(product, country)),
        )
        for product, count in purchase.lines
    ]


def _case_row(trouble: Trouble, until: datetime) -> tuple[str, ...]:
    closed = _text(trouble.closed_at, until)
    return (
        trouble.id, trouble.purchase.person.id, trouble.kind, trouble.category, trouble.purchase.lines[0][0].sku,
        _text(trouble.opened_at, until), _text(trouble.answered_at, until), closed, trouble.outcome if closed else "",
        trouble.purchase.id, trouble.note,
    )  # fmt: skip


def _price(product: Product, country: Country) -> int:
    return max(round(product.price * 100 * country.price / country.rounding), 1) * country.rounding


def total(purchase: Purchase) -> int:
    """The order's total in hundredths of its currency: goods, less what its coupon takes off; nothing if it was free."""
    goods = sum(_price(product, purchase.person.country) * count for product, count in purchase.lines)
    return 0 if purchase.free else goods * (100 - purchase.off) // 100


def _decimal(hundredths: int) -> str:
    return f"{hundredths // 100}.{hundredths % 100:02}"


def _months_before(day: date, months: int) -> date:
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return date(year, month + 1, min(day.day, 28))


# What is wrong on purpose


def _bad_rows(people: Sequence[Person], start: datetime, end: datetime) -> tuple[BadRow, ...]:
    early, late = start + timedelta(days=40), end - timedelta(days=20, hours=-10)
    someone = next((person for person in people if person.revoked_at is None), people[0])
    return (
        _bad_customer("C90001", early, "phone", "5,43517E+11"),
        _bad_customer("C90002", early, "email", "email@noinformado.com"),
        _bad_customer("C90003", late, "email", "carmen.nunez@example"),
        _bad_order("L-90001", someone, early, "total", "1.245,50"),
        _bad_order("L-90002", someone, early, "placed_at", f"{early.year}-02-30 10:00:00"),
        _bad_order("L-90003", someone, late, "total", "-180.00"),
        BadRow("customers", someone.created_at, customer_row(replace(someone, last_name="Luna Ávila"), end), "customer_id", someone.id),
    )  # fmt: skip


def _bad_customer(number: str, at: datetime, column: str, value: str) -> BadRow:
    row = dict.fromkeys(CUSTOMER_COLUMNS, "")
    row |= {"customer_id": number, "first_name": "Carmen", "country": "AR", "created_at": at.isoformat(" ")}
    row[column] = value
    return BadRow("customers", at, tuple(row.values()), column, value)


def _bad_order(number: str, person: Person, at: datetime, column: str, value: str) -> BadRow:
    product = CATALOGUE[0]
    row = dict.fromkeys(ORDER_COLUMNS, "")
    row |= {"order_id": number, "customer_id": person.id, "placed_at": at.isoformat(" "), "status": "placed"}
    row |= {"currency": person.country.currency, "total": "245.00", "sku": product.sku, "product": product.name}
    row |= {"category": product.category, "quantity": "1", "unit_price": "245.00", column: value}
    return BadRow("orders", at, tuple(row.values()), column, value)
