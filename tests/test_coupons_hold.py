"""
DESIGN section 9, point 4: a code that is not shared belongs to at most one customer, is never burnt by a message that
was certainly not sent, and the ledger's sums are what an independent count gives.

The count knows nothing of the ledger's code: it goes by what the provider was handed and answered, and by what the
orders say.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outreach import dispatcher, planner, reconciler, releases, store
from outreach.channels import Outgoing, Receipt, Silent
from outreach.models import (
    Coupon,
    CouponRedemption,
    Customer,
    Message,
    MessageContent,
    OfferState,
    Order,
    Status,
)
from outreach.reconciler import Decision
from outreach.settings import Settings
from outreach.store import Database
from tests.conftest import NOW, SECRET
from tests.coupon_shop import AGAIN, GREET, Always, CouponShop, Provider, accepted, doubtful, later, refused
from tests.killing.processes import COMMITS, Death, Doom, start
from tests.shop import feed, order, rows_of, shop_settings
from tests.test_concurrency import note, notes

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ANSWERS: Mapping[str, Callable[[int, Outgoing], Receipt]] = {
    "accepted": accepted, "refused": refused, "later": later, "doubtful": doubtful,
}  # fmt: skip
OPEN = (Status.PLANNED, Status.SENDING, Status.UNKNOWN)
Handed = tuple[str, str, str]  # message, code, what the provider answered; `died`: nobody knows


def wrong(db: Database, handed: Iterable[Handed]) -> list[str]:
    """What does not hold, by a count of its own; nothing is on its way any more."""
    rows = {row.code: row for row in rows_of(db, Coupon)}
    messages = {row.public_id: row for row in rows_of(db, Message)}
    reached: defaultdict[str, set[int]] = defaultdict(set)
    carried: defaultdict[str, set[str]] = defaultdict(set)
    for message, code, answer in handed:
        carried[code].add(message)
        if answer not in ("refused", "later"):
            reached[code].add(messages[message].customer_id)
    by_id = {row.id: row.public_id for row in messages.values()}
    for content in rows_of(db, MessageContent):  # of what is sent or in doubt, handed over or not
        carried[content.subject].add(by_id[content.message_id])
    found = [f"{code} is {len(people)} people's" for code, people in reached.items() if len(people) > 1]
    used = {row.coupon_id for row in rows_of(db, CouponRedemption)}
    for code, row in rows.items():
        if (people := reached.get(code)) and {row.customer_id} != people:
            found.append(f"{code} is with {people}, and the ledger says {row.customer_id}")
        waits = any(messages[i].status in OPEN for i in carried[code])
        doubted = any(messages[i].look_at is not None for i in carried[code])
        if row.customer_id is not None and not (people or waits or doubted or row.id in used):
            found.append(f"{code} was burnt: it never reached anybody")
        if row.status in ("made", "live") and row.customer_id is not None:
            found.append(f"{code} is {row.status} and has an owner")
    owned = Counter(row.offer for row in rows.values() if row.customer_id is not None)
    counted = {row.name: row.issued for row in rows_of(db, OfferState) if row.issued}
    if counted != dict(owned):
        found.append(f"the ledger counts {counted}, and there are {dict(owned)}")
    return found + _wrong_verdicts(db, rows)


def _wrong_verdicts(db: Database, rows: Mapping[str, Any]) -> list[str]:
    """Each order with a code of ours is one use, judged again here in the order of their times."""
    orders = [row for row in rows_of(db, Order) if row.coupon_code in rows]
    told = {(row.order_id, row.coupon_id): row.verdict for row in rows_of(db, CouponRedemption)}
    expected: dict[tuple[int, int], str] = {}
    valid: Counter[str] = Counter()
    for one in sorted(orders, key=lambda row: (row.placed_at, row.external_id)):
        coupon = rows[one.coupon_code]
        verdict = "valid"
        if coupon.customer_id is None:
            verdict = "not_issued"
        elif one.customer_id != coupon.customer_id:
            verdict = "wrong_customer"
        elif coupon.expires_at is not None and one.placed_at > coupon.expires_at:
            verdict = "expired"
        elif valid[coupon.code]:
            verdict = "over_used"
        valid[coupon.code] += verdict == "valid"
        expected[one.id, coupon.id] = verdict
    found = [] if told == expected else [f"redemptions are {told}, and should be {expected}"]
    return found + [
        f"{code}: {row.used} uses, not {valid[code]}" for code, row in rows.items() if row.used != valid[code]
    ]


# --- any history -----------------------------------------------------------------------------------

dispatching = st.tuples(st.just("dispatch"), st.lists(st.sampled_from(sorted(ANSWERS)), min_size=1, max_size=4))
histories = st.lists(
    st.one_of(
        dispatching,
        dispatching,
        st.tuples(st.just("arrive"), st.integers(1, 3)),
        st.tuples(st.just("cart"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.sampled_from([1, 2, 30, 24 * 6])),
        st.tuples(st.just("resolve"), st.sampled_from(list(Decision))),
        st.tuples(st.just("buy"), st.tuples(st.integers(0, 5), st.integers(0, 7))),
        st.tuples(st.just("cancel"), st.sampled_from(["greet", "again"])),
        st.tuples(st.just("make"), st.integers(1, 4)),
    ),
    min_size=4,
    max_size=14,
)


@dataclass
class History:
    """A shop to which anything happens, and what its provider saw of it."""

    shop: CouponShop
    now: datetime = NOW
    events: int = 0
    handed: list[Handed] = field(default_factory=list)

    def dispatch(self, answers: Sequence[str]) -> None:
        def answer(number: int, message: Outgoing) -> Receipt:
            said = answers[number % len(answers)]
            self.handed.append((message.public_id, message.content.subject, said))
            return ANSWERS[said](number, message)

        planner.plan(self.shop.db, self.shop.settings, self.now)
        self.shop.dispatch(self.now, answer, chunk=3)

    def arrive(self, many: int) -> None:
        self.shop.arrive(many, self.now)

    def cart(self, who: int) -> None:
        self.events += 1
        if self.shop.customers:
            self.shop.cart(f"c{who % self.shop.customers}", self.events, self.now)

    def wait(self, hours: int) -> None:
        self.now += hours * HOUR

    def resolve(self, decision: Decision) -> None:
        for message in self.shop.messages(status=Status.UNKNOWN)[:1]:
            reconciler.resolve(self.shop.db, message.public_id, decision, self.now, settings=self.shop.settings)

    def buy(self, which: tuple[int, int]) -> None:
        """Only codes that somebody may have: nobody else knows them."""
        who, number = which
        known = sorted({code for _, code, answer in self.handed if answer in ("accepted", "doubtful")})
        if known:
            self.events += 1
            bought = order(self.events, f"c{who}", self.now, coupon_code=known[number % len(known)])
            feed(self.shop.db, self.shop.settings, self.now, orders=[bought])

    def cancel(self, campaign: str) -> None:
        releases.cancel(self.shop.db, campaign, None, self.now)

    def make(self, many: int) -> None:
        self.shop.live(many)
        releases.resume(self.shop.db, None, self.now)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories)
def test_whatever_happens_a_code_has_one_owner_none_is_burnt_and_the_books_balance(
    kind: str, new_database: Callable[[str], str], tmp_path: Path, history: list[tuple[str, Any]]
) -> None:
    db = store.open_database(new_database(kind), secret=SECRET)
    shop = CouponShop(db, shop_settings(tmp_path / uuid4().hex))
    shop.offer("{kind: percent, value: 15, expires: 10 days}")
    shop.publish(greet=GREET, again=AGAIN)
    there = History(shop)
    there.make(2)
    there.arrive(2)
    for what, how in history:
        getattr(there, what)(how)
        if what == "dispatch":
            assert wrong(db, there.handed) == []

    there.dispatch(["accepted"])

    assert wrong(db, there.handed) == []
    db.engine.dispose()


# --- several processes at once -----------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where the processes of one test meet."""

    url: str
    workspace: Path
    seed: int
    catalogue: Mapping[str, Any]

    def open(self) -> tuple[Database, Settings]:
        shop = CouponShop(store.open_database(self.url, secret=SECRET), shop_settings(self.workspace))
        return shop.db, coupons_settings(shop, self.catalogue)

    def handed(self) -> list[Handed]:
        """What the provider was given and answered; of whoever died in between nobody knows."""
        said: dict[tuple[str, str, str], str] = {}
        for line in notes(self.workspace, "handed"):
            message, code, attempt, answer = line.split()
            if answer != "given" or (message, code, attempt) not in said:
                said[message, code, attempt] = "died" if answer == "given" else answer
        return [(message, code, answer) for (message, code, _), answer in said.items()]


def coupons_settings(shop: CouponShop, catalogue: Mapping[str, Any]) -> Settings:
    from outreach.settings import with_catalogue

    return with_catalogue(shop.settings, catalogue)


@dataclass
class Logged(Silent):
    """Notes what it is given before it answers, and the answer before it gives it; each message always has the same."""

    place: Place
    doom: Doom

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        for number, message in enumerate(batch):
            self.doom.at("drawn")
            attempt = uuid4().hex
            line = f"{message.public_id} {message.content.subject} {attempt}"
            note(self.place.workspace, "handed", f"{line} given")
            said = self.answer(message)
            note(self.place.workspace, "handed", f"{line} {said}")
            self.doom.at("receipt")
            yield ANSWERS[said](number, message)

    def answer(self, message: Outgoing) -> str:
        names = [*ANSWERS, "accepted", "accepted", "accepted"]
        return Random(f"{self.place.seed}:{message.public_id}").choice(names)


def dispatch_all(pipe: Connection, place: Place, now: datetime, chunk: int, death: Death | None) -> None:
    db, settings = place.open()
    doom = Doom(death)
    doom.watch(db.engine)
    pipe.recv()
    channels = Always(Provider())
    channels.provider = Logged(place, doom)  # type: ignore[assignment]
    for _ in range(3):
        dispatcher.dispatch(db, settings, now, chunk=chunk, channels=channels)
    db.engine.dispose()


def buy_all(pipe: Connection, place: Place, now: datetime, many: int) -> None:
    """Import an order for each code as soon as its customer may have it; every third is somebody else's."""
    db, settings = place.open()
    pipe.recv()
    bought: dict[str, int] = {}
    while len(bought) < many:
        names = {row.id: row.external_id for row in rows_of(db, Customer)}
        owners = {row.code: row.customer_id for row in rows_of(db, Coupon, status="issued")}
        known = {code for _, code, answer in place.handed() if answer in ("accepted", "doubtful")}
        new = sorted(code for code in known if code in owners and code not in bought)[:5]
        rows = []
        for code in new:
            bought[code] = len(bought)
            buyer = f"x{len(bought)}" if len(bought) % 3 == 0 else names[owners[code]]
            rows.append(order(f"{len(bought)}", buyer, now, coupon_code=code))
        if rows:
            feed(db, settings, now, orders=rows)
    db.engine.dispose()


def a_place(url: str, folder: Path, many: int, codes: int) -> tuple[Place, CouponShop]:
    db = store.open_database(url, secret=SECRET)
    shop = CouponShop(db, shop_settings(folder))
    shop.offer("{kind: percent, value: 15, expires: 10 days}")
    shop.publish(greet=GREET, again=AGAIN)
    shop.live(codes)
    names = shop.arrive(many)
    events = [
        {"event_id": f"e{n}", "customer_id": name, "name": "cart.abandoned", "at": NOW, "url": "x"}
        for n, name in enumerate(names)
        if n % 2
    ]
    feed(db, shop.settings, NOW, events=events)
    planner.plan(db, shop.settings, NOW)
    return Place(url, folder, 20260615, shop.catalogue), shop


def run(*work: tuple[Callable[..., None], tuple[Any, ...]]) -> list[int | None]:
    """Each in a process of its own, from one starting signal on; gives their exit codes."""
    started = [start(what, *arguments) for what, arguments in work]
    for _, pipe in started:
        pipe.send("go")
    for process, _ in started:
        process.join(90)
    codes = [process.exitcode for process, _ in started]
    for process, pipe in started:
        process.kill()
        pipe.close()
    return codes


def test_dispatchers_and_orders_at_once_give_no_code_to_two(database_url: str, tmp_path: Path) -> None:
    place, shop = a_place(database_url, tmp_path, many=60, codes=70)
    dispatching = (dispatch_all, (place, NOW, 5, None))

    ends = run(dispatching, dispatching, dispatching, (buy_all, (place, NOW + HOUR, 20)))

    shop.dispatch(NOW, answer=accepted, limit=1)
    handed = place.handed()
    verdicts = Counter(row.verdict for row in rows_of(shop.db, CouponRedemption))
    assert ends == [0, 0, 0, 0]
    assert wrong(shop.db, handed) == []
    assert {answer for _, _, answer in handed} == set(ANSWERS)
    assert len({code for _, code, _ in handed}) >= 55
    assert set(verdicts) == {"valid", "wrong_customer"}
    shop.db.engine.dispose()


def test_a_dispatcher_that_dies_at_any_step_burns_no_code_and_gives_none_twice(
    database_url: str, tmp_path: Path
) -> None:
    place, shop = a_place(database_url, tmp_path, many=40, codes=60)
    deaths = [Death(step, nth) for step in COMMITS for nth in range(1, 6)]
    deaths += [Death(step, nth) for step in ("drawn", "receipt") for nth in (1, 2)]
    now = NOW
    ends = []
    for death in deaths:
        ends += run((dispatch_all, (place, now, 2, death)))
        now += timedelta(minutes=6)  # the lease of whoever died is over

    ends += run((dispatch_all, (place, now, 2, None)))

    assert ends == [-9] * len(deaths) + [0]
    assert wrong(shop.db, place.handed()) == []
    left_behind = shop.messages(status=Status.UNKNOWN)
    assert any(row.detail == "the process that sent it went away" for row in left_behind)
    shop.db.engine.dispose()
