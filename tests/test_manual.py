"""Manual sends: whom they mean, what a draft says, what becomes of the messages; and previews."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update
from sqlmodel import SQLModel

from outreach import arms, campaigns, clocks, dispatcher, manual, planner, releases, store
from outreach.errors import (
    ClockError,
    ConditionError,
    NotFound,
    OutreachError,
    Problems,
    ReleaseError,
)
from outreach.manual import Draft, sending
from outreach.models import (
    CampaignState,
    Consent,
    Contact,
    Customer,
    ManualSend,
    Message,
    MessageContent,
    Status,
    Suppression,
    table,
    to_micros,
)
from outreach.settings import Cap, ChannelSettings, Settings
from outreach.store import Database
from outreach.values import Duration, Limit, parse_week_hours
from tests.conftest import NOW, SECRET
from tests.shop import customer, feed, files_of, order, rows_of, shop_settings

HI = {
    "message_templates/hi.text.j2": "{{ customer | greeting }}: novedades",
    "message_templates/hi.email.j2": "---\nsubject: Novedades\n---\n<p>{{ customer | greeting }}</p>"
    "<a href='{{ links.unsubscribe }}'>baja</a>",
    "message_templates/note.sms.j2": "Nota",
}
THANKS = """
    title: Thanks
    purpose: service
    trigger: {event: order.delivered}
    steps:
      - {id: hello, after: 1 hour, channel: [sms, email], template: m}
"""
LATER = timedelta(seconds=5)


@dataclass
class Shop:
    """A database with a release in force."""

    db: Database
    settings: Settings

    def publish(self, templates: dict[str, str] | None = None, now: datetime = NOW, **campaigns: str) -> int:
        return releases.publish(self.db, self.settings, files_of({**HI, **(templates or {})}, **campaigns), now)

    def feed(self, *customers: dict[str, Any], now: datetime = NOW, **tables: Any) -> None:
        feed(self.db, self.settings, now, customers=customers, **tables)

    def draft(self, template: str = "hi", now: datetime = NOW, **options: Any) -> Draft:
        return manual.draft(self.db, self.settings, now, template, **options)

    def send(self, template: str = "hi", now: datetime = NOW, **options: Any) -> manual.Became:
        return manual.send(self.db, self.settings, self.draft(template, now, **options))

    def dispatch(self, now: datetime = NOW, **options: Any) -> dispatcher.DispatchCounts:
        return dispatcher.dispatch(self.db, self.settings, now, **options)

    def rows(self) -> dict[str, Any]:
        """The messages by the shop's id of their customer; the newest of each."""
        names = {one.id: one.external_id for one in rows_of(self.db, Customer)}
        return {names[row.customer_id]: row for row in rows_of(self.db, Message)}

    def stands(self) -> dict[str, tuple[str, str | None]]:
        return {name: (row.status, row.reason or row.blocked_by) for name, row in self.rows().items()}

    def outbox(self) -> list[dict[str, Any]]:
        folder = self.settings.workspace / "outbox"
        return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]

    def consent(self, address: str, kind: str, channel: str, status: str, at: datetime = NOW) -> None:
        with store.write(self.db) as connection:
            hashed = store.address_hash(self.db.secret, kind, address)
            c = table(Contact).c
            of = connection.execute(select(c.id).where(c.address_hash == hashed)).scalar_one()
            line = {"contact_id": of, "channel": channel, "status": status, "at": at, "by": "recipient"}
            line |= {"basis": "consent", "source": "", "words": "", "recorded_at": at}
            connection.execute(insert(table(Consent)).values(line))

    def suppress(self, address: str, kind: str, scope: str = "contact") -> None:
        with store.write(self.db) as connection:
            values = {"address_hash": store.address_hash(self.db.secret, kind, address), "kind": kind, "scope": scope}
            connection.execute(insert(table(Suppression)).values(**values, channel="", source="", at=NOW))

    def everything(self) -> dict[str, list[Any]]:
        """Every row of every table."""
        with store.read(self.db) as connection:
            return {
                name: sorted(map(repr, connection.execute(select(of)).all()))
                for name, of in SQLModel.metadata.tables.items()
            }


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> Shop:
    """Ana (c1), Beto (c2) and Carla (c3), who allowed everything, and a release with the template `hi`."""
    return stocked(db, tmp_path)


@pytest.fixture
def quick(new_database: Callable[[str], str], tmp_path: Path) -> Iterator[Shop]:
    """The same on SQLite alone, for what no database has a say in."""
    db = store.open_database(new_database("sqlite"), secret=SECRET)
    yield stocked(db, tmp_path)
    db.engine.dispose()


def stocked(db: Database, folder: Path) -> Shop:
    made = Shop(db, shop_settings(folder))
    made.publish()
    made.feed(*(customer(n) for n in (1, 2, 3)))
    return made


def reasons(draft: Draft) -> dict[str, int]:
    return {one.reason: one.people for one in draft.not_now.values()}


# --- whom, and what ------------------------------------------------------------------------------


def test_a_send_is_one_message_a_person_in_the_same_ledger(shop: Shop) -> None:
    became = shop.send(to=["c1"])

    (row,) = rows_of(shop.db, Message)
    (made,) = rows_of(shop.db, ManualSend)
    assert (became.id, [(one.kind, one.count) for one in became.ended]) == (made.id, [("sent", 1)])
    assert (made.template, made.channels, made.purpose, made.at) == (
        "hi",
        ["whatsapp", "sms", "email"],
        "marketing",
        NOW,
    )
    assert (row.campaign, row.step, row.occasion, row.record_id) == ("manual", "hi", f"manual:{made.id}", made.id)
    assert (row.status, row.channel, row.arm, row.purpose) == (Status.SENT, "whatsapp", "contact", "marketing")
    assert (row.enrolment_id, row.due_at, row.expires_at) == (0, NOW, NOW + timedelta(days=3))
    assert row.public_id == store.public_id(
        shop.db.secret, "manual", "hi", "c1", f"{row.occasion}:{to_micros(row.created_at)}"
    )
    assert [(one["to"], one["text"]) for one in shop.outbox()] == [("+525541000001", "Hola, Ana: novedades")]
    assert [one.text for one in rows_of(shop.db, MessageContent)] == ["Hola, Ana: novedades"]


def test_a_condition_means_all_for_whom_it_holds(shop: Shop) -> None:
    shop.feed(now=NOW, orders=[order(1, "c2", NOW - timedelta(days=9)), order(2, "c3", NOW - timedelta(days=9))])

    shop.send(where="orders_count >= 1")

    assert shop.stands() == {"c2": ("sent", None), "c3": ("sent", None)}


def test_a_condition_may_name_a_segment_of_the_release_and_not_of_the_working_settings(quick: Shop) -> None:
    quick.settings = replace(quick.settings, segments={"loyal": "orders_count >= 1"})

    with pytest.raises(ConditionError):
        quick.draft(where="segment('loyal')")


def test_a_condition_that_cannot_be_understood_is_refused(quick: Shop) -> None:
    with pytest.raises(ConditionError, match="order_count"):
        quick.draft(where="order_count > 1")


def test_a_send_to_nobody_says_why(quick: Shop) -> None:
    with pytest.raises(NotFound, match="holds for no customer"):
        quick.draft(where="orders_count >= 99")


def test_the_same_person_named_twice_gets_one(shop: Shop) -> None:
    shop.send(to=["c1", "c1@example.com", "+52 55 4100 0001", "c1"])

    assert shop.stands() == {"c1": ("sent", None)}


def test_without_a_release_nothing_is_sent(db: Database, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="outreach publish"):
        Shop(db, shop_settings(tmp_path)).draft(to=["c1"])


def test_an_unknown_template_is_named_with_the_nearest(quick: Shop) -> None:
    quick.publish({"message_templates/post_sale/thanks.sms.j2": "x"}, NOW)

    with pytest.raises(NotFound, match=r"no template 'post_sale/thank' \(did you mean `post_sale/thanks`\?\)"):
        quick.draft("post_sale/thank", to=["c1"])
    with pytest.raises(NotFound, match=r"no template 'zzz': if its file is new, run `outreach publish` first"):
        quick.draft("zzz", to=["c1"])


def test_the_text_is_the_release_s_in_force(quick: Shop) -> None:
    quick.publish({"message_templates/hi.text.j2": "Otra cosa"}, NOW)

    assert quick.draft(to=["c1"]).first == manual.Shown(
        "c1", "whatsapp", "+525500000000", "", "Otra cosa", has_html=False
    )


@pytest.mark.parametrize(
    ("template", "asked", "tried"),
    [
        ("hi", [], ("whatsapp", "sms", "email")),
        ("hi", ["email", "sms", "email"], ("email", "sms")),
        ("note", [], ("sms",)),
    ],
)
def test_channels_are_tried_in_the_order_given_else_the_usual(
    quick: Shop, template: str, asked: list[str], tried: tuple[str, ...]
) -> None:
    assert quick.draft(template, to=["c1"], channels=asked).campaign.steps[0].channels == tried


@pytest.mark.parametrize(
    ("channel", "said"), [("messenger", "not configured"), ("email", "no template note for email")]
)
def test_a_channel_that_cannot_be_sent_by_is_refused(quick: Shop, channel: str, said: str) -> None:
    with pytest.raises(OutreachError, match=said):
        quick.draft("note", to=["c1"], channels=[channel])


def test_a_template_that_needs_an_order_cannot_be_sent_by_hand(quick: Shop) -> None:
    quick.publish({"message_templates/order.sms.j2": "Tu pedido {{ order.id }}"}, NOW)

    with pytest.raises(Problems, match=r"order.sms.j2:1:\d+: .*order"):
        quick.draft("order", to=["c1"])


def test_a_marketing_e_mail_needs_its_unsubscribe_link_and_a_service_one_does_not(quick: Shop) -> None:
    quick.publish({"message_templates/plain.email.j2": "---\nsubject: Hola\n---\n<p>Hola</p>"}, NOW)

    with pytest.raises(Problems, match="unsubscribe"):
        quick.draft("plain", to=["c1"])
    assert quick.draft("plain", to=["c1"], purpose="service").messages == 1


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "by"), [("C2@Example.com", "email"), ("+52 1 55 4100 0002", "whatsapp"), ("+525541000002", "whatsapp")]
)
def test_an_address_or_number_finds_its_customer_and_is_itself_written_to(shop: Shop, address: str, by: str) -> None:
    shop.send(to=[address])

    assert {name: row.channel for name, row in shop.rows().items()} == {"c2": by}


def test_an_id_goes_before_an_address_that_reads_the_same(quick: Shop) -> None:
    quick.feed(customer("c1@example.com", customer_id="c1@example.com", email="other@example.com", phone=""))

    quick.send(to=["c1@example.com"], channels=["email"])

    assert set(quick.rows()) == {"c1@example.com"}


def test_a_merged_customer_s_id_means_the_other(shop: Shop) -> None:
    ids = {one.external_id: one.id for one in rows_of(shop.db, Customer)}
    with store.write(shop.db) as connection:
        of = table(Customer)
        connection.execute(update(of).where(of.c.external_id == "c1").values(merged_into=ids["c2"]))

    shop.send(to=["c1"])

    assert set(shop.rows()) == {"c2"}


@pytest.mark.parametrize("name", ["zoe", "5541000001", "nobody@example", "+5255", "x@noinformado.com"])
def test_what_is_neither_a_customer_nor_an_address_is_refused_and_no_address_quoted(quick: Shop, name: str) -> None:
    with pytest.raises(NotFound) as error:
        quick.draft(to=["c1", name])

    assert len(str(error.value).splitlines()) == 1
    assert ("@" not in name and "+" not in name) or name not in str(error.value)


def test_a_stranger_gets_a_service_message_and_becomes_a_bare_customer(shop: Shop) -> None:
    shop.settings = replace(shop.settings, unknown_zone="business")

    shop.send(to=["new@example.com"], purpose="service")

    hashed = store.address_hash(shop.db.secret, "email", "new@example.com")
    (made,) = rows_of(shop.db, Customer, external_id=f"address:{hashed[:12]}")
    (contact,) = rows_of(shop.db, Contact, id=made.email_id)
    assert (contact.address, contact.address_hash, made.phone_id) == ("new@example.com", hashed, None)
    assert rows_of(shop.db, Consent, contact_id=contact.id) == []
    assert shop.stands() == {made.external_id: ("sent", None)}


def test_a_stranger_s_consent_is_unknown_so_marketing_is_refused_and_written_down(shop: Shop) -> None:
    draft = shop.draft(to=["new@example.com"])
    assert (draft.messages, reasons(draft)) == (0, {"no_consent": 1})

    became = shop.send(to=["new@example.com"])

    assert [(one.kind, one.reason, one.count) for one in became.ended] == [("skipped", "no_consent", 1)]
    assert list(shop.stands().values()) == [("skipped", "no_consent")]


def test_a_stranger_written_to_again_is_the_same_customer(shop: Shop) -> None:
    for _ in range(2):
        shop.send(to=["+525587654321"], purpose="service")

    (made,) = [one for one in rows_of(shop.db, Customer) if one.external_id.startswith("address:")]
    assert made.zones
    assert [row.customer_id for row in rows_of(shop.db, Message)] == [made.id, made.id]


def test_a_stranger_on_a_do_not_contact_list_is_left_out(shop: Shop) -> None:
    shop.suppress("new@example.com", "email")

    shop.send(to=["new@example.com"], purpose="service")

    assert list(shop.stands().values()) == [("skipped", "suppressed")]


def test_once_a_customer_has_a_stranger_s_address_the_customer_is_meant(shop: Shop) -> None:
    shop.send(to=["new@example.com"], purpose="service")
    shop.feed(customer(9, email="new@example.com"))

    shop.send(to=["new@example.com"], purpose="service")

    assert shop.rows()["c9"].status == Status.SENT


# --- who is left out -----------------------------------------------------------------------------


def test_whoever_must_be_left_out_gets_a_row_with_the_reason(shop: Shop) -> None:
    shop.feed(
        customer(4, whatsapp_consent="", sms_consent="", email_consent="no"),
        customer(5, email="", phone=""),
        customer(6),
        cases=[{"case_id": "k1", "customer_id": "c6", "kind": "complaint", "opened_at": NOW.isoformat()}],
    )
    shop.suppress("+525541000002", "phone")
    shop.suppress("c2@example.com", "email")
    draft = shop.draft(where="orders_count >= 0")

    became = shop.send(where="orders_count >= 0")

    assert shop.stands() == {
        "c1": ("sent", None),
        "c2": ("skipped", "suppressed"),
        "c3": ("sent", None),
        "c4": ("skipped", "no_consent"),
        "c5": ("skipped", "unreachable"),
        "c6": ("skipped", "case_open"),
    }
    assert (draft.messages, reasons(draft)) == (
        2,
        {"suppressed": 1, "no_consent": 1, "unreachable": 1, "case_open": 1},
    )
    assert {one.reason: one.count for one in became.ended if one.kind == "skipped"} == reasons(draft)


def test_the_global_holdout_gets_no_marketing_by_hand_and_service_all_the_same(shop: Shop) -> None:
    shop.settings = replace(shop.settings, holdout=0.5)
    shop.feed(*(customer(n) for n in range(4, 30)))
    held = {f"c{n}" for n in range(1, 30) if arms.is_held_globally(shop.db.secret, 0.5, f"c{n}")}
    assert 0 < len(held) < 29

    shop.send(where="orders_count >= 0")

    assert {name for name, stands in shop.stands().items() if stands == ("skipped", "global_holdout")} == held
    assert {name for name, stands in shop.stands().items() if stands == ("sent", None)} == set(shop.rows()) - held
    assert shop.draft(where="orders_count >= 0", purpose="service").messages == 29


def test_two_records_with_one_number_get_one_message(shop: Shop) -> None:
    shop.feed(customer(4, phone="+525541000001"))

    shop.send(where="orders_count >= 0")

    assert shop.stands()["c4"] == ("skipped", "at_most")
    assert "another customer of this send" in shop.rows()["c4"].detail
    assert sorted(one["to"] for one in shop.outbox()) == ["+525541000001", "+525541000002", "+525541000003"]


def test_the_second_of_two_records_gets_it_where_the_first_must_be_left_out(quick: Shop) -> None:
    quick.feed(
        customer(4, phone="+525541000001"),
        cases=[{"case_id": "k1", "customer_id": "c1", "kind": "complaint", "opened_at": NOW.isoformat()}],
    )

    quick.send(to=["c1", "c4"])

    assert quick.stands() == {"c1": ("skipped", "case_open"), "c4": ("sent", None)}


def test_an_address_shared_but_closed_keeps_nobody_from_their_own(shop: Shop) -> None:
    """The shop's own number, typed in for everybody without one."""
    shared = {"phone": "+525541000009", "sms_consent": "", "whatsapp_consent": ""}
    shop.feed(*(customer(n, **shared) for n in (4, 5, 6)))

    shop.send(to=["c4", "c5", "c6"])

    assert {name: row.channel for name, row in shop.rows().items()} == {"c4": "email", "c5": "email", "c6": "email"}


def test_a_shared_number_that_is_opened_before_the_messages_leave_still_gets_one(shop: Shop) -> None:
    shared = {"phone": "+525541000009", "sms_consent": "", "whatsapp_consent": ""}
    shop.feed(*(customer(n, **shared) for n in (4, 5)))
    draft = shop.draft(to=["c4", "c5"])
    shop.consent("+525541000009", "phone", "whatsapp", "granted")

    manual.send(shop.db, shop.settings, draft)

    assert {name: (row.status, row.channel) for name, row in shop.rows().items()} == {
        "c4": ("sent", "whatsapp"),
        "c5": ("sent", "email"),
    }


# --- what waits ----------------------------------------------------------------------------------


def test_outside_sending_hours_it_waits_and_says_until_when(shop: Shop) -> None:
    shop.settings = replace(shop.settings, sending_hours={"default": parse_week_hours({"mon-sun": "12:00-20:00"})})
    opens = NOW + timedelta(hours=3)  # 12:00 in Mexico City
    (waits,) = shop.draft(to=["c1"]).not_now.values()
    assert (waits.reason, waits.waits, waits.people, waits.until) == ("hours", True, 1, opens)

    became = shop.send(to=["c1"])

    (ended,) = became.ended
    assert (ended.kind, ended.reason, ended.count, ended.until) == ("deferred", "hours", 1, opens)
    assert shop.dispatch(opens).sent == 1


@pytest.mark.parametrize("seen", [(1, 1), (1, 0)], ids=["a machine asleep", "a virtual machine suspended"])
def test_a_send_that_was_confirmed_after_the_machine_had_slept_is_judged_by_the_time_it_is(
    quick: Shop, monkeypatch: pytest.MonkeyPatch, seen: tuple[int, int]
) -> None:
    quick.settings = replace(quick.settings, sending_hours={"default": parse_week_hours({"mon-sun": "09:00-10:00"})})
    draft = quick.draft(now=NOW.replace(hour=15, minute=55), to=["c1"])  # 09:55 in Mexico City
    begun = draft.drafted
    monkeypatch.setattr(clocks, "read", lambda: tuple(at + 600 * by for at, by in zip(begun, seen, strict=True)))

    became = manual.send(quick.db, quick.settings, draft)

    assert (became.count("sent"), became.count("deferred")) == (0, 1)
    assert quick.stands() == {"c1": ("planned", "hours")}


def test_a_cap_counts_what_was_sent_by_hand_and_holds_what_is(quick: Shop) -> None:
    quick.settings = replace(quick.settings, caps=(Cap(Limit(1, Duration(days=1)), "marketing"),))

    quick.send(to=["c1"])
    draft = quick.draft(to=["c1"], now=NOW + LATER)

    (waits,) = draft.not_now.values()
    assert (waits.reason, waits.until, draft.messages, draft.waiting) == ("cap", NOW + timedelta(days=1), 1, 1)


def test_what_lacks_a_value_is_shown_to_wait_and_waits(quick: Shop) -> None:
    quick.publish({"message_templates/size.sms.j2": "Talla {{ customer.attributes.size }}"}, NOW)
    quick.feed(customer(4, size="M"))
    draft = quick.draft("size", to=["c1", "c4"])
    assert (draft.messages, reasons(draft), draft.first and draft.first.text) == (1, {"undefined": 1}, "Talla M")

    quick.send("size", to=["c1", "c4"])

    assert quick.stands() == {"c1": ("planned", "undefined"), "c4": ("sent", None)}


def test_a_rehearsal_holds_for_manual_sends(quick: Shop) -> None:
    quick.settings = replace(quick.settings, only_to=("+52 55 4100 0001",))
    draft = quick.draft(to=["c1", "c2"])

    quick.send(to=["c1", "c2"])

    assert (draft.messages, reasons(draft)) == (1, {"only_to": 1})
    assert quick.stands() == {"c1": ("sent", None), "c2": ("skipped", "only_to")}


def test_a_call_waits_for_a_person(quick: Shop) -> None:
    channels = {**quick.settings.channels, "call": ChannelSettings("staff")}
    quick.settings = replace(quick.settings, channels=channels)
    quick.publish({"message_templates/ring.call.j2": "Pregunta por su pedido"}, NOW)

    with pytest.raises(NotFound, match="--channel"):
        quick.draft("ring", to=["c1"], purpose="service")
    quick.send("ring", to=["c1"], purpose="service", channels=["call"])

    assert quick.stands() == {"c1": ("planned", "person")}


# --- what it costs -------------------------------------------------------------------------------


def test_messages_segments_and_costs_are_added_up_by_channel(quick: Shop) -> None:
    quick.settings = replace(quick.settings, costs={"sms": "0.905 per segment", "email": "0.01"})
    quick.publish({"message_templates/hi.sms.j2": "á" * 80}, NOW)
    quick.feed(customer(4, phone=""))

    draft = quick.draft(where="orders_count >= 0", channels=["sms", "email"])

    assert draft.amounts == {"sms": manual.Amount(3, 6), "email": manual.Amount(1, 0)}
    assert (draft.messages, draft.segments, draft.cost) == (4, 6, Decimal("5.44"))


def test_without_costs_none_is_named(quick: Shop) -> None:
    assert quick.draft(to=["c1"]).cost is None


# --- nothing twice, nothing lost -----------------------------------------------------------------


@pytest.mark.parametrize("to", [["c1", "c2"], ["new@example.com", "+525587654321", "c1"]])
def test_a_draft_writes_nothing(shop: Shop, to: list[str]) -> None:
    before = shop.everything()

    assert shop.draft(to=to, purpose="service").messages == len(to)
    assert shop.draft(where="orders_count >= 0").messages == 3

    assert shop.everything() == before


def test_the_same_send_twice_sends_twice(shop: Shop) -> None:
    first, second = shop.send(to=["c1"]), shop.send(to=["c1"], now=NOW + LATER)

    assert first.id != second.id
    assert [row.status for row in rows_of(shop.db, Message)] == ["sent", "sent"]
    assert len(shop.outbox()) == 2


def test_what_was_written_and_not_dispatched_is_sent_by_the_next_dispatch(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sending, "dispatch", dies)
    with pytest.raises(KeyboardInterrupt):
        shop.send(where="orders_count >= 0")
    assert [row.status for row in rows_of(shop.db, Message)] == ["planned"] * 3

    assert shop.dispatch(NOW + LATER).sent == 3
    assert shop.dispatch(NOW + 2 * LATER).claimed == 0
    assert len(shop.outbox()) == 3


def test_rows_are_written_a_thousand_a_transaction(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "BATCH", 2)
    shop.feed(*(customer(n) for n in (4, 5)))
    steps: list[tuple[str, int, int]] = []

    number = manual.write(shop.db, shop.draft(where="orders_count >= 0"), lambda *step: steps.append(step))

    assert steps == [("writing", 2, 5), ("writing", 4, 5), ("writing", 5, 5)]
    assert [row.record_id for row in rows_of(shop.db, Message)] == [number] * 5
    assert len(rows_of(shop.db, ManualSend)) == 1
    assert store.BATCH <= 1_000


def test_a_send_that_was_cut_off_while_it_was_written_can_be_completed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH", 2)
    shop.feed(customer(4, phone="+525541000001"), customer(5))
    everybody: dict[str, Any] = {"where": "orders_count >= 0", "purpose": "service"}

    def dies(*step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manual.send(shop.db, shop.settings, shop.draft(**everybody), dies)
    assert len(rows_of(shop.db, Message)) == 2
    assert shop.dispatch(NOW + LATER).sent == 2
    (begun,) = rows_of(shop.db, ManualSend)

    rest = shop.draft(now=NOW + LATER, continues=begun.id, **everybody)
    became = manual.send(shop.db, shop.settings, rest)

    assert (became.id, len(rest.intended)) == (begun.id, 3)
    assert {(one.kind, one.reason): one.count for one in became.ended} == {("sent", ""): 4, ("skipped", "at_most"): 1}
    assert shop.stands()["c4"] == ("skipped", "at_most")
    assert len(shop.outbox()) == 4
    with pytest.raises(NotFound, match="is complete"):
        shop.draft(now=NOW + LATER, continues=begun.id, **everybody)
    with pytest.raises(OutreachError, match="is another one: hi by whatsapp, sms, email, service"):
        shop.draft(now=NOW + LATER, continues=begun.id, where="orders_count >= 0")
    with pytest.raises(NotFound, match="no send 9"):
        shop.draft(now=NOW + LATER, continues=9, **everybody)


def test_a_stranger_is_not_written_to_again_when_a_send_is_continued(quick: Shop) -> None:
    to = ["new@example.com", "+525587654321"]
    number = manual.write(quick.db, quick.draft(to=to[:1], purpose="service", channels=["sms", "email"]))

    rest = quick.draft(to=to, purpose="service", channels=["sms", "email"], continues=number, now=NOW + LATER)

    assert [one.external_id for one in rest.intended] == list(rest.strangers)
    assert [one.kind for one in rest.strangers.values()] == ["phone"]


def test_an_opt_out_between_the_draft_and_the_sending_is_obeyed(shop: Shop) -> None:
    draft = shop.draft(to=["c1"], channels=["sms"])
    shop.consent("+525541000001", "phone", "sms", "revoked")

    manual.send(shop.db, shop.settings, draft)

    assert shop.stands() == {"c1": ("skipped", "no_consent")}
    assert shop.outbox() == []


def test_a_send_dispatches_its_own_messages_alone(shop: Shop) -> None:
    shop.publish(None, NOW - timedelta(days=2), thanks=THANKS)
    shop.feed(orders=[order(1, "c1", NOW - timedelta(days=1), delivered_at=NOW - timedelta(hours=3))])
    assert planner.plan(shop.db, shop.settings, NOW).planned == 1
    other = manual.write(shop.db, shop.draft(to=["c3"]))

    shop.send(to=["c2"])

    stands = {(row.campaign, row.record_id): row.status for row in rows_of(shop.db, Message)}
    assert stands == {("thanks", 1): "planned", ("manual", other): "planned", ("manual", other + 1): "sent"}
    assert shop.dispatch(NOW + LATER).sent == 2


def test_only_a_manual_send_s_messages_are_claimed_though_an_order_has_its_number(shop: Shop) -> None:
    shop.publish(None, NOW - timedelta(days=2), thanks=THANKS)
    shop.feed(orders=[order(1, "c1", NOW - timedelta(days=1), delivered_at=NOW - timedelta(hours=3))])
    planner.plan(shop.db, shop.settings, NOW)
    (row,) = rows_of(shop.db, Message)

    assert shop.dispatch(only=row.record_id).claimed == 0


def test_what_a_daemon_takes_first_is_sent_once_and_counted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(db: Database, settings: Settings, now: datetime, *, only: int, stop: None) -> None:
        assert dispatcher.dispatch(db, settings, now).sent == 2
        assert dispatcher.dispatch(db, settings, now, only=only).claimed == 0

    monkeypatch.setattr(sending, "dispatch", late)

    became = shop.send(to=["c1", "c2"])

    assert [(one.kind, one.count) for one in became.ended] == [("sent", 2)]
    assert len(shop.outbox()) == 2


def test_what_another_process_is_sending_just_now_is_not_lost_from_the_count(quick: Shop) -> None:
    number = manual.write(quick.db, quick.draft(to=["c1", "c2"]))
    with store.write(quick.db) as connection:
        connection.execute(update(table(Message)).values(status=Status.SENDING))

    assert manual.became(quick.db, number).ended == (manual.Ended("deferred", "", 2, NOW, ""),)


def test_what_was_sent_after_it_had_waited_is_counted_with_what_was_sent_at_once(shop: Shop) -> None:
    number = shop.send(to=["c1", "c2"]).id
    c = table(Message).c
    first = select(func.min(c.id)).scalar_subquery()
    with store.write(shop.db) as connection:
        connection.execute(update(table(Message)).where(c.id == first).values(blocked_by="rate"))

    assert manual.became(shop.db, number).ended == (manual.Ended("sent", "", 2),)

    with store.write(shop.db) as connection:
        connection.execute(update(table(Message)).values(status=Status.UNKNOWN))
    assert [(one.kind, one.reason, one.count) for one in manual.became(shop.db, number).ended] == [("unknown", "", 2)]

    with store.write(shop.db) as connection:
        connection.execute(update(table(Message)).values(status=Status.PLANNED, blocked_by="rate"))
    assert [(one.kind, one.reason, one.count) for one in manual.became(shop.db, number).ended] == [
        ("deferred", "rate", 2)
    ]


def test_a_time_that_the_database_is_past_is_refused(quick: Shop) -> None:
    quick.send(to=["c1"])

    with pytest.raises(ClockError):
        quick.send(to=["c1"], now=NOW - timedelta(days=1))
    assert len(rows_of(quick.db, ManualSend)) == 1


# --- paused, cancelled ---------------------------------------------------------------------------


def test_a_channel_that_is_wrong_pauses_manual_sends_until_they_are_resumed(shop: Shop) -> None:
    good, folder = shop.settings, shop.settings.workspace / "outbox"
    folder.write_text("a file where the folder should be")

    became = shop.send(to=["c1"])

    assert became.paused is not None
    assert "outbox" in became.paused
    assert [(one.kind, one.reason, one.count) for one in became.ended] == [("deferred", "paused", 1)]
    assert reasons(shop.draft(to=["c2"], now=NOW + LATER)) == {"paused": 1}
    folder.unlink()
    assert releases.resume(shop.db, "manual", NOW + LATER) == ["manual"]
    assert dispatcher.dispatch(shop.db, good, NOW + LATER).sent == 1


def test_what_waits_can_be_cancelled_by_its_template(shop: Shop) -> None:
    shop.settings = replace(shop.settings, sending_hours={"default": parse_week_hours({"mon-sun": "12:00-20:00"})})
    shop.send(to=["c1"])

    assert releases.cancel(shop.db, "manual", "hi", NOW + LATER) == 1
    assert shop.stands() == {"c1": ("cancelled", "cancelled")}


def test_publishing_leaves_manual_sends_alone(shop: Shop) -> None:
    shop.settings = replace(shop.settings, sending_hours={"default": parse_week_hours({"mon-sun": "12:00-20:00"})})
    shop.send(to=["c1"])
    shop.publish({"message_templates/hi.text.j2": "Nuevo"}, NOW + LATER, thanks=THANKS)
    planner.plan(shop.db, shop.settings, NOW + LATER)

    assert shop.dispatch(NOW + timedelta(hours=4)).sent == 1
    assert [one["text"] for one in shop.outbox()] == ["Nuevo"]
    assert {one.name for one in rows_of(shop.db, CampaignState)} == {"manual", "thanks"}


@pytest.mark.parametrize(
    ("files", "place"),
    [
        (files_of(manual=THANKS), "campaigns/manual.yaml"),
        (files_of(other=THANKS + "    was: manual\n"), "campaigns/other.yaml:7:6"),
    ],
)
def test_no_campaign_may_be_called_as_manual_sends_are(quick: Shop, files: dict[str, str], place: str) -> None:
    errors = [str(problem) for problem in campaigns.load(files, quick.settings)[1] if not problem.warning]

    assert [error.startswith(place) and "manual" in error for error in errors] == [True]


def test_a_cap_may_name_manual_sends(quick: Shop) -> None:
    quick.settings = replace(quick.settings, caps=(Cap(Limit(1, Duration(days=1)), campaign="manual"),))

    assert campaigns.load(files_of(thanks=THANKS), quick.settings)[1] == []
