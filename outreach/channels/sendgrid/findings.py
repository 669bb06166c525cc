"""
What can be said of a SendGrid account without sending: its key, its senders, its webhook's key.

Each function takes answers to GET requests, whose lists it reads.
"""

from __future__ import annotations

import json
from typing import Any

from outreach.channels import Finding
from outreach.channels.sendgrid.answers import Answer
from outreach.channels.sendgrid.events import public_key

SANDBOX = Finding(
    ok=False,
    text="SendGrid is in sandbox mode: nothing is sent",
    hint="remove `sandbox` when messages are to be sent",
    warning=True,
)


def of_key(scopes: Answer) -> Finding:
    """From GET /v3/scopes: whether the key is valid, and may send."""
    if scopes.status in (401, 403):
        hint = "make a key at SendGrid under Settings, API Keys, and set SENDGRID_API_KEY to it"
        return Finding(ok=False, text="SendGrid does not take SENDGRID_API_KEY", hint=hint)
    if scopes.status != 200:
        what = f"it answered {scopes.status}" if scopes.status else scopes.why
        hint = "look at the network, `region` and `base_url`"
        return Finding(ok=False, text=f"SendGrid cannot be asked: {what}", hint=hint)
    if "mail.send" not in _listed(scopes, "scopes"):
        hint = "make a key with the Mail Send permission"
        return Finding(ok=False, text="SendGrid takes the API key, but it may not send mail", hint=hint)
    return Finding(ok=True, text="SendGrid takes the API key, and it may send mail")


def of_sender(address: str, domains: Answer, senders: Answer) -> Finding:
    """From GET /v3/whitelabel/domains and /v3/verified_senders: whether its domain is authenticated, or it verified."""
    domain = address.rpartition("@")[2].lower()
    hint = f"authenticate {domain} at SendGrid under Settings, Sender Authentication"
    if any(_same(one, "domain", domain) and one.get("valid") for one in _listed(domains)):
        return Finding(ok=True, text=f"SendGrid has authenticated the domain {domain}")
    if any(_same(one, "from_email", address) and one.get("verified") for one in _listed(senders, "results")):
        text = f"SendGrid has verified the sender, but not the domain {domain}: mailbox providers may refuse it"
        return Finding(ok=False, text=text, hint=hint, warning=True)
    if domains.status != 200 or senders.status != 200:
        text = f"SendGrid does not show this key whether {domain} is authenticated"
        hint = "look there under Settings, Sender Authentication, or let the key read it"
        return Finding(ok=False, text=text, hint=hint, warning=True)
    return Finding(ok=False, text=f"SendGrid has neither authenticated {domain} nor verified the sender", hint=hint)


def of_webhook_key(key: str) -> Finding:
    """Whether events can be believed."""
    hint = "switch on the Signed Event Webhook at SendGrid, and set SENDGRID_WEBHOOK_KEY to its verification key"
    if not key:
        text = "SENDGRID_WEBHOOK_KEY is not set: no bounce, complaint or delivery is heard of"
        return Finding(ok=False, text=text, hint=hint, warning=True)
    try:
        public_key(key)
    except ValueError:
        return Finding(ok=False, text="SENDGRID_WEBHOOK_KEY is not a key of SendGrid's event webhook", hint=hint)
    return Finding(ok=True, text="the key of SendGrid's event webhook can be read")


def _same(one: Any, name: str, wanted: str) -> bool:
    return isinstance(one, dict) and str(one.get(name, "")).lower() == wanted.lower()


def _listed(answer: Answer, name: str = "") -> list[Any]:
    """The list in an answer, or under this name in it; empty when there is none."""
    try:
        found = json.loads(answer.body) if answer.status == 200 else []
    except ValueError:
        return []
    found = found.get(name) if name and isinstance(found, dict) else found
    return found if isinstance(found, list) else []
