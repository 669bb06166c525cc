"""Previews: a step of the working files for one customer, and test copies of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from sqlmodel import SQLModel

from outreach import manual, releases, store
from outreach.channels import Outcome, Outgoing, Receipt, outbox
from outreach.channels.mime import with_token
from outreach.errors import CampaignError, ChannelError, NotFound, OutreachError, TemplateError
from outreach.manual import Preview
from outreach.models import CampaignState, Suppression, table
from outreach.settings import ChannelSettings, Settings
from outreach.store import Database
from outreach.values import parse_week_hours
from tests.conftest import NOW, SECRET
from tests.shop import customer, feed, files_of, order, shop_settings

HI = {
    "message_templates/hi.sms.j2": "{{ customer | greeting }}: pedido {{ order.id }}",
    "message_templates/hi.email.j2": "---\nsubject: Pedido {{ order.id }}\n---\n<p>{{ customer | greeting }}</p>"
    "<a href='{{ links.unsubscribe }}'>baja</a>",
    "message_templates/hi.whatsapp.j2": "---\ncontent_sid: HX1\nvariables:\n  1: {{ customer.first_name }}\n"
    "  2: {{ order.id }}\n---\nPedido {{ order.id }}",
}
THANKS = """
    title: Thanks
    trigger: {event: order.delivered}
    steps:
      - {id: hello, after: 3 days, channel: [sms, whatsapp, email], template: hi}
"""
MARKETING_HOURS = parse_week_hours({"mon-sun": "12:00-20:00"})


@dataclass
class Shop:
    """A database with customers and nothing published, and the working files."""

    db: Database
    settings: Settings
    files: dict[str, str]

    def write(self, templates: dict[str, str] | None = None, **campaigns: str) -> None:
        self.files = files_of({**HI, **(templates or {})}, **campaigns)

    def feed(self, *customers: dict[str, Any], **tables: Any) -> None:
        feed(self.db, self.settings, NOW, customers=customers, **tables)

    def preview(self, campaign: str = "thanks", step: str = "hello", of: str = "c1", **options: Any) -> Preview:
        return manual.preview(self.db, self.settings, self.files, NOW, campaign, step, of, **options)

    def text(self, **options: Any) -> str:
        return self.preview(**options).outgoing.content.text

    def everything(self) -> dict[str, list[str]]:
        """Every row of every table."""
        with store.read(self.db) as connection:
            return {
                name: sorted(map(repr, connection.execute(select(of)).all()))
                for name, of in SQLModel.metadata.tables.items()
            }

    def outbox(self) -> list[Path]:
        return sorted((self.settings.workspace / "outbox").glob("*"))


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> Iterator[Shop]:
    """Ana (c1) has three orders, two of them delivered; Beto (c2) has none."""
    yield from unchanged(db, tmp_path)


@pytest.fixture
def quick(new_database: Callable[[str], str], tmp_path: Path) -> Iterator[Shop]:
    """The same on SQLite alone, for what no database has a say in."""
    db = store.open_database(new_database("sqlite"), secret=SECRET)
    yield from unchanged(db, tmp_path)
    db.engine.dispose()


def unchanged(db: Database, folder: Path) -> Iterator[Shop]:
    made = Shop(db, shop_settings(folder), {})
    made.write(thanks=THANKS)
    at = [NOW - timedelta(days=n) for n in (30, 20, 10)]
    made.feed(
        customer(1),
        customer(2, first_name="Beto"),
        orders=[
            order(1, "c1", at[0], delivered_at=at[0], sku="TEA-1"),
            order(2, "c1", at[1], delivered_at=at[1], sku="MUG-1"),
            order(3, "c1", at[2], sku="TEA-2"),
        ],
    )
    before = made.everything()
    yield made
    assert made.everything() == before, "a preview wrote something"


def changed(shop: Shop, **values: Any) -> None:
    shop.settings = replace(shop.settings, **values)


# --- the facts -----------------------------------------------------------------------------------


def test_it_is_the_newest_order_that_fires_the_trigger(shop: Shop) -> None:
    made = shop.preview()

    assert (made.outgoing.channel, made.outgoing.content.text) == ("sms", "Hola, Ana: pedido o2")
    assert (made.campaign, made.step, made.customer, made.record) == ("thanks", "hello", "c1", "order o2")
    assert (made.is_sample, made.notes, made.gates) == (False, (), ())


def test_it_is_one_that_fits_the_trigger_s_patterns(shop: Shop) -> None:
    shop.write(thanks=THANKS.replace("order.delivered}", "order.delivered, sku: 'TEA-*'}"))

    assert shop.text() == "Hola, Ana: pedido o1"


def test_without_a_record_the_sample_facts_stand_in_and_it_says_so(shop: Shop) -> None:
    shop.write({"message_templates/hi.sms.j2": "{{ order.id }} {{ order.attributes.color }}"}, thanks=THANKS)

    made = shop.preview(of="c2")

    assert (made.is_sample, made.record, made.outgoing.content.text) == (True, "", "MX-10482 sample")
    assert made.notes == ("no order of theirs fits the trigger order.delivered: sample facts stand in for it",)
    assert made.gates == ()


def test_what_the_customer_lacks_is_no_sample(quick: Shop) -> None:
    quick.write({"message_templates/hi.sms.j2": "{{ customer.attributes.size }}"}, thanks=THANKS)

    for of in ("c1", "c2"):
        with pytest.raises(TemplateError, match=r"hi.sms.j2:1: customer.attributes.size has no value"):
            quick.preview(of=of)


def test_a_case_an_event_and_a_lapse_have_their_records(shop: Shop, tmp_path: Path) -> None:
    campaign = "title: X\npurpose: service\ntrigger: {}\nsteps:\n  - {{id: hello, after: 0 days, channel: sms, template: {}}}\n"
    templates = {
        "message_templates/case.sms.j2": "{{ case.id }} {{ case.kind }}",
        "message_templates/cart.sms.j2": "{{ event.url }}",
        "message_templates/lapse.sms.j2": "{{ customer.last_order.id }}",
    }
    shop.write(
        templates,
        complaint=campaign.format("{event: case.opened, kind: complaint}", "case"),
        overdue=campaign.format("{event: case.overdue, after: 2 days}", "case"),
        cart=campaign.format("{event: cart.abandoned}", "cart"),
        lapse=campaign.format("{event: customer.inactive, after: 5 days}", "lapse"),
    )
    other = Shop(shop.db, shop.settings, shop.files)
    assert other.preview("cart", of="c1").outgoing.content.text == "sample"
    assert [other.preview(name).record for name in ("complaint", "overdue", "lapse")] == ["", "", ""]
    assert other.preview("lapse").outgoing.content.text == "o3"


def test_a_case_and_an_event_that_are_there_are_taken(db: Database, tmp_path: Path) -> None:
    shop = Shop(db, shop_settings(tmp_path), {})
    campaign = "title: X\npurpose: service\ntrigger: {}\nsteps:\n  - {{id: hello, after: 0 days, channel: sms, template: {}}}\n"
    shop.write(
        {"message_templates/case.sms.j2": "{{ case.id }}", "message_templates/cart.sms.j2": "{{ event.url }}"},
        complaint=campaign.format("{event: case.opened, kind: complaint}", "case"),
        cart=campaign.format("{event: cart.abandoned}", "cart"),
    )
    at = [(NOW - timedelta(days=n)).isoformat() for n in (3, 2, 1)]
    shop.feed(
        customer(1),
        cases=[
            {"case_id": "k1", "customer_id": "c1", "kind": "complaint", "opened_at": at[0]},
            {"case_id": "k2", "customer_id": "c1", "kind": "question", "opened_at": at[1]},
        ],
        events=[
            {"event_id": "e1", "customer_id": "c1", "name": "cart.abandoned", "at": at[0], "url": "https://a.example"},
            {"event_id": "e2", "customer_id": "c1", "name": "cart.abandoned", "at": at[1], "url": "https://b.example"},
        ],
    )

    case, cart = shop.preview("complaint"), shop.preview("cart")

    assert (case.record, case.outgoing.content.text, case.gates) == ("case k1", "k1", ())
    assert (cart.record, cart.outgoing.content.text) == ("cart.abandoned", "https://b.example")


def test_a_customer_may_be_given_by_address_and_a_stranger_is_none(shop: Shop) -> None:
    assert shop.preview(of="c1@example.com").customer == "c1"
    assert shop.preview(of="+525541000002").customer == "c2"
    for nobody in ("new@example.com", "zoe", "nobody@example"):
        with pytest.raises(NotFound):
            shop.preview(of=nobody)


# --- the working files ---------------------------------------------------------------------------


def test_it_is_the_working_files_and_not_the_release(db: Database, tmp_path: Path) -> None:
    shop = Shop(db, shop_settings(tmp_path), {})
    shop.write(thanks=THANKS)
    shop.feed(customer(1))
    releases.publish(db, shop.settings, shop.files, NOW)
    shop.write({"message_templates/hi.sms.j2": "Nuevo"}, thanks=THANKS)

    assert shop.text() == "Nuevo"


def test_what_is_not_there_is_named_with_the_nearest(quick: Shop) -> None:
    for options, said in (
        ({"campaign": "thank"}, "no campaign 'thank'.*did you mean `thanks`"),
        ({"step": "helo"}, "no step 'helo'.*did you mean `hello`"),
        ({"variant": "warm"}, "no variant 'warm': it has none"),
        ({"channel": "call"}, "no channel 'call': it has sms, whatsapp, email"),
    ):
        with pytest.raises(NotFound, match=said):
            quick.preview(**options)


def test_errors_of_its_own_file_are_shown_and_others_do_not_matter(quick: Shop) -> None:
    quick.write(thanks=THANKS, other="title: Broken\ncolour: red\n")
    assert quick.text() == "Hola, Ana: pedido o2"

    quick.write(thanks=THANKS + "    colour: red\n")
    with pytest.raises(CampaignError, match=r"campaigns/thanks.yaml:6:1: "):
        quick.preview()


def test_a_variant_is_drawn_or_asked_for(quick: Shop) -> None:
    variants = "template: hi, variants: {plain: 50%, warm: 50%}}"
    quick.write(
        {"message_templates/hi-plain.sms.j2": "plain", "message_templates/hi-warm.sms.j2": "warm"},
        thanks=THANKS.replace("template: hi}", variants),
    )
    drawn = quick.preview()
    other = next(name for name in ("plain", "warm") if name != drawn.variant)

    assert drawn.outgoing.content.text == drawn.variant
    asked = quick.preview(variant=other)
    assert (asked.variant, asked.outgoing.content.text) == (other, other)
    assert asked.notes == (f"they draw the variant {drawn.variant}",)


def test_each_channel_shows_what_is_its_own(quick: Shop) -> None:
    changed(quick, costs={"sms": "0.90 per segment"})
    quick.write({"message_templates/hi.sms.j2": "ñandú " * 20 + "ó"}, thanks=THANKS)

    sms, mail, whatsapp = (quick.preview(channel=name) for name in ("sms", "email", "whatsapp"))

    assert (sms.outgoing.content.segments, sms.outgoing.content.encoding, sms.cost) == (2, "UCS-2", Decimal("1.80"))
    assert (mail.outgoing.content.subject, mail.cost) == ("Pedido o2", None)
    assert "<p>Hola, Ana</p>" in mail.outgoing.content.html
    assert mail.outgoing.sender == "Tienda Luna <hola@tiendaluna.example>"
    assert (whatsapp.outgoing.content.content_sid, dict(whatsapp.outgoing.content.variables)) == (
        "HX1",
        {"1": "Ana", "2": "o2"},
    )


# --- what would hold it --------------------------------------------------------------------------


def test_every_gate_that_would_hold_it_is_named(quick: Shop) -> None:
    changed(quick, sending_hours={"default": MARKETING_HOURS}, only_to=("me@example.com",))
    quick.write(thanks=THANKS.replace("template: hi}", "template: hi, unless: [ordered]}"))

    said = {one.gate: one for one in quick.preview().gates}

    assert {gate: one.reason for gate, one in said.items()} == {
        "only_to": "only_to",
        "unless": "unless",
        "hours": "hours",
    }
    assert (said["unless"].detail, said["unless"].until) == ("ordered", None)
    assert said["hours"].until == NOW + timedelta(hours=3)


def test_the_gates_speak_of_the_channel_asked_for(db: Database, tmp_path: Path) -> None:
    shop = Shop(db, shop_settings(tmp_path), {})
    shop.write(thanks=THANKS)
    shop.feed(customer(1, sms_consent="no"))

    assert (shop.preview().outgoing.channel, shop.preview().gates) == ("whatsapp", ())
    assert [one.reason for one in shop.preview(channel="sms").gates] == ["no_consent"]


def test_who_cannot_be_reached_still_sees_how_it_reads(db: Database, tmp_path: Path) -> None:
    shop = Shop(db, shop_settings(tmp_path), {})
    shop.write(thanks=THANKS)
    shop.feed(customer(1, email="", phone=""))

    made = shop.preview()

    assert (made.outgoing.channel, made.outgoing.content.text) == ("sms", "Hola, Ana: pedido MX-10482")
    assert [one.reason for one in made.gates] == ["unreachable"]


def test_notes_say_why_they_would_not_get_it_at_all(quick: Shop) -> None:
    changed(quick, holdout=1.0)
    campaign = THANKS + "    active: no\n    where: country = 'BR'\n"
    quick.write(thanks=campaign.replace("template: hi}", "template: hi, where: orders_count > 99}"))

    assert quick.preview().notes == (
        "the campaign is switched off (active: no)",
        "the `where` of the campaign does not hold for them: they would not get it",
        "the `where` of the step hello does not hold for them: they would not get it",
        "they are in the global holdout: they get no marketing",
    )
    changed(quick, holdout=0.0)
    quick.write(thanks=THANKS + "    holdout: 100%\n")
    assert quick.preview().notes == ("they draw the campaign's holdout: they would not get it",)


def test_a_campaign_that_is_off_is_previewed_on_the_channels_that_there_are(quick: Shop) -> None:
    off = THANKS + "    active: no\n"
    quick.write(
        thanks=off.replace("[sms, whatsapp, email]", "[call, sms]"), calls=off.replace("[sms, whatsapp, email]", "call")
    )

    assert quick.preview().outgoing.channel == "sms"
    with pytest.raises(NotFound, match=r"step hello of calls goes by call alone: configure it in outreach\.yaml first"):
        quick.preview("calls")


# --- a test copy ---------------------------------------------------------------------------------


def test_a_test_copy_is_marked_and_nothing_is_written_of_it(shop: Shop) -> None:
    manual.send_test(shop.db, shop.settings, shop.preview(channel="email"), "Me@Example.com", NOW)
    manual.send_test(shop.db, shop.settings, shop.preview(channel="sms"), "55 4100 0009", NOW)
    manual.send_test(shop.db, shop.settings, shop.preview(channel="whatsapp"), "+525541000009", NOW)

    files = {path.name.rpartition("-")[2]: path for path in shop.outbox()}
    mail = message_from_bytes(files["email.eml"].read_bytes(), policy=policy.default)
    sms, whatsapp = (json.loads(files[f"{name}.json"].read_text()) for name in ("sms", "whatsapp"))
    assert (mail["Subject"], mail["To"]) == ("[TEST] Pedido o2", "me@example.com")
    assert (sms["to"], sms["text"], sms["segments"]) == ("+525541000009", "[TEST] Hola, Ana: pedido o2", 1)
    assert (whatsapp["variables"], whatsapp["text"]) == ({"1": "[TEST] Ana", "2": "o2"}, "[TEST] Pedido o2")
    assert all(one["id"].startswith("test-") for one in (sms, whatsapp))
    assert len(files) == 3


def test_a_test_copy_leaves_at_any_hour_and_with_the_longest_address_for_answers(
    quick: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a Saturday, before a Monday's sending hours; with a reply-to of 31 characters before the @."""
    changed(quick, sending_hours={"default": parse_week_hours({"mon-fri": "09:00-20:00"})})
    seen: list[Outgoing] = []

    def send(_: object, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        for outgoing in batch:
            seen.append(outgoing)
            yield Receipt(outgoing.public_id, Outcome.ACCEPTED, "p")

    monkeypatch.setattr(outbox.Outbox, "send", send)
    saturday = NOW + timedelta(days=(5 - NOW.weekday()) % 7)
    made = manual.preview(quick.db, quick.settings, quick.files, saturday, "thanks", "hello", "c1", channel="email")
    assert made.outgoing.valid_until is not None
    manual.send_test(quick.db, quick.settings, made, "me@example.com", saturday)

    (copy,) = seen
    assert copy.valid_until is None
    assert len(with_token(f"{'r' * 31}@shop.example", copy.public_id).rpartition("@")[0]) <= 64


def test_the_mark_counts_as_part_of_the_text(quick: Shop) -> None:
    quick.write({"message_templates/hi.sms.j2": "x" * 158}, thanks=THANKS)
    made = quick.preview()
    assert made.outgoing.content.segments == 1

    manual.send_test(quick.db, quick.settings, made, "+525541000009", NOW)

    assert json.loads(quick.outbox()[0].read_text())["segments"] == 2


def test_a_test_copy_stays_within_a_rehearsal(quick: Shop) -> None:
    changed(quick, only_to=("me@example.com",))

    with pytest.raises(OutreachError, match="only_to"):
        manual.send_test(quick.db, quick.settings, quick.preview(channel="email"), "you@example.com", NOW)
    manual.send_test(quick.db, quick.settings, quick.preview(channel="email"), "me@example.com", NOW)
    assert len(quick.outbox()) == 1


def test_no_test_copy_goes_to_who_must_not_be_contacted(db: Database, tmp_path: Path) -> None:
    shop = Shop(db, shop_settings(tmp_path), {})
    shop.write(thanks=THANKS)
    shop.feed(customer(1))
    with store.write(db) as connection:
        values = {"address_hash": store.address_hash(db.secret, "email", "me@example.com"), "kind": "email"}
        connection.execute(insert(table(Suppression)).values(**values, scope="contact", channel="", source="", at=NOW))

    with pytest.raises(OutreachError, match="do-not-contact"):
        manual.send_test(db, shop.settings, shop.preview(channel="email"), "me@example.com", NOW)
    assert shop.outbox() == []


def test_a_test_copy_that_cannot_leave_says_so_and_quotes_no_address(quick: Shop) -> None:
    made = quick.preview(channel="email")
    with pytest.raises(OutreachError) as error:
        manual.send_test(quick.db, quick.settings, made, "me@nowhere", NOW)
    assert "me@nowhere" not in str(error.value)

    (quick.settings.workspace / "outbox").write_text("a file where the folder should be")
    with pytest.raises(ChannelError):
        manual.send_test(quick.db, quick.settings, made, "me@example.com", NOW)

    changed(quick, channels={**quick.settings.channels, "call": ChannelSettings("staff")})
    quick.write({"message_templates/hi.call.j2": "Llama"}, thanks=THANKS.replace("email]", "email, call]"))
    with pytest.raises(OutreachError, match="no provider"):
        manual.send_test(quick.db, quick.settings, quick.preview(channel="call"), "+525541000009", NOW)


def test_a_paused_campaign_shows_it(db: Database, tmp_path: Path) -> None:
    shop = Shop(db, shop_settings(tmp_path), {})
    shop.write(thanks=THANKS)
    shop.feed(customer(1))
    releases.publish(db, shop.settings, shop.files, NOW)
    with store.write(db) as connection:
        connection.execute(update(table(CampaignState)).values(paused_at=NOW))

    assert [one.reason for one in shop.preview().gates] == ["paused"]
