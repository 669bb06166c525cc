"""
What SendGrid has for a recipient: its Email Logs, which give our own id back.

Sources: www.twilio.com/docs/sendgrid/api-reference/email-logs (kept 30 days; no pages, at most 1,000 messages a
question; questions mind case), …/email-logs/filter-all-messages and …/filter-messages-by-id.

The logs show a message some time after it was accepted: SendGrid's page says "near real time", and no figure. So
absence means nothing until long after the message could have left; whoever asks waits for that (a quarter of an
hour beyond the last moment at which it could have).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from outreach.channels import Doubtful, Record
from outreach.channels.asking import Heard
from outreach.channels.mime import address as written
from outreach.channels.sendgrid import api
from outreach.channels.sendgrid.answers import STATUSES, Answer
from outreach.channels.sendgrid.requests import ARGUMENT

MOST = 1000  # messages of an answer, and there is no next page
MOST_DETAILS = 100  # messages of one recipient that are looked at one by one
KEPT = timedelta(days=29)  # SendGrid keeps its logs for 30
NO_LOGS = (
    "SendGrid does not show this key its Email Logs (HTTP {status}), and nothing else says what became of a message:"
    " give the key the permission to read them, if the account has them"
)


class Unread(Exception):
    """An answer that does not say what was asked."""

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        super().__init__(heard.detail or heard.wrong)


def ask(client: Any, group: Sequence[Doubtful], *, batches: bool) -> Heard:
    """
    What SendGrid has for one recipient between the first and the last of these messages.

    `batches`: a request may carry several messages, whose receipts have ids that the logs do not show.
    """
    records: list[Record] = []
    try:
        rows = _rows(client, group)
        for row in rows[:MOST_DETAILS]:
            records.append(_record(client, row, batches=batches))  # noqa: PERF401  those before a failure are kept
        if len(rows) > MOST_DETAILS:
            raise Unread(Heard(detail=f"SendGrid has more than {MOST_DETAILS} messages for this recipient"))
    except Unread as unread:
        heard = unread.heard
        return Heard(tuple(records), False, heard.detail, heard.failed, heard.closed, heard.wrong)
    return Heard(tuple(records), complete=True)


def _rows(client: Any, group: Sequence[Doubtful]) -> list[Mapping[str, Any]]:
    """The messages of the time in question, in every spelling of the recipient that the logs may have; all of them."""
    since, until = min(one.since for one in group), max(one.until for one in group)
    found: dict[str, Mapping[str, Any]] = {}
    for recipient in _spellings(group[0].address):
        answer = api.post(client.logs, {"query": query(recipient, since, until), "limit": MOST})
        rows = _body(answer).get("messages")
        if not isinstance(rows, list) or not all(isinstance(row, dict) and _id(row) for row in rows):
            raise Unread(_unreadable())
        if since < _read_at(answer) - KEPT:
            raise Unread(Heard(detail="SendGrid keeps its Email Logs for 30 days only"))
        if len(rows) >= MOST:
            raise Unread(Heard(detail=f"SendGrid shows no more than {MOST} messages at a time"))
        found.update((_id(row), row) for row in rows)
    return list(found.values())


def query(recipient: str, since: datetime, until: datetime) -> str:
    """The question, in the language of the logs; Unread where an address cannot be written in it."""
    mark = '"' if "'" in recipient else "'"
    if mark in recipient or "\\" in recipient:
        raise Unread(Heard(detail="the address cannot be written in a question to SendGrid's logs"))
    created = "sg_message_id_created_at"
    begin, end = (at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for at in (since, until + timedelta(seconds=1)))
    return f'to_email = {mark}{recipient}{mark} AND {created} >= TIMESTAMP "{begin}" AND {created} <= TIMESTAMP "{end}"'


def _spellings(recipient: str) -> Iterator[str]:
    """As it was sent, and in lower case: SendGrid does not say which one its logs hold."""
    try:
        sent = written(recipient)
    except ValueError:
        raise Unread(Heard(detail="the address cannot stand in a message")) from None
    yield sent
    if sent != sent.lower():
        yield sent.lower()


def _record(client: Any, row: Mapping[str, Any], *, batches: bool) -> Record:
    """The message with our id of it, which only its own page tells; without one, it is none of ours."""
    number = _id(row)
    found = api.get(client.logs._(quote(number, safe="")))
    if found.status == 404:  # the list has just named it
        raise Unread(_unreadable())
    arguments = _body(found).get("custom_args") or {}
    mine = arguments.get(ARGUMENT, "") if isinstance(arguments, dict) else None
    if not isinstance(mine, str):
        raise Unread(_unreadable())
    return Record(
        number if batches else number.partition(".")[0],
        _moment(row.get("sg_message_id_created_at")),
        mine,
    )


# --- answers -----------------------------------------------------------------------------------------


def _body(answer: Answer) -> Mapping[str, Any]:
    """What an answer holds; Unread when it is none to the question."""
    if answer.status == 401:
        raise Unread(Heard(wrong=STATUSES[401][1]))
    if answer.status in (402, 403, 404, 405):
        raise Unread(Heard(detail=NO_LOGS.format(status=answer.status), closed=True))
    if answer.status != 200:
        what = f"SendGrid answered HTTP {answer.status}" if answer.status else f"SendGrid did not answer: {answer.why}"
        raise Unread(Heard(detail=what, failed=answer.status != 400, closed=answer.status == 429))
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise Unread(_unreadable()) from None
    if not isinstance(found, dict):
        raise Unread(_unreadable())
    return found


def _unreadable() -> Heard:
    return Heard(detail="an answer of SendGrid's that cannot be read", failed=True)


def _id(row: Mapping[str, Any]) -> str:
    found = row.get("sg_message_id")
    return found if isinstance(found, str) and found.isprintable() and len(found) <= 200 else ""


def _moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _read_at(answer: Answer) -> datetime:
    """When it was answered, by SendGrid's clock."""
    try:
        return parsedate_to_datetime(answer.headers.get("Date") or "").astimezone(UTC)
    except ValueError:
        return datetime.now(UTC)
