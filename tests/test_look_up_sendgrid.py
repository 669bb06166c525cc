"""What SendGrid's Email Logs have for a recipient, over real HTTP to a stand-in."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from outreach.channels import Channel, Doubtful, Kept, Outcome, Outgoing, Record, open_channel
from outreach.channels.sendgrid import lookup
from outreach.errors import ChannelError
from outreach.render import Content
from outreach.settings import Business, ChannelSettings, Settings
from outreach.testing import Fault, Faults
from outreach.testing.sendgrid import FakeSendGrid, Recorded, Reply
from outreach.values import Duration
from tests import openapi

HOUR = timedelta(hours=1)


def opened(fake: FakeSendGrid, **options: Any) -> Channel:
    options = {"base_url": fake.url, "timeout": Duration(seconds=10), **options}
    channels = {"email": ChannelSettings("sendgrid", "Luna <hola@tienda.example>", options)}
    business = Business("Tienda Luna", "America/Mexico_City", "MXN")
    return open_channel("email", Settings(Path(), business, channels=channels, secrets=fake.environment))


def an_email(number: int = 1, address: str = "ana@example.com") -> Outgoing:
    content = Content("email", f"Hola {number}", subject="Hola")
    return Outgoing(f"{number:032x}", "email", address, "", content, "service")


def doubtful(number: int = 1, address: str = "ana@example.com", **changes: datetime) -> Doubtful:
    now = datetime.now(UTC)
    since, until = changes.get("since", now - HOUR), changes.get("until", now + HOUR)
    return Doubtful(f"{number:032x}", "email", address, None, since, until)


def one(answers: Iterable[Kept]) -> Kept:
    (answer,) = answers
    return answer


def reads(fake: FakeSendGrid) -> list[Recorded]:
    return [request for request in fake.requests if request.path.startswith("/v3/logs")]


@pytest.fixture
def fake() -> Iterator[FakeSendGrid]:
    """A stand-in; every question that a test asked of its logs must fit SendGrid's own description."""
    with FakeSendGrid() as server:
        yield server
    if openapi.is_here("sendgrid_logs.json"):
        for request in reads(server)[:20]:
            found = openapi.problems("sendgrid_logs.json", request.method, request.path, request.headers, request.body)
            assert found == []


# --- what is there -----------------------------------------------------------------------------------


def test_a_message_that_was_accepted_without_an_answer_is_found_by_our_own_id(fake: FakeSendGrid) -> None:
    fake.faults.add(Fault.DROP_AFTER)
    (receipt,) = opened(fake).send([an_email(7)])
    assert receipt.outcome is Outcome.DOUBT

    kept = one(opened(fake).look_up([doubtful(7)]))

    (mail,) = fake.accepted
    number = mail.message_id.partition(".")[0]
    assert kept == Kept(f"{7:032x}", (Record(number, mail.at, f"{7:032x}"),), complete=True)


def test_a_message_that_never_arrived_is_missing_from_a_complete_answer(fake: FakeSendGrid) -> None:
    list(opened(fake).send([an_email(1, "eva@example.com")]))

    assert one(opened(fake).look_up([doubtful(2)])) == Kept(f"{2:032x}", complete=True)
    assert len(reads(fake)) == 1


def test_the_id_is_the_one_that_a_receipt_has(fake: FakeSendGrid) -> None:
    (receipt,) = opened(fake).send([an_email()])

    (record,) = one(opened(fake).look_up([doubtful()])).records
    assert record.provider_id == receipt.provider_id


def test_where_a_request_may_carry_several_messages_each_has_an_id_of_its_own(fake: FakeSendGrid) -> None:
    people = ["ana@example.com", "eva@example.com"]
    receipts = list(opened(fake, batch=2).send([an_email(number, to) for number, to in enumerate(people)]))
    assert len(reads(fake)) == 0

    kept = opened(fake, batch=2).look_up([doubtful(number, to) for number, to in enumerate(people)])

    ids = {record.provider_id for answer in kept for record in answer.records}
    request = str(receipts[0].provider_id).partition(".")[0]
    assert len(ids) == 2
    assert all(number.startswith(f"{request}.") for number in ids)


def test_other_messages_and_a_second_acceptance_come_with_it(fake: FakeSendGrid) -> None:
    list(opened(fake).send([an_email(1), an_email(2), an_email(1)]))

    kept = one(opened(fake).look_up([doubtful(1)]))

    assert sorted(record.public_id for record in kept.records) == sorted(f"{number:032x}" for number in (1, 2, 1))
    assert kept.complete


def test_a_message_of_another_program_has_none_of_our_ids(fake: FakeSendGrid) -> None:
    client: Any = opened(fake)
    body = {
        "personalizations": [{"to": [{"email": "ana@example.com"}], "subject": "x"}],
        "from": {"email": "hola@tienda.example"},
        "content": [{"type": "text/plain", "value": "x"}],
    }
    client._api.mail.send.post(request_body=body)

    (record,) = one(opened(fake).look_up([doubtful()])).records
    assert record.public_id == ""


def test_several_messages_to_one_recipient_cost_one_question(fake: FakeSendGrid) -> None:
    list(opened(fake).send([an_email(1), an_email(2)]))

    kept = list(opened(fake).look_up([doubtful(1), doubtful(2), doubtful(3)]))

    assert len({answer.records for answer in kept}) == 1
    assert [request.method for request in reads(fake)] == ["POST", "GET", "GET"]


def test_only_the_time_in_question_is_asked_about() -> None:
    at = datetime(2026, 6, 15, 15, 0, 0, 500_000, tzinfo=UTC)
    with FakeSendGrid(clock=lambda: at) as server:
        list(opened(server).send([an_email()]))
        within = [(at - HOUR, at), (at, at + HOUR)]
        outside = [(at - 2 * HOUR, at - HOUR), (at + HOUR, at + 2 * HOUR)]
        found = [
            len(one(opened(server).look_up([doubtful(since=since, until=until)])).records)
            for since, until in [*within, *outside]
        ]

    assert found == [1, 1, 0, 0]


def test_messages_of_different_times_to_one_recipient_are_asked_about_from_first_to_last() -> None:
    at = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
    with FakeSendGrid(clock=lambda: at) as server:
        list(opened(server).look_up([
            doubtful(1, since=at, until=at), doubtful(2, since=at - HOUR, until=at), doubtful(3, since=at, until=at + HOUR),
        ]))  # fmt: skip
        (request,) = reads(server)

    assert json.loads(request.body) == {
        "query": "to_email = 'ana@example.com'"
        ' AND sg_message_id_created_at >= TIMESTAMP "2026-06-15T14:00:00Z"'
        ' AND sg_message_id_created_at <= TIMESTAMP "2026-06-15T16:00:01Z"',
        "limit": 1000,
    }


@pytest.mark.parametrize("address", ["o'neill@example.com", "ana@ñandú.example", "a&b+c@example.com"])
def test_an_address_with_signs_of_the_question_s_language_is_asked_for_as_it_is(
    address: str, fake: FakeSendGrid
) -> None:
    list(opened(fake).send([an_email(address=address)]))

    assert len(one(opened(fake).look_up([doubtful(address=address)])).records) == 1


def test_the_logs_are_asked_in_both_spellings_of_an_address_with_capitals(fake: FakeSendGrid) -> None:
    """They mind case, and whether they keep an address as it was sent is not said."""
    list(opened(fake).send([an_email(1, "Ana@example.com"), an_email(2, "ana@example.com")]))

    kept = one(opened(fake).look_up([doubtful(address="Ana@example.com")]))

    assert {record.public_id for record in kept.records} == {f"{1:032x}", f"{2:032x}"}


def test_an_address_that_cannot_be_written_in_a_question_is_not_asked_for() -> None:
    with pytest.raises(lookup.Unread, match="cannot be written"):
        lookup.query("""a'b"c@example.com""", datetime.now(UTC), datetime.now(UTC))


def test_an_account_in_europe_is_asked_at_its_own_host(fake: FakeSendGrid) -> None:
    settings = Settings(
        Path(),
        Business("Tienda Luna", "America/Mexico_City", "MXN"),
        channels={"email": ChannelSettings("sendgrid", "hola@tienda.example", {"region": "eu"})},
        secrets=fake.environment,
    )
    channel: Any = open_channel("email", settings)

    assert channel._api.logs._("x")._build_url(None) == "https://api.eu.sendgrid.com/v3/logs/x"


# --- no answer ---------------------------------------------------------------------------------------


def test_an_account_without_logs_is_said_in_plain_words_and_asked_once() -> None:
    with FakeSendGrid(logs=False) as server:
        kept = list(opened(server, parallel=1).look_up([doubtful(1), doubtful(2, "eva@example.com")]))
        asked = len(reads(server))

    assert asked == 1
    assert [answer.complete for answer in kept] == [False, False]
    assert kept[0].detail.startswith("SendGrid does not show this key its Email Logs (HTTP 403), and nothing else says")
    assert "not asked" in kept[1].detail


@pytest.mark.parametrize("status", [402, 404, 405])
def test_other_ways_to_have_no_logs_are_no_error_either(status: int, fake: FakeSendGrid) -> None:
    fake.on_request = lambda _: Reply(status, b"")

    kept = one(opened(fake).look_up([doubtful()]))

    assert not kept.complete
    assert kept.detail.startswith(f"SendGrid does not show this key its Email Logs (HTTP {status})")


def test_a_key_that_is_not_taken_is_an_error_of_the_configuration(fake: FakeSendGrid) -> None:
    fake.api_key = "SG.another"

    with pytest.raises(ChannelError, match="SendGrid does not take SENDGRID_API_KEY"):
        list(opened_with_old_key(fake).look_up([doubtful()]))


def opened_with_old_key(fake: FakeSendGrid) -> Channel:
    now, fake.api_key = fake.api_key, "SG.old"
    channel = opened(fake)
    fake.api_key = now
    return channel


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.TOO_MANY, "SendGrid answered HTTP 429"),
        (Fault.BUSY_BEFORE, "SendGrid answered HTTP 500"),
        (Fault.BUSY_AFTER, "SendGrid answered HTTP 500"),
        (Fault.DROP_BEFORE, "SendGrid did not answer: "),
        (Fault.SLOW, "SendGrid did not answer: "),
        (Fault.UNHEARD_OF, "SendGrid answered HTTP 418"),
    ],
)
@pytest.mark.parametrize("place", ["the list", "the message"])
def test_an_answer_that_does_not_come_is_incomplete_and_asked_for_once(
    fault: Fault, said: str, place: str, fake: FakeSendGrid
) -> None:
    list(opened(fake).send([an_email()]))
    fake.faults.add(*([None] if place == "the message" else []), fault)
    half_a_second: Any = Duration(seconds=0.3)  # type: ignore[arg-type]  # no settings can say it

    kept = one(opened(fake, timeout=half_a_second).look_up([doubtful()]))

    assert not kept.complete
    assert said in kept.detail
    assert len(reads(fake)) == (2 if place == "the message" else 1)


def test_what_was_read_before_an_answer_failed_is_kept(fake: FakeSendGrid) -> None:
    list(opened(fake).send([an_email(1), an_email(2)]))
    fake.faults.add(None, None, Fault.BUSY_BEFORE)

    kept = one(opened(fake).look_up([doubtful()]))

    assert (len(kept.records), kept.complete) == (1, False)


def test_a_full_answer_may_lack_something(fake: FakeSendGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MOST", 2)
    list(opened(fake).send([an_email(1), an_email(2)]))

    kept = one(opened(fake).look_up([doubtful()]))

    assert (kept.complete, kept.detail) == (False, "SendGrid shows no more than 2 messages at a time")


def test_only_so_many_messages_are_looked_at_one_by_one(fake: FakeSendGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MOST_DETAILS", 1)
    list(opened(fake).send([an_email(1), an_email(2)]))

    kept = one(opened(fake).look_up([doubtful()]))

    assert (len(kept.records), kept.complete) == (1, False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"messages": {}}',
        b'{"messages": [7]}',
        b'{"messages": [{}]}',
        b'{"messages": [{"sg_message_id": ""}]}',
        b'{"messages": [{"sg_message_id": "a\\nb"}]}',
        b"[" * 100000,
    ],
)
def test_a_list_that_cannot_be_read_is_never_a_complete_answer(body: bytes, fake: FakeSendGrid) -> None:
    fake.on_request = lambda _: Reply(200, body)

    kept = one(opened(fake).look_up([doubtful()]))

    assert (kept.complete, kept.records) == (False, ())
    assert kept.detail


@pytest.mark.parametrize("body", [b"", b"[]", b'{"custom_args": 7}', b'{"custom_args": {"outreach": 7}}'])
def test_a_message_that_cannot_be_read_is_never_part_of_a_complete_answer(body: bytes, fake: FakeSendGrid) -> None:
    list(opened(fake).send([an_email()]))
    fake.on_request = lambda request: Reply(200, body) if request.method == "GET" else None

    assert not one(opened(fake).look_up([doubtful()])).complete


def test_a_message_that_is_listed_and_then_not_there_leaves_the_answer_incomplete(fake: FakeSendGrid) -> None:
    list(opened(fake).send([an_email()]))
    fake.on_request = lambda request: Reply(404, b"{}") if request.method == "GET" else None

    kept = one(opened(fake).look_up([doubtful()]))

    assert (kept.complete, kept.detail) == (False, "an answer of SendGrid's that cannot be read")


def test_after_a_429_nothing_more_is_asked(fake: FakeSendGrid) -> None:
    fake.faults.add(Fault.TOO_MANY)

    kept = list(opened(fake, parallel=1).look_up([doubtful(n, f"c{n}@example.com") for n in range(5)]))

    assert len(reads(fake)) == 1
    assert kept[-1].detail == "not asked, since of others it was said: SendGrid answered HTTP 429"


def test_what_sendgrid_has_forgotten_is_not_absent() -> None:
    now = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
    with FakeSendGrid(clock=lambda: now) as server:
        kept = [
            one(opened(server).look_up([doubtful(since=now - age, until=now - age + HOUR)]))
            for age in (timedelta(days=28), timedelta(days=31))
        ]

    assert [answer.complete for answer in kept] == [True, False]
    assert kept[1].detail == "SendGrid keeps its Email Logs for 30 days only"


def test_no_address_stands_in_what_is_told(fake: FakeSendGrid) -> None:
    fake.faults.add(Fault.BUSY_BEFORE, Fault.UNHEARD_OF, Fault.DROP_BEFORE, Fault.NOT_ALLOWED)
    people = [doubtful(number, f"secreto{number}@example.com") for number in range(6)]

    kept = list(opened(fake, parallel=1).look_up(people))

    assert not re.search(r"secreto|@", " ".join(answer.detail for answer in kept))


def test_no_more_than_the_channel_s_own_number_of_questions_is_asked_at_once(fake: FakeSendGrid) -> None:
    gate = threading.Barrier(3, timeout=10)

    def wait(_: Recorded) -> None:
        gate.wait()

    fake.on_request = wait
    kept = list(opened(fake, parallel=3).look_up([doubtful(n, f"c{n}@example.com") for n in range(9)]))

    assert all(answer.complete for answer in kept)
    assert fake.most_at_once == 3


# --- the stand-in --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lag", "seen"), [(0, [1, 1, 1]), (2, [0, 0, 1]), (None, [0, 0, 0])])
def test_the_logs_may_lag_behind(lag: int | None, seen: list[int]) -> None:
    with FakeSendGrid(lag=lag) as server:
        list(opened(server).send([an_email()]))
        assert [len(one(opened(server).look_up([doubtful()])).records) for _ in range(3)] == seen
        server.catch_up()
        assert len(one(opened(server).look_up([doubtful()])).records) == 1


def test_faults_of_lists_leave_sending_alone() -> None:
    with FakeSendGrid(list_faults=Faults([Fault.BUSY_BEFORE])) as server:
        assert [receipt.outcome for receipt in opened(server).send([an_email()])] == [Outcome.ACCEPTED]
        assert not one(opened(server).look_up([doubtful()])).complete
        assert one(opened(server).look_up([doubtful()])).complete
