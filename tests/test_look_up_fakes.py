"""The stand-ins' ledgers and lists: what a test can ask of them, also from another process."""

from __future__ import annotations

import base64
import json
import smtplib
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

import pytest

from outreach.channels import open_channel
from outreach.testing import Fault, Faults
from outreach.testing.sendgrid import FakeSendGrid
from outreach.testing.smtp import FakeSmtp
from outreach.testing.twilio import ACCOUNT_SID, AUTH_TOKEN, FakeTwilio
from tests.by_twilio import settings, sms
from tests.test_look_up_sendgrid import an_email, opened

TO = "+12125550100"


def fetched(url: str, login: str = "") -> Any:
    headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
        return json.loads(answer.read())


def page(fake: FakeTwilio, path: str) -> Any:
    return fetched(f"{fake.url}{path}", f"{ACCOUNT_SID}:{AUTH_TOKEN}")


def listed(**query: str) -> str:
    pairs = "&".join(f"{name}={quote(value)}" for name, value in query.items())
    return f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json?{pairs}"


# --- ledgers -----------------------------------------------------------------------------------------


def test_twilio_s_ledger_counts_by_our_id_and_by_text_what_was_accepted_without_an_answer_too() -> None:
    with FakeTwilio(faults=Faults([None, Fault.DROP_AFTER, Fault.BUSY_AFTER, Fault.DROP_BEFORE])) as fake:
        fake.put(sms(1).address, "of somebody else")
        fake.born_failed[sms(5).address] = 30008
        channel = open_channel("sms", settings(fake, parallel=1))
        list(channel.send([sms(1), sms(1), sms(2), sms(3), sms(5)]))
        channel.close()
        before = len(fake.requests)
        told = fetched(f"{fake.url}/_accepted")

        assert fake.accepted_by_public_id() == told == {"m1": 2, "m2": 1}
        assert fake.accepted_by_text() == {(sms(1).address, "Hola, Ana"): 2, (sms(2).address, "Hola, Ana"): 1}
        assert len(fake.requests) == before


def test_sendgrid_s_ledger_does_so_too() -> None:
    with FakeSendGrid(faults=[None, Fault.DROP_AFTER, Fault.BUSY_AFTER, Fault.DROP_BEFORE]) as fake:
        list(opened(fake, parallel=1).send([an_email(1), an_email(1), an_email(2), an_email(3)]))
        before = len(fake.requests)
        told = fetched(f"{fake.url}/_accepted")

        assert fake.accepted_by_public_id() == told == {f"{1:032x}": 2, f"{2:032x}": 1}
        assert fake.accepted_by_text() == {("ana@example.com", "Hola 1"): 2, ("ana@example.com", "Hola 2"): 1}
        assert len(fake.requests) == before


def test_the_ledger_takes_no_fault_from_those_to_come() -> None:
    with FakeTwilio(faults=Faults([Fault.DROP_BEFORE])) as twilio, FakeSendGrid(faults=[Fault.DROP_BEFORE]) as sendgrid:
        assert fetched(f"{twilio.url}/_accepted") == fetched(f"{sendgrid.url}/_accepted") == {}
        assert twilio.faults.take() is sendgrid.faults.take() is Fault.DROP_BEFORE


def test_the_mail_server_s_ledger_counts_by_message_id_and_by_our_own() -> None:
    with FakeSmtp() as fake:
        with smtplib.SMTP("127.0.0.1", fake.port) as client:
            for message_id in ("<a@x.example>", "<a@x.example>", "<a@y.example>", "<b@x.example>"):
                client.sendmail("s@x.example", ["ana@x.example"], f"Message-ID: {message_id}\r\n\r\nHola\r\n")

        assert fake.accepted_by_message_id() == {"<a@x.example>": 2, "<a@y.example>": 1, "<b@x.example>": 1}
        assert fake.accepted_by_public_id() == {"a": 3, "b": 1}


# --- lists -------------------------------------------------------------------------------------------


def test_twilio_s_pages_follow_each_other_though_something_came_in_between() -> None:
    with FakeTwilio() as fake:
        for number in range(5):
            fake.put(TO, str(number))
        first = page(fake, listed(To=TO, PageSize="2"))
        fake.put(TO, "new")
        second = page(fake, first["next_page_uri"])
        third = page(fake, second["next_page_uri"])

    assert [[one["body"] for one in each["messages"]] for each in (first, second, third)] == [
        ["4", "3"],
        ["2", "1"],
        ["0"],
    ]
    assert third["next_page_uri"] is None
    assert [each["page"] for each in (first, second, third)] == [0, 1, 2]


def test_twilio_s_list_is_filtered_by_recipient_and_sender() -> None:
    with FakeTwilio() as fake:
        fake.put(TO, "a", sender="+15550000001")
        fake.put(TO, "b", sender="+15550000002")
        fake.put("+12125550101", "c", sender="+15550000001")
        bodies = [
            [one["body"] for one in page(fake, listed(**query))["messages"]]
            for query in ({"To": TO}, {"From": "+15550000001"}, {"To": TO, "From": "+15550000001"}, {})
        ]

    assert bodies == [["b", "a"], ["c", "a"], ["a"], ["c", "b", "a"]]


@pytest.mark.parametrize(
    "query", [{"PageSize": "0"}, {"PageSize": "1001"}, {"PageSize": "x"}, {"PageToken": "PAnobody"}]
)
def test_twilio_refuses_pages_that_cannot_be(query: dict[str, str]) -> None:
    with FakeTwilio() as fake, pytest.raises(urllib.error.HTTPError, match="400") as caught:
        page(fake, listed(To=TO, **query))
    caught.value.close()


def test_a_suppression_list_that_sendgrid_does_not_have_is_refused() -> None:
    with FakeSendGrid() as fake, pytest.raises(ValueError, match="no list"):
        fake.suppress("friends", "a@example.com", sms().at)  # type: ignore[arg-type]
