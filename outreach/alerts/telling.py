"""Telling: an e-mail by the shop's own e-mail channel, or one POST to a webhook."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from outreach import __version__, channels, store
from outreach.alerts import words
from outreach.channels import Outcome, Outgoing
from outreach.errors import ChannelError
from outreach.render import Content
from outreach.settings import Settings
from outreach.store import Database

WEBHOOK_SECONDS = 10.0


@dataclass(frozen=True)
class News:
    """What is to be told: an alarm has begun, or is over."""

    alarm: str
    text: str
    since: datetime
    over: bool


def by_email(db: Database, settings: Settings, address: str, news: News, now: datetime) -> str:
    """Have the configured e-mail provider send it; why it did not, or an empty text."""
    try:
        channel = channels.open_channel("email", settings)
    except ChannelError as error:
        return str(error)
    try:
        for receipt in list(channel.send([_outgoing(db, settings, address, news, now)])):
            return "" if receipt.outcome is Outcome.ACCEPTED else receipt.detail or receipt.outcome.value
    except ChannelError as error:
        return str(error)
    finally:
        channel.close()
    return "the provider did not say what became of it"


def _outgoing(db: Database, settings: Settings, address: str, news: News, now: datetime) -> Outgoing:
    key = (news.alarm, news.since.isoformat(), "over" if news.over else "begun", news.text)
    business = settings.business
    content = Content(
        "email",
        words.letter(business, news.alarm, news.text, news.since, is_over=news.over),
        subject=words.subject(business, news.alarm, news.text, is_over=news.over),
    )
    return Outgoing(
        public_id=f"alert-{store.keyed_hash(db.secret, 'alert', *key)[:26]}",  # with `reply_to` it must fit an address
        channel="email",
        address=address,
        sender=settings.channels["email"].sender,
        content=content,
        purpose="transactional",
        at=now,
    )


class _NoRedirect(HTTPRedirectHandler):
    """A redirect could lead a POST anywhere, so it counts as a refusal."""

    def redirect_request(self, *_: Any) -> None:
        return None


def by_webhook(_db: Database, settings: Settings, url: str, news: News, _now: datetime) -> str:
    """POST it once as JSON; why it was not taken (any answer but 2xx), or an empty text."""
    body = {
        "alarm": news.alarm,
        "text": news.text,
        "since": news.since.isoformat(),
        "business": settings.business.name,
        "over": news.over,
    }
    headers = {"Content-Type": "application/json", "User-Agent": f"outreach/{__version__}"}
    data = json.dumps(body, ensure_ascii=False).encode()
    try:
        request = Request(url, data, headers, method="POST")  # noqa: S310  the settings take http and https only
        with build_opener(_NoRedirect).open(request, timeout=WEBHOOK_SECONDS):
            return ""
    except HTTPError as error:
        with error:
            return f"the webhook answered {error.code}"
    except URLError as error:
        return f"the webhook cannot be reached ({_why(error.reason)})"
    except (OSError, HTTPException, ValueError) as error:
        return f"the webhook cannot be reached ({_why(error)})"


def _why(error: object) -> str:
    """The system's word for it; never the address, which may hold a key."""
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


Teller = Callable[[Database, Settings, str, News, datetime], str]
TELLERS: Mapping[str, Teller] = {"email": by_email, "webhook": by_webhook}
