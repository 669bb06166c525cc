"""The facts that the gates decide by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from outreach.facts.items import Item
from outreach.facts.people import Sent, open_cases, people_of, sent_to, told_another
from outreach.facts.withdrawn import gone
from outreach.facts.words import true_words
from outreach.gates import Facts
from outreach.models import CampaignState, Reason, table
from outreach.settings import Settings
from outreach.store import among

_states = table(CampaignState)
_NO_CASE, _NO_WORD = frozenset[int](), frozenset[str]()


@dataclass(slots=True)
class _Looked:
    """What hangs on the message and not on its customer alone."""

    words: Sequence[frozenset[str]]
    sent: Mapping[int, tuple[Sent, ...]]
    paused: set[str]
    gone: set[int]
    told: Mapping[int, frozenset[int]]


def fetch(
    connection: Connection,
    settings: Settings,
    items: Sequence[Item],
    now: datetime,
    *,
    judging: bool = False,
    secret: bytes = b"",
    rows: dict[int, dict[str, Any]] | None = None,
) -> list[Facts]:
    """
    The facts of each item, in the items' order, as of `now`.

    Who is in the global holdout is told by the installation's `secret`. With `judging`, only what the enrolment is
    judged by: no words, no caps. What no purpose among the items asks for (consents, open cases) is not looked up.
    `rows`, where given, gets what `contexts` needs of each customer.
    """
    purposes, ids = {item.step.purpose for item in items}, {item.customer_id for item in items}
    consents = purposes != {"transactional"}
    people = people_of(connection, settings, ids, secret, consents=consents, kept=rows)
    cases = open_cases(connection, people, now) if "marketing" in purposes else {}
    looked = _Looked([_NO_WORD] * len(items), {}, set(), set(), {})
    if not judging:
        looked = _Looked(
            true_words(connection, items, now),
            sent_to(connection, settings, people.values(), now),
            _paused(connection, {item.campaign.name for item in items}),
            gone(connection, settings, items),
            told_another(connection, items, people),
        )
    return [
        _of_item(index, item, people.get(item.customer_id), cases.get(item.customer_id, _NO_CASE), looked)
        for index, item in enumerate(items)
    ]


def _of_item(index: int, item: Item, person: Facts | None, cases: frozenset[int], looked: _Looked) -> Facts:
    if person is None:
        return Facts(external_id="", contacts={}, withdrawn=Reason.CUSTOMER_GONE)
    words, sent = looked.words[index], looked.sent
    if not (cases or words or sent or looked.paused or looked.gone or looked.told):  # nothing but who they are
        return person
    return Facts(
        external_id=person.external_id,
        contacts=person.contacts,
        zones=person.zones,
        withdrawn=Reason.RECORD_CLEARED if index in looked.gone else None,
        paused=item.campaign.name in looked.paused,
        open_cases=cases,
        own_case=item.record_id if cases and item.campaign.trigger.subject == "case" else None,
        true_words=words,
        sent={i: sent[i] for one in person.contacts.values() if (i := one.contact_id) in sent} if sent else {},
        email_id=person.email_id,
        phone_id=person.phone_id,
        messenger_id=person.messenger_id,
        held_globally=person.held_globally,
        told=looked.told.get(index, _NO_CASE),
    )


_PAUSED = select(_states.c.name).where(among(_states.c.name, "names"), _states.c.paused_at.is_not(None))


def _paused(connection: Connection, names: set[str]) -> set[str]:
    return set(connection.execute(_PAUSED, {"names": names}).scalars())
