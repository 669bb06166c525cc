"""A shop that gives out coupons, for tests: real releases, records and stages; a provider that answers as told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from outreach import coupons, dispatcher, planner, releases
from outreach.channels import Blame, Channels, Outcome, Outgoing, Receipt, Silent
from outreach.models import Coupon, Message
from outreach.settings import Settings, raw_catalogue, with_catalogue
from outreach.store import Database
from tests.conftest import NOW
from tests.shop import customer, feed, files_of, rows_of

EMAIL = (
    "---\nsubject: '{{ coupon.code }}'\n---\n<p>{{ coupon.code }} {{ coupon.value }}</p>"
    "<a href='{{ links.unsubscribe }}'>baja</a>"
)
PLAIN = "---\nsubject: Hola\n---\n<p>Hola</p><a href='{{ links.unsubscribe }}'>baja</a>"
OFFER = "{kind: percent, value: 15, expires: 14 days}"
GREET = """
    title: Greet
    brake: 100000
    trigger: {event: customer.created}
    steps:
      - {id: one, after: 0 minutes, channel: email, template: c, offer: back, expires: 20 days}
"""
AGAIN = GREET.replace("title: Greet", "title: Again").replace("customer.created}", "cart.abandoned}")
Answer = Callable[[int, Outgoing], Receipt | None]


def accepted(_number: int, message: Outgoing) -> Receipt:
    return Receipt(message.public_id, Outcome.ACCEPTED, f"p-{message.public_id}")


def refused(_number: int, message: Outgoing) -> Receipt:
    return Receipt(message.public_id, Outcome.REFUSED, detail="no such text", blame=Blame.MESSAGE)


def later(_number: int, message: Outgoing) -> Receipt:
    return Receipt(
        message.public_id, Outcome.LATER, detail="not now", blame=Blame.ADDRESS, retry_after=timedelta(hours=1)
    )


def doubtful(_number: int, message: Outgoing) -> Receipt:
    return Receipt(message.public_id, Outcome.DOUBT, detail="no answer")


@dataclass
class Provider(Silent):
    """Answers as told, and keeps what it was given."""

    answer: Answer = accepted
    got: list[Outgoing] = field(default_factory=list)

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        for number, message in enumerate(batch):
            self.got.append(message)
            if (answer := self.answer(number, message)) is not None:
                yield answer

    @property
    def codes(self) -> list[str]:
        return [message.content.subject for message in self.got]


class Always(Channels):
    """Every channel is this provider."""

    def __init__(self, provider: Provider) -> None:
        super().__init__()
        self.provider = provider

    def get(self, name: str, settings: Settings) -> Any:  # noqa: ARG002
        return self.provider


@dataclass
class CouponShop:
    """Settings with offers, published campaigns, customers, and a provider."""

    db: Database
    settings: Settings
    provider: Provider = field(default_factory=Provider)
    customers: int = 0
    catalogue: dict[str, Any] = field(default_factory=dict)

    def offer(self, text: str = OFFER, /, name: str = "back", **others: str) -> None:
        """Declare offers as outreach.yaml would."""
        named = {name: text, **others}
        text = "\n".join(["offers:", *(f"  {one}: {of}" for one, of in named.items())])
        self.catalogue = {**raw_catalogue(text), "events": {"cart.abandoned": {"fields": ["url"]}}}
        self.settings = with_catalogue(self.settings, self.catalogue)

    def publish(self, now: datetime = NOW - timedelta(days=1), /, *, n: str = PLAIN, **campaigns: str) -> None:
        """Publish these campaigns; their templates are `c`, which names the coupon, `n`, and those of tests.shop."""
        files = files_of({"message_templates/c.email.j2": EMAIL, "message_templates/n.email.j2": n}, **campaigns)
        releases.publish(self.db, self.settings, {**files, releases.CATALOGUE: json.dumps(self.catalogue)}, now)

    def live(self, many: int, offer: str = "back") -> list[str]:
        """So many codes of the offer, known to the cart."""
        made = coupons.make(self.db, self.settings.offers[offer], many, NOW - timedelta(days=1))
        coupons.activate_all(self.db, offer)
        return made

    def arrive(self, many: int = 1, now: datetime = NOW, **cells: Any) -> list[str]:
        """New customers; gives the shop's ids of them."""
        numbers = range(self.customers, self.customers + many)
        self.customers += many
        feed(self.db, self.settings, now, customers=[customer(n, created_at=now, **cells) for n in numbers])
        return [f"c{n}" for n in numbers]

    def cart(self, name: str, number: int, now: datetime) -> None:
        """The event that starts the campaign AGAIN."""
        event = {"event_id": f"e{number}", "customer_id": name, "name": "cart.abandoned", "at": now, "url": "x"}
        feed(self.db, self.settings, now, events=[event])

    def run(self, now: datetime = NOW, answer: Answer | None = None) -> dispatcher.DispatchCounts:
        """Plan, and dispatch to the provider."""
        if answer is not None:
            self.provider.answer = answer
        planner.plan(self.db, self.settings, now)
        return self.dispatch(now)

    def dispatch(self, now: datetime = NOW, answer: Answer | None = None, **options: Any) -> dispatcher.DispatchCounts:
        if answer is not None:
            self.provider.answer = answer
        return dispatcher.dispatch(self.db, self.settings, now, channels=Always(self.provider), **options)

    def coupons(self, **equals: Any) -> list[Any]:
        return rows_of(self.db, Coupon, **equals)

    def messages(self, **equals: Any) -> list[Any]:
        return rows_of(self.db, Message, **equals)

    def change(self, **values: Any) -> None:
        self.settings = replace(self.settings, **values)
