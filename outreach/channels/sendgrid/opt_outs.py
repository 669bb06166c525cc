"""
Whom SendGrid will not write to any more, and why: its suppression lists.

Sources: www.twilio.com/docs/sendgrid/api-reference, under Suppressions (global unsubscribes, group unsubscribes),
Spam Reports, Bounces and Invalid Emails; at most 500 entries a page, and `start_time` in Unix seconds, inclusive.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from outreach.channels import OptOut
from outreach.channels.sendgrid import api
from outreach.channels.sendgrid.answers import STATUSES, Answer
from outreach.channels.sendgrid.events import is_excused
from outreach.errors import ChannelError

PAGE = 500
MOST_PAGES = 4000


class _List(NamedTuple):
    path: tuple[str, ...]
    reason: str
    paged: bool = True  # else the list comes whole, and from its beginning


LISTS = {
    "unsubscribes": _List(("suppression", "unsubscribes"), "opted_out"),
    "group unsubscribes": _List(("asm", "suppressions"), "opted_out", paged=False),
    "spam reports": _List(("suppression", "spam_reports"), "complained"),
    "bounces": _List(("suppression", "bounces"), "bounced"),
    "invalid addresses": _List(("suppression", "invalid_emails"), "bounced"),
}


def since(client: Any, begin: datetime) -> Iterator[OptOut]:
    """
    Everybody on one of the lists since then. A list that cannot be read does not keep the others from being read.

    A bounce that was not the address's fault is left out, as it is among the events.

    Raises:
        ChannelError: after all others, that these lists could not be read to their end, and why.
    """
    unread: dict[str, str] = {}
    for name, one in LISTS.items():
        try:
            yield from _all(client, one, begin)
        except ChannelError as error:
            unread[name] = str(error)
    if unread:
        whys = "; ".join(sorted(set(unread.values())))
        raise ChannelError(f"SendGrid's lists of {', '.join(unread)} could not be read to their end: {whys}")


def _all(client: Any, one: _List, begin: datetime) -> Iterator[OptOut]:
    """One list, page after page until an empty one: how many entries a page really has, the server decides."""
    resource = client
    for part in one.path:
        resource = resource._(part)
    if not one.paged:
        yield from _opt_outs(_entries(api.get(resource)), one.reason, begin)
        return
    offset = 0
    for _ in range(MOST_PAGES):
        asked = {"start_time": str(int(begin.timestamp())), "limit": str(PAGE), "offset": str(offset)}
        entries = _entries(api.get(resource, asked))
        if not entries:
            return
        yield from _opt_outs(entries, one.reason, begin)
        offset += len(entries)
    raise ChannelError("a list at SendGrid does not end")


def _entries(answer: Answer) -> Sequence[Mapping[str, Any]]:
    if answer.status == 401:
        raise ChannelError(STATUSES[401][1])
    if answer.status == 403:
        raise ChannelError("SendGrid does not show them to this key: give it the permission to read suppressions")
    if answer.status != 200:
        raise ChannelError(
            f"SendGrid answered HTTP {answer.status}" if answer.status else f"SendGrid did not answer: {answer.why}"
        )
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ChannelError("SendGrid's answer cannot be read")
    return found


def _opt_outs(entries: Sequence[Mapping[str, Any]], reason: str, begin: datetime) -> Iterator[OptOut]:
    for entry in entries:
        address, seconds = entry.get("email"), entry.get("created", entry.get("created_at"))
        if not isinstance(address, str) or "@" not in address or is_excused(str(entry.get("status", ""))):
            continue
        at = _moment(seconds) or begin
        if at >= begin.replace(microsecond=0):
            yield OptOut(address.strip(), "email", at, reason)


def _moment(seconds: object) -> datetime | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
