"""
POST /events: the shop's own events, signed with a secret that the shop and outreach share.

The signature is HMAC-SHA256, in hex, over the timestamp, a dot, and the body as it is sent:

    X-Outreach-Timestamp: 1750000000         seconds since 1970; at most five minutes from our clock
    X-Outreach-Signature: 5d41402abc4b2a…

An event's `event_id` is its idempotency key: posted again within those five minutes or a year later, it changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from outreach.importer import posting
from outreach.settings import EVENTS_KEY
from outreach.web.intake import JSON, Reason, Refused, Site, body

TIMESTAMP, SIGNATURE = "x-outreach-timestamp", "x-outreach-signature"
FRESH = timedelta(minutes=5)
MOST_BYTES = 1024 * 1024

Body = Annotated[bytes, Depends(body(MOST_BYTES, JSON))]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "It is signed, and something in it is wrong; nothing of it was written."},
    403: {"description": "The signature is missing, wrong or too old."},
    404: {"description": f"{EVENTS_KEY} is not set here."},
    408: {"description": "The body did not arrive in time."},
    413: {"description": "The body is too large."},
    415: {"description": "The body is no JSON."},
    503: {"description": "It could not be stored: send it again."},
}


def _described(names: Sequence[str]) -> dict[str, Any]:
    """The request as the app's own description shows it, with the events that the settings declare."""
    id_of = {"type": "string", "minLength": 1, "maxLength": 200}
    event = {
        "type": "object",
        "required": ["event_id", "customer_id", "name", "at"],
        "properties": {
            "event_id": {**id_of, "description": "The shop's own id of it: the idempotency key."},
            "customer_id": {**id_of, "description": "The shop's own id of the customer."},
            "name": {"type": "string", **({"enum": list(names)} if names else {})},
            "at": {"type": "string", "examples": ["2026-06-15T10:30:00-06:00"]},
        },
        "additionalProperties": True,
    }
    several = {"type": "array", "items": event, "minItems": 1, "maxItems": posting.MOST}
    return {
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
            for name in ("X-Outreach-Timestamp", "X-Outreach-Signature")
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": {"oneOf": [event, several]}}}},
    }


def routes(site: Site) -> APIRouter:
    """The endpoint for the shop's own events."""
    router = APIRouter(tags=["events"], responses=_REFUSALS)

    @router.post("/events", openapi_extra=_described((*site.settings.events, posting.REDEEMED)))
    def events(request: Request, raw: Body) -> dict[str, int]:
        """Take over an event, or up to 1,000; all of them are on disk when this answers, or none."""
        now = site.clock()
        check(site.settings.secrets.get(EVENTS_KEY, ""), request.headers, raw, now)
        try:
            posted = posting.read_events(raw, site.settings, now)
        except ValueError as error:
            raise Refused(400, Reason.UNREADABLE, str(error)) from error
        counts = posting.post_events(site.db, site.settings, now, posted)
        site.count_taken("shop", len(posted))
        return counts.as_json()

    return router


def check(key: str, headers: Mapping[str, str], raw: bytes, now: datetime) -> None:
    """Refused unless the shop signed this body within the last five minutes."""
    if not key:
        raise Refused(404, Reason.NOT_SET_UP, f"{EVENTS_KEY} is not set where outreach runs")
    timestamp = headers.get(TIMESTAMP, "")
    if not hmac.compare_digest(signature(key, timestamp, raw).encode(), headers.get(SIGNATURE, "").lower().encode()):
        raise Refused(403, Reason.SIGNATURE, "the signature is missing or wrong")
    try:
        age = now.timestamp() - int(timestamp)
    except ValueError as error:
        raise Refused(403, Reason.STALE, "the timestamp is no number of seconds since 1970") from error
    if abs(age) > FRESH.total_seconds():
        raise Refused(403, Reason.STALE, "the timestamp is more than five minutes from the clock here")


def signature(key: str, timestamp: str, raw: bytes) -> str:
    """What X-Outreach-Signature must be."""
    return hmac.new(key.encode(), timestamp.encode() + b"." + raw, hashlib.sha256).hexdigest()
