"""
What Twilio has for a recipient: its list of messages, read to the end.

Twilio keeps no id of ours, so that a record says when the message was made there and what it says.
Sources: www.twilio.com/docs/messaging/api/message-resource (the list, its filters and pages),
www.twilio.com/docs/usage/twilios-response (pages), and Twilio's OpenAPI description of Messages.

    no date filter   its dates are those of sending, and what still waits in a queue has none
    no early end     the order is said to be that of sending, newest first: not that of being made
    every spelling   of a number that Twilio or WhatsApp may write in another way than we do

What somebody deleted at Twilio, or whose recipient an account has redacted, is missing from a list that looks whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from requests.exceptions import RequestException
from twilio.rest import Client

from outreach.channels import Doubtful, Record
from outreach.channels.asking import Heard
from outreach.channels.twilio.codes import BY_STATUS, MEANINGS

PAGE = 1000  # the most that a page may hold
MOST_PAGES = 100  # of one recipient's list
KEPT = timedelta(days=390)  # Twilio keeps messages for 400 days, says its documentation
# What a trial account's messages begin with, also in the list: help.twilio.com/articles/360036052753
TRIAL = "Sent from your Twilio trial account - "

_T = TypeVar("_T")


@dataclass
class Listing(Generic[_T]):
    """What was read of a list; `why` is empty when it is all of it."""

    found: list[_T] = field(default_factory=list)
    why: str = ""
    wrong: str = ""
    failed: bool = False
    closed: bool = False
    read_at: datetime | None = None  # by Twilio's clock, when reading began


def ask(client: Client, account: str, addresses: Iterable[str], group: Sequence[Doubtful]) -> Heard:
    """What Twilio has for one recipient, in all of these spellings; never an exception of Twilio's making."""
    since = min(one.since for one in group)
    records: dict[str, Record] = {}
    for address in addresses:
        listing = read(client, account, {"To": address}, record_of, MOST_PAGES)
        records.update((record.provider_id, record) for record in listing.found)
        if not listing.why and not listing.wrong and _too_old(since, listing.read_at):
            listing.why = "Twilio keeps messages for 400 days only"
        if listing.why or listing.wrong:
            return Heard(
                tuple(records.values()),
                detail=listing.why,
                failed=listing.failed,
                closed=listing.closed,
                wrong=listing.wrong,
            )
    return Heard(tuple(records.values()), complete=True)


def record_of(row: Mapping[str, Any]) -> Record | None:
    """A message that went out; None for one that came in. An empty text says nothing: it may have been redacted."""
    if not str(row["direction"]).startswith("outbound"):
        return None
    text = str(row.get("body") or "").removeprefix(TRIAL)
    return Record(str(row["sid"]), made_at(row), text=text or None)


def made_at(row: Mapping[str, Any]) -> datetime | None:
    """When the message was made at Twilio."""
    return _date(row.get("date_created"))


def spellings(address: str) -> list[str]:
    """
    An address with its prefix, as it was sent and as it may be kept.

    Mexican mobiles may have a 1 and Argentine ones a 9 after the country, Brazilian ones lack the 9 before their
    last eight digits, as their numbering plans have it. All are the same phone, so that their lists can be taken together.
    """
    prefix, number = address[: address.find("+")], address[address.find("+") :]
    if "+" not in address:
        return [address]
    for pattern, others in _SAME:
        if found := re.fullmatch(pattern, number):
            more = [prefix + found.expand(other) for other in others]
            return [address, *(one for one in more if one != address)]
    return [address]


_SAME = (
    (r"\+521?(\d{10})", (r"+52\1", r"+521\1")),
    (r"\+549?(\d{10})", (r"+54\1", r"+549\1")),
    (r"\+55(\d\d)9?([6-9]\d{7})", (r"+55\1\2", r"+55\g<1>9\2")),
)


# --- reading -----------------------------------------------------------------------------------------


def read(
    client: Client,
    account: str,
    filters: Mapping[str, str],
    keep: Callable[[Mapping[str, Any]], _T | None],
    most_pages: int,
) -> Listing[_T]:
    """
    What `keep` makes of each message of the list that these filters ask for, page after page to its end.

    A list of several pages may change while it is read: what was waiting when its place was passed and was
    sent since stands on the first page, which is therefore read once more at the end.
    """
    first = f"/2010-04-01/Accounts/{account}/Messages.json?{urlencode({**filters, 'PageSize': PAGE})}"
    listing: Listing[_T] = Listing()
    seen: set[str] = set()
    asked: set[str] = set()
    following: str | None = first
    while following is not None:
        if following in asked or len(asked) >= most_pages:
            listing.why = "the list at Twilio does not end"
            return listing
        asked.add(following)
        following = _page(client, following, listing, seen, keep)
    if len(asked) > 1 and not (listing.why or listing.wrong):
        _page(client, first, listing, seen, keep)
    return listing


def _page(
    client: Client,
    uri: str,
    listing: Listing[_T],
    seen: set[str],
    keep: Callable[[Mapping[str, Any]], _T | None],
) -> str | None:
    """Read one page into the listing; where the next one is, None at the end or when this one cannot be read."""
    try:
        answer = client.request("GET", client.api.absolute_url(uri))
    except RequestException as error:
        listing.why, listing.failed = f"Twilio did not answer ({type(error).__name__})", True
        return None
    if answer.status_code != 200:
        _refused(listing, answer.status_code, answer.text)
        return None
    try:
        page = json.loads(answer.text)
        for row in page["messages"]:
            if row["sid"] not in seen:
                seen.add(row["sid"])
                kept = keep(row)
                if kept is not None:
                    listing.found.append(kept)
        following = page["next_page_uri"]
    except (ValueError, TypeError, KeyError, RecursionError):
        listing.why, listing.failed = "a list of Twilio's that cannot be read", True
        return None
    listing.read_at = listing.read_at or _date((answer.headers or {}).get("Date"))
    if following is not None and not str(following).startswith("/"):
        listing.why, listing.failed = "a list of Twilio's that cannot be read", True
        return None
    return following or None


def _refused(listing: Listing[_T], status: int, body: str) -> None:
    if status in (401, 403):
        listing.wrong = refusal(status, body)
        return
    listing.why = f"Twilio answered HTTP {status}"
    listing.failed, listing.closed = True, status == 429


def refusal(status: int, body: str) -> str:
    """What to mend after a 401 or 403."""
    try:
        code = json.loads(body)["code"]
    except (ValueError, TypeError, KeyError, RecursionError):
        code = None
    meaning = MEANINGS.get(code) if isinstance(code, int) else None
    if meaning is None or meaning.outcome is not None:
        meaning = BY_STATUS[status]
    return f"{meaning.text} (Twilio {code or status})"


def _date(text: object) -> datetime | None:
    """RFC 2822, as Twilio writes its dates; None when it is none."""
    try:
        found = parsedate_to_datetime(str(text))
    except (ValueError, OverflowError):
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _too_old(since: datetime, read_at: datetime | None) -> bool:
    return since < (read_at or datetime.now(UTC)) - KEPT
