"""
Mail that comes in: the raw bytes of an e-mail (RFC 5322) → what it tells us, whoever brought it.

    parts       the message taken apart, within bounds: nothing that comes in can make this fail or take for ever
    markup      the text of HTML
    quoting     what the person wrote, without what they quote and without their signature
    automatic   whether a machine wrote it
    reports     bounces (RFC 3464) and complaints (RFC 5965)

Which message of ours it is about is told, in this order, by In-Reply-To and References, by the token
in the address it was written to, and, where a report returns it, by the message itself. Whoever wants
to name a message must have seen it: its id is a keyed hash. `From` proves nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from outreach.channels import AUTOMATIC, InboundEvent, mime
from outreach.channels.faults import by_policy
from outreach.channels.mail_in import automatic, markup, quoting, reports
from outreach.channels.mail_in.automatic import Author
from outreach.channels.mail_in.parts import Part, parse
from outreach.settings import Settings

__all__ = ["Ours", "ours_of", "read"]

LONGEST_TEXT = 100_000  # characters of what somebody wrote
MOST_IDS = 50  # of In-Reply-To and References
_ID = re.compile(r"<\s*([^<>@\s]{1,200})@([^<>@\s]{1,255})\s*>")
_OURS = re.compile(r"[0-9a-f]{32}")  # a public id: store.keyed_hash
_REPLIED = re.compile(r"\s*(\w{1,4}(\[\d+\])?\s*:|$)")  # `Re:`, `RV:`, `Enc:`
_TOKEN = re.compile(r"\+([0-9a-f]{32})@")
_RECIPIENTS = ("Delivered-To", "X-Original-To", "Envelope-To", "X-Forwarded-To", "To", "Cc")
_KEPT = ("From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "Authentication-Results", "Auto-Submitted")


@dataclass(frozen=True)
class Ours:
    """What tells our own mail from everybody's."""

    domains: frozenset[str] = frozenset()  # of the senders: their Message-IDs are ours
    addresses: frozenset[str] = frozenset()  # of the senders: what comes from there is a copy of what we sent


def ours_of(settings: Settings) -> Ours:
    """As the channel `email` of the settings sends; nothing where that is not set up."""
    channel = settings.channels.get("email")
    found = []
    for sender in channel.senders if channel is not None else ():
        try:
            found.append(mime.read_sender(sender))
        except ValueError:  # `outreach check` says so
            continue
    domains = frozenset(one.domain.lower() for one in found)
    return Ours(domains, frozenset(one.address.lower() for one in found))


def read(raw: bytes, ours: Ours, at: datetime | None = None, envelope: str = "") -> Sequence[InboundEvent]:
    """
    What an e-mail tells us; nothing for our own copies, for reports about nobody of ours, and for mass mail that answers
    nothing of ours.

    A reply has in `code` that a machine wrote it, or says to have. `at` is when it arrived: the date that its author gives is
    not believed, since an opt-out counts from it. `envelope` holds the addresses that it was delivered to, as
    far as whoever brought it knows. The same message has the same ids, whoever brings it and how often.

    Never raises, whatever the bytes are.
    """
    whole = parse(raw)
    number = _number(whole, raw)
    found = list(reports.read(whole))
    if found:
        return [_fact(whole, one, f"{number}:{n}", ours, at) for n, one in enumerate(found)]
    author = automatic.author_of(whole)
    address = _address(whole)
    public_id, provider_id = _about(whole, ours, envelope)
    if (author is Author.MASS and not public_id) or not address or address.lower() in ours.addresses:
        return ()
    text = _written(whole)
    event = InboundEvent(
        event_id=number,
        kind="reply",
        at=at,
        public_id=public_id,
        provider_id=provider_id,
        address=address,
        text=quoting.stripped(text)[:LONGEST_TEXT] or _subject(whole),
        code="" if author is Author.PERSON else AUTOMATIC,
        channel="email",
        raw=_raw(whole, text),
    )
    return [event]


def _number(whole: Part, raw: bytes) -> str:
    """The id of the mail: of its own id, author and date, so that it is the same by every way in."""
    named = [whole.header(name) for name in ("Message-ID", "From", "Date")]
    told = "\x1f".join(named).encode("utf-8", "replace") if named[0] else raw
    return f"mail:{hashlib.sha256(told).hexdigest()}"


def _address(whole: Part) -> str:
    """Who says to have written it; empty for nobody, or where it is no address."""
    written = whole.header("From")
    bracketed = re.findall(r"<\s*([^<>\s]{3,320})\s*>", written)
    try:
        return mime.address(bracketed[-1] if bracketed else written.strip())
    except ValueError:
        return ""


def _subject(whole: Part) -> str:
    """The subject where somebody wrote it: that of an answer is ours, as the `Re:` before it says."""
    subject = whole.header("Subject")
    answers = whole.header("In-Reply-To") or whole.header("References")
    return "" if answers and _REPLIED.match(subject) else subject


def _about(whole: Part, ours: Ours, envelope: str) -> tuple[str, str]:
    """Our id of the message that it answers, and the provider's: of SendGrid's mail, the part before the @."""
    answered = _ids(whole.header("In-Reply-To"))
    named = [*answered, *reversed(_ids(whole.header("References")))]
    own = next((local for local, domain in named if _OURS.fullmatch(local) and domain.lower() in ours.domains), "")
    addressed = " ".join((envelope, *(whole.header(name) for name in _RECIPIENTS)))
    token = _TOKEN.search(addressed.lower())
    other = next((local for local, _ in named if _OURS.fullmatch(local)), "")  # the sender's domain has changed since
    return own or (token[1] if token else "") or other, named[0][0] if named else ""


def _ids(header: str) -> list[tuple[str, str]]:
    return [(found[1], found[2]) for found in _ID.finditer(header)][-MOST_IDS:]


# --- what was written ----------------------------------------------------------------------------------


def _written(whole: Part) -> str:
    """The text as it came: the plain parts, or else the HTML's; attached files are not looked into."""
    plain = "\n".join(part.text(LONGEST_TEXT) for part in _bodies(whole, "text/plain")).strip()
    if plain:
        return plain[:LONGEST_TEXT]
    html = next((part.text(markup.LONGEST) for part in _bodies(whole, "text/html")), "")
    return markup.text_of(html)[:LONGEST_TEXT] if html.strip() else ""


def _bodies(whole: Part, kind: str) -> Iterator[Part]:
    return (part for part in whole.walk() if part.kind == kind and not part.attached)


def _raw(whole: Part, text: str) -> dict[str, Any]:
    """What is kept of it beside the text without quotes: enough to look at what was made of it."""
    headers = {name: value for name in _KEPT if (value := whole.header(name))}
    attached = [part.kind for part in whole.walk() if part.attached]
    return {"headers": headers, "text": text, "attached": attached[:50]}


# --- reports -------------------------------------------------------------------------------------------


def _fact(whole: Part, report: reports.Report, number: str, ours: Ours, at: datetime | None) -> InboundEvent:
    """What a report says, about the message that it returns; never about an address that it names."""
    returned = "\n".join((*report.returned, whole.header("In-Reply-To"), whole.header("References")))
    named = _ids(returned)
    first = next((local for local, domain in named if _OURS.fullmatch(local) and domain.lower() in ours.domains), "")
    own = first or next((local for local, _ in named if _OURS.fullmatch(local)), "")
    return InboundEvent(
        event_id=number,
        kind=report.kind,
        at=at,
        public_id=own,
        provider_id="" if own else next((local for local, _ in named), ""),
        code=report.code,
        fault=by_policy(report.code) if report.kind == "failed" else "",
        channel="email",
        raw={"headers": {"Subject": whole.header("Subject")}, "report": report.fields},
    )
