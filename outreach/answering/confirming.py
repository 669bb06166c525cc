"""
Confirming: whoever opts out is told once that it worked, on the channel they said it on.

Within five minutes or not at all, without any marketing: 47 CFR 64.1200 (a)(12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, select

from outreach.answering.writing import ToSend, write
from outreach.campaigns import OPTED_OUT
from outreach.models import Consent, Customer, ReplyAnswer, table
from outreach.releases import Loaded

WITHIN = timedelta(minutes=5)
AGAIN = timedelta(days=1)  # nobody is told twice within it
TEMPLATE = f"answers/{OPTED_OUT}"  # a workspace's own words
BUILT_IN = {  # subject of an e-mail, words, and what is added where a word signs them up again
    "es": (
        "Ya no te escribiremos",
        "{business}: listo, ya no te enviaremos mensajes.",
        " Si fue un error, responde ALTA.",
    ),
    "pt": (
        "Não vamos mais te escrever",
        "{business}: pronto, não vamos mais te escrever.",
        " Foi engano? Responda VOLTAR.",
    ),
    "en": (
        "You will not hear from us again",
        "{business}: done, we will not message you again.",
        " If this was a mistake, reply START.",
    ),
}
NO_WAY_BACK = ("email",)  # channels on which a word signs nobody up: who wrote can be forged

_consents, _answers, _customers = table(Consent), table(ReplyAnswer), table(Customer)


@dataclass(frozen=True)
class OptedOut:
    """An opt-out that somebody known wrote, and that is in force."""

    event_id: str
    reply_id: int
    customer_id: int
    contact_id: int
    channel: str
    at: datetime
    received_at: datetime


def confirm(
    connection: Connection, secret: bytes, loaded: Loaded, now: datetime, said: Sequence[OptedOut]
) -> list[int]:
    """
    Write the confirmations of those opt-outs that are new and not too old; gives the ids of the answers.

    An opt-out is new if the contact had not opted out on that channel before, or has opted in since.
    """
    written = []
    for one in sorted(said, key=lambda each: (each.at, each.event_id)):
        until = one.received_at + WITHIN
        if now < until and one.channel in loaded.settings.channels and _is_new(connection, one):
            number = write(connection, secret, now, loaded.number, _confirmation(connection, loaded, one, until))
            written += [number] if number is not None else []
    return written


_BEFORE = (
    select(_consents.c.status)
    .where(
        _consents.c.contact_id == bindparam("contact"),
        _consents.c.channel == bindparam("channel"),
        _consents.c.by == "recipient",
        _consents.c.at < bindparam("at"),
    )
    .order_by(_consents.c.at.desc(), _consents.c.status.desc())
    .limit(1)
)
_TOLD = (
    select(_answers.c.id)
    .where(
        _answers.c.contact_id == bindparam("contact"),
        _answers.c.kind == OPTED_OUT,
        _answers.c.at > bindparam("since"),
    )
    .limit(1)
)


def _is_new(connection: Connection, one: OptedOut) -> bool:
    values = {"contact": one.contact_id, "channel": one.channel, "at": one.at}
    if connection.execute(_BEFORE, values).scalar() == "revoked":
        return False
    told = {"contact": one.contact_id, "since": one.received_at - AGAIN}
    return connection.execute(_TOLD, told).first() is None


def _confirmation(connection: Connection, loaded: Loaded, one: OptedOut, until: datetime) -> ToSend:
    locale = connection.execute(select(_customers.c.locale).where(_customers.c.id == one.customer_id)).scalar()
    business = loaded.settings.business
    template, subject, text = TEMPLATE, "", ""
    if loaded.templates.path(TEMPLATE, one.channel, locale) is None:
        languages = [(given or "")[:2].lower() for given in (locale, business.locale)]
        subject, words, back = BUILT_IN[next((one for one in languages if one in BUILT_IN), "es")]
        template, text = "", words.format(business=business.name) + ("" if one.channel in NO_WAY_BACK else back)
    return ToSend(
        key=f"{OPTED_OUT}:{one.event_id}",
        kind=OPTED_OUT,
        reply_id=one.reply_id,
        customer_id=one.customer_id,
        contact_id=one.contact_id,
        channel=one.channel,
        expires_at=until,
        template=template,
        subject=subject if one.channel == "email" else "",
        text=text,
    )
