"""Names that a person gives: where there is nothing of that name, it is said with the nearest there is."""

from __future__ import annotations

import re
from difflib import get_close_matches

from sqlalchemy import Connection, select

from outreach.campaigns import ANSWERS
from outreach.errors import NotFound
from outreach.models import CampaignState, Customer, Message, table
from outreach.store import among
from outreach.yamlfile import did_you_mean, listed, shown

NEARBY = 4  # ids looked at on either side of one that is not there
WIDEST = 10  # digits of an id such as C00042
_customers, _states, _messages = table(Customer), table(CampaignState), table(Message)


def no_customer(connection: Connection, name: str, advice: str = "give the shop's own id") -> NotFound:
    """The error for a customer's id that nobody has."""
    near = _near_customer(connection, name)
    hint = f"did you mean `{near}`? Else " if near else ""
    return NotFound(f"there is no customer {name!r}: {hint}{advice}")


def _near_customer(connection: Connection, name: str) -> str | None:
    """An id that reads alike, looked up by the index: in other capitals, with more or fewer zeros, or a neighbour."""
    c = _customers.c.external_id
    spellings = {name.strip(), name.upper(), name.lower()}
    if numbered := re.fullmatch(r"(.*?)0*(\d+)", name.strip()):
        start, number = numbered.groups()
        spellings |= {
            f"{of}{number.zfill(width)}" for of in {start, start.upper(), start.lower()} for width in range(1, WIDEST)
        }
    alike = list(connection.execute(select(c).where(among(c, sorted(spellings)))).scalars())
    if not alike:
        after = select(c).where(c >= name).order_by(c).limit(NEARBY)
        before = select(c).where(c < name).order_by(c.desc()).limit(NEARBY)
        alike = [*connection.execute(after).scalars(), *connection.execute(before).scalars()]
        alike = get_close_matches(name, alike, n=1, cutoff=0.8)
    found = [one for one in alike if "@" not in one]  # it is for the shop to say whose addresses these are
    return shown(min(found, key=lambda one: (abs(len(one) - len(name)), one))) if found else None


def no_campaign(connection: Connection, name: str) -> NotFound:
    """The error for a campaign that was never published."""
    known = list(connection.execute(select(_states.c.name).order_by(_states.c.name)).scalars())
    near = did_you_mean(name, known)
    hint = f" ({near})" if near else ""
    return NotFound(f"no campaign {name!r} has been published; there are: {listed(known) or 'none yet'}{hint}")


def check_campaign(connection: Connection, name: str) -> None:
    """
    Nothing, if there is such a campaign, or a message of one.

    Raises:
        NotFound: there is none.
    """
    state = select(_states.c.name).where(_states.c.name == name)
    message = select(_messages.c.id).where(_messages.c.campaign == name).limit(1)
    known = name == ANSWERS or connection.execute(state).first() or connection.execute(message).first()
    if not known:
        raise no_campaign(connection, name)
