"""Records for `import` and `plan`: every table, rows to be refused among them, and a later state of the same shop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from tests.conftest import NOW
from tests.shop import customer, order, write_csv

Row = dict[str, Any]
LATER = NOW + timedelta(days=6)
CAMPAIGNS = {
    "hello": """
        title: Hello
        brake: 1000000
        trigger: {event: customer.created}
        holdout: 20%
        steps:
          - {id: one, after: 0 minutes, channel: [sms, email], template: m, expires: 30 days}
          - {id: two, after: 5 days, channel: email, template: m, variants: {plain: 50%, warm: 50%}, expires: 30 days}
    """,
    "thanks": """
        title: Thanks
        purpose: service
        brake: 1000000
        trigger: {event: order.delivered}
        stop_when: [refunded]
        steps:
          - {id: one, after: 1 day, at: "10:00", channel: [sms, email], template: m, expires: 30 days}
          - {id: two, after: 4 days, channel: email, template: m, unless: [ordered], expires: 30 days}
    """,
    "cart": """
        title: Cart
        brake: 1000000
        trigger: {event: cart.abandoned}
        steps: [{id: one, after: 1 hour, channel: email, template: m, expires: 30 days}]
    """,
}
NEXT = {  # what is published later: a campaign and a step renamed, one new, one gone
    "hello": CAMPAIGNS["hello"].replace("{id: two,", "{id: second, was: two,"),
    "gracias": CAMPAIGNS["thanks"].replace("title: Thanks", "title: Gracias\n        was: thanks"),
    "lapse": """
        title: Lapse
        brake: 1000000
        trigger: {event: customer.inactive, after: 2 days}
        backfill: {last: 30 days, pace: 1000 per day}
        steps: [{id: miss, after: 0 days, at: "11:00", channel: email, template: m, expires: 30 days}]
    """,
}


def tables(folder: Path, random: Random, people: int, *, later: bool = False) -> Mapping[str, Path]:
    """The files of a shop with so many customers; or of the same shop `later`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "customers": list(_customers(random, people, later=later)),
        "orders": list(_orders(random, people, later=later)),
        "cases": list(_cases(people, later=later)),
        "events": list(_events(people, later=later)),
    }
    stop = folder / "suppressions.csv"
    numbers = range(0, people, 9 if later else 10)
    stop.write_text("address\n" + "".join(f"c{n}@example.com\n" for n in numbers) + "nobody\n", encoding="utf-8")
    return {"suppressions": stop} | {name: write_csv(folder / f"{name}.csv", rows) for name, rows in files.items()}


def _customers(random: Random, people: int, *, later: bool) -> Iterator[Row]:
    for number in range(people + (people // 10 if later else 0)):
        row = customer(number, created_at=NOW - timedelta(hours=number % 7), birthday=f"1990-06-{number % 28 + 1:02d}")
        row["tags"] = random.choice(["", "vip", "vip;nuevo"])
        if number % 13 == 0:
            row["email"] = "not an address"
        if number % 11 == 0:
            row["phone"] = ""
        if later and number % 4 == 0:
            row["first_name"] = "Eva"
            row["phone"] = customer(number + people)["phone"]
        yield row


def _orders(random: Random, people: int, *, later: bool) -> Iterator[Row]:
    for number in range(people * 2):
        placed = NOW - timedelta(days=1 + number % 40)
        total = f"{random.randint(1, 900)}.00" if number % 17 else "many"
        row = order(number, f"c{number % people}", placed, total=total, sku=f"S{number % 5}", quantity="1")
        if number % 3 == 0:
            row["delivered_at"] = _text(NOW - timedelta(hours=number % 20))
        if later and number % 6 == 0:
            row["cancelled_at"] = _text(NOW + timedelta(days=1))
        if later and number % 7 == 0:
            row["delivered_at"] = _text(NOW + timedelta(days=1, hours=number % 20))
        yield row
        if number % 4 == 0:
            yield {**row, "sku": "S9", "quantity": "2"}


def _cases(people: int, *, later: bool) -> Iterator[Row]:
    for number in range(0, people, 8):
        row = {"case_id": f"k{number}", "customer_id": f"c{number}", "kind": "complaint"}
        row["opened_at"] = _text(NOW - timedelta(days=number % 3))
        if later and number % 16 == 0:
            row |= {"closed_at": _text(NOW + timedelta(days=2)), "outcome": "resolved"}
        yield row


def _events(people: int, *, later: bool) -> Iterator[Row]:
    for number in range(0, people, 3 if later else 5):
        yield {
            "event_id": f"e{number}",
            "customer_id": f"c{number}",
            "name": "cart.abandoned",
            "at": _text(NOW - timedelta(hours=number % 9)),
            "url": "https://luna.example/carrito",
        }


def _text(at: datetime) -> str:
    return at.isoformat()
