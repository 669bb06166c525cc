"""
What providers post: verified over the raw body, read, and on disk before they hear that it was taken.

    POST /webhooks/twilio/messages      what people write
    POST /webhooks/twilio/status        what became of messages; `m` in its query is our id of the message
    POST /webhooks/sendgrid/events      what became of e-mails
    POST /webhooks/sendgrid/inbound     e-mails that people write, taken by Inbound Parse
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from outreach import inbox
from outreach.channels.sendgrid import inbound
from outreach.store import in_chunks
from outreach.web.intake import FORM, JSON, MULTIPART, Reason, Refused, Site, body

# A text of 1,600 characters, each up to 12 bytes in a form, and Twilio's other parameters: far below this.
TWILIO_BYTES = 128 * 1024
# SendGrid posts when a batch has 768 kilobytes (…/tracking-events/getting-started-event-webhook), or sooner.
SENDGRID_BYTES = 2 * 1024 * 1024

TwilioBody = Annotated[bytes, Depends(body(TWILIO_BYTES, FORM))]
MailBody = Annotated[bytes, Depends(body(inbound.MOST_REQUEST, MULTIPART))]
SendGridBody = Annotated[bytes, Depends(body(SENDGRID_BYTES, JSON))]

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "It is signed, and cannot be read."},
    403: {"description": "The signature is missing, wrong or too old."},
    404: {"description": "No channel is sent by this provider here."},
    408: {"description": "The body did not arrive in time."},
    413: {"description": "The body is too large."},
    415: {"description": "The body is of another media type."},
    503: {"description": "It could not be stored: send it again."},
}


def _posted(media: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media: {"schema": schema}}}}


def _form(**properties: dict[str, Any]) -> dict[str, Any]:
    """A form with at least these parameters; Twilio adds others without notice."""
    schema = {"type": "object", "required": list(properties), "properties": properties}
    return _posted(FORM, {**schema, "additionalProperties": {"type": "string"}})


_TEXT: dict[str, Any] = {"type": "string"}
_NAMED: dict[str, Any] = {"type": "string", "minLength": 1}
_WRITTEN = _form(MessageSid=_NAMED, From=_TEXT, To=_TEXT, Body=_TEXT)
_REPORT = _form(MessageSid=_NAMED, To=_TEXT, MessageStatus={"type": "string", "examples": ["delivered", "failed"]})
_EVENT = {
    "event": {"type": "string", "examples": ["delivered", "bounce", "spamreport"]},
    "sg_event_id": _TEXT,
    "sg_message_id": _TEXT,
    "timestamp": {"type": "integer"},
}
_EVENTS = _posted(JSON, {"type": "array", "items": {"type": "object", "properties": _EVENT}})


_MAIL = _posted(
    MULTIPART,
    {
        "type": "object",
        "properties": {"email": _TEXT, "headers": _TEXT, "text": _TEXT, "html": _TEXT, "envelope": _TEXT},
        "additionalProperties": True,
    },
)


def routes(site: Site) -> APIRouter:
    """The webhooks of the providers that outreach ships with."""
    router = APIRouter(tags=["webhooks"], responses=_REFUSALS)

    @router.post("/webhooks/twilio/messages", response_class=Response, openapi_extra=_WRITTEN)
    def twilio_messages(request: Request, raw: TwilioBody) -> Response:
        """Something that a person wrote; the answer is TwiML that says nothing."""
        take(site, "twilio", request, raw)
        return Response('<?xml version="1.0" encoding="UTF-8"?><Response/>', media_type="text/xml")

    @router.post("/webhooks/twilio/status", status_code=204, response_class=Response, openapi_extra=_REPORT)
    def twilio_status(request: Request, raw: TwilioBody) -> Response:
        """What became of a message."""
        take(site, "twilio", request, raw)
        return Response(status_code=204)

    @router.post("/webhooks/sendgrid/events", status_code=204, response_class=Response, openapi_extra=_EVENTS)
    def sendgrid_events(request: Request, raw: SendGridBody) -> Response:
        """What became of e-mails."""
        take(site, "sendgrid", request, raw)
        return Response(status_code=204)

    @router.post("/webhooks/sendgrid/inbound", status_code=200, response_class=Response, openapi_extra=_MAIL)
    def sendgrid_inbound(request: Request, raw: MailBody) -> Response:
        """An e-mail that somebody wrote."""
        take_mail(site, request, raw)
        return Response(status_code=200)

    return router


def take_mail(site: Site, request: Request, raw: bytes) -> None:
    """
    Store what a mail says that SendGrid posts; returning means that it is on disk.

    Raises:
        Refused: it is not SendGrid's, cannot be read, or nothing is set up by which that could be told.
        DatabaseError: it could not be taken just now, and should be sent again.
    """
    if not inbound.is_set_up(site.settings):
        raise Refused(404, Reason.NOT_SET_UP, f"neither {inbound.KEY} nor {inbound.TOKEN} is set here")
    if not inbound.is_authentic(site.settings, site.url_of(request), request.headers, raw):
        raise Refused(403, Reason.SIGNATURE, "the signature or the token is missing or wrong")
    try:
        events = inbound.read_mail(site.settings, request.headers, raw)
    except ValueError as error:
        raise Refused(400, Reason.UNREADABLE, "this cannot be read as a mail of Inbound Parse") from error
    inbox.accept_mail(site.db, site.settings, site.clock(), "sendgrid", events)
    site.count_taken("sendgrid", len(events))


def take(site: Site, provider: str, request: Request, raw: bytes) -> None:
    """
    Store what a provider posts; returning means that it is on disk.

    Raises:
        Refused: it is not the provider's, or cannot be read.
        ChannelError, DatabaseError: it could not be taken just now, and should be sent again.
    """
    channel, url = site.channel_of(provider), site.url_of(request)
    if not channel.verify(url, request.headers, raw):
        raise Refused(403, Reason.SIGNATURE, "the signature is missing, wrong or too old")
    try:
        events = channel.parse(url, request.headers, raw)
    except ValueError as error:
        raise Refused(400, Reason.UNREADABLE, f"this cannot be read as a request of {provider}'s") from error
    for some in in_chunks(events):
        inbox.accept(site.db, site.settings, site.clock(), provider, some)
    site.count_taken(provider, len(events))
