"""
What Twilio's codes mean for a message: one table.

The source of each row is Twilio's own page about that code: www.twilio.com/docs/api/errors/CODE.
A code that has no row is in doubt when it answers a request, and a plain failure when it is reported later.
"""

from __future__ import annotations

from dataclasses import dataclass

from outreach.channels import Blame, Outcome

TOO_MANY = 20429
OUTSIDE_THE_WINDOW = 63016
CHOSEN_BY_META = 63049  # by recipient, though nothing but another template helps


@dataclass(frozen=True)
class Meaning:
    """`outcome` None: the configuration is wrong, and `text` says what to do."""

    outcome: Outcome | None
    blame: Blame
    text: str  # for a receipt's detail or a ChannelError: names no person


def _wrong(text: str) -> Meaning:
    return Meaning(None, Blame.NOBODY, text)


def _address(text: str) -> Meaning:
    return Meaning(Outcome.REFUSED, Blame.ADDRESS, text)


def _opted_out(text: str) -> Meaning:
    return Meaning(Outcome.REFUSED, Blame.OPT_OUT, text)


def _place(text: str) -> Meaning:
    return Meaning(Outcome.REFUSED, Blame.PLACE, text)


def _campaign(text: str) -> Meaning:
    return Meaning(Outcome.LATER, Blame.CAMPAIGN, text)


def _message(text: str) -> Meaning:
    return Meaning(Outcome.REFUSED, Blame.MESSAGE, text)


def _too_fast(text: str) -> Meaning:
    return Meaning(Outcome.LATER, Blame.SENDER, text)


def _later(text: str) -> Meaning:
    return Meaning(Outcome.LATER, Blame.NOBODY, text)


MEANINGS: dict[int, Meaning] = {
    # --- the account or the sender: nothing can be sent until somebody mends it
    10001: _wrong("the account is not active: see its state in Twilio's console"),
    20003: _wrong("the credentials are not right: check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"),
    20005: _wrong("the account is not active: see its state in Twilio's console"),
    20008: _wrong("these are test credentials: set the live TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"),
    20404: _wrong("there is no such account: check TWILIO_ACCOUNT_SID"),
    21212: _wrong("`from` is not a number or sender that Twilio can use"),
    21267: _wrong("a trial account cannot send from a name: use a number of Twilio's as `from`"),
    21601: _wrong("`from` is no number of this account that can send SMS"),
    21603: _wrong("Twilio was given no sender: set `from` or `messaging_service`"),
    21606: _wrong("`from` cannot send messages there, or is not of this account"),
    21608: _wrong(
        "a trial account reaches only verified numbers: upgrade it, or verify the number in Twilio's console"
    ),
    21609: _wrong("Twilio cannot use the address for delivery reports: check `public_url`"),
    21659: _wrong("`from` is no number of Twilio's, or a short code of another country"),
    21660: _wrong("`from` belongs to another account than TWILIO_ACCOUNT_SID"),
    21661: _wrong("`from` is a number that cannot send SMS"),
    21703: _wrong("the messaging service has no senders: add one in Twilio's console"),
    21705: _wrong("`messaging_service` is not one of this account"),
    21910: _wrong("`from` is not a sender of this channel"),
    30002: _wrong("the account is suspended: see its state in Twilio's console"),
    30032: _wrong("the toll-free number is not verified yet: see its state in Twilio's console"),
    30034: _wrong("the number is not registered for A2P 10DLC: register it in Twilio's console"),
    30454: _wrong("the trial account has used up its messages: upgrade it"),
    63007: _wrong("`from` is not a sender of this channel in this account"),
    63015: _wrong("the WhatsApp sandbox reaches only people who joined it: use a sender of your own"),
    # --- the template or its text: nothing of this campaign can be sent until somebody mends it
    21655: _campaign("the template's `content_sid` is not a template of this account: correct its front matter"),
    30007: _campaign("the carrier or Twilio filters this text as spam: change it before sending more"),
    OUTSIDE_THE_WINDOW: _campaign(
        "outside WhatsApp's 24-hour window only an approved template can start a conversation: "
        "its `content_sid` names one that cannot"
    ),
    # --- that country or network: others of the campaign may well be reached
    21408: _place("its country is not enabled: allow it under Messaging, Geo permissions in Twilio's console"),
    21612: _place("Twilio has no route from this sender to that country: use another `from`"),
    # --- nobody can be reached at that address
    21211: _address("not a valid number"),
    21265: _address("a short code cannot be written to"),
    21266: _address("the number is the sender's own"),
    21614: _address("not a mobile number"),
    21635: _address("a landline"),
    30004: _address("the number is blocked"),
    30005: _address("the number is unknown or no longer in use"),
    30006: _address("a landline, or a carrier that cannot be reached"),
    63003: _address("not on this channel"),
    63024: _address("not a WhatsApp user who can be written to"),
    # --- the person said stop
    21610: _opted_out("opted out at Twilio"),
    63014: _opted_out("blocked the sender"),
    # --- this very text
    21602: _message("there is no text"),
    21617: _message("the text is longer than 1600 characters"),
    21619: _message("there is no text"),
    21654: _message("variables without a template"),
    21656: _message("a variable of the template is empty, or has line breaks, tabs or more than four spaces in a row"),
    35114: _message("wrong scheduling parameter"),
    35115: _message("wrong scheduling time"),
    35118: _message("scheduling needs a messaging service"),
    63021: _message("the template's variables are too long, or its content is invalid"),
    CHOSEN_BY_META: _message("Meta chose not to deliver this marketing template"),  # "do not immediately resend"
    # --- this sender was too fast
    TOO_MANY: _too_fast("too many requests"),
    21611: _too_fast("the sender's queue is full"),
    30001: _too_fast("the sender's queue is full"),
    30022: _too_fast("faster than the 10DLC campaign may send"),
    30023: _too_fast("the 10DLC daily limit is reached"),
    63018: _too_fast("the channel's rate limit is reached"),
    63038: _too_fast("the account's daily limit is reached"),
    # --- not sent, and another time may do
    30003: _later("the phone cannot be reached at the moment"),
    30036: _later("waited in Twilio's queue until its time was over"),
    30047: _later("held back by Twilio's Compliance Toolkit"),
    30610: _later("held back by Twilio's Compliance Toolkit: quiet hours"),
    30615: _later("held back by local quiet hours"),
    # --- it may have arrived
    30008: Meaning(Outcome.DOUBT, Blame.NOBODY, "the carrier did not say what became of it"),
}

# Answers without a code of Twilio's: something before it refused, or nothing of it is there; every message would fare alike.
BY_STATUS: dict[int, Meaning] = {
    401: MEANINGS[20003],
    403: _wrong("the request is forbidden: check the account's rights, and the proxy if there is one"),
    404: _wrong("there is no such account: check TWILIO_ACCOUNT_SID, and `base_url` if it is set"),
    407: _wrong("the proxy asks for a login: check HTTPS_PROXY"),
    429: MEANINGS[TOO_MANY],
}


def of_refusal(status: int, code: int | None) -> Meaning:
    """
    What an answer of `status` 300 or more means.

    Only a 4xx is certain: Twilio looked at the request and made no message. After a 5xx it may have.
    """
    if 400 <= status < 500:
        found = MEANINGS.get(code or 0) or BY_STATUS.get(status)
        if found:
            return found
    return Meaning(Outcome.DOUBT, Blame.NOBODY, "an answer that is in no table")


def of_failure(code: int | None) -> Meaning:
    """What the code of a message that Twilio made, and that failed at once, means."""
    return MEANINGS.get(code or 0) or Meaning(Outcome.DOUBT, Blame.NOBODY, "failed for a reason that is in no table")


def kind_of_failure(code: str) -> str:
    """The kind of event that a failure reported later is: `opted_out`, `bounced` (the address is at fault) or `failed`."""
    meaning = MEANINGS.get(int(code)) if code.isdecimal() else None
    blame = meaning.blame if meaning else Blame.NOBODY
    return {Blame.OPT_OUT: "opted_out", Blame.ADDRESS: "bounced"}.get(blame, "failed")


def fault_of(code: str) -> str:
    """What a failure reported later says of sender, account or text, and what to do; empty: of this recipient alone."""
    meaning = MEANINGS.get(int(code)) if code.isdecimal() else None
    if meaning is None or int(code) == CHOSEN_BY_META or (meaning.outcome and meaning.blame not in _TO_DO):
        return ""
    return f"{meaning.text}{_TO_DO.get(meaning.blame, '')} (Twilio {code})"


_TO_DO = {Blame.CAMPAIGN: "", Blame.MESSAGE: ": correct the template", Blame.SENDER: ": set a lower `rate`"}
