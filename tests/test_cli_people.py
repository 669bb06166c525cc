"""The verbs about one person and about replies, from outside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlencode

import pytest

from outreach import inbox, settings
from outreach.channels.twilio.webhooks import events
from outreach.cli import here
from tests import test_cli
from tests.test_cli import NOON, Result, Run

run, shop, sent = test_cli.run, test_cli.shop, test_cli.sent
TEXT = "¿Cuándo llega mi pedido?\x1b[31m"


def done(result: Result) -> Result:
    assert result.code == 0, result.err
    return result


@pytest.fixture
def heard(sent: Run, tmp_path: Path) -> Run:
    """The same workspace, to which ana wrote a text."""
    own = settings.load(tmp_path, os.environ)
    db = here.database(own)
    form = {"MessageSid": "SM1", "From": "+525512345678", "To": "+525500000000", "Body": TEXT}
    told = events("https://shop.example/webhooks/twilio/messages", urlencode(form).encode())
    inbox.accept(db, own, here.at(None, "UTC"), "twilio", told)
    db.engine.dispose()
    return sent


def test_the_stage_by_hand_and_the_replies_it_made(heard: Run) -> None:
    assert done(heard("replies", "list")).out == "Replies: none yet.\n\n"
    counts = done(heard("tick", "receive", "--json")).json
    assert counts == {"handled": 1, "facts": 0, "replies": 1, "strangers": 0, "unmatched": 0}
    assert "Handled" in done(heard("tick", "receive")).out

    (reply,) = done(heard("replies", "list", "--json")).json["replies"]
    assert {name: reply[name] for name in ("customer", "channel", "text", "intents", "score")} == {
        "customer": "ana", "channel": "sms", "text": TEXT, "intents": ["question"], "score": None,
    }  # fmt: skip
    assert reply["case"].startswith("oc-")
    assert {"id", "received_at", "message", "order"} <= reply.keys()
    shown = done(heard("replies", "list", "--customer", "ana", "--channel", "sms", "--limit", "1")).out
    assert "¿Cuándo llega" in shown
    assert "\x1b" not in shown
    assert done(heard("replies", "list", "--channel", "email", "--json")).json == {"replies": []}
    assert heard("replies", "list", "--customer", "zoe").code == 1


def test_a_reply_is_answered_and_labelled(heard: Run) -> None:
    done(heard("tick", "receive"))
    (reply,) = done(heard("replies", "list", "--unanswered", "--json")).json["replies"]
    number = str(reply["id"])

    assert heard("replies", "answer", number, "--text", "a", "--template", "b", "--yes").code == 1
    assert heard("replies", "answer", "99", "--text", "a", "--yes").code == 1
    answered = done(heard("replies", "answer", number, "--text", "Mañana.", "--yes", "--json")).json
    assert (answered["status"], answered["channel"], answered["new"]) == ("sent", "sms", True)
    assert "not sent twice" in done(heard("replies", "answer", number, "--text", "Mañana.", "--yes")).out
    assert done(heard("replies", "list", "--unanswered", "--json")).json == {"replies": []}
    assert done(heard("replies", "label", number, "refund", "question")).out == f"Reply {number}: refund, question.\n"
    assert heard("replies", "label", number, "angry").code == 1


def test_consent_is_shown_and_changed(sent: Run) -> None:
    shown = done(sent("consent", "ana", "--json")).json
    assert shown["channels"]["sms"]["status"] == "granted"
    assert shown["suppressed"] is False
    changed = done(sent("consent", "ana", "sms", "revoke", "--words", "ya no", "--json")).json

    assert (changed["channels"]["sms"]["status"], changed["channels"]["sms"]["text"]) == ("revoked", "ya no")
    assert "ya no" in done(sent("consent", "ana")).out


def test_what_is_wrong_is_said(sent: Run) -> None:
    assert sent("consent", "ana", "sms").code == 2
    assert sent("consent", "ana", "fax", "grant").code == 2
    assert sent("consent", "ana", "--words", "x").code == 2
    unknown = sent("consent", "zoe")
    assert (unknown.code, "there is no customer 'zoe'" in unknown.err) == (1, True)
    assert sent("customer", "show", "zoe").code == 1
    assert sent("customer", "erase", "zoe", "--yes").code == 1


def test_a_person_is_shown_exported_and_erased(heard: Run, tmp_path: Path) -> None:
    done(heard("tick", "receive"))
    shown = done(heard("customer", "show", "ana"))
    assert "ana@example.com" in shown.out
    assert "¿Cuándo llega" in shown.out
    assert done(heard("customer", "show", "ana", "--json")).json["orders_count"] == 2
    (tmp_path / "ana.json").touch(mode=0o644)
    done(heard("customer", "export", "ana", "--to", "ana.json"))
    assert (tmp_path / "ana.json").stat().st_mode & 0o077 == 0
    held = json.loads((tmp_path / "ana.json").read_text(encoding="utf-8"))["held"]
    assert held["replies"][0]["text"] == TEXT
    assert done(heard("customer", "export", "ana", "--json")).json["held"] == held
    refused = heard("customer", "erase", "ana")
    assert (refused.code, "--yes" in refused.err) == (1, True)

    assert "Erased" in done(heard("customer", "erase", "ana", "--yes")).out
    after = done(heard("customer", "show", "ana")).out
    assert "(erased)" in after
    assert "ana@example.com" not in after
    assert done(heard("import", "--now", NOON)).code == 0
    assert "ana@example.com" not in done(heard("customer", "export", "ana")).out
