"""What `outreach doctor` asks Twilio: the account and the sender. Nothing is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from requests.exceptions import RequestException
from twilio.base.exceptions import TwilioRestException, TwilioServiceException
from twilio.rest import Client

from outreach.channels import Finding

WHATSAPP_SANDBOX = "+14155238886"  # www.twilio.com/docs/whatsapp/sandbox
_ANSWERED = (TwilioRestException, TwilioServiceException)


def findings(client: Client, channel: str, account: str, senders: Sequence[str], service: str) -> Iterator[Finding]:
    """The account first: where it cannot be read, nothing else is asked."""
    look = _account(client, account)
    yield look
    if not look.ok and not look.warning:
        return
    if service:
        yield _asked(lambda: _service(client, service))
        return
    for sender in senders:
        yield _asked(lambda sender=sender: SENDERS[channel](client, sender))  # type: ignore[misc]


def _asked(question: Callable[[], Finding]) -> Finding:
    try:
        return question()
    except _ANSWERED as error:
        return Finding(
            ok=False, warning=True, text=f"the sender cannot be checked: Twilio answered HTTP {error.status}"
        )
    except RequestException as error:
        return _unreachable(error)


def _account(client: Client, account: str) -> Finding:
    try:
        found = client.api.v2010.accounts(account).fetch()
    except _ANSWERED as error:
        if error.status in (401, 404):
            hint = "check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"
            return Finding(ok=False, text="Twilio does not know these credentials", hint=hint)
        if error.code == 20008:  # www.twilio.com/docs/iam/test-credentials
            hint = "set the live TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN before the first real message"
            return Finding(ok=False, text="these are test credentials: nothing is delivered", hint=hint)
        return Finding(
            ok=False, text=f"Twilio's answer about the account is HTTP {error.status}", hint="try again later"
        )
    except RequestException as error:
        return _unreachable(error)
    if str(found.status) != "active":
        hint = "see its state in Twilio's console"
        return Finding(ok=False, text=f"the account at Twilio is {found.status}, not active", hint=hint)
    if str(found.type) == "Trial":
        text = "a trial account at Twilio reaches only numbers that are verified in its console"
        return Finding(ok=False, warning=True, text=text, hint="upgrade the account before the first campaign")
    return Finding(ok=True, text="the account at Twilio is active")


def _unreachable(error: RequestException) -> Finding:
    return Finding(
        ok=False,
        text=f"Twilio cannot be reached ({type(error).__name__})",
        hint="check the network, `base_url` if it is set, and the proxy if there is one",
    )


def _service(client: Client, service: str) -> Finding:
    try:
        client.messaging.v1.services(service).fetch()
    except _ANSWERED as error:
        if error.status != 404:
            raise
        hint = "copy its id (MG…) from Messaging, Services in Twilio's console"
        return Finding(ok=False, text="`messaging_service` is not one of this account", hint=hint)
    return Finding(ok=True, text=f"the messaging service {service} exists; its senders are checked in Twilio's console")


def _number(client: Client, sender: str) -> Finding:
    if not re.fullmatch(r"\+[1-9]\d{6,14}", sender):
        text = f"whether {sender} may send is not checked: Twilio tells it only of phone numbers"
        return Finding(
            ok=False, warning=True, text=text, hint="people cannot answer a name, so offer another way to opt out"
        )
    owned = client.incoming_phone_numbers.list(phone_number=sender, limit=20)
    found = next((one for one in owned if one.phone_number == sender), None)
    if found is None:
        hint = "buy a number in Twilio's console, or correct `from`"
        return Finding(ok=False, text=f"{sender} is not a number of this account", hint=hint)
    if not _can(found.capabilities, "sms"):
        hint = "use a number that can"
        return Finding(ok=False, text=f"{sender} cannot send SMS", hint=hint)
    return Finding(ok=True, text=f"{sender} is a number of this account and can send SMS")


def _can(capabilities: object, what: str) -> bool:
    """Twilio writes them as a mapping; the SDK gives whatever came."""
    return bool(capabilities.get(what)) if isinstance(capabilities, dict) else bool(getattr(capabilities, what, True))


def _whatsapp(client: Client, sender: str) -> Finding:
    number = sender.removeprefix("whatsapp:")
    if number == WHATSAPP_SANDBOX:
        text = "the WhatsApp sandbox reaches only people who joined it in the last three days"
        return Finding(ok=False, warning=True, text=text, hint="register a WhatsApp sender in Twilio's console")
    known = client.messaging.v2.channels_senders.list(channel="whatsapp", limit=1000)
    found = next((one for one in known if one.sender_id == f"whatsapp:{number}"), None)
    if found is None:
        hint = "register it under Messaging, Senders, WhatsApp senders in Twilio's console"
        return Finding(ok=False, text=f"{number} is not a WhatsApp sender of this account", hint=hint)
    if not str(found.status).startswith("ONLINE"):
        hint = "see its state in Twilio's console"
        return Finding(ok=False, text=f"the WhatsApp sender {number} is {str(found.status).lower()}", hint=hint)
    text = f"the WhatsApp sender {number} is online; whether Meta approved each template is seen in Twilio's console"
    return Finding(ok=True, text=text)


def _messenger(client: Client, sender: str) -> Finding:  # noqa: ARG001
    text = "the Facebook page cannot be checked: Twilio has no way to ask about it"
    return Finding(ok=False, warning=True, text=text, hint="see Channels, Facebook Messenger in Twilio's console")


SENDERS: dict[str, Callable[[Client, str], Finding]] = {"sms": _number, "whatsapp": _whatsapp, "messenger": _messenger}
