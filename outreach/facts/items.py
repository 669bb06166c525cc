"""One message, or one that might be, and what its release says about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from outreach.campaigns import ANSWERS, OPTED_OUT, Campaign, Step
from outreach.gates import Rules

SAME_DAY = timedelta(days=1)  # one day begins at different moments in different time zones


@dataclass(slots=True)  # not frozen: see gates.Facts
class Item:
    """One message, or one that might be: who, for what, and when."""

    campaign: Campaign
    step: Step
    customer_id: int
    record_id: int | None
    occasion: str
    occasion_at: datetime
    due_at: datetime
    expires_at: datetime
    refused: frozenset[str] = frozenset()
    message_id: int | None = None
    arm: str = "contact"
    contact_id: int | None = None  # the only one that it may go to; None: whichever the customer has
    written: tuple[str, str] | None = None  # subject and text, where no template makes them


def key_of(event: str, record: int, again: int = 0) -> str:
    """The key of the occasion that a record makes; a case that was opened again closes as another one each time."""
    return f"{event}:{record}.{again}" if again else f"{event}:{record}"


def rules(item: Item) -> Rules:
    """What the release says about the item, as the gates want it."""
    return Rules(
        campaign=item.campaign.name,
        step=item.step.id,
        purpose=item.step.purpose,
        channels=tuple(channel for channel in item.step.channels if channel not in item.refused),
        due_at=item.due_at,
        expires_at=item.expires_at,
        unless=item.step.unless,
        stop_when=item.campaign.stop_when,
        contact_id=item.contact_id,
        confirms=item.campaign.name == ANSWERS and item.step.id == OPTED_OUT,
    )


def is_same_for_another(item: Item, other: Item) -> bool:
    """Whether both are one step for one occasion that many have in common, of two customers."""
    return (
        item.campaign.trigger.is_common
        and item.customer_id != other.customer_id
        and (item.campaign.name, item.step.id, item.occasion) == (other.campaign.name, other.step.id, other.occasion)
        and abs(item.occasion_at - other.occasion_at) < SAME_DAY
    )
