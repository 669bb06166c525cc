from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from outreach import coupons, importer, planner, reconciler, releases, store
from outreach.channels import Outgoing, Receipt
from outreach.coupons import Verdict
from outreach.errors import NotFound, OutreachError, SettingsError
from outreach.importer import posting
from outreach.models import (
    CampaignState,
    CouponMessage,
    CouponRedemption,
    Enrolment,
    MessageEvent,
    OfferState,
    Reason,
    Status,
)
from outreach.reconciler import Decision
from outreach.settings import raw_catalogue, with_catalogue
from outreach.sources.csv import CsvSource
from outreach.store import Database
from tests.conftest import NOW
from tests.coupon_shop import AGAIN, GREET, OFFER, CouponShop, accepted, doubtful, later, refused
from tests.shop import customer, feed, order, rows_of, shop_settings, write_csv

DAY = timedelta(days=1)


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> CouponShop:
    """A shop with the offer `back`: 15 %, good for 14 days, generated codes; none is made yet."""
    made = CouponShop(db, shop_settings(tmp_path))
    made.offer()
    made.publish(greet=GREET, again=AGAIN)
    return made


def paused(shop: CouponShop, name: str = "greet") -> str:
    (state,) = rows_of(shop.db, CampaignState, name=name)
    return state.paused_reason if state.paused_at else ""


def books_balance(shop: CouponShop) -> None:
    """The counter is what counting the coupons gives; a code has an owner exactly while it is given out."""
    rows = shop.coupons()
    held = [row for row in rows if row.customer_id is not None]
    issued = {row.name: row.issued for row in rows_of(shop.db, OfferState)}
    assert {name: many for name, many in issued.items() if many} == {
        name: sum(row.offer == name for row in held) for name in {row.offer for row in held}
    }
    assert all((row.customer_id is None) == (row.status in ("made", "live")) for row in rows if row.status != "void")


# --- codes ---------------------------------------------------------------------------------------


def test_made_codes_are_different_unguessable_and_cannot_be_misread(shop: CouponShop) -> None:
    shop.offer("{kind: percent, value: 15, prefix: LUNA-}")

    made = coupons.make(shop.db, shop.settings.offers["back"], 1_500, NOW)

    assert len(set(made)) == 1_500
    assert all(re.fullmatch(r"LUNA-[CDFGHJKMNPQRTWXY34679]{12}", code) for code in made)
    assert {row.code: row.status for row in shop.coupons()} == dict.fromkeys(made, "made")


def test_codes_of_a_file_are_live_and_what_cannot_be_taken_is_refused_by_line(shop: CouponShop, tmp_path: Path) -> None:
    shop.offer("{kind: percent, value: 15, codes: codes.csv}", other="{kind: percent, value: 5}")
    taken_before = coupons.make(shop.db, shop.settings.offers["other"], 1, NOW)[0]
    path = tmp_path / "codes.csv"
    path.write_text(f"name,Code\na,UNO-1\nb,uno-1\nc,=SUM(A1)\nd,\ne,{taken_before}\nf,DOS-2\n", encoding="utf-8")
    offer = shop.settings.offers["back"]

    first = coupons.take(shop.db, offer, path, NOW)
    again = coupons.take(shop.db, offer, path, NOW)

    assert first.codes == ["UNO-1", "DOS-2"]
    assert [(one.line, one.reason) for one in first.refused] == [
        (3, "line 2 has the same code"),
        (4, "a code is letters, digits, `.`, `-` and `_`, and begins with a letter or a digit"),
        (5, "there is no code in it"),
        (6, "it is a code of the offer other"),
    ]
    assert (again.codes, again.unchanged) == ([], 2)
    assert {row.code for row in shop.coupons(status="live")} == {"UNO-1", "DOS-2"}


def test_a_used_code_of_a_file_is_refused_by_its_line(shop: CouponShop, tmp_path: Path) -> None:
    shop.offer("{kind: percent, value: 15, codes: codes.csv}")
    shop.publish(greet=GREET)
    path = tmp_path / "codes.csv"
    path.write_text("UNO-1\n", encoding="utf-8")
    coupons.take(shop.db, shop.settings.offers["back"], path, NOW)
    shop.arrive()
    shop.run()

    again = coupons.take(shop.db, shop.settings.offers["back"], path, NOW)

    assert [(one.line, one.reason) for one in again.refused] == [(1, "it has been used already: it is issued")]


def test_of_a_void_code_it_is_said_that_it_is_void_and_why(shop: CouponShop, tmp_path: Path) -> None:
    shop.offer("{kind: percent, value: 15, codes: codes.csv}")
    path = tmp_path / "codes.csv"
    path.write_text("UNO-1\nDOS-2\n", encoding="utf-8")
    coupons.take(shop.db, shop.settings.offers["back"], path, NOW)
    coupons.void(shop.db, ["uno-1"], "printed wrongly", NOW)
    coupons.void(shop.db, ["dos-2"], "", NOW)

    again, live = coupons.take(shop.db, shop.settings.offers["back"], path, NOW), coupons.activate(shop.db, path)

    said = [(1, "it is void: printed wrongly"), (2, "it is void")]
    assert [(one.line, one.reason) for one in again.refused] == said
    assert [(one.line, one.reason) for one in live.refused] == said


@pytest.mark.parametrize("typed", ["Promoción10", "PROMOCIÓN10", " promoción10 "])
def test_a_code_is_found_however_its_letters_are_written(shop: CouponShop, tmp_path: Path, typed: str) -> None:
    shop.offer("{kind: percent, value: 15, codes: codes.csv}")
    path = tmp_path / "codes.csv"
    path.write_text("Promoción10\nPromocion10\nPromoción101\n", encoding="utf-8")
    coupons.take(shop.db, shop.settings.offers["back"], path, NOW)

    assert [one.code for one in coupons.listed(shop.db, NOW, code=typed)] == ["Promoción10"]
    assert coupons.void(shop.db, [typed], "", NOW) == ["Promoción10"]


def test_a_shared_code_is_found_with_every_customer_who_has_it(shop: CouponShop) -> None:
    shop.offer("{kind: percent, value: 15, codes: {shared: Señal5}}", other="{kind: percent, value: 5, codes: c.csv}")
    shop.publish(greet=GREET)
    path = shop.settings.workspace / "c.csv"
    path.write_text("SEÑAL\nSEÑAL51\nSEÑAL5A\n", encoding="utf-8")
    coupons.take(shop.db, shop.settings.offers["other"], path, NOW)
    names = shop.arrive(12)
    shop.run()

    assert sorted(str(one.customer) for one in coupons.listed(shop.db, NOW, code="señal5")) == sorted(names)
    assert coupons.void(shop.db, ["SEÑAL5"], "", NOW) == ["Señal5"] * 12
    with pytest.raises(NotFound, match="there is no code 'SEÑAL5B'"):
        coupons.listed(shop.db, NOW, code="SEÑAL5B")


def test_a_code_is_looked_up_by_an_index_and_never_by_reading_all_codes(shop: CouponShop) -> None:
    asked: list[tuple[str, Any]] = []
    event.listen(shop.db.engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2:4]))
    shop.live(1)
    (code,) = shop.live(1)
    asked.clear()

    coupons.listed(shop.db, NOW, code=code)

    looks = [one for one in asked if "coupons" in one[0]]
    assert len(looks) == 2
    for statement, values in looks:
        assert reads_by_index(shop.db, statement, values)


def reads_by_index(db: Database, statement: str, values: Any) -> bool:
    """Whether the database can answer it without reading the table of coupons whole."""
    with store.read(db) as connection:
        if db.is_sqlite:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            return not any(row.detail.startswith("SCAN coupons") for row in plan)
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = connection.exec_driver_sql(f"EXPLAIN {statement}", values)
        return not any("Seq Scan on coupons" in row[0] for row in plan)


def test_only_codes_that_the_cart_knows_become_live(shop: CouponShop, tmp_path: Path) -> None:
    first, second, third = coupons.make(shop.db, shop.settings.offers["back"], 3, NOW)
    coupons.void(shop.db, [third], "", NOW)
    path = tmp_path / "from-the-cart.csv"
    path.write_text(f"post_title,discount_type\n{first},percent\nNOBODYS,percent\n{third},percent\n", encoding="utf-8")

    done = coupons.activate(shop.db, path)

    assert done.codes == [first]
    assert [(one.line, one.reason) for one in done.refused] == [(3, "nobody made this code here"), (4, "it is void")]
    assert {row.code: row.status for row in shop.coupons()} == {first: "live", second: "made", third: "void"}
    assert coupons.activate(shop.db, path).unchanged == 1
    assert coupons.activate_all(shop.db, "back") == 1


@pytest.mark.parametrize(
    ("offer", "problem"),
    [
        ("{kind: percent, value: 9, codes: {shared: A}, prefix: X}", "only generated codes have a `prefix`"),
        ("{kind: percent, value: 9, codes: {shared: A}, trust: yes}", "`trust` means nothing where everybody has"),
        ("{kind: percent, value: 9, codes: {shared: A}, shareable: yes}", "`shareable` means nothing where everybody"),
        ("{kind: percent, value: 9, replaces: back}", "names the offer itself"),
        ("{kind: percent, value: 9, replaces: nine}", "names `nine`, which is no offer: there are back, other"),
        ("{kind: percent, value: 9, replaces: other}", "`offers.back` and `offers.other` replace each other"),
        ("{kind: percent, value: 9, uses: 0}", "`offers.back.uses`: `0` is not a whole number"),
    ],
)
def test_an_offer_whose_keys_cannot_hold_together_is_a_problem(tmp_path: Path, offer: str, problem: str) -> None:
    text = f"offers:\n  back: {offer}\n  other: {{kind: percent, value: 5, replaces: back}}\n"
    with pytest.raises(SettingsError) as error:
        with_catalogue(shop_settings(tmp_path), raw_catalogue(text))
    assert problem in str(error.value)


# --- who gets which code ---------------------------------------------------------------------------


def test_each_customer_gets_a_live_code_of_their_own_with_its_expiry_in_their_zone(shop: CouponShop) -> None:
    shop.live(3)
    sent = datetime(2026, 10, 20, 15, tzinfo=UTC)  # the fortnight holds a change of Madrid's clocks, none of Mexico's
    names = shop.arrive(1, sent, country="MX") + shop.arrive(1, sent, country="ES", timezone="Europe/Madrid")

    shop.run(sent)

    issued = {row.code: row for row in shop.coupons(status="issued")}
    assert sorted(shop.provider.codes) == sorted(issued)
    assert len(issued) == 2
    by_zone = sorted((row.expires_at - sent for row in issued.values()), reverse=True)
    assert by_zone == [14 * DAY + timedelta(hours=1), 14 * DAY]
    listed = coupons.listed(shop.db, sent, status="issued")
    assert {one.customer for one in listed} == set(names)
    assert {one.message for one in listed} == {message.public_id for message in shop.messages()}
    books_balance(shop)


def test_a_code_that_the_cart_does_not_know_yet_is_given_to_nobody(shop: CouponShop) -> None:
    coupons.make(shop.db, shop.settings.offers["back"], 5, NOW)
    shop.arrive()

    shop.run()

    assert (shop.provider.got, shop.coupons(status="issued")) == ([], [])
    assert paused(shop) == "offer back: no live code is left"


def test_a_trusted_offer_makes_its_codes_as_it_gives_them_out(shop: CouponShop) -> None:
    shop.offer("{kind: percent, value: 15, trust: yes, prefix: T-}")
    shop.publish(greet=GREET)
    made = coupons.make(shop.db, shop.settings.offers["back"], 1, NOW)
    shop.arrive(3)

    shop.run()

    assert made[0] in shop.provider.codes
    assert len(set(shop.provider.codes)) == 3
    assert all(code.startswith("T-") for code in shop.provider.codes)
    books_balance(shop)


def test_a_customer_with_an_unused_coupon_keeps_its_code_and_expiry_in_later_messages(shop: CouponShop) -> None:
    shop.live(5)
    (name,) = shop.arrive()
    shop.run()
    (first,) = shop.coupons(status="issued")

    shop.cart(name, 1, NOW + 3 * DAY)
    shop.run(NOW + 3 * DAY)

    assert shop.provider.codes == [first.code] * 2
    assert shop.coupons(status="issued") == [first]
    books_balance(shop)


def test_an_expired_or_redeemed_coupon_is_followed_by_a_new_one(shop: CouponShop) -> None:
    shop.live(5)
    late, buyer = shop.arrive(2)
    shop.run()
    codes = {one.customer: one.code for one in coupons.listed(shop.db, NOW, status="issued")}
    coupons.redeem(shop.db, shop.settings, codes[buyer], NOW + DAY)

    shop.cart(late, 1, NOW + 15 * DAY)
    shop.cart(buyer, 2, NOW + 15 * DAY)
    shop.run(NOW + 15 * DAY)

    assert len(set(shop.provider.codes)) == 4
    statuses = {(one.customer, one.status) for one in coupons.listed(shop.db, NOW + 15 * DAY) if one.customer}
    assert statuses == {(late, "expired"), (late, "issued"), (buyer, "redeemed"), (buyer, "issued")}
    books_balance(shop)


def test_what_a_customer_may_not_have_again_ends_with_that_reason(shop: CouponShop) -> None:
    shop.offer("{kind: percent, value: 15, expires: 2 days, per_customer: 1 per 180 days}")
    shop.publish(greet=GREET, again=AGAIN)
    shop.live(5)
    (name,) = shop.arrive()
    shop.run()

    shop.cart(name, 1, NOW + 3 * DAY)
    shop.run(NOW + 3 * DAY)

    (again,) = shop.messages(campaign="again")
    assert (again.status, again.reason, again.detail) == (Status.SKIPPED, Reason.NO_COUPON, "back: 1 per 180 days")
    assert len(shop.coupons(status="live")) == 4


def test_a_better_offer_makes_the_weaker_code_void_and_no_weaker_one_follows(shop: CouponShop) -> None:
    shop.offer(OFFER, better="{kind: percent, value: 30, replaces: back}")
    shop.publish(greet=GREET, again=AGAIN.replace("offer: back", "offer: better"), third=AGAIN)
    shop.live(3)
    shop.live(3, "better")
    (name,) = shop.arrive()
    shop.run()

    shop.cart(name, 1, NOW + DAY)
    shop.run(NOW + DAY)

    weaker, better = shop.coupons(offer="back", status="void"), shop.coupons(offer="better", status="issued")
    assert [(row.reason, row.voided_at) for row in weaker] == [("replaced by better", NOW + DAY)]
    assert len(better) == 1
    (third,) = shop.messages(campaign="third")
    assert (third.reason, third.detail) == (Reason.NO_COUPON, "back: they have better, which replaces it")
    assert shop.provider.codes == [weaker[0].code, better[0].code]
    books_balance(shop)


def test_a_better_offer_that_certainly_never_left_gives_the_weaker_code_back(shop: CouponShop) -> None:
    shop.offer(OFFER, better="{kind: percent, value: 30, replaces: back}")
    shop.publish(greet=GREET, again=AGAIN.replace("offer: back", "offer: better"))
    shop.live(1)
    shop.live(1, "better")
    (name,) = shop.arrive()
    shop.run()
    (before,) = shop.coupons(offer="back")

    shop.cart(name, 1, NOW + DAY)
    shop.run(NOW + DAY, refused)

    assert shop.coupons(offer="back") == [before]
    assert [row.status for row in shop.coupons(offer="better")] == ["live"]
    books_balance(shop)


def test_a_shared_code_is_counted_for_each_customer_within_the_budget(shop: CouponShop) -> None:
    shop.offer("{kind: percent, value: 15, codes: {shared: VUELVE15}, budget: 2}")
    shop.publish(greet=GREET)
    shop.arrive(3)

    shop.run()

    assert shop.provider.codes == ["VUELVE15"] * 2
    assert len({row.customer_id for row in shop.coupons(status="issued")}) == 2
    assert paused(shop) == "offer back: its budget of 2 is given out"
    books_balance(shop)


# --- what becomes of the message ---------------------------------------------------------------------


def test_an_offer_that_runs_out_pauses_its_campaign_before_a_message_without_a_code(shop: CouponShop) -> None:
    shop.live(2)
    shop.arrive(5)

    counts = shop.run()

    waiting = [row for row in shop.messages() if row.status == Status.PLANNED]
    assert (counts.sent, counts.by_reason, len(waiting)) == (2, {"paused": 3}, 3)
    assert all((row.attempts, row.blocked_by, row.ready_at <= NOW) == (0, Reason.PAUSED, True) for row in waiting)
    assert paused(shop) == "offer back: no live code is left"
    shop.live(3)
    releases.resume(shop.db, "greet", NOW)
    assert shop.run(NOW + timedelta(minutes=1)).sent == 3
    assert len(set(shop.provider.codes)) == 5
    books_balance(shop)


def test_a_certain_refusal_returns_the_code_to_the_pool(shop: CouponShop) -> None:
    code = shop.live(1)
    shop.arrive()
    shop.run(answer=refused)
    assert [(row.code, row.status, row.customer_id) for row in shop.coupons()] == [(code[0], "live", None)]
    assert rows_of(shop.db, CouponMessage) == []
    books_balance(shop)

    (second,) = shop.arrive()
    shop.run(answer=accepted)

    assert [one.customer for one in coupons.listed(shop.db, NOW, status="issued")] == [second]


def test_doubt_leaves_the_code_with_the_customer_whatever_a_person_decides(shop: CouponShop) -> None:
    shop.live(3)
    shop.arrive(3)
    shop.run(answer=doubtful)
    owners = {row.code: row.customer_id for row in shop.coupons(status="issued")}
    assert len(owners) == 3
    sent, dropped, resent = (message.public_id for message in shop.messages())
    for message, decision in ((sent, Decision.SENT), (dropped, Decision.DROP), (resent, Decision.RESEND)):
        reconciler.resolve(shop.db, message, decision, NOW, settings=shop.settings)

    shop.dispatch(NOW + timedelta(hours=1), refused)  # the one that is sent again

    assert [row.status for row in shop.messages()] == [Status.SENT, Status.FAILED, Status.FAILED]
    assert {row.code: row.customer_id for row in shop.coupons(status="issued")} == owners
    books_balance(shop)


def test_a_retry_carries_the_same_code_with_its_expiry_computed_anew(shop: CouponShop) -> None:
    shop.live(3)
    shop.arrive()
    shop.run(answer=later)
    (before,) = shop.coupons(status="issued")
    assert before.expires_at == NOW + 14 * DAY

    shop.dispatch(NOW + 2 * DAY, accepted)

    (after,) = shop.coupons(status="issued")
    assert (after.code, after.customer_id) == (before.code, before.customer_id)
    assert (after.issued_at, after.expires_at) == (NOW + 2 * DAY, NOW + 16 * DAY)
    assert shop.provider.codes == [before.code] * 2
    books_balance(shop)


def test_a_retry_of_a_code_that_another_message_brought_keeps_its_expiry(shop: CouponShop) -> None:
    shop.live(3)
    (name,) = shop.arrive()
    shop.run()
    (before,) = shop.coupons(status="issued")
    shop.cart(name, 1, NOW + DAY)
    shop.run(NOW + DAY, later)

    shop.dispatch(NOW + 3 * DAY, accepted)

    assert shop.coupons(status="issued") == [before]
    assert shop.provider.codes == [before.code] * 3


def test_a_refused_message_leaves_a_code_that_another_one_brought_with_its_customer(shop: CouponShop) -> None:
    shop.live(1)
    (name,) = shop.arrive()
    shop.run()
    before = shop.coupons()

    shop.cart(name, 1, NOW + DAY)
    shop.run(NOW + DAY, refused)

    assert shop.coupons() == before


def test_a_retry_that_ends_before_it_leaves_returns_its_code(shop: CouponShop) -> None:
    shop.live(1)
    shop.arrive()
    shop.run(answer=later)
    assert len(shop.coupons(status="issued")) == 1

    releases.cancel(shop.db, "greet", None, NOW + timedelta(minutes=1))
    shop.dispatch(NOW + timedelta(minutes=2))

    assert [row.status for row in shop.messages()] == [Status.CANCELLED]
    assert [row.status for row in shop.coupons()] == ["live"]
    books_balance(shop)


def test_what_a_rule_ends_or_nobody_can_fill_burns_no_code(shop: CouponShop) -> None:
    shop.live(3)
    text = "---\nsubject: '{{ customer.last_name }}'\n---\n{{ coupon.code }} <a href='{{ links.unsubscribe }}'>baja</a>"
    shop.publish(nameless=GREET.replace("template: c", "template: n"), n=text)
    complains, nameless = shop.arrive(2)
    planner.plan(shop.db, shop.settings, NOW)
    case = {"case_id": "k", "customer_id": complains, "kind": "return", "opened_at": NOW}
    feed(shop.db, shop.settings, NOW, cases=[case])

    counts = shop.dispatch()

    assert counts.by_reason == {"case_open": 1, "undefined": 1}
    assert [row.status for row in shop.coupons()] == ["live"] * 3
    assert rows_of(shop.db, CouponMessage) == []
    feed(shop.db, shop.settings, NOW, customers=[customer(nameless[1:], last_name="Ruiz", created_at=NOW)])
    assert shop.dispatch(NOW + DAY).sent == 1
    books_balance(shop)


def test_nothing_is_read_or_locked_for_a_chunk_without_an_offer(shop: CouponShop) -> None:
    shop.publish(greet=GREET.replace(", offer: back", "").replace("template: c", "template: m"))
    shop.arrive(3)
    planner.plan(shop.db, shop.settings, NOW)
    asked: list[str] = []
    event.listen(shop.db.engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))

    shop.dispatch()

    mine = [text for text in asked if "coupon" in text or "offers" in text]
    assert len(shop.provider.got) == 3
    assert len(mine) == 1, mine  # the one look at the end of a tick whether anything is to be settled


# --- redeeming -----------------------------------------------------------------------------------------


def given(shop: CouponShop, many: int = 1) -> list[tuple[str, str]]:
    """Customers with their codes."""
    shop.live(many)
    shop.arrive(many)
    shop.run()
    found = coupons.listed(shop.db, NOW, status="issued")
    return sorted((str(one.customer), one.code) for one in found)


def verdicts(shop: CouponShop) -> list[tuple[str | None, str]]:
    return sorted((one.customer, one.verdict) for one in coupons.uses(shop.db))


def test_an_imported_order_redeems_its_coupon_once_however_often_it_is_imported(shop: CouponShop) -> None:
    ((name, code),) = given(shop)
    row = order(1, name, NOW + DAY, coupon_code=f" {code.lower()} ")

    for _ in range(2):
        feed(shop.db, shop.settings, NOW + 2 * DAY, orders=[row])

    (coupon,) = coupons.listed(shop.db, NOW + 2 * DAY, status="redeemed")
    assert (coupon.customer, coupon.order, coupon.redeemed_at, coupon.used) == (name, "o1", NOW + DAY, 1)
    (happened,) = rows_of(shop.db, MessageEvent, kind="coupon_redeemed")
    (message,) = shop.messages()
    assert (happened.message_id, happened.customer_id, happened.at) == (message.id, message.customer_id, NOW + DAY)


def test_a_wrong_customer_a_late_one_and_one_too_many_are_recorded_as_such(shop: CouponShop) -> None:
    (first, one), (second, two) = given(shop, 2)
    orders = [
        order(1, second, NOW + DAY, coupon_code=one),
        order(2, first, NOW + 20 * DAY, coupon_code=one),
        order(3, second, NOW + 2 * DAY, coupon_code=two),
        order(4, second, NOW + 3 * DAY, coupon_code=two),
    ]

    feed(shop.db, shop.settings, NOW + 30 * DAY, orders=orders)

    assert verdicts(shop) == [
        (first, "expired"), (second, "over_used"), (second, "valid"), (second, "wrong_customer"),
    ]  # fmt: skip
    assert {row.status for row in shop.coupons(code=one)} == {"issued"}
    assert len(rows_of(shop.db, MessageEvent, kind="coupon_redeemed")) == 1


def test_a_shareable_code_is_good_for_others_as_often_as_it_says_and_credits_its_owner(shop: CouponShop) -> None:
    shop.offer("{kind: percent, value: 15, shareable: yes, uses: 2}")
    shop.publish(greet=GREET)
    ((owner, code),) = given(shop)
    friends = [order(n, f"friend{n}", NOW + n * DAY, coupon_code=code) for n in (1, 2, 3)]

    feed(shop.db, shop.settings, NOW + 5 * DAY, orders=friends)

    assert verdicts(shop) == [("friend1", "valid"), ("friend2", "valid"), ("friend3", "over_used")]
    owners = {row.customer_id for row in rows_of(shop.db, MessageEvent, kind="coupon_redeemed")}
    assert owners == {shop.coupons()[0].customer_id}
    assert coupons.listed(shop.db, NOW)[0].customer == owner


def test_new_and_changed_orders_of_one_file_lock_the_offers_in_the_order_of_their_names(
    shop: CouponShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dispatcher takes them in that order, too: else each could wait for the other."""
    shop.offer(OFFER, early="{kind: percent, value: 5}")
    shop.publish(greet=GREET, again=AGAIN.replace("offer: back", "offer: early"))
    ((name, late),) = given(shop)
    shop.live(1, "early")
    shop.cart(name, 1, NOW)
    shop.run()
    early = shop.coupons(offer="early")[0].code
    feed(shop.db, shop.settings, NOW + DAY, orders=[order(1, name, NOW + DAY, coupon_code="")])
    locked: list[str] = []
    real = store.lock

    def noted(connection: Any, what: store.Lock, which: str = "", **how: Any) -> bool:
        if what is store.Lock.OFFER and which not in locked:
            locked.append(which)
        return real(connection, what, which, **how)

    monkeypatch.setattr(store, "lock", noted)
    rows = [order(1, name, NOW + DAY, coupon_code=late), order(2, name, NOW + DAY, coupon_code=early)]
    feed(shop.db, shop.settings, NOW + 2 * DAY, orders=rows)

    assert locked == ["back", "early"]
    assert [one.verdict for one in coupons.uses(shop.db)] == ["valid", "valid"]
    rows = [order(1, name, NOW + DAY, coupon_code=early), order(3, name, NOW + DAY, coupon_code=late)]
    locked.clear()
    feed(shop.db, shop.settings, NOW + 2 * DAY, orders=rows)
    assert locked == ["back", "early"]


def test_an_order_that_changes_its_code_takes_its_redemption_back(shop: CouponShop) -> None:
    (first, one), (_, two) = given(shop, 2)
    feed(shop.db, shop.settings, NOW + DAY, orders=[order(1, first, NOW + DAY, coupon_code=two)])
    assert verdicts(shop) == [(first, "wrong_customer")]

    feed(shop.db, shop.settings, NOW + DAY, orders=[order(1, first, NOW + DAY, coupon_code=one)])
    assert verdicts(shop) == [(first, "valid")]
    feed(shop.db, shop.settings, NOW + DAY, orders=[order(1, first, NOW + DAY, coupon_code="")])

    assert verdicts(shop) == []
    assert {row.status for row in shop.coupons()} == {"issued"}
    assert rows_of(shop.db, MessageEvent, kind="coupon_redeemed") == []


def test_a_code_that_was_used_without_having_been_sent_goes_to_nobody(shop: CouponShop) -> None:
    (code,) = shop.live(1)
    feed(shop.db, shop.settings, NOW, orders=[order(1, "thief", NOW - DAY, coupon_code=code)])
    shop.arrive()

    shop.run()

    assert verdicts(shop) == [("thief", "not_issued")]
    assert (shop.coupons()[0].status, shop.coupons()[0].reason) == ("void", "it was used without having been given out")
    assert shop.provider.got == []


def test_an_event_and_the_order_it_names_are_one_use(shop: CouponShop) -> None:
    ((name, code),) = given(shop)
    told = {"event_id": "r1", "customer_id": name, "name": "coupon.redeemed", "at": (NOW + DAY).isoformat()}
    body = json.dumps({**told, "code": code, "order": "o7"}).encode()
    for _ in range(2):
        posted = posting.read_events(body, shop.settings, NOW + DAY)
        posting.post_events(shop.db, shop.settings, NOW + DAY, posted)
    assert [(one.verdict, one.source, one.order) for one in coupons.uses(shop.db)] == [("valid", "event", None)]

    feed(shop.db, shop.settings, NOW + 2 * DAY, orders=[order(7, name, NOW + DAY, coupon_code=code)])

    assert [(one.verdict, one.source, one.order) for one in coupons.uses(shop.db)] == [("valid", "order", "o7")]
    assert coupons.redeem(shop.db, shop.settings, code, NOW + 3 * DAY, order="o7") is Verdict.VALID
    assert coupons.redeem(shop.db, shop.settings, code, NOW + 3 * DAY) is Verdict.OVER_USED


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "`code` is missing: an event coupon.redeemed names the coupon's code, as text"),
        ({"code": 15}, "`code` is missing: an event coupon.redeemed names the coupon's code, as text"),
        ({"code": "A", "order": ["o1"]}, "`order` is the shop's own id of the order, as text or a number"),
    ],
)
def test_an_event_that_names_no_code_is_refused(tmp_path: Path, fields: dict[str, Any], problem: str) -> None:
    told = {"event_id": "r1", "customer_id": "c0", "name": "coupon.redeemed", "at": NOW.isoformat(), **fields}
    with pytest.raises(ValueError, match="^" + re.escape(problem)):
        posting.read_events(json.dumps(told).encode(), shop_settings(tmp_path), NOW)


def test_the_verdicts_do_not_depend_on_the_order_in_which_uses_are_heard(shop: CouponShop) -> None:
    codes = given(shop, 6)
    other = "stranger"
    for (name, code), hearing in zip(codes, permutations(range(3)), strict=True):
        orders = [
            order(f"{name}-early", other, NOW + DAY, coupon_code=code),
            order(f"{name}-first", name, NOW + 2 * DAY, coupon_code=code),
            order(f"{name}-second", name, NOW + 3 * DAY, coupon_code=code),
        ]
        for number in hearing:
            feed(shop.db, shop.settings, NOW + 9 * DAY, orders=[orders[number]])

    told = {(one.order, one.verdict) for one in coupons.uses(shop.db)}
    assert told == {
        (f"o{name}-{which}", verdict)
        for name, _ in codes
        for which, verdict in (("early", "wrong_customer"), ("first", "valid"), ("second", "over_used"))
    }
    assert {row.redeemed_at for row in shop.coupons()} == {NOW + 2 * DAY}


def test_redeeming_by_hand_says_what_it_made_of_it_and_knows_no_strange_code(shop: CouponShop) -> None:
    (first, one), (second, _) = given(shop, 2)

    assert coupons.redeem(shop.db, shop.settings, one, NOW + DAY, customer=second) is Verdict.WRONG_CUSTOMER
    assert coupons.redeem(shop.db, shop.settings, one.lower(), NOW + DAY, customer=first) is Verdict.VALID
    with pytest.raises(NotFound, match="there is no code 'NOBODYS'"):
        coupons.redeem(shop.db, shop.settings, "NOBODYS", NOW)


def test_a_void_code_is_recorded_as_void_and_a_redeemed_one_cannot_be_made_void(shop: CouponShop) -> None:
    (first, one), (_, two) = given(shop, 2)
    coupons.void(shop.db, [one], "a mistake", NOW + DAY)
    assert coupons.redeem(shop.db, shop.settings, one, NOW + 2 * DAY) is Verdict.VOID
    coupons.redeem(shop.db, shop.settings, two, NOW + 2 * DAY)
    with pytest.raises(OutreachError, match="has been redeemed"):
        coupons.void(shop.db, [two], "", NOW)

    shop.live(1)
    shop.cart(first, 1, NOW + 2 * DAY)
    shop.run(NOW + 2 * DAY)

    assert len(set(shop.provider.codes)) == 3


def test_an_import_of_orders_without_our_codes_asks_for_codes_and_for_redemptions_once_a_batch(
    shop: CouponShop, tmp_path: Path
) -> None:
    rows = [order(n, f"c{n}", NOW, coupon_code="BIENVENIDA10" if n % 2 else "") for n in range(300)]
    asked: list[str] = []
    event.listen(shop.db.engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))

    importer.import_source(shop.db, shop.settings, CsvSource({"orders": write_csv(tmp_path / "o.csv", rows)}), NOW)

    assert [len([text for text in asked if name in text]) for name in ("FROM coupons", "FROM coupon_r")] == [1, 1]
    assert rows_of(shop.db, CouponRedemption) == []


# --- campaigns that ask for it -------------------------------------------------------------------------

EXPIRING = """
    title: Expiring
    brake: 100000
    trigger: {event: coupon.expiring, before: 3 days}
    steps: [{id: remind, after: 0 minutes, channel: email, template: c}]
"""


@pytest.mark.parametrize("offer", [OFFER, OFFER.replace("expires", "uses: 2, expires")])
def test_only_who_has_not_redeemed_is_reminded_and_with_the_very_same_coupon(shop: CouponShop, offer: str) -> None:
    shop.offer(offer)
    shop.publish(greet=GREET, again=AGAIN, expiring=EXPIRING)
    people = dict(given(shop, 3))
    buyer, late, idle = people
    feed(shop.db, shop.settings, NOW + DAY, orders=[order(1, buyer, NOW + DAY, coupon_code=people[buyer])])
    shop.run(NOW + 10 * DAY)
    assert len(shop.provider.got) == 3

    planner.plan(shop.db, shop.settings, NOW + 11 * DAY)
    feed(shop.db, shop.settings, NOW + 11 * DAY, orders=[order(2, late, NOW + 11 * DAY, coupon_code=people[late])])
    shop.dispatch(NOW + 11 * DAY)

    assert shop.provider.codes[3:] == [people[idle]]
    assert len(rows_of(shop.db, Enrolment, campaign="expiring")) == 2
    ended = [row for row in shop.messages(campaign="expiring") if row.status == Status.SKIPPED]
    assert [row.reason for row in ended] == [Reason.NO_COUPON]
    assert {row.expires_at for row in shop.coupons(status="issued")} == {NOW + 14 * DAY}


@pytest.mark.parametrize(("sign", "reminded"), [("=", 2), ("!=", 0)])
def test_only_those_whom_the_condition_fits_are_reminded(shop: CouponShop, sign: str, reminded: int) -> None:
    where = f"where: first_name {sign} 'Ana'\n    steps:"
    shop.publish(greet=GREET, expiring=EXPIRING.replace("steps:", where))
    given(shop, 2)

    shop.run(NOW + 11 * DAY)

    assert len(shop.messages(campaign="expiring")) == reminded


def test_a_reminder_is_as_much_of_an_owner_as_the_first_message(shop: CouponShop) -> None:
    """The first message was settled as dropped after the reminder had left: the code stays where it is."""
    shop.publish(greet=GREET, expiring=EXPIRING)
    shop.live(1)
    shop.arrive()
    shop.run(answer=later)
    planner.plan(shop.db, shop.settings, NOW + 11 * DAY)
    reminders = shop.messages(campaign="expiring")
    assert len(reminders) == 1
    first = shop.messages(campaign="greet")[0]
    answers = {first.public_id: refused}

    def answer(number: int, message: Outgoing) -> Receipt:
        return answers.get(message.public_id, accepted)(number, message)

    shop.dispatch(NOW + 11 * DAY, answer)

    assert [row.status for row in shop.coupons()] == ["issued"]
    assert shop.coupons()[0].message_id == reminders[0].id


def test_unless_coupon_redeemed_ends_a_step_for_those_who_used_theirs(shop: CouponShop) -> None:
    follow = "\n      - {id: two, after: 5 days, channel: email, template: m, unless: [coupon_redeemed]}\n"
    shop.publish(greet=GREET.rstrip() + follow)
    (first, one), (_, _) = given(shop, 2)
    coupons.redeem(shop.db, shop.settings, one, NOW + DAY, customer=first)

    shop.run(NOW + 5 * DAY)

    ends = {row.customer_id: (row.status, row.detail) for row in shop.messages(step="two")}
    owner = shop.coupons(code=one)[0].customer_id
    assert ends.pop(owner) == (Status.SKIPPED, "coupon_redeemed")
    assert [status for status, _ in ends.values()] == [Status.SENT]


# --- running out -----------------------------------------------------------------------------------------


def test_plan_warns_ahead_of_time_from_the_current_rate_of_use(shop: CouponShop) -> None:
    shop.live(40)
    for day in range(5):
        shop.arrive(2, NOW + day * DAY)
        shop.run(NOW + day * DAY)
    calm = planner.plan(shop.db, shop.settings, NOW + 5 * DAY)
    assert calm.offers == []
    assert "offers" not in calm.as_json()

    shop.arrive(15, NOW + 5 * DAY)
    shop.run(NOW + 5 * DAY)
    counts = planner.plan(shop.db, shop.settings, NOW + 5 * DAY)

    (low,) = counts.offers
    assert counts.as_json()["offers"] == [{"offer": "back", "left": 15, "per_day": 5.0, "days": 3.0}]
    assert str(low) == "offer back: 15 codes left, for some 3 days at 5 a day"


def test_an_offer_without_a_live_code_is_a_warning_of_check_and_of_plan(shop: CouponShop) -> None:
    files = {"campaigns/greet.yaml": GREET, releases.CATALOGUE: json.dumps(shop.catalogue)}
    found = [p for p in releases.check(files, shop.settings, shop.db) if p.id == "no-codes"]

    assert [p.warning for p in found] == [True]
    assert "the offer `back` has no live code" in found[0].text
    assert [str(low) for low in planner.plan(shop.db, shop.settings, NOW).offers] == [
        "offer back: no code is left; its campaigns pause before they send without one"
    ]
    shop.live(1)
    assert [p for p in releases.check(files, shop.settings, shop.db) if p.id == "no-codes"] == []
