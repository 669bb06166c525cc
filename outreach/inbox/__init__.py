"""
What comes back: every event is kept as it came, under its provider's own id, before anything is made of it.

    accepting    1  one request's events, raw, in one transaction; what must not wait takes effect in it
    mail            what e-mails say is completed before it is accepted: bounces are believed only about our messages
    opting       the ledger and the do-not-contact entries: opt-outs, complaints, opt-ins; under the contact's lock
    words        which whole messages are an opt-out, an opt-in or a cry for help
    receiving    2  the stage: delivery facts → events, people's words → replies, hard bounces → entries
    matching     whose a message or an address is, and which message a reply answers
    ledger       which consents and do-not-contact entries are in force
    pages        what the public pages ask and change, by the token of a message's link

What is made of a set of events depends on the set alone: not on their order, on how often each came,
or on how many processes took them in. Dated events count from their own date, others from when they
first came.

What the web app calls (`settings`, `db` and an aware `now` as everywhere; every call is one short
transaction, safe to repeat, and may raise DatabaseError: answer 5xx, so that the provider tries again):

    accept(db, settings, now, provider, events) -> Accepted(new: int, repeated: int)
        `provider` is "twilio", "sendgrid" or "imap"; `events` are those of `Channel.parse` of a verified
        request. When it returns, everything is on disk, and opt-outs, complaints and provider opt-out
        codes are in force: only then answer 2xx.
    unsubscribe(db, settings, now, token, how) -> Person | None
        The opt-out of whoever holds the link of kind `unsubscribe` or `preferences` with this token, in
        force when it returns; `how` is "page" or "one-click". None: no such link, answer 404. Twice is as once.
    person(db, settings, token) -> Person | None
        What the page of such a link shows; changes nothing.
            Person(channels: Mapping[str, str], opted_out: bool, channel: str, locale: str | None)
        `channels` maps each channel the shop has and this person an address on to granted | revoked |
        unknown; `channel` is the one that the message with the link went by; no name, no address.
    prefer(db, settings, now, token, choices: Mapping[str, bool], words="") -> Person | None
        Take over the choices by channel: True grants, False revokes, what is not named stays. `words` are
        those that the page showed beside the choice, kept in the ledger. Channels of nobody's are passed over.
    link(db, token) -> Link | None
        Link(kind, target, public_id) of any stored link, to tell which page `/l/{token}` is.

Nothing that these return or raise holds an address or a name.
"""

from __future__ import annotations

from outreach.inbox.accepting import Accepted, accept
from outreach.inbox.mail import accept_mail
from outreach.inbox.pages import Link, Person, link, person, prefer, unsubscribe
from outreach.inbox.receiving import ReceiveCounts, receive

__all__ = [
    "Accepted",
    "Link",
    "Person",
    "ReceiveCounts",
    "accept",
    "accept_mail",
    "link",
    "person",
    "prefer",
    "receive",
    "unsubscribe",
]
