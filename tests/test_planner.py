from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event

from outreach import planner, releases, store
from outreach.errors import ClockError
from outreach.models import CampaignState, Enrolment, Fresh, Message, Reason, Status
from outreach.settings import OrderEstimates, Settings
from outreach.store import Database
from outreach.values import Duration
from tests.conftest import NOW
from tests.shop import customer, feed, order, publish, rows_of, shop_settings

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)

THANKS = """
    title: Thanks
    purpose: service
    trigger: {event: order.delivered}
    steps:
      - {id: thanks, after: 3 days, channel: [whatsapp, sms, email], template: m}
      - {id: again, after: 7 days, channel: email, template: m}
"""
LAPSE = """
    title: Lapse
    purpose: service
    trigger: {event: customer.inactive, after: 90 days}
    steps:
      - {id: miss, after: 0 days, channel: email, template: m}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


def messages(db: Database) -> list[tuple[str, str, str | None]]:
    return [(m.step, m.status, m.reason) for m in rows_of(db, Message)]


def delivered(db: Database, settings: Settings, number: int, at: datetime, now: datetime) -> None:
    row = order(number, f"c{number}", at - 2 * DAY, delivered_at=at)
    feed(db, settings, now, customers=[customer(number)], orders=[row])


def test_a_delivered_order_is_enrolled_at_once_and_its_steps_are_planned_when_due(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW, thanks=THANKS)
    delivered(db, settings, 1, NOW + HOUR, NOW + 2 * HOUR)

    first = planner.plan(db, settings, NOW + 2 * HOUR)
    early = planner.plan(db, settings, NOW + HOUR + 3 * DAY - timedelta(seconds=1))
    due = planner.plan(db, settings, NOW + HOUR + 3 * DAY)
    later = planner.plan(db, settings, NOW + HOUR + 7 * DAY)

    assert (first.enrolled, first.planned) == (1, 0)
    assert (early.enrolled, early.planned) == (0, 0)
    assert due.as_json()["by_campaign"]["thanks"]["steps"] == {"thanks": 1}
    assert later.as_json()["by_campaign"]["thanks"]["steps"] == {"again": 1}
    sent = rows_of(db, Message)
    assert [(m.step, m.due_at, m.channel, m.purpose) for m in sent] == [
        ("thanks", NOW + HOUR + 3 * DAY, "whatsapp", "service"),
        ("again", NOW + HOUR + 7 * DAY, "email", "service"),
    ]


def test_planning_again_at_the_same_now_writes_nothing(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS)
    delivered(db, settings, 1, NOW + HOUR, NOW + 2 * HOUR)
    planner.plan(db, settings, NOW + 4 * DAY)
    before = (rows_of(db, Enrolment), rows_of(db, Message))

    again = planner.plan(db, settings, NOW + 4 * DAY)

    assert (again.enrolled, again.planned, again.held, again.skipped) == (0, 0, 0, 0)
    assert (rows_of(db, Enrolment), rows_of(db, Message)) == before


def test_what_happened_before_the_first_publish_is_left_alone(db: Database, settings: Settings) -> None:
    delivered(db, settings, 1, NOW - HOUR, NOW)
    publish(db, settings, NOW, thanks=THANKS)
    delivered(db, settings, 2, NOW - HOUR, NOW + HOUR)

    planner.plan(db, settings, NOW + 5 * DAY)

    assert rows_of(db, Enrolment) == []


@pytest.mark.parametrize("switched", [False, True])
def test_an_order_on_its_way_when_a_campaign_starts_is_followed_up_once_it_has_arrived(
    switched: bool, db: Database, settings: Settings
) -> None:
    settings = replace(settings, orders=OrderEstimates(delivered=("shipped", Duration(days=5))))
    on_its_way = order(1, "c1", NOW - 4 * DAY, shipped_at=NOW - 3 * DAY)
    arrived = order(2, "c1", NOW - 9 * DAY, shipped_at=NOW - 8 * DAY)
    feed(db, settings, NOW, customers=[customer(1)], orders=[on_its_way, arrived])
    if switched:
        publish(db, settings, NOW, thanks=THANKS + "    active: no\n", other=THANKS)
        planner.plan(db, settings, NOW + HOUR)  # all that the queue held is consumed
    publish(db, settings, NOW + 2 * HOUR, thanks=THANKS)
    for days in (1, 3, 9):
        planner.plan(db, settings, NOW + days * DAY)

    assert [row.occasion_at for row in rows_of(db, Enrolment, campaign="thanks")] == [NOW + 2 * DAY]


def test_a_delivery_date_filled_in_late_is_seen_and_a_step_past_its_expiry_ends_as_late_data(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW, thanks=THANKS)
    feed(db, settings, NOW + HOUR, customers=[customer(1)], orders=[order(1, "c1", NOW + HOUR)])
    planner.plan(db, settings, NOW + 6 * DAY)
    delivered(db, settings, 1, NOW + 2 * HOUR, NOW + 8 * DAY)

    planner.plan(db, settings, NOW + 8 * DAY)

    assert messages(db) == [("thanks", Status.EXPIRED, Reason.LATE_DATA), ("again", Status.PLANNED, None)]


def test_correcting_a_time_keeps_the_occasion_and_clearing_it_cancels_what_was_not_sent(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW, thanks=THANKS)
    delivered(db, settings, 1, NOW + HOUR, NOW + 2 * HOUR)
    planner.plan(db, settings, NOW + 4 * DAY)
    delivered(db, settings, 1, NOW + 3 * HOUR, NOW + 4 * DAY)
    planner.plan(db, settings, NOW + 4 * DAY + HOUR)
    corrected = len(rows_of(db, Enrolment))
    feed(db, settings, NOW + 5 * DAY, orders=[order(1, "c1", NOW + HOUR - 2 * DAY, delivered_at="")])

    planner.plan(db, settings, NOW + 5 * DAY)
    planner.plan(db, settings, NOW + 9 * DAY)

    assert corrected == 1
    assert messages(db) == [("thanks", Status.CANCELLED, Reason.RECORD_CLEARED)]


def test_a_customer_outside_where_leaves_no_row(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS + "    where: country = 'CO'\n")
    delivered(db, settings, 1, NOW + HOUR, NOW + 2 * HOUR)

    counts = planner.plan(db, settings, NOW + 4 * DAY)

    assert (counts.enrolled, counts.skipped) == (0, 0)
    assert rows_of(db, Enrolment) == []


MARKETING = """
    title: Offer
    trigger: {event: order.placed}
    at_most: once per 30 days
    steps:
      - {id: offer, after: 1 day, channel: [sms, email], template: m}
"""


def test_those_who_may_not_be_contacted_are_skipped_with_the_reason_and_no_arm(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW, offer=MARKETING)
    at = NOW + HOUR
    people = [
        customer(1),
        customer(2, sms_consent="", email_consent=""),
        customer(3, email="", phone=""),
        customer(4),
        customer(5),
    ]
    orders = [order(n, f"c{n}", at) for n in range(1, 6)] + [order(9, "c5", at + HOUR)]
    case = {"case_id": "k1", "customer_id": "c4", "kind": "complaint", "opened_at": at}

    feed(db, settings, at + 2 * HOUR, customers=people, orders=orders, cases=[case])
    counts = planner.plan(db, settings, at + 2 * HOUR)

    assert [(e.reason, e.arm) for e in rows_of(db, Enrolment)] == [
        (None, "contact"),
        (Reason.NO_CONSENT, None),
        (Reason.UNREACHABLE, None),
        (Reason.CASE_OPEN, None),
        (None, "contact"),
        (Reason.AT_MOST, None),
    ]
    assert (counts.enrolled, counts.skipped) == (2, 4)


def test_a_suppressed_address_is_skipped(db: Database, settings: Settings, tmp_path: Path) -> None:
    publish(db, settings, NOW, offer=MARKETING)
    listed = tmp_path / "list.txt"
    listed.write_text("c1@example.com\n+525541000001\n")
    feed(db, settings, NOW + HOUR, customers=[customer(1)], orders=[order(1, "c1", NOW + HOUR)])
    from outreach.importer import import_source
    from outreach.sources.csv import CsvSource

    import_source(db, settings, CsvSource({"suppressions": listed}), NOW + HOUR)

    planner.plan(db, settings, NOW + 2 * HOUR)

    assert [e.reason for e in rows_of(db, Enrolment)] == [Reason.SUPPRESSED]


def test_the_holdout_is_held_and_keeps_its_arm(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, offer=MARKETING.replace("once per 30 days", "9 per 1 day") + "    holdout: 50%\n")
    people = [customer(n) for n in range(1, 61)]
    feed(db, settings, NOW + HOUR, customers=people, orders=[order(n, f"c{n}", NOW + HOUR) for n in range(1, 61)])
    planner.plan(db, settings, NOW + HOUR)
    first = {e.customer_id: e.arm for e in rows_of(db, Enrolment)}
    feed(db, settings, NOW + DAY, orders=[order(100 + n, f"c{n}", NOW + DAY) for n in range(1, 61)])

    counts = planner.plan(db, settings, NOW + 2 * DAY + HOUR)

    assert {(e.customer_id, e.arm) for e in rows_of(db, Enrolment)} == set(first.items())
    held = Counter(first.values())["holdout"]
    assert 15 < held < 45
    assert (counts.held, counts.planned) == (2 * held, 2 * (60 - held))
    assert {m.arm for m in rows_of(db, Message, status=Status.HELD)} == {"holdout"}


def test_two_records_with_one_phone_share_an_arm(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, offer=MARKETING + "    holdout: 50%\n")
    people = [customer(n, phone=f"+5255410000{n % 20:02d}", email="") for n in range(40)]
    feed(db, settings, NOW + HOUR, customers=people, orders=[order(n, f"c{n}", NOW + HOUR) for n in range(40)])

    planner.plan(db, settings, NOW + 2 * HOUR)

    arms = {e.customer_id: e.arm for e in rows_of(db, Enrolment)}
    pairs = list(zip(list(arms.values())[:20], list(arms.values())[20:], strict=True))
    assert all(one == other for one, other in pairs)
    assert len(set(arms.values())) == 2


def test_a_lapse_is_planned_once_and_a_new_order_begins_the_next(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, lapse=LAPSE)
    feed(db, settings, NOW, customers=[customer(1)], orders=[order(1, "c1", NOW - 80 * DAY)])
    for day in range(9, 13):
        planner.plan(db, settings, NOW + day * DAY)
    feed(db, settings, NOW + 20 * DAY, orders=[order(2, "c1", NOW + 20 * DAY)])

    for day in (109, 110, 111):
        planner.plan(db, settings, NOW + day * DAY)

    assert [(m.occasion_at, m.status) for m in rows_of(db, Message)] == [
        (NOW + 10 * DAY, Status.PLANNED),
        (NOW + 110 * DAY, Status.PLANNED),
    ]


def test_an_old_order_that_arrives_late_starts_its_lapse_although_the_clock_has_passed_it(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW, lapse=LAPSE.replace("after: 0 days", "after: 0 days, expires: 9 days"))
    planner.plan(db, settings, NOW + 12 * DAY)
    feed(db, settings, NOW + 12 * DAY, customers=[customer(1)], orders=[order(1, "c1", NOW - 80 * DAY)])

    planner.plan(db, settings, NOW + 12 * DAY)

    assert [(m.occasion_at, m.status) for m in rows_of(db, Message)] == [(NOW + 10 * DAY, Status.PLANNED)]


BIRTHDAY = """
    title: Birthday
    purpose: service
    trigger: {event: customer.birthday}
    steps:
      - {id: wish, after: 0 days, at: "10:00", channel: email, template: m}
"""


def test_a_birthday_on_29_february_is_kept_on_the_28th_in_other_years(db: Database, settings: Settings) -> None:
    start = datetime.fromisoformat("2027-02-20T12:00:00+00:00")
    people = [
        customer(1, birthday="1992-02-29"),
        customer(2, birthday="1990-02-28"),
        customer(3, birthday="1990-03-01"),
    ]
    feed(db, settings, start, customers=people)
    publish(db, settings, start, birthday=BIRTHDAY)

    for hours in range(0, 24 * 12, 6):
        planner.plan(db, settings, start + hours * HOUR)

    due = [(m.customer_id, m.due_at.isoformat()) for m in rows_of(db, Message)]
    assert sorted(due) == [
        (1, "2027-02-28T16:00:00+00:00"),
        (2, "2027-02-28T16:00:00+00:00"),
        (3, "2027-03-01T16:00:00+00:00"),
    ]


def test_a_date_of_the_customer_fires_days_before_it(db: Database, settings: Settings) -> None:
    feed(db, settings, NOW, customers=[customer(1, warranty_end="2026-06-30")])
    campaign = BIRTHDAY.replace("{event: customer.birthday}", "{date: attributes.warranty_end, before: 7 days}")
    publish(db, settings, NOW, warranty=campaign)

    for day in range(20):
        planner.plan(db, settings, NOW + day * DAY)

    assert [m.due_at.isoformat() for m in rows_of(db, Message)] == ["2026-06-23T16:00:00+00:00"]


SCHEDULE = """
    title: Monthly
    purpose: service
    trigger: {schedule: "0 10 1 * *"}
    steps:
      - {id: news, after: 0 days, channel: email, template: m}
"""


def test_a_schedule_takes_the_whole_audience_at_each_occurrence(db: Database, settings: Settings) -> None:
    feed(db, settings, NOW, customers=[customer(n) for n in range(1, 31)])
    publish(db, settings, NOW, news=SCHEDULE)
    first = datetime.fromisoformat("2026-07-01T16:00:00+00:00")  # 10:00 in Mexico City

    before = planner.plan(db, settings, first - timedelta(seconds=1))
    on_time = planner.plan(db, settings, first)
    again = planner.plan(db, settings, first + HOUR)

    assert [c.planned for c in (before, on_time, again)] == [0, 30, 0]


def test_occurrences_missed_while_down_run_within_their_expiry_and_else_end_as_missed(
    db: Database, settings: Settings
) -> None:
    feed(db, settings, NOW, customers=[customer(1)])
    publish(db, settings, NOW, news=SCHEDULE)

    planner.plan(db, settings, datetime.fromisoformat("2026-09-02T00:00:00+00:00"))

    assert messages(db) == [
        ("news", Status.EXPIRED, Reason.MISSED),
        ("news", Status.EXPIRED, Reason.MISSED),
        ("news", Status.PLANNED, None),
    ]


def test_a_dated_campaign_fires_once(db: Database, settings: Settings) -> None:
    feed(db, settings, NOW, customers=[customer(1)])
    publish(db, settings, NOW, sale=SCHEDULE.replace('{schedule: "0 10 1 * *"}', '{date: 2026-06-20, at: "10:00"}'))

    for day in range(8):
        planner.plan(db, settings, NOW + day * DAY)

    assert [m.due_at.isoformat() for m in rows_of(db, Message)] == ["2026-06-20T16:00:00+00:00"]


def test_a_backfill_takes_older_occasions_newest_first_and_spread_from_the_publish_on(
    db: Database, settings: Settings
) -> None:
    people = [customer(n) for n in range(1, 7)]
    rows = [order(n, f"c{n}", NOW - n * 10 * DAY, delivered_at=NOW - n * 10 * DAY + DAY) for n in range(1, 7)]
    feed(db, settings, NOW, customers=people, orders=rows)
    publish(db, settings, NOW, thanks=THANKS + "    backfill: {last: 50 days, pace: 2 per day}\n")

    planner.plan(db, settings, NOW)
    planner.plan(db, settings, NOW + HOUR)

    assert [(e.customer_id, e.occasion_at) for e in rows_of(db, Enrolment)] == [
        (1, NOW), (2, NOW), (3, NOW + DAY), (4, NOW + DAY), (5, NOW + 2 * DAY),
    ]  # fmt: skip


def test_starts_in_the_past_takes_the_occasions_since_then_but_plans_no_step_that_was_due_before(
    db: Database, settings: Settings
) -> None:
    people = [customer(n) for n in (1, 2)]
    rows = [order(n, f"c{n}", NOW - n * 5 * DAY, delivered_at=NOW - n * 5 * DAY + HOUR) for n in (1, 2)]
    feed(db, settings, NOW, customers=people, orders=rows)
    publish(db, settings, NOW, thanks=THANKS + f"    starts: {(NOW - 6 * DAY).date()}\n")

    for day in range(5):
        planner.plan(db, settings, NOW + day * DAY)

    assert [(m.customer_id, m.step, m.status) for m in rows_of(db, Message)] == [(1, "again", Status.PLANNED)]


def test_ends_takes_no_occasion_after_it(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS + f"    ends: {(NOW + 2 * DAY).date()}\n")
    delivered(db, settings, 1, NOW + HOUR, NOW + 2 * HOUR)
    delivered(db, settings, 2, NOW + 3 * DAY, NOW + 3 * DAY)

    planner.plan(db, settings, NOW + 4 * DAY)

    assert [e.customer_id for e in rows_of(db, Enrolment)] == [1]


def test_the_volume_brake_pauses_before_writing_until_a_person_resumes(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS + "    brake: 5\n")
    people = [customer(n) for n in range(1, 11)]
    rows = [order(n, f"c{n}", NOW, delivered_at=NOW + HOUR) for n in range(1, 11)]
    feed(db, settings, NOW + HOUR, customers=people, orders=rows)

    braked = planner.plan(db, settings, NOW + 4 * DAY)
    written = len(rows_of(db, Message))
    still = planner.plan(db, settings, NOW + 4 * DAY + HOUR)
    releases.resume(db, "thanks", NOW + 4 * DAY + 2 * HOUR)
    resumed = planner.plan(db, settings, NOW + 4 * DAY + 2 * HOUR)

    assert [p["campaign"] for p in braked.paused] == ["thanks"]
    assert "outreach resume thanks" in braked.paused[0]["reason"]
    assert (written, still.planned, resumed.planned) == (0, 0, 10)


AT_ONCE = """
    title: At once
    purpose: service
    trigger: {event: order.delivered}
    steps:
      - {id: now, after: 0 days, channel: email, template: m}
      - {id: later, after: 2 days, channel: email, template: m}
"""


def ten_delivered(db: Database, settings: Settings) -> None:
    rows = [order(n, f"c{n}", NOW, delivered_at=NOW + HOUR) for n in range(1, 11)]
    feed(db, settings, NOW + HOUR, customers=[customer(n) for n in range(1, 11)], orders=rows)


def test_what_is_due_at_once_is_written_with_its_enrolment_or_not_at_all(
    db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(db, settings, NOW, thanks=AT_ONCE)
    ten_delivered(db, settings)
    with monkeypatch.context() as cut_off:
        cut_off.setattr(store, "new_ids", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            planner.plan(db, settings, NOW + 2 * HOUR)
    before = rows_of(db, Enrolment) + rows_of(db, Message)

    counts = planner.plan(db, settings, NOW + 2 * HOUR)

    assert before == []
    assert (counts.enrolled, counts.planned) == (10, 10)
    enrolments = {(e.customer_id, e.occasion): (e.id, e.wake_at) for e in rows_of(db, Enrolment)}
    messages = {(m.customer_id, m.occasion): m.enrolment_id for m in rows_of(db, Message, step="now")}
    assert enrolments == {key: (i, NOW + HOUR + 2 * DAY) for key, i in messages.items()}


def test_the_brake_leaves_what_is_due_at_once_enrolled_and_waiting(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=AT_ONCE + "    brake: 9\n")
    ten_delivered(db, settings)

    braked = planner.plan(db, settings, NOW + 2 * HOUR)
    written = len(rows_of(db, Message))
    releases.resume(db, "thanks", NOW + 3 * HOUR)
    resumed = planner.plan(db, settings, NOW + 3 * HOUR)

    assert (braked.enrolled, braked.planned, len(braked.paused), written) == (10, 0, 1, 0)
    assert (resumed.enrolled, resumed.planned) == (0, 10)


def test_no_transaction_writes_more_than_2000_rows_however_many_steps_are_due(db: Database, settings: Settings) -> None:
    steps = "".join(f"      - {{id: s{n}, after: {n} hours, channel: email, template: m}}\n" for n in range(9))
    publish(db, settings, NOW, thanks=AT_ONCE.partition("      -")[0] + steps + "    brake: 100000\n")
    people = [customer(n) for n in range(510)]
    feed(db, settings, NOW, customers=people, orders=[order(n, f"c{n}", NOW, delivered_at=NOW) for n in range(510)])
    written = [0]

    @event.listens_for(db.engine, "begin")
    def _begin(_connection: object) -> None:
        written.append(0)

    @event.listens_for(db.engine, "before_cursor_execute")
    def _execute(_c: object, _cursor: object, text: str, rows: object, _context: object, many: bool) -> None:
        at_a_step = max(text.count("(?"), 1)  # on SQLite an INSERT takes many rows at a step
        written[-1] += len(rows) * at_a_step if many and isinstance(rows, list) else 0

    counts = planner.plan(db, settings, NOW + DAY)

    assert (counts.enrolled, counts.planned) == (510, 9 * 510)
    assert sum(written) > 10 * 510
    assert max(written) <= 2000


def test_a_step_added_later_plans_only_due_times_from_its_release_on(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS)
    delivered(db, settings, 1, NOW + HOUR, NOW + 2 * HOUR)
    delivered(db, settings, 2, NOW + 3 * DAY, NOW + 3 * DAY)
    planner.plan(db, settings, NOW + 3 * DAY + 2 * HOUR)
    added = "      - {id: early, after: 2 days, channel: email, template: m}\n      - {id: late, after: 5 days, channel: email, template: m}\n"

    publish(db, settings, NOW + 4 * DAY, thanks=THANKS + added)
    for day in range(4, 14):
        planner.plan(db, settings, NOW + day * DAY + 2 * HOUR)

    assert sorted((m.customer_id, m.step) for m in rows_of(db, Message)) == [
        (1, "again"), (1, "late"), (1, "thanks"), (2, "again"), (2, "early"), (2, "late"), (2, "thanks"),
    ]  # fmt: skip


def test_a_step_moved_to_a_later_day_is_not_sent_a_second_time(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS)
    delivered(db, settings, 1, NOW + HOUR, NOW + 2 * HOUR)
    planner.plan(db, settings, NOW + 3 * DAY + 2 * HOUR)

    publish(db, settings, NOW + 4 * DAY, thanks=THANKS.replace("after: 3 days", "after: 5 days"))
    for day in range(4, 10):
        planner.plan(db, settings, NOW + day * DAY)

    assert sorted(m.step for m in rows_of(db, Message)) == ["again", "thanks"]


def test_a_renamed_step_and_campaign_keep_what_they_have_written(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS)
    delivered(db, settings, 1, NOW + HOUR, NOW + 2 * HOUR)
    planner.plan(db, settings, NOW + 3 * DAY + 2 * HOUR)
    renamed = THANKS.replace("id: thanks,", "id: hello, was: thanks,") + "    was: thanks\n"

    publish(db, settings, NOW + 4 * DAY, gratitude=renamed)
    for day in range(4, 10):
        planner.plan(db, settings, NOW + day * DAY)

    assert sorted((m.campaign, m.step) for m in rows_of(db, Message)) == [
        ("gratitude", "again"),
        ("gratitude", "hello"),
    ]
    assert {e.campaign for e in rows_of(db, Enrolment)} == {"gratitude"}


def test_cancel_ends_what_is_in_the_pipeline_and_new_occasions_go_on(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS)
    delivered(db, settings, 1, NOW + HOUR, NOW + 2 * HOUR)
    planner.plan(db, settings, NOW + 4 * DAY)

    ended = releases.cancel(db, "thanks", None, NOW + 4 * DAY)
    delivered(db, settings, 2, NOW + 5 * DAY, NOW + 5 * DAY)
    for day in range(5, 13):
        planner.plan(db, settings, NOW + day * DAY)

    assert ended == 1
    assert sorted((m.customer_id, m.step, m.status) for m in rows_of(db, Message)) == [
        (1, "again", Status.CANCELLED),
        (1, "thanks", Status.CANCELLED),
        (2, "again", Status.PLANNED),
        (2, "thanks", Status.PLANNED),
    ]


def test_stop_when_ends_this_and_every_later_step(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS + "    stop_when: [ordered]\n")
    delivered(db, settings, 1, NOW + HOUR, NOW + 2 * HOUR)
    planner.plan(db, settings, NOW + 2 * HOUR)
    feed(db, settings, NOW + 2 * DAY, orders=[order(2, "c1", NOW + 2 * DAY)])

    for day in range(3, 9):
        planner.plan(db, settings, NOW + day * DAY)

    assert messages(db) == [("thanks", Status.SKIPPED, Reason.STOPPED), ("again", Status.SKIPPED, Reason.STOPPED)]
    assert rows_of(db, Message)[0].detail == "ordered"


def test_a_step_whose_own_where_is_false_writes_no_row(db: Database, settings: Settings) -> None:
    campaign = THANKS.replace("id: thanks,", "id: thanks, where: orders_count > 5,")
    publish(db, settings, NOW, thanks=campaign)
    delivered(db, settings, 1, NOW + HOUR, NOW + 2 * HOUR)

    planner.plan(db, settings, NOW + 4 * DAY)
    planner.plan(db, settings, NOW + 8 * DAY)

    assert messages(db) == [("again", Status.PLANNED, None)]


def test_product_patterns_choose_the_orders(db: Database, settings: Settings) -> None:
    publish(
        db, settings, NOW, thanks=THANKS.replace("{event: order.delivered}", "{event: order.delivered, sku: 'CAFE-*'}")
    )
    at = NOW + HOUR
    rows = [
        order(1, "c1", at, delivered_at=at, sku="cafe-500", quantity="1"),
        order(2, "c2", at, delivered_at=at, sku="TAZA-1", quantity="1"),
    ]
    feed(db, settings, at, customers=[customer(1), customer(2)], orders=rows)

    planner.plan(db, settings, at)

    assert [e.customer_id for e in rows_of(db, Enrolment)] == [1]


def test_a_case_left_open_fires_once_and_a_closed_one_does_not(db: Database, settings: Settings) -> None:
    campaign = LAPSE.replace("{event: customer.inactive, after: 90 days}", "{event: case.overdue, after: 2 days}")
    publish(db, settings, NOW, overdue=campaign)
    cases = [
        {"case_id": "k1", "customer_id": "c1", "kind": "complaint", "opened_at": NOW + HOUR},
        {
            "case_id": "k2",
            "customer_id": "c2",
            "kind": "complaint",
            "opened_at": NOW + HOUR,
            "closed_at": NOW + 2 * HOUR,
        },
    ]
    feed(db, settings, NOW + 3 * HOUR, customers=[customer(1), customer(2)], orders=[], cases=cases)

    for hours in (3, 40, 50, 60):
        planner.plan(db, settings, NOW + hours * HOUR)

    assert [(m.customer_id, m.occasion_at) for m in rows_of(db, Message)] == [(1, NOW + HOUR + 2 * DAY)]


def test_a_shops_own_event_fires(db: Database, settings: Settings) -> None:
    campaign = LAPSE.replace("{event: customer.inactive, after: 90 days}", "{event: cart.abandoned}")
    publish(db, settings, NOW, cart=campaign)
    event = {
        "event_id": "e1",
        "customer_id": "c1",
        "name": "cart.abandoned",
        "at": NOW + HOUR,
        "url": "https://shop.example/cart",
    }
    feed(db, settings, NOW + HOUR, customers=[customer(1)], events=[event])

    planner.plan(db, settings, NOW + HOUR)

    assert messages(db) == [("miss", Status.PLANNED, None)]


def test_a_paused_or_inactive_campaign_writes_nothing_and_catches_up_without_a_burst(
    db: Database, settings: Settings
) -> None:
    publish(db, settings, NOW, thanks=THANKS)
    delivered(db, settings, 1, NOW + HOUR, NOW + 2 * HOUR)
    releases.pause(db, "thanks", "holiday", NOW + 2 * HOUR)
    paused = planner.plan(db, settings, NOW + 8 * DAY)
    releases.resume(db, "thanks", NOW + 8 * DAY)

    planner.plan(db, settings, NOW + 8 * DAY)

    assert (paused.enrolled, paused.planned) == (0, 0)
    assert [(step, status) for step, status, _ in messages(db)] == [
        ("thanks", Status.EXPIRED),
        ("again", Status.PLANNED),
    ]


@pytest.mark.parametrize("campaign", [THANKS, LAPSE], ids=["record", "time"])
def test_a_campaign_that_is_switched_on_sees_only_what_comes_later(
    db: Database, settings: Settings, campaign: str
) -> None:
    publish(db, settings, NOW, it=f"{campaign}    active: no\n")
    delivered(db, settings, 1, NOW - 86 * DAY, NOW + HOUR)  # lapses within two days
    delivered(db, settings, 2, NOW + HOUR, NOW + 2 * HOUR)
    planner.plan(db, settings, NOW + 5 * DAY)
    publish(db, settings, NOW + 5 * DAY, it=campaign)

    planner.plan(db, settings, NOW + 5 * DAY)
    planner.plan(db, settings, NOW + 20 * DAY)
    assert messages(db) == []

    delivered(db, settings, 3, NOW + 20 * DAY + HOUR, NOW + 20 * DAY + 2 * HOUR)
    planner.plan(db, settings, NOW + 20 * DAY + 2 * HOUR)
    planner.plan(db, settings, NOW + 111 * DAY)
    assert {row.customer_id for row in rows_of(db, Enrolment)} >= {3}
    assert 1 not in {row.customer_id for row in rows_of(db, Enrolment)}


def test_a_now_in_the_past_is_refused(db: Database, settings: Settings) -> None:
    planner.plan(db, settings, NOW)

    with pytest.raises(ClockError):
        planner.plan(db, settings, NOW - HOUR)


def test_the_queue_is_emptied_of_what_every_campaign_has_consumed(db: Database, settings: Settings) -> None:
    publish(db, settings, NOW, thanks=THANKS)
    delivered(db, settings, 1, NOW + HOUR, NOW + 2 * HOUR)
    queued = len(rows_of(db, Fresh))

    planner.plan(db, settings, NOW + 2 * HOUR)

    assert queued > 0
    assert rows_of(db, Fresh) == []
    assert rows_of(db, CampaignState)[0].paused_at is None
