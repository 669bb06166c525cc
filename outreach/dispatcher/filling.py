"""Filling: the template and the facts of one message become what is handed over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from zlib import crc32
from zoneinfo import ZoneInfo

from outreach import arms, coupons, gates, store
from outreach.channels import Outgoing
from outreach.coupons import Given
from outreach.dispatcher.parts import Chunk, Going, Ready
from outreach.gates import Facts, Send
from outreach.render import Content, Link, sms_segments
from outreach.settings import Settings
from outreach.store import Database


def fill(
    db: Database,
    chunk: Chunk,
    one: Going,
    found: Facts,
    verdict: Send,
    context: Mapping[str, Any],
    *,
    sender: str,
    conversation: bool,
    coupon: Given | None = None,
) -> Ready:
    """TemplateError when the template names what this customer lacks, or cannot be filled for another reason."""
    item, row, settings = one.item, one.row, chunk.loaded.settings
    if item.written is not None:
        content = written(verdict.channel, *item.written)
    else:
        content = chunk.loaded.templates.render(
            item.step.template,
            verdict.channel,
            context["customer"].get("locale"),
            context if coupon is None else {**context, "coupon": coupons.variables(coupon)},
            variant="" if item.arm == arms.CONTACT else item.arm,
            zone=found.zones[0] if len(found.zones) == 1 else "",
            survey=item.step.survey or "",
            link=link_maker(db, settings, row.public_id),
        )
    outgoing = Outgoing(
        public_id=row.public_id,
        channel=verdict.channel,
        address=verdict.address,
        sender=sender,
        content=content,
        purpose=item.step.purpose,
        unsubscribe_url=_way_out(settings, content.links),
        at=chunk.now,
        day=_day(row.due_at, settings.business.timezone),
        valid_until=gates.valid_until(verdict.channel, found, one.rules, settings, chunk.now),
        conversation=conversation,
    )
    others = frozenset(x for x in one.rules.channels if x != verdict.channel and x in found.contacts)
    return Ready(one, outgoing, verdict.contact_id, others)


def _way_out(settings: Settings, links: Iterable[Link]) -> str:
    for link in links:
        if link.kind == "unsubscribe":
            return link_url(settings, link.token)
    return ""


def written(channel: str, subject: str, text: str) -> Content:
    """What somebody wrote, word for word."""
    if channel != "sms":
        return Content(channel, text, subject=subject)
    parts, encoding = sms_segments(text)
    return Content(channel, text, segments=parts, encoding=encoding)


@lru_cache(maxsize=4096)
def _day(at: datetime, timezone: str) -> date:
    return at.astimezone(ZoneInfo(timezone)).date()


def sender_of(settings: Settings, channel: str, contact_id: int) -> str:
    """Of several senders, each contact always hears from the same."""
    senders = settings.channels[channel].senders
    return senders[crc32(b"%d" % contact_id) % len(senders)] if len(senders) > 1 else senders[0]


def link_url(settings: Settings, token: str) -> str:
    """The address behind which a message's link is kept."""
    return f"{settings.public_url.rstrip('/')}/l/{token}"


def link_maker(db: Database, settings: Settings, public_id: str) -> Callable[[str, str], tuple[str, str]]:
    """What makes the links of one message: (kind, target) → (token, address)."""

    def make(kind: str, target: str) -> tuple[str, str]:
        token = store.link_token(db.secret, public_id, kind, target)
        return token, link_url(settings, token)

    return make
