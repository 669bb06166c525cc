"""What Twilio has for a recipient: its whole list, over real HTTP to a stand-in."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outreach.channels import Doubtful, Kept, Outcome, Record, asking, open_channel
from outreach.channels.asking import Heard
from outreach.channels.twilio import lookup
from outreach.errors import ChannelError
from outreach.testing import Fault, Faults
from outreach.testing.twilio import FakeTwilio, Recorded
from outreach.values import Duration
from tests import by_twilio
from tests.by_twilio import SERVICE, Opens, settings, sms, whatsapp

twilio, channel = by_twilio.twilio, by_twilio.channel
HOUR = timedelta(hours=1)
SOON = Duration(seconds=0.3)  # type: ignore[arg-type]  # no settings can say it


def doubtful(number: int = 1, **changes: Any) -> Doubtful:
    """A message of the last hour that may or may not be there."""
    message, now = sms(number), datetime.now(UTC)
    values: dict[str, Any] = {
        "public_id": message.public_id,
        "channel": "sms",
        "address": message.address,
        "text": "Hola, Ana",
        "since": now - HOUR,
        "until": now + HOUR,
    }
    return Doubtful(**{**values, **changes})


def one(answers: Iterable[Kept]) -> Kept:
    (answer,) = answers
    return answer


def lists(fake: FakeTwilio) -> list[Recorded]:
    return [request for request in fake.requests if request.method == "GET"]


def texts(kept: Kept) -> list[str | None]:
    return [record.text for record in kept.records]


# --- what is there ---------------------------------------------------------------------------------------------------


def test_a_message_that_was_accepted_without_an_answer_is_found(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.faults.add(Fault.DROP_AFTER)
    (receipt,) = channel().send([sms()])
    assert receipt.outcome is Outcome.DOUBT

    kept = one(channel().look_up([doubtful()]))

    (accepted,) = twilio.accepted
    at = accepted.created.replace(microsecond=0)
    assert kept == Kept("m1", (Record(accepted.sid, at, text="Hola, Ana"),), complete=True)


def test_a_message_that_never_arrived_is_missing_from_a_complete_answer(twilio: FakeTwilio, channel: Opens) -> None:
    list(channel().send([sms(2)]))

    assert one(channel().look_up([doubtful(1)])) == Kept("m1", complete=True)


def test_messages_that_wait_or_failed_or_have_no_date_of_sending_are_found_too(
    twilio: FakeTwilio, channel: Opens
) -> None:
    list(channel(messaging_service=SERVICE).send([sms(1, "still accepted")]))
    list(channel().send([sms(1, "failed")]))
    twilio.accepted[1].status, twilio.accepted[1].error = "failed", 30008
    assert [message.sent for message in twilio.accepted] == [None, None]

    kept = one(channel().look_up([doubtful()]))

    assert texts(kept) == ["failed", "still accepted"]
    assert "DateSent" not in lists(twilio)[0].path


def test_other_messages_of_the_recipient_come_with_it_and_what_the_recipient_wrote_does_not(
    twilio: FakeTwilio, channel: Opens
) -> None:
    address = sms().address
    twilio.put(address, "of another program", at=datetime(2026, 1, 1, tzinfo=UTC))
    twilio.put(address, "forwarded to them, and so received", inbound=True)
    list(channel().send([sms(), sms()]))

    kept = one(channel().look_up([doubtful()]))

    assert texts(kept) == ["Hola, Ana", "Hola, Ana", "of another program"]
    assert kept.records[2].at == datetime(2026, 1, 1, tzinfo=UTC)
    assert len({record.provider_id for record in kept.records}) == 3


def test_several_messages_to_one_recipient_cost_one_list(twilio: FakeTwilio, channel: Opens) -> None:
    list(channel().send([sms(1), sms(2)]))

    same = sms(1).address
    kept = list(channel().look_up([doubtful(1), doubtful(2, address=same), doubtful(3, address=same)]))

    assert [one.public_id for one in kept] == ["m1", "m2", "m3"]
    assert kept[0].records == kept[1].records == kept[2].records
    assert len(kept[0].records) == 1
    assert len(lists(twilio)) == len(lookup.spellings(same))


@pytest.mark.parametrize("name", ["whatsapp", "messenger"])
def test_the_other_channels_ask_with_their_prefix(name: str, twilio: FakeTwilio, channel: Opens) -> None:
    twilio.conversations.add(f"{name}:{sms().address}")
    content = whatsapp(1, "Hola", content_sid="").content
    list(channel(name).send([sms(1, channel=name, conversation=True, content=content)]))
    twilio.put(sms().address, "an SMS")

    kept = one(channel(name).look_up([doubtful(channel=name)]))

    assert texts(kept) == ["Hola"]
    assert f"To={name}%3A%2B52" in lists(twilio)[0].path


def test_a_template_is_known_by_the_text_that_twilio_made_of_it(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.templates[whatsapp().content.content_sid] = "Hola {{1}}: {{2}}"
    list(channel("whatsapp").send([whatsapp()]))

    assert texts(one(channel("whatsapp").look_up([doubtful(channel="whatsapp")]))) == ["Hola Ana: Año “nuevo”"]


def test_a_text_that_twilio_no_longer_has_is_no_text_at_all(twilio: FakeTwilio, channel: Opens) -> None:
    """An empty one would be another text than ours, and ours be taken for absent."""
    twilio.put(sms().address, "")

    assert texts(one(channel().look_up([doubtful()]))) == [None]


def test_what_a_trial_account_puts_before_a_text_is_taken_away(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.trial, twilio.verified = True, {sms().address}
    list(channel().send([sms()]))

    assert texts(one(channel().look_up([doubtful()]))) == ["Hola, Ana"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("+525541000001", ["+525541000001", "+5215541000001"]),
        ("+5215541000001", ["+5215541000001", "+525541000001"]),
        ("+541123456789", ["+541123456789", "+5491123456789"]),
        ("+5491123456789", ["+5491123456789", "+541123456789"]),
        ("+5511987654321", ["+5511987654321", "+551187654321"]),
        ("+551187654321", ["+551187654321", "+5511987654321"]),
        ("+551132654321", ["+551132654321"]),  # a landline
        ("+12125550100", ["+12125550100"]),
        ("whatsapp:+525541000001", ["whatsapp:+525541000001", "whatsapp:+5215541000001"]),
        ("messenger:4812345678901234", ["messenger:4812345678901234"]),
    ],
)
def test_a_number_is_asked_for_in_every_spelling_that_it_may_be_kept_in(sent: str, kept: list[str]) -> None:
    assert lookup.spellings(sent) == kept


def test_a_message_that_twilio_keeps_under_the_number_s_other_spelling_is_found(
    twilio: FakeTwilio, channel: Opens
) -> None:
    twilio.put("+5215541000001", "Hola, Ana")

    assert texts(one(channel().look_up([doubtful()]))) == ["Hola, Ana"]


# --- pages -----------------------------------------------------------------------------------------------------------


def test_a_list_of_several_pages_is_read_to_its_end(twilio: FakeTwilio, channel: Opens) -> None:
    address = sms().address
    for number in range(2_500):
        twilio.put(address, f"{number}")

    kept = one(channel().look_up([doubtful()]))

    assert kept.complete
    assert texts(kept) == [f"{number}" for number in reversed(range(2_500))]
    paths = [request.path for request in lists(twilio) if "To=%2B525541000001" in request.path]
    assert ["PageToken" in path for path in paths] == [False, True, True, False]
    assert all("PageSize=1000" in path for path in paths)


def test_a_message_that_moves_to_the_front_while_the_pages_are_read_is_not_missed(
    twilio: FakeTwilio, channel: Opens
) -> None:
    """The order is that of sending: what waits at the end and leaves meanwhile is first, where reading began."""
    old = datetime.now(UTC) - timedelta(days=2)
    address = sms().address
    for number in range(1_000):
        twilio.put(address, f"{number}")
    waiting = twilio.put(address, "waiting", at=old)

    def leaves(request: Recorded) -> None:
        if "PageToken" in request.path:
            waiting.sent = datetime.now(UTC) + HOUR

    twilio.on_request = leaves

    assert "waiting" in texts(one(channel().look_up([doubtful()])))


@pytest.mark.parametrize("fault", [Fault.BUSY_BEFORE, Fault.DROP_BEFORE, Fault.TOO_MANY])
def test_a_page_that_does_not_come_leaves_the_answer_incomplete(
    fault: Fault, twilio: FakeTwilio, channel: Opens
) -> None:
    for number in range(1_001):
        twilio.put(sms().address, f"{number}")
    twilio.faults.add(None, fault)

    kept = one(channel().look_up([doubtful()]))

    assert not kept.complete
    assert len(kept.records) == 1_000


def test_a_list_that_never_ends_is_given_up(
    twilio: FakeTwilio, channel: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "MOST_PAGES", 1)
    for number in range(1_001):
        twilio.put(sms().address, f"{number}")

    kept = one(channel().look_up([doubtful()]))

    assert (kept.complete, kept.detail) == (False, "the list at Twilio does not end")


def test_a_list_that_leads_back_to_itself_is_given_up() -> None:
    class Circle:
        api = type("", (), {"absolute_url": staticmethod(lambda uri: uri)})

        def request(self, _: str, uri: str) -> Any:
            text = f'{{"messages": [], "next_page_uri": "{uri}"}}'
            return type("", (), {"status_code": 200, "text": text, "headers": {}})

    client: Any = Circle()

    assert lookup.read(client, "AC", {}, lookup.record_of, 9).why == "the list at Twilio does not end"


# --- no answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.TOO_MANY, "HTTP 429"),
        (Fault.BUSY_BEFORE, "HTTP 500"),
        (Fault.BUSY_AFTER, "HTTP 500"),
        (Fault.DROP_BEFORE, "did not answer"),
        (Fault.SLOW, "did not answer (ReadTimeout)"),
        (Fault.UNHEARD_OF, "HTTP 400"),
    ],
)
def test_a_list_that_does_not_come_is_an_incomplete_answer_and_is_asked_for_once(
    fault: Fault, said: str, twilio: FakeTwilio, channel: Opens
) -> None:
    twilio.faults.add(fault)

    kept = one(channel(timeout=SOON).look_up([doubtful(address="+12125550100")]))

    assert not kept.complete
    assert said in kept.detail
    assert len(twilio.requests) == 1


def test_an_account_that_is_not_there_is_an_incomplete_answer(twilio: FakeTwilio, channel: Opens) -> None:
    opened = channel()
    opened._account = "AC" + "f" * 32

    kept = one(opened.look_up([doubtful()]))

    assert (kept.complete, kept.detail) == (False, "Twilio answered HTTP 404")


def test_credentials_that_are_not_taken_are_an_error_of_the_configuration(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.faults.add(Fault.NOT_ALLOWED)

    with pytest.raises(ChannelError, match=r"channels\.sms: the credentials are not right.*\(Twilio 20003\)"):
        list(channel().look_up([doubtful()]))


def test_a_host_where_nobody_is_leaves_every_answer_incomplete_and_is_not_asked_hundreds_of_times(
    twilio: FakeTwilio,
) -> None:
    away = settings(twilio, base_url="http://127.0.0.1:9")
    kept = list(open_channel("sms", away).look_up([doubtful(number) for number in range(50)]))

    assert {one.public_id for one in kept} == {f"m{number}" for number in range(50)}
    assert not any(one.complete for one in kept)
    assert sum("not asked" in one.detail for one in kept) >= 50 - 8 - asking.ENOUGH


def test_after_a_429_nothing_more_is_asked(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.faults.add(Fault.TOO_MANY)

    kept = list(channel(parallel=1).look_up([doubtful(number) for number in range(5)]))

    assert len(twilio.requests) == 1
    assert [one.complete for one in kept] == [False] * 5
    assert kept[-1].detail == "not asked, since of others it was said: Twilio answered HTTP 429"


def test_one_recipient_whose_list_is_broken_keeps_nobody_else_from_being_asked(
    twilio: FakeTwilio, channel: Opens
) -> None:
    broken = Fault.BUSY_BEFORE
    twilio.faults.add(broken, broken, None, broken, broken)
    people = [doubtful(number, address=f"+1212555010{number}") for number in range(7)]

    kept = list(channel(parallel=1).look_up(people))

    assert [one.complete for one in kept] == [False, False, True, False, False, True, True]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>",
        "[]",
        "null",
        "{}",
        '{"messages": null, "next_page_uri": null}',
        '{"messages": [{}], "next_page_uri": null}',
        '{"messages": [7], "next_page_uri": null}',
        '{"messages": [{"sid": "SM1"}], "next_page_uri": null}',
        '{"messages": []}',
        '{"messages": [], "next_page_uri": "https://elsewhere.example/"}',
        '{"messages": [], "next_page_uri": 7}',
        "[" * 100_000,
    ],
)
def test_a_list_that_cannot_be_read_is_never_a_complete_answer(body: str) -> None:
    class Odd:
        api = type("", (), {"absolute_url": staticmethod(lambda uri: uri)})

        def request(self, *_: str) -> Any:
            return type("", (), {"status_code": 200, "text": body, "headers": {}})

    client: Any = Odd()

    heard = lookup.ask(client, "AC", ["+1"], [doubtful()])

    assert not heard.complete
    assert heard.detail


@pytest.mark.parametrize("elsewhere", ["https://elsewhere.example/", "elsewhere", "7"])
def test_pages_are_looked_for_at_twilio_alone(elsewhere: str) -> None:
    asked: list[str] = []

    class Astray:
        api = type("", (), {"absolute_url": staticmethod(lambda uri: uri)})

        def request(self, _: str, uri: str) -> Any:
            asked.append(uri)
            text = f'{{"messages": [], "next_page_uri": "{elsewhere}"}}'
            return type("", (), {"status_code": 200, "text": text, "headers": {}})

    client: Any = Astray()

    assert not lookup.ask(client, "AC", ["+1"], [doubtful()]).complete
    assert len(asked) == 1


def test_what_twilio_has_long_forgotten_is_not_absent(twilio: FakeTwilio, channel: Opens) -> None:
    old = datetime.now(UTC) - timedelta(days=395)

    kept = one(channel().look_up([doubtful(since=old, until=old + HOUR)]))

    assert (kept.complete, kept.detail) == (False, "Twilio keeps messages for 400 days only")


def test_how_old_something_is_is_judged_by_twilio_s_clock() -> None:
    then = datetime(2024, 6, 1, tzinfo=UTC)
    with FakeTwilio(clock=lambda: then) as fake:
        opened = open_channel("sms", settings(fake))
        assert one(opened.look_up([doubtful(since=then - HOUR, until=then)])).complete
        opened.close()


# --- how it is asked -------------------------------------------------------------------------------------------------


def test_no_more_than_the_channel_s_own_number_of_lists_are_read_at_once(twilio: FakeTwilio, channel: Opens) -> None:
    gate = threading.Barrier(3, timeout=10)
    twilio.on_request = lambda _: gate.wait()
    group = [doubtful(number, address=f"+121255501{number:02d}") for number in range(9)]

    kept = list(channel(parallel=3).look_up(group))

    assert all(one.complete for one in kept)
    assert twilio.most_at_once == 3


def test_an_answer_is_given_while_others_are_still_awaited(twilio: FakeTwilio, channel: Opens) -> None:
    slow, told = "+12125550100", threading.Event()
    twilio.on_request = lambda request: told.wait(10) if slow[1:] in request.path else None

    answers = channel().look_up([doubtful(1, address=slow), doubtful(2, address="+12125550101")])

    assert next(answers).public_id == "m2"
    told.set()
    assert next(answers).public_id == "m1"


def test_nobody_is_asked_about_nothing(twilio: FakeTwilio, channel: Opens) -> None:
    assert list(channel().look_up([])) == []
    assert twilio.requests == []


def test_whatever_asking_raises_is_an_incomplete_answer_to_those_messages_alone() -> None:
    def ask(group: Sequence[Doubtful]) -> Heard:
        if group[0].public_id == "m1":
            raise ZeroDivisionError(group[0].address)
        return Heard(complete=True)

    kept = list(asking.look_up([doubtful(1), doubtful(2)], ask, 1))

    assert kept == [Kept("m1", detail="an answer that cannot be read (ZeroDivisionError)"), Kept("m2", complete=True)]


def test_what_was_under_way_is_answered_before_a_wrong_configuration_is_told() -> None:
    both = threading.Barrier(2, timeout=10)

    def ask(group: Sequence[Doubtful]) -> Heard:
        both.wait()
        return Heard(wrong="the key is wrong") if group[0].public_id == "m1" else Heard(complete=True)

    kept: list[Kept] = []
    with pytest.raises(ChannelError, match="the key is wrong"):
        kept.extend(asking.look_up([doubtful(1), doubtful(2)], ask, 2))

    assert kept == [Kept("m2", complete=True)]


def test_once_the_configuration_is_wrong_nothing_more_is_asked() -> None:
    asked: list[str] = []

    def ask(group: Sequence[Doubtful]) -> Heard:
        asked.append(group[0].public_id)
        return Heard(wrong="the key is wrong")

    with pytest.raises(ChannelError):
        list(asking.look_up([doubtful(1), doubtful(2)], ask, 1))

    assert asked == ["m1"]


def test_no_address_and_no_text_stands_in_what_is_told(twilio: FakeTwilio, channel: Opens) -> None:
    twilio.faults.add(*[Fault.BUSY_BEFORE, Fault.UNHEARD_OF, Fault.DROP_BEFORE, Fault.TOO_MANY])

    kept = list(channel(parallel=1).look_up([doubtful(number) for number in range(6)]))

    told = " ".join(one.detail for one in kept)
    assert told
    assert "+52" not in told
    assert "Hola" not in told


# --- the stand-in ----------------------------------------------------------------------------------------------------


def test_faults_of_lists_leave_sending_alone() -> None:
    with FakeTwilio(list_faults=Faults([Fault.BUSY_BEFORE])) as fake:
        opened = open_channel("sms", settings(fake))
        assert [receipt.outcome for receipt in opened.send([sms()])] == [Outcome.ACCEPTED]
        assert [one.complete for one in opened.look_up([doubtful(), doubtful()])] == [False, False]
        assert one(opened.look_up([doubtful()])).complete
        opened.close()


@pytest.mark.parametrize(("lag", "seen"), [(0, [1, 1, 1]), (2, [0, 0, 1]), (None, [0, 0, 0])])
def test_a_list_may_lag_behind(lag: int | None, seen: list[int]) -> None:
    with FakeTwilio(lag=lag) as fake:
        opened = open_channel("sms", settings(fake))
        message = sms(address="+12125550100")
        list(opened.send([message]))
        looks = [opened.look_up([doubtful(address=message.address)]) for _ in range(3)]
        assert [len(one(look).records) for look in looks] == seen
        fake.catch_up()
        assert len(one(opened.look_up([doubtful(address=message.address)])).records) == 1
        opened.close()
