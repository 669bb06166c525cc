"""
The lives of the sample's customers: who they are, what they allowed, what they order, what goes wrong.

Buying follows the model of Fader, Hardie and Lee (2005), "Counting your customers the easy way": while
alive, a customer orders at a rate of their own (gamma over customers), and after each order may silently
leave for good (beta over customers); seasons thin it. So retention, cohorts and repurchase look like a real
shop's. Times are the shop's own wall clock, without offset, exactly as they stand in its files.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta

from outreach.demo.market import (
    CATALOGUE,
    COUNTRIES,
    FIRST_NAMES,
    LAST_NAMES,
    SEASON,
    SOURCES,
    TAGS,
    WRONGS,
    Country,
    Product,
)


@dataclass(frozen=True)
class Person:
    """A customer of the sample, with what they allowed, and when they took it back."""

    id: str
    country: Country
    first_name: str
    last_name: str
    email: str
    phone: str
    locale: str
    place: tuple[str, str, str]  # region, city, postal code; empty texts where the shop does not know
    timezone: str
    birthday: str
    created_at: datetime
    tags: str
    consents: tuple[str, str, str, str]  # email, sms, whatsapp, call: yes, no or empty
    source: str
    revoked_at: datetime | None = None
    knows_country: bool = True


@dataclass(frozen=True)
class Purchase:
    """An order of the sample with everything that ever happens to it."""

    id: str
    person: Person
    placed_at: datetime
    lines: tuple[tuple[Product, int], ...]
    free: bool = False
    coupon: str = ""
    off: int = 0  # percent that the coupon takes off
    paid_at: datetime | None = None
    shipped_at: datetime | None = None
    delivered_at: datetime | None = None
    records_delivery: bool = True  # False: the carrier never tells
    cancelled_at: datetime | None = None
    refunded_at: datetime | None = None


@dataclass(frozen=True)
class Trouble:
    """A case of the sample."""

    id: str
    purchase: Purchase
    kind: str
    category: str
    opened_at: datetime
    answered_at: datetime | None
    closed_at: datetime | None
    outcome: str
    note: str


# People


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.lower())
    return "".join(letter for letter in letters if letter.isascii() and letter.isalpha())


def people(chance: random.Random, count: int, start: datetime, end: datetime) -> tuple[Person, ...]:
    """Customers who first came between `start` and `end`; a few households share a phone."""
    return _sharing_phones(chance, tuple(_person(chance, number, start, end) for number in range(1, count + 1)))


def _person(chance: random.Random, number: int, start: datetime, end: datetime) -> Person:
    country = chance.choices(COUNTRIES, [country.share for country in COUNTRIES])[0]
    first, last = chance.choice(FIRST_NAMES), f"{chance.choice(LAST_NAMES)} {chance.choice(LAST_NAMES)}"
    created = _joined(chance, country, start, end)
    digits = f"{number % 100_000:05}"
    consents, source = _consents(chance)
    knows_place = chance.random() > 0.06
    knows_country = knows_place or chance.random() < 0.5
    revoked = created + timedelta(hours=chance.uniform(48, 9_000)) if chance.random() < 0.09 else None
    return Person(
        id=f"C{number:05}", country=country, first_name=first, last_name=last,
        email=f"{_plain(first)}.{_plain(last.split()[0])}.{number}@example.com" if chance.random() > 0.05 else "",
        phone=_phone(chance, country, digits, national=knows_country) if chance.random() > 0.1 else "",
        locale=chance.choices((f"es-{country.code}", "", "en"), (0.85, 0.12, 0.03))[0],
        place=_place(chance, country) if knows_place else ("", "", ""),
        timezone=country.zone if chance.random() < 0.03 else "",
        birthday=_birthday(chance, end) if chance.random() < 0.35 else "", created_at=created,
        tags=",".join(sorted(tag for tag in TAGS if chance.random() < 0.05)), consents=consents, source=source,
        revoked_at=revoked.replace(microsecond=0) if revoked and revoked < end and "yes" in consents else None,
        knows_country=knows_country,
    )  # fmt: skip


def _joined(chance: random.Random, country: Country, start: datetime, end: datetime) -> datetime:
    """When the customer first came: a third were there within the first three months, the rest arrive evenly."""
    days = (end - start).days
    day = chance.uniform(0, 90) if chance.random() < 0.33 else chance.uniform(0, days)
    return min(_hour(chance, start + timedelta(days=int(day)), country), end - timedelta(hours=1))


def _hour(chance: random.Random, day: datetime, country: Country) -> datetime:
    """A moment when people there shop (late morning and evening of their own day), on the shop's clock."""
    local = chance.gauss(12, 2) if chance.random() < 0.4 else chance.gauss(20, 1.8)
    return day + timedelta(seconds=int((min(max(local, 6), 23.9) - country.ahead) * 3600))


def _place(chance: random.Random, country: Country) -> tuple[str, str, str]:
    region, city, prefix, digits = chance.choice(country.places)
    return region, city, prefix + "".join(chance.choice("0123456789") for _ in range(digits))


def _phone(chance: random.Random, country: Country, digits: str, *, national: bool) -> str:
    """Mostly international, else as people write it at home, which needs the country to be understood."""
    if national and chance.random() < 0.2:
        return country.national.format(digits[:1], digits[1:])
    return country.phone + digits


def _birthday(chance: random.Random, end: datetime) -> str:
    day = end.date() - timedelta(days=chance.randrange(20 * 365, 70 * 365))
    return day.isoformat()


def _consents(chance: random.Random) -> tuple[tuple[str, str, str, str], str]:
    """What was ticked at sign-up; about a fifth left every box as it was, which is no consent."""
    if chance.random() < 0.18:
        return ("", "", "", ""), ""
    shares = ((0.70, 0.12), (0.38, 0.20), (0.55, 0.12), (0.12, 0.25))
    drawn = [chance.choices(("yes", "no", ""), (yes, no, 1 - yes - no))[0] for yes, no in shares]
    return (drawn[0], drawn[1], drawn[2], drawn[3]), chance.choice(SOURCES)


def _sharing_phones(chance: random.Random, people: tuple[Person, ...]) -> tuple[Person, ...]:
    """Some households have one phone: two customers of one place with the same number."""
    shared = list(people)
    for index in range(0, len(people) - 1, 60):
        first, second = people[index : index + 2]
        if first.phone.startswith("+") and chance.random() < 0.7:
            shared[index + 1] = replace(
                second, phone=first.phone, country=first.country, place=first.place, timezone=first.timezone,
                knows_country=first.knows_country,
            )  # fmt: skip
    return tuple(shared)


def barred(chance: random.Random, people: Sequence[Person]) -> tuple[str, ...]:
    """A national do-not-contact list: some customers' numbers, and some of nobody the shop knows."""
    numbers = [person.phone for person in people if person.phone.startswith("+")]
    known_ones = chance.sample(numbers, len(numbers) // 50)
    strangers = [f"{country.phone}99{chance.randrange(1000):03}" for country in COUNTRIES for _ in range(3)]
    return tuple(sorted({*known_ones, *strangers}))


# Orders


def purchases(chance: random.Random, people: Sequence[Person], end: datetime) -> Iterator[Purchase]:
    """Every order that the people place until `end`, in the order of time, with all that happens to it ever."""
    placed = sorted(
        (at, index) for index, person in enumerate(people) for at in _order_moments(chance, person, end)
    )  # fmt: skip
    seen: set[int] = set()
    favourites = [chance.choices(CATALOGUE, [product.weight for product in CATALOGUE])[0] for _ in people]
    for number, (at, index) in enumerate(placed, start=1):
        first = index not in seen
        seen.add(index)
        yield _purchase(chance, f"L-{10_000 + number}", people[index], favourites[index], at, first=first)


def _order_moments(chance: random.Random, person: Person, end: datetime) -> Iterator[datetime]:
    """When this customer orders: exponential gaps of an own rate, an own chance of leaving after each, seasons."""
    if chance.random() < 0.05:
        return  # signed up, never ordered
    a_month = chance.gammavariate(1.6, 0.42)
    leaving = chance.betavariate(1.1, 2.6)
    at = person.created_at + timedelta(minutes=chance.randrange(5, 600))
    while at < end:
        yield at
        while True:
            days = max(chance.expovariate(max(a_month, 0.02) / 30.4), 1.0)
            at = _hour(chance, datetime.combine((at + timedelta(days=days)).date(), time()), person.country)
            if at >= end or chance.random() < SEASON[at.month - 1] / max(SEASON):
                break
        if chance.random() < leaving:
            return


def _purchase(
    chance: random.Random, number: str, person: Person, favourite: Product, at: datetime, *, first: bool
) -> Purchase:
    weights = [product.weight * (6 if product.category == favourite.category else 1) for product in CATALOGUE]
    chosen = dict.fromkeys(chance.choices(CATALOGUE, weights, k=chance.choice((1, 1, 1, 2, 2, 3, 4))))
    lines = tuple((product, chance.choice((1, 1, 1, 1, 2, 2, 3))) for product in chosen)
    free, welcome = chance.random() < 0.004, first and chance.random() < 0.2
    coupon, off = ("BIENVENIDA10", 10) if welcome else ("", 0)
    purchase = Purchase(number, person, at, lines, free=free, coupon=coupon, off=off)
    return _fulfilled(chance, purchase)


def _fulfilled(chance: random.Random, purchase: Purchase) -> Purchase:
    """Paid by card at once or in cash within two days, sent next working days, carried; or cancelled on the way."""
    at, roll = purchase.placed_at, chance.random()
    if roll < 0.025:
        return replace(purchase, cancelled_at=at + timedelta(hours=72))  # never paid
    paid = at + timedelta(
        seconds=chance.randrange(20, 300) if chance.random() < 0.8 else chance.randrange(3_600, 170_000)
    )
    if roll < 0.05:
        return replace(purchase, paid_at=paid, cancelled_at=paid + timedelta(seconds=chance.randrange(1_800, 80_000)))
    shipped = _working_time(chance, paid + timedelta(days=chance.choice((1, 1, 1, 2, 2, 3))))
    slow = min(chance.gammavariate(3, purchase.person.country.carriage / 3), 9)
    delivered = _working_time(chance, shipped + timedelta(days=1 + int(slow)))
    return replace(
        purchase, paid_at=paid, shipped_at=shipped, delivered_at=delivered, records_delivery=chance.random() > 0.07
    )


def _working_time(chance: random.Random, at: datetime) -> datetime:
    """A moment between nine and seven of that day, or of Monday when it is a Sunday."""
    day = at.date() + timedelta(days=at.weekday() == 6)
    return datetime.combine(day, time(9)) + timedelta(seconds=chance.randrange(36_000))


# Cases


def troubles(chance: random.Random, purchases: Sequence[Purchase], end: datetime) -> Iterator[Trouble]:
    """The complaints, returns, questions and cancellations about the orders, opened until `end`."""
    number = 0
    for purchase in purchases:
        opened = _opened(chance, purchase)
        if opened is not None and opened < end:
            number += 1
            yield _trouble(chance, f"T-{number:04}", purchase, opened)


def _opened(chance: random.Random, purchase: Purchase) -> datetime | None:
    if purchase.cancelled_at is not None:
        return purchase.cancelled_at - timedelta(minutes=30) if chance.random() < 0.6 and purchase.paid_at else None
    if purchase.delivered_at is None or chance.random() > 0.055:
        return None
    return purchase.delivered_at + timedelta(seconds=chance.randrange(3_600, 8 * 86_400))


def _trouble(chance: random.Random, number: str, purchase: Purchase, opened: datetime) -> Trouble:
    kind, category, note = chance.choice(WRONGS)
    if purchase.cancelled_at is not None:
        kind, category, note = "cancellation", "order", "Please cancel my order."
    answered = opened + timedelta(seconds=int(chance.lognormvariate(9.6, 1.1)))
    closed = answered + timedelta(seconds=int(chance.lognormvariate(11.6, 1.2)))
    if chance.random() < 0.06:  # nobody ever closes it
        return Trouble(number, purchase, kind, category, opened, answered, None, "", note)
    outcome = "resolved" if chance.random() < 0.82 else "unresolved"
    if kind == "cancellation":
        closed, outcome = max(closed, opened + timedelta(minutes=31)), "lost"
    return Trouble(number, purchase, kind, category, opened, answered, closed, outcome, note)


def with_refunds(purchases: Sequence[Purchase], troubles: Sequence[Trouble]) -> tuple[Purchase, ...]:
    """Returns and refunds that were resolved give the money back when the case closes."""
    back = {
        trouble.purchase.id: trouble.closed_at
        for trouble in troubles
        if trouble.kind in ("return", "refund") and trouble.outcome == "resolved"
    }
    return tuple(replace(purchase, refunded_at=back.get(purchase.id)) for purchase in purchases)
