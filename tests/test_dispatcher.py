from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from outreach import channels, clocks, contents, facts, gates, releases, store
from outreach.campaigns import Campaign, Step, Trigger
from outreach.channels import Outcome, Outgoing, Receipt, Silent
from outreach.dispatcher import DispatchCounts, claiming, committing, dispatch
from outreach.errors import ChannelError
from outreach.facts import Item
from outreach.models import (
    CampaignState,
    Consent,
    Contact,
    ContentShape,
    Customer,
    CustomerTag,
    Message,
    MessageContent,
    MessageLink,
    Reason,
    Scope,
    Status,
    StepState,
    Suppression,
    Tick,
    table,
)
from outreach.releases import Loaded
from outreach.render import Templates
from outreach.setting_keys import PROVIDERS
from outreach.settings import Business, Cap, ChannelSettings, Offer, Settings
from outreach.store import Database
from outreach.values import Duration, Limit, WeekHours
from tests.conftest import NOW

ALWAYS = WeekHours(((0, 1440),) * 7)
EMAIL = "message_templates/hello.email.j2"
TEMPLATES = {
    EMAIL: "---\nsubject: Hola {{ customer.first_name }}\n---\n<p>Hola {{ customer.first_name }}</p>",
    "message_templates/hello.text.j2": "Hola {{ customer.first_name }}",
}
HELLO = Step("hello", Duration(), ("email", "sms"), "hello", purpose="service")
GREET = Campaign("greet", "Greet", Trigger("customer.created"), (HELLO,), purpose="service")


@dataclass
class Shop:
    """A database with a release in force, customers and their planned messages."""

    db: Database
    settings: Settings
    campaigns: dict[str, Campaign]
    templates: dict[str, str] = field(default_factory=lambda: dict(TEMPLATES))
    number: int = 1

    def customer(self, name: str | None = "Ana", *, phone: bool = False, **consents: str) -> int:
        """A customer with an e-mail address, in Mexico; gives its id."""
        with store.write(self.db) as connection:
            count = len(connection.execute(select(table(Customer).c.id)).all()) + 1
            email = self._contact(connection, "email", f"c{count}@example.com")
            number = self._contact(connection, "phone", f"+5255000{count:05}") if phone else None
            values = {"external_id": f"c{count}", "email_id": email, "phone_id": number, "first_name": name}
            values |= {"zones": "America/Mexico_City", "tags": [], "attributes": {}, "row_hash": b""}
            made = insert(table(Customer)).values(values).returning(table(Customer).c.id)
            customer = int(connection.execute(made).scalar_one())
            for channel, status in consents.items():
                of = email if channel == "email" else number
                line = {"contact_id": of, "channel": channel, "status": status, "at": NOW, "by": "shop"}
                line |= {"basis": "consent", "source": "", "words": "", "recorded_at": NOW}
                connection.execute(insert(table(Consent)).values(line))
        return customer

    def _contact(self, connection: Any, kind: str, address: str) -> int:
        values = {"kind": kind, "address": address}
        values["address_hash"] = store.address_hash(self.db.secret, kind, address)
        return int(
            connection.execute(insert(table(Contact)).values(values).returning(table(Contact).c.id)).scalar_one()
        )

    def message(self, customer: int, campaign: str = "greet", step: str = "hello", **changes: Any) -> int:
        """A planned message that is due now; gives its id."""
        with store.write(self.db) as connection:
            count = len(connection.execute(select(table(Message).c.id)).all()) + 1
            occasion = changes.pop("occasion", f"customer.created:{count}")
            values = {
                "public_id": store.public_id(self.db.secret, campaign, step, str(customer), occasion),
                "campaign": campaign, "step": step, "customer_id": customer, "occasion": occasion,
                "occasion_at": NOW - timedelta(days=1), "record_id": None, "enrolment_id": count, "arm": "contact",
                "purpose": "service", "priority": 0, "status": Status.PLANNED, "detail": "", "refused": "",
                "due_at": NOW, "expires_at": NOW + timedelta(days=3), "ready_at": NOW, "attempts": 0, "release": 1,
                "created_at": NOW, **changes,
            }  # fmt: skip
            made = insert(table(Message)).values(values).returning(table(Message).c.id)
            return int(connection.execute(made).scalar_one())

    def dispatch(self, now: datetime = NOW, **options: Any) -> DispatchCounts:
        return dispatch(self.db, self.settings, now, **options)

    def row(self, message: int) -> Any:
        with store.read(self.db) as connection:
            return connection.execute(select(table(Message)).where(table(Message).c.id == message)).one()

    def all_of(self, model: Any) -> list[Any]:
        with store.read(self.db) as connection:
            return list(connection.execute(select(table(model))).all())

    def change(self, model: Any, **values: Any) -> None:
        with store.write(self.db) as connection:
            connection.execute(update(table(model)).values(values))

    def suppress(self, address: str, scope: Scope = Scope.CONTACT) -> None:
        with store.write(self.db) as connection:
            values = {"address_hash": store.address_hash(self.db.secret, "email", address), "kind": "email"}
            connection.execute(insert(table(Suppression)).values(**values, scope=scope, channel="", source="", at=NOW))

    def outbox(self) -> list[str]:
        return sorted(path.read_text() for path in (self.settings.workspace / "outbox").glob("*"))

    def paused(self, campaign: str = "greet") -> str | None:
        of = {row.name: row for row in self.all_of(CampaignState)}[campaign]
        return of.paused_reason if of.paused_at else None


@pytest.fixture
def shop(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop with one campaign, `greet`, whose step goes by e-mail, else by SMS."""
    configured = {
        "email": ChannelSettings(sender="Tienda <hola@tienda.example>"), "sms": ChannelSettings(sender="+525500000000")
    }  # fmt: skip
    settings = Settings(
        tmp_path,
        Business("Tienda Luna", "America/Mexico_City", "MXN", links={}),
        channels=configured,
        sending_hours={"default": ALWAYS},
    )
    made = Shop(db, settings, {"greet": GREET})

    def current(_db: Database, given: Settings) -> Loaded:
        return Loaded(made.number, NOW, made.campaigns, Templates(made.templates, given.business), given)

    monkeypatch.setattr(releases, "current", current)
    with store.write(db) as connection:
        note_campaign(connection, "greet", "hello")
    return made


def note_campaign(connection: Any, campaign: str, *steps: str) -> None:
    state = {"name": campaign, "first_published_at": NOW, "fresh_id": 0, "cursor": NOW, "cursor_customer": 0}
    connection.execute(insert(table(CampaignState)).values(**state, backfill={}, paused_reason="", look_again=False))
    for step in steps:
        values = {"campaign": campaign, "step": step, "first_published_at": NOW, "undefined": 0}
        connection.execute(insert(table(StepState)).values(values))


def add_campaign(shop: Shop, campaign: Campaign) -> None:
    shop.campaigns[campaign.name] = campaign
    with store.write(shop.db) as connection:
        note_campaign(connection, campaign.name, *(step.id for step in campaign.steps))


@dataclass
class Provider(Silent):
    """Stands in for a provider: answers as told, by the order in which messages come."""

    answer: Callable[[int, Outgoing], Receipt | Exception | None]
    got: list[Outgoing] = field(default_factory=list)

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        for number, message in enumerate(batch):
            self.got.append(message)
            answer = self.answer(number, message)
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                yield answer


def answering(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[int, Outgoing], Receipt | Exception | None]
) -> Provider:
    provider = Provider(answer)
    monkeypatch.setattr(channels, "open_channel", lambda _name, _settings: provider)
    return provider


def accepted(_number: int, message: Outgoing) -> Receipt:
    return Receipt(message.public_id, Outcome.ACCEPTED, f"p-{message.public_id}")


# --- sending -------------------------------------------------------------------------------------


def test_a_due_message_is_rendered_written_to_the_outbox_and_recorded(shop: Shop) -> None:
    message = shop.message(shop.customer("Ana"))

    counts = shop.dispatch()

    row = shop.row(message)
    assert counts == DispatchCounts(claimed=1, sent=1)
    assert (row.status, row.channel, row.sent_at, row.release) == (Status.SENT, "email", NOW, 1)
    assert row.provider_id == f"outbox:{row.public_id}"
    assert (row.attempts, row.claim, row.lease_until) == (1, None, None)
    (content,) = shop.all_of(MessageContent)
    assert (content.message_id, content.subject, content.at) == (message, "Hola Ana", NOW)
    assert "Subject: Hola Ana" in shop.outbox()[0]


def test_what_all_copies_of_an_email_share_is_kept_once_and_each_can_be_read_as_it_left(shop: Shop) -> None:
    page = "---\nsubject: Hola\n---\n<style>p { margin: 0 }</style><p>{{ customer.first_name }}</p>" + "<p>x</p>" * 50
    messages = [shop.message(shop.customer(name)) for name in ("Ana", "<b>Bea</b>", "Ana  María", "Cleo")]
    shop.templates["message_templates/hello.email.j2"] = page
    shop.dispatch()

    with store.read(shop.db) as connection:
        kept = {row.message_id: row for row in shop.all_of(MessageContent)}
        read = [contents.html_of(connection, message, kept[message].html) for message in messages]
    assert [html.partition("</p>")[0].rpartition(">")[2] for html in read] == [
        "Ana",
        "&lt;b&gt;Bea&lt;/b&gt;",
        "Ana  María",
        "Cleo",
    ]
    assert all(html.count('style="margin: 0') == 51 for html in read)
    assert [bool(kept[message].shape) for message in messages] == [True, True, False, True]
    (shape,) = shop.all_of(ContentShape)
    assert {kept[message].shape for message in messages} == {"", shape.key}


def test_what_messages_said_is_kept_as_long_as_asked_and_that_of_doubtful_ones_until_they_are_settled(
    shop: Shop,
) -> None:
    keep, never = Duration(months=2), (lambda: False)  # 62 days
    page = "---\nsubject: Hola\n---\n<h1>{{{{ customer.first_name }}}}</h1><p>{}</p>"

    def sent(words: str, after: int) -> int:
        at = NOW + timedelta(days=after)
        message = shop.message(shop.customer(), ready_at=at, expires_at=at + timedelta(days=1))
        shop.templates[EMAIL] = page.format(words)
        assert shop.dispatch(at).sent == 1
        return message

    def is_status(message: int, status: Status) -> None:
        with store.write(shop.db) as connection:
            connection.execute(update(table(Message)).where(table(Message).c.id == message).values(status=status))

    def kept() -> tuple[set[int], list[str]]:
        shapes = sorted(row.words for row in shop.all_of(ContentShape))
        return {row.message_id for row in shop.all_of(MessageContent)}, [
            word for words in shapes for word in ("once", "often", "doubt") if word in words
        ]

    once, doubt, often, again = sent("once", 0), sent("doubt", 0), sent("often", 0), sent("often", 40)
    is_status(doubt, Status.UNKNOWN)
    assert kept() == ({once, doubt, often, again}, ["doubt", "often", "once"])

    assert contents.expire(shop.db, keep, NOW + timedelta(days=62), never) == 0
    assert contents.expire(shop.db, keep, NOW + timedelta(days=63), lambda: True) == 0
    assert contents.expire(shop.db, keep, NOW + timedelta(days=63), never) == 2
    assert kept() == ({doubt, again}, ["doubt", "often", "once"])  # a shape may have been used for a month since
    assert contents.expire(shop.db, keep, NOW + timedelta(days=103), never) == 1
    assert kept() == ({doubt}, ["doubt", "often"])

    last = sent("once", 104)
    is_status(doubt, Status.SENT)
    assert contents.expire(shop.db, keep, NOW + timedelta(days=135), never) == 1
    assert kept() == ({last}, ["once"])
    with store.read(shop.db) as connection:
        assert "once" in contents.html_of(connection, last, "")


def test_dispatching_again_sends_nothing_again(shop: Shop) -> None:
    shop.message(shop.customer())
    shop.dispatch()

    assert shop.dispatch() == DispatchCounts()
    assert len(shop.outbox()) == 1


def test_what_is_not_due_yet_stays_as_it_is(shop: Shop) -> None:
    message = shop.message(shop.customer(), ready_at=NOW + timedelta(seconds=2))

    assert shop.dispatch() == DispatchCounts()
    assert shop.row(message).claim is None


def test_the_counts_have_the_shape_that_the_command_line_prints(shop: Shop) -> None:
    shop.message(shop.customer())
    shop.message(shop.customer(), expires_at=NOW)

    assert shop.dispatch().as_json() == {
        "claimed": 2, "sent": 1, "failed": 0, "deferred": 0, "skipped": 0, "expired": 1, "by_reason": {"expired": 1},
    }  # fmt: skip
    assert json.dumps(shop.dispatch().as_json())


def test_the_last_tick_is_kept_for_status(shop: Shop) -> None:
    shop.message(shop.customer())

    shop.dispatch()

    (tick,) = shop.all_of(Tick)
    assert (tick.stage, tick.started_at, tick.counts["sent"], tick.error) == ("dispatch", NOW, 1, "")


def test_the_most_important_goes_first_then_the_longest_due(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = answering(monkeypatch, accepted)
    late, early, urgent = (shop.message(shop.customer(name), **c) for name, c in (
        ("Late", {"ready_at": NOW}), ("Early", {"ready_at": NOW - timedelta(hours=1)}), ("Urgent", {"priority": 9}),
    ))  # fmt: skip

    shop.dispatch(chunk=2)

    assert [m.content.subject for m in provider.got] == ["Hola Urgent", "Hola Early", "Hola Late"]
    assert {shop.row(m).status for m in (late, early, urgent)} == {Status.SENT}


def test_a_limit_is_the_most_that_is_claimed(shop: Shop) -> None:
    for _ in range(5):
        shop.message(shop.customer())

    assert shop.dispatch(limit=3, chunk=2).claimed == 3
    assert len(shop.outbox()) == 3


def test_when_told_to_stop_the_chunk_begun_is_finished_and_no_other_begun(shop: Shop) -> None:
    for _ in range(5):
        shop.message(shop.customer())
    asked = iter([False, True])

    counts = shop.dispatch(chunk=2, stop=lambda: next(asked))

    assert (counts.claimed, counts.sent) == (2, 2)
    assert sorted(row.status for row in shop.all_of(Message)) == ["planned"] * 3 + ["sent"] * 2
    assert {row.claim for row in shop.all_of(Message)} == {None}


def test_a_message_that_another_process_has_its_hand_on_is_given_back_and_sent_all_the_same(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shop.db.is_sqlite:
        pytest.skip("a writer of SQLite has the database to itself")
    first, second = (shop.message(shop.customer(name)) for name in ("Ana", "Eva"))
    other = shop.db.engine.connect()
    hold, write = committing._hold, committing._write_sending

    def held(*arguments: Any) -> Any:
        """Like a claimer that came a moment later, and found the message claimed once it had its lock."""
        other.execute(select(table(Message).c.id).where(table(Message).c.id == first).with_for_update())
        return hold(*arguments)

    def written(*arguments: Any) -> None:
        other.close()
        write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(committing, "_hold", held)
        patched.setattr(committing, "_write_sending", written)
        shop.dispatch(limit=2)
    row = shop.row(first)
    assert (row.status, row.claim, row.lease_until) == (Status.PLANNED, None, None)
    assert shop.row(second).status == Status.SENT

    shop.dispatch()

    assert shop.row(first).status == Status.SENT


def test_a_message_is_rendered_from_the_release_in_force_when_it_leaves(shop: Shop) -> None:
    message = shop.message(shop.customer(), release=1)
    shop.number, shop.templates[EMAIL] = 7, "---\nsubject: New\n---\n<p>New</p>"

    shop.dispatch()

    assert shop.row(message).release == 7
    assert shop.all_of(MessageContent)[0].subject == "New"


def test_the_links_of_a_message_are_kept_and_lead_to_the_public_address(shop: Shop) -> None:
    shop.templates[EMAIL] = '---\nsubject: x\n---\n<a href="{{ links.unsubscribe }}">x</a>'
    shop.campaigns["greet"] = replace(GREET, steps=(replace(HELLO, purpose="marketing"),))
    message = shop.message(shop.customer(email="granted"))

    shop.dispatch()

    (link,) = shop.all_of(MessageLink)
    assert (link.message_id, link.kind) == (message, "unsubscribe")
    assert len(link.token) == 12
    assert f"List-Unsubscribe: <http://localhost:8080/l/{link.token}>" in shop.outbox()[0]


def test_a_shared_code_stands_in_the_message(shop: Shop) -> None:
    offers = {"back": Offer("back", "percent", "15", shared_code="VUELVE15", codes="shared")}
    shop.settings = replace(shop.settings, offers=offers)
    shop.campaigns["greet"] = replace(GREET, steps=(replace(HELLO, purpose="marketing", offer="back"),))
    shop.templates[EMAIL] = "---\nsubject: '{{ coupon.code }}'\n---\n<p>{{ coupon.value }}</p>"
    shop.message(shop.customer(email="granted"))

    shop.dispatch()

    assert shop.all_of(MessageContent)[0].subject == "VUELVE15"


def test_a_sent_step_puts_its_tag_on_the_customer_even_if_an_import_had(shop: Shop) -> None:
    shop.campaigns["greet"] = replace(GREET, steps=(replace(HELLO, tag="greeted"),))
    first, second = shop.customer(), shop.customer()
    with store.write(shop.db) as connection:
        connection.execute(insert(table(CustomerTag)).values(customer_id=first, tag="greeted", by_campaign=False))
    shop.message(first)
    shop.message(second)

    shop.dispatch()

    tags = [(row.customer_id, row.tag, row.by_campaign) for row in shop.all_of(CustomerTag)]
    assert sorted(tags) == [(first, "greeted", True), (second, "greeted", True)]


# --- gates ---------------------------------------------------------------------------------------


def test_a_message_outside_sending_hours_waits_for_them(shop: Shop) -> None:
    shop.settings = replace(shop.settings, sending_hours={"default": WeekHours(((720, 800),) * 7)})
    message = shop.message(shop.customer())  # NOW is 09:00 in Mexico City

    counts = shop.dispatch()

    row = shop.row(message)
    assert counts == DispatchCounts(claimed=1, deferred=1, by_reason={"hours": 1})
    assert (row.status, row.blocked_by, row.claim) == (Status.PLANNED, Reason.HOURS, None)
    assert row.ready_at == NOW + timedelta(hours=3)
    assert shop.dispatch(row.ready_at).sent == 1


def test_a_message_that_would_have_to_wait_beyond_its_expiry_expires_with_what_blocked_it(shop: Shop) -> None:
    shop.settings = replace(shop.settings, sending_hours={"default": WeekHours(((720, 800),) * 7)})
    message = shop.message(shop.customer(), expires_at=NOW + timedelta(hours=2))

    counts = shop.dispatch()

    row = shop.row(message)
    assert (counts.expired, counts.by_reason) == (1, {"expired": 1})
    assert (row.status, row.reason, row.blocked_by) == (Status.EXPIRED, Reason.EXPIRED, Reason.HOURS)


def test_who_opted_out_is_not_contacted_and_the_reason_is_kept(shop: Shop) -> None:
    message = shop.message(shop.customer())
    shop.suppress("c1@example.com")

    counts = shop.dispatch()

    assert (counts.skipped, counts.by_reason) == (1, {"suppressed": 1})
    assert (shop.row(message).status, shop.row(message).reason) == (Status.SKIPPED, Reason.SUPPRESSED)
    assert shop.outbox() == []


def test_an_opt_out_between_the_claim_and_the_look_is_seen(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    message = shop.message(shop.customer())
    hold = committing._hold

    def opted_out_first(connection: Any, customers: Any) -> frozenset[int] | None:
        values = {"address_hash": store.address_hash(shop.db.secret, "email", "c1@example.com"), "kind": "email"}
        entry = {**values, "scope": Scope.CONTACT, "channel": "email", "source": "", "at": NOW}
        connection.execute(insert(table(Suppression)).values(entry))
        return hold(connection, customers)

    monkeypatch.setattr(committing, "_hold", opted_out_first)

    assert shop.dispatch().by_reason == {"suppressed": 1}
    assert shop.row(message).status == Status.SKIPPED
    assert shop.outbox() == []


def test_an_address_that_changed_once_the_contacts_were_locked_is_looked_at_again_later(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = shop.message(shop.customer())
    monkeypatch.setattr(committing, "_hold", lambda _connection, _customers: frozenset())

    assert shop.dispatch().by_reason == {"retry": 1}

    monkeypatch.undo()
    assert shop.row(message).ready_at == NOW + timedelta(seconds=1)


def test_two_messages_of_one_person_in_one_chunk_count_against_each_others_cap(shop: Shop) -> None:
    shop.settings = replace(shop.settings, caps=(Cap(Limit(1, Duration(days=1)), purpose="service"),))
    customer = shop.customer()
    low, high = shop.message(customer, priority=1), shop.message(customer, priority=2)

    counts = shop.dispatch()

    assert (counts.sent, counts.deferred, counts.by_reason) == (1, 1, {"cap": 1})
    assert shop.row(high).status == Status.SENT
    assert shop.row(low).ready_at == NOW + timedelta(days=1)
    assert shop.dispatch(NOW + timedelta(days=1)).sent == 1


def test_a_message_that_was_in_doubt_counts_against_caps(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.settings = replace(shop.settings, caps=(Cap(Limit(1, Duration(days=1)), purpose="service"),))
    customer = shop.customer()
    shop.message(customer)
    answering(monkeypatch, lambda _n, m: Receipt(m.public_id, Outcome.DOUBT))
    shop.dispatch()

    shop.message(customer)

    assert shop.dispatch().by_reason == {"cap": 1}


def test_messages_of_a_paused_campaign_are_not_claimed(shop: Shop) -> None:
    message = shop.message(shop.customer())
    shop.change(CampaignState, paused_at=NOW, paused_reason="looked odd")

    assert shop.dispatch() == DispatchCounts()
    assert shop.row(message).claim is None

    shop.change(CampaignState, paused_at=None)
    assert shop.dispatch().sent == 1


def test_a_pause_between_the_claim_and_the_look_keeps_the_message_in_its_place(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = shop.message(shop.customer())
    hold = committing._hold

    def paused_first(connection: Any, customers: Any) -> frozenset[int] | None:
        connection.execute(update(table(CampaignState)).values(paused_at=NOW))
        return hold(connection, customers)

    monkeypatch.setattr(committing, "_hold", paused_first)

    assert shop.dispatch().by_reason == {"paused": 1}
    row = shop.row(message)
    assert (row.status, row.ready_at, row.claim, row.blocked_by) == (Status.PLANNED, NOW, None, Reason.PAUSED)


@pytest.mark.parametrize("change", [{}, {"greet": replace(GREET, active=False)}, {"greet": replace(GREET, steps=())}])
def test_a_message_the_release_no_longer_has_is_withdrawn(shop: Shop, change: dict[str, Campaign]) -> None:
    message = shop.message(shop.customer())
    shop.campaigns = change

    counts = shop.dispatch()

    assert (counts.skipped, counts.by_reason) == (1, {"withdrawn": 1})
    assert (shop.row(message).status, shop.row(message).reason) == (Status.CANCELLED, Reason.WITHDRAWN)


def test_a_cancelled_step_ends_what_was_planned_before_and_not_what_comes_after(shop: Shop) -> None:
    before, after = shop.message(shop.customer()), shop.message(shop.customer(), created_at=NOW + timedelta(hours=2))
    shop.change(StepState, cancelled_at=NOW + timedelta(hours=1))

    shop.dispatch()

    assert (shop.row(before).status, shop.row(before).reason) == (Status.CANCELLED, Reason.CANCELLED)
    assert shop.row(after).status == Status.SENT


def test_what_a_person_cancels_while_it_is_claimed_is_not_sent(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    message = shop.message(shop.customer())
    hold = committing._hold

    def cancelled_first(connection: Any, customers: Any) -> frozenset[int] | None:
        connection.execute(update(table(Message)).values(status=Status.CANCELLED, reason=Reason.CANCELLED, claim=None))
        return hold(connection, customers)

    monkeypatch.setattr(committing, "_hold", cancelled_first)

    assert shop.dispatch() == DispatchCounts(claimed=1)
    assert shop.row(message).status == Status.CANCELLED
    assert shop.outbox() == []


# --- templates that cannot be filled ---------------------------------------------------------------


def test_a_message_that_lacks_a_value_waits_and_names_template_line_and_variable(shop: Shop) -> None:
    message = shop.message(shop.customer(None))

    counts = shop.dispatch()

    row = shop.row(message)
    assert counts.by_reason == {"undefined": 1}
    assert (row.status, row.blocked_by) == (Status.PLANNED, Reason.UNDEFINED)
    assert row.detail == f"{EMAIL}, line 2: customer.first_name has no value"
    assert row.ready_at == NOW + timedelta(hours=1)
    assert shop.outbox() == []


def test_a_message_that_cannot_be_filled_before_its_expiry_says_so(shop: Shop) -> None:
    message = shop.message(shop.customer(None), expires_at=NOW + timedelta(minutes=30))

    assert shop.dispatch().by_reason == {"not_rendered": 1}
    row = shop.row(message)
    assert (row.status, row.reason, row.blocked_by) == (Status.EXPIRED, Reason.NOT_RENDERED, Reason.UNDEFINED)


def test_five_in_a_row_that_cannot_be_filled_pause_the_campaign(shop: Shop) -> None:
    for _ in range(6):
        shop.message(shop.customer(None))

    counts = shop.dispatch()

    assert counts.by_reason == {"undefined": 5, "paused": 1}
    assert shop.paused() == (
        f"step hello: 5 messages in a row could not be filled: {EMAIL}, line 2: customer.first_name has no value"
    )


def test_one_that_can_be_filled_starts_the_count_anew(shop: Shop) -> None:
    names = [None, None, None, None, "Ana", None, None]
    for hours, name in enumerate(names):
        shop.message(shop.customer(name), ready_at=NOW - timedelta(hours=9 - hours))

    counts = shop.dispatch(chunk=2)

    assert (counts.sent, counts.by_reason) == (1, {"undefined": 6})
    assert shop.paused() is None
    assert [row.undefined for row in shop.all_of(StepState)] == [2]


# --- what providers answer -------------------------------------------------------------------------


def test_a_refused_address_moves_the_message_to_the_next_channel(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = answering(
        monkeypatch,
        lambda n, m: Receipt(m.public_id, Outcome.REFUSED, detail="550") if m.channel == "email" else accepted(n, m),
    )
    message = shop.message(shop.customer(phone=True))

    counts = shop.dispatch()

    row = shop.row(message)
    assert [m.channel for m in provider.got] == ["email", "sms"]
    assert (counts.sent, counts.deferred, counts.by_reason) == (1, 1, {"refused": 1})
    assert (row.status, row.channel, row.refused, row.attempts) == (Status.SENT, "sms", "email", 2)
    assert [content.text for content in shop.all_of(MessageContent)] == ["Hola Ana"]


def test_a_message_refused_on_every_channel_has_failed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda _n, m: Receipt(m.public_id, Outcome.REFUSED, detail="550 5.1.1"))
    message = shop.message(shop.customer())

    counts = shop.dispatch()

    row = shop.row(message)
    assert (counts.failed, counts.by_reason) == (1, {"refused": 1})
    assert (row.status, row.reason, row.detail) == (Status.FAILED, Reason.REFUSED, "550 5.1.1")


def test_what_was_certainly_not_accepted_waits_longer_each_time_and_leaves_no_trace(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, lambda _n, m: Receipt(m.public_id, Outcome.LATER, detail="busy"))
    message = shop.message(shop.customer())
    waits, now = [], NOW
    for _ in range(4):
        assert shop.dispatch(now).by_reason == {"retry": 1}
        row = shop.row(message)
        waits.append(row.ready_at - now)
        now = row.ready_at
        assert (row.status, row.blocked_by, row.contact_id, row.sent_at) == (Status.PLANNED, Reason.RETRY, None, None)
        assert shop.all_of(MessageContent) == shop.all_of(MessageLink) == []

    assert waits[0] >= timedelta(seconds=30)
    assert waits[3] > waits[1] > timedelta(minutes=1) - timedelta(seconds=1)


def test_a_provider_may_say_when_to_come_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = timedelta(minutes=7)
    answering(monkeypatch, lambda _n, m: Receipt(m.public_id, Outcome.LATER, retry_after=wait))
    message = shop.message(shop.customer())

    shop.dispatch()

    assert shop.row(message).ready_at == NOW + wait


def test_what_cannot_be_tried_again_before_its_expiry_expires(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda _n, m: Receipt(m.public_id, Outcome.LATER, retry_after=timedelta(days=4)))
    message = shop.message(shop.customer())

    assert shop.dispatch().by_reason == {"expired": 1}
    row = shop.row(message)
    assert (row.status, row.blocked_by, row.contact_id) == (Status.EXPIRED, Reason.RETRY, None)


def test_a_full_disk_leaves_the_message_planned_and_it_is_sent_once_there_is_room(shop: Shop) -> None:
    message = shop.message(shop.customer())
    folder = shop.settings.workspace / "outbox"
    folder.mkdir()
    (folder / f".2026-06-15-{shop.row(message).public_id}-email.eml.tmp").symlink_to("/dev/full")

    assert shop.dispatch().by_reason == {"retry": 1}
    row = shop.row(message)
    assert (row.status, row.detail) == (Status.PLANNED, "outbox: No space left on device")

    assert shop.dispatch(row.ready_at).sent == 1
    assert len(shop.outbox()) == 1


def test_a_message_in_doubt_is_unknown_and_never_sent_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = answering(monkeypatch, lambda _n, m: Receipt(m.public_id, Outcome.DOUBT, detail="timed out"))
    message = shop.message(shop.customer(phone=True))

    counts = shop.dispatch()
    shop.dispatch(NOW + timedelta(days=1))

    assert counts.as_json()["unknown"] == 1
    assert (shop.row(message).status, shop.row(message).detail) == (Status.UNKNOWN, "timed out")
    assert len(provider.got) == 1
    assert len(shop.all_of(MessageContent)) == 1


def test_what_was_drawn_and_never_answered_is_in_doubt(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda n, m: accepted(n, m) if n else None)
    first, second = shop.message(shop.customer(), priority=1), shop.message(shop.customer())

    shop.dispatch()

    assert shop.row(first).status == Status.UNKNOWN
    assert shop.row(second).status == Status.SENT


def test_a_wrongly_configured_channel_pauses_its_campaigns_and_keeps_what_it_has_not_drawn(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, lambda n, m: ChannelError("the key is wrong: set SENDGRID_API_KEY") if n else accepted(n, m))
    add_campaign(shop, replace(GREET, name="other"))
    sent, drawn, kept = (shop.message(shop.customer(), priority=p) for p in (3, 2, 1))

    counts = shop.dispatch()

    assert (counts.sent, counts.unknown, counts.by_reason) == (1, 1, {"channel": 1})
    assert [shop.row(m).status for m in (sent, drawn, kept)] == [Status.SENT, Status.UNKNOWN, Status.PLANNED]
    assert (shop.row(kept).attempts, shop.row(kept).contact_id) == (0, None)
    assert shop.paused() == "the key is wrong: set SENDGRID_API_KEY"
    assert shop.paused("other") is None


def test_a_provider_that_does_not_exist_sends_nothing_and_pauses(shop: Shop) -> None:
    message = shop.message(shop.customer())
    shop.settings = replace(shop.settings, channels={"email": ChannelSettings(provider="pigeon")})

    counts = shop.dispatch()

    assert counts.by_reason == {"channel": 1}
    assert "channels.email.provider: 'pigeon' is not one of outbox" in str(shop.paused())
    assert shop.row(message).status == Status.PLANNED


def test_a_channel_that_breaks_is_recorded_before_the_error_is_seen(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, lambda n, m: accepted(n, m) if n < 1 else ZeroDivisionError())
    rows = [shop.message(shop.customer(), priority=9 - n) for n in range(3)]

    with pytest.raises(ZeroDivisionError):
        shop.dispatch()

    assert [shop.row(m).status for m in rows] == [Status.SENT, Status.UNKNOWN, Status.PLANNED]


# --- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1], ids=["wall clock", "boot clock"])
def test_a_sender_that_slept_hands_nothing_more_over(shop: Shop, monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    clock = [1000.0, 50.0]
    monkeypatch.setattr(clocks, "read", lambda: tuple(clock))

    def slow(number: int, message: Outgoing) -> Receipt:
        clock[which] += 20
        return accepted(number, message)

    provider = answering(monkeypatch, slow)
    rows = [shop.message(shop.customer(), priority=9 - n) for n in range(4)]
    asked = iter([False, True])

    counts = shop.dispatch(stop=lambda: next(asked))

    assert len(provider.got) == 2
    assert (counts.sent, counts.by_reason) == (2, {"retry": 2})
    assert [shop.row(m).status for m in rows] == [Status.SENT] * 2 + [Status.PLANNED] * 2
    assert shop.dispatch().sent == 2


def test_what_a_dead_process_had_claimed_is_claimed_again_once_its_lease_is_over(shop: Shop) -> None:
    message = shop.message(shop.customer(), claim="gone", lease_until=NOW + timedelta(minutes=5))

    assert shop.dispatch(NOW + timedelta(minutes=5)) == DispatchCounts()
    assert shop.dispatch(NOW + timedelta(minutes=5, seconds=1)).sent == 1
    assert shop.row(message).status == Status.SENT


def test_what_a_dead_process_was_sending_is_unknown_once_its_lease_is_over(shop: Shop) -> None:
    message = shop.message(
        shop.customer(), status=Status.SENDING, claim="gone", lease_until=NOW + timedelta(minutes=5), sent_at=NOW
    )

    assert shop.dispatch(NOW + timedelta(minutes=5)).unknown == 0
    assert shop.dispatch(NOW + timedelta(minutes=6)).unknown == 1
    assert shop.row(message).status == Status.UNKNOWN
    assert shop.outbox() == []


def test_a_claimer_that_was_only_slow_still_says_what_became_of_its_message(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = shop.message(shop.customer())

    def meanwhile(number: int, sent: Outgoing) -> Receipt:
        assert claiming.release_expired(shop.db, NOW + timedelta(hours=1)) == 1
        return accepted(number, sent)

    answering(monkeypatch, meanwhile)
    shop.dispatch()

    assert shop.row(message).status == Status.SENT


def test_a_receipt_for_a_message_that_a_person_has_settled_changes_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = shop.message(shop.customer())

    def meanwhile(number: int, sent: Outgoing) -> Receipt:
        shop.change(Message, status=Status.CANCELLED, claim=None)
        return accepted(number, sent)

    answering(monkeypatch, meanwhile)
    shop.dispatch()

    assert shop.row(message).status == Status.CANCELLED


def test_a_slow_claimer_leaves_a_message_alone_that_is_in_other_hands_by_now(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = shop.message(shop.customer())

    def meanwhile(number: int, sent: Outgoing) -> Receipt:
        if len(provider.got) > 1:
            return accepted(number, sent)
        claiming.release_expired(shop.db, NOW + timedelta(hours=1))
        shop.change(Message, status=Status.PLANNED, claim=None)  # as a person may settle it
        assert shop.dispatch(NOW + timedelta(hours=1)).sent == 1
        return Receipt(sent.public_id, Outcome.LATER, detail="421 4.3.2")

    provider = answering(monkeypatch, meanwhile)
    shop.dispatch()

    row = shop.row(message)
    assert (row.status, row.provider_id) == (Status.SENT, f"p-{row.public_id}")
    assert [content.message_id for content in shop.all_of(MessageContent)] == [message]


class Crash(BaseException):
    """The end of a process, as its own code would see it."""


@pytest.mark.parametrize("crash_at", range(1, 7))
def test_wherever_a_dispatcher_dies_each_message_is_handed_over_at_most_once_and_none_is_lost(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    provider = answering(monkeypatch, accepted)
    for _ in range(3):
        shop.message(shop.customer())
    write, begun = store.write, iter(range(1, crash_at))

    def dying(db: Database) -> Any:
        if next(begun, None) is None:
            raise Crash
        return write(db)

    with monkeypatch.context() as dead:
        dead.setattr(store, "write", dying)
        with pytest.raises(Crash):
            shop.dispatch(chunk=2)
    shop.dispatch(NOW + timedelta(hours=1), chunk=2)

    handed_over = [message.public_id for message in provider.got]
    settled = {row.public_id: row.status for row in shop.all_of(Message)}
    assert len(handed_over) == len(set(handed_over))
    assert set(settled.values()) <= {Status.SENT, Status.UNKNOWN}
    assert {i for i, status in settled.items() if status == Status.SENT} <= set(handed_over)
    assert sum(status == Status.UNKNOWN for status in settled.values()) <= 2


def test_every_table_row_of_channels_opens_and_can_be_closed(shop: Shop) -> None:
    secrets = dict.fromkeys(("SENDGRID_API_KEY", "TWILIO_AUTH_TOKEN"), "x") | {"TWILIO_ACCOUNT_SID": f"AC{0:032}"}
    for provider in channels.CHANNELS:
        name = next(name for name, allowed in PROVIDERS.items() if provider in allowed)
        sender = "Tienda <hola@tienda.example>" if name == "email" else "+525500000000"
        made = ChannelSettings(provider, sender, {"host": "mail.example"} if provider == "smtp" else {})
        settings = replace(shop.settings, channels={name: made}, secrets=secrets)

        opened = channels.open_channel(name, settings)

        assert not opened.verify("https://shop.example/webhooks", {}, b"")
        opened.close()


def test_the_gates_and_facts_are_the_ones_that_explain_uses(shop: Shop) -> None:
    item = Item(GREET, HELLO, shop.customer(), None, "customer.created:1", NOW, NOW, NOW + timedelta(days=1))
    with store.read(shop.db) as connection:
        (found,) = facts.fetch(connection, shop.settings, [item], NOW)

    assert isinstance(gates.decide(found, facts.rules(item), shop.settings, NOW), gates.Send)


def test_a_tick_that_takes_minutes_judges_each_chunk_by_its_own_minute(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.settings = replace(shop.settings, sending_hours={"default": WeekHours(((0, 9 * 60 + 2),) * 7)})  # in Mexico
    passed = [0.0]
    monkeypatch.setattr(clocks, "read", lambda: (passed[0], passed[0]))

    def slow(number: int, message: Outgoing) -> Receipt:
        passed[0] += 70
        return accepted(number, message)

    answering(monkeypatch, slow)
    for _ in range(4):
        shop.message(shop.customer())

    counts = shop.dispatch(chunk=1)  # from 9:00:00; closes at 9:02

    assert (counts.sent, counts.by_reason) == (2, {"hours": 2})
    assert [row.sent_at for row in shop.all_of(Message) if row.sent_at] == [NOW, NOW + timedelta(minutes=1)]


def test_nobody_in_the_global_holdout_gets_marketing_by_whatever_step(shop: Shop) -> None:
    marketing = replace(HELLO, id="offer", purpose="marketing")
    shop.campaigns["greet"] = replace(GREET, steps=(HELLO, marketing))
    shop.settings = replace(shop.settings, holdout=1.0)
    customer = shop.customer(email="granted")
    shop.message(customer)
    offer = shop.message(customer, step="offer", purpose="marketing")

    counts = shop.dispatch()

    assert (counts.sent, counts.by_reason) == (1, {"global_holdout": 1})
    assert shop.row(offer).status == Status.SKIPPED
