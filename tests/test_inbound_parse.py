"""SendGrid Inbound Parse: mails posted to the web app, whole or in parts, by who proves to be SendGrid."""

from __future__ import annotations

import base64
import http.client
import json
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from outreach.channels.sendgrid import inbound
from outreach.models import Inbox, Reply
from outreach.settings import Settings
from outreach.store import Database
from outreach.testing.sendgrid import FakeSendGrid
from tests import served, test_inbox
from tests.served import Serve, Served, count
from tests.shop import rows_of
from tests.test_inbox import LATER, message
from tests.test_mail_in import bounce, mail

serve, shop = served.serve, test_inbox.shop
PATH, TOKEN = "/webhooks/sendgrid/inbound", "a secret that stands in the address"


@pytest.fixture
def site(db: Database, shop: Settings, serve: Serve) -> Served:
    """The web app of a shop that has written to three customers."""
    found = serve(db, shop, secrets={"SENDGRID_INBOUND_TOKEN": TOKEN})
    found.now = LATER
    return found


def answer(db: Database, text: str, **headers: str) -> bytes:
    of = message(db, 1, "email").public_id
    return mail(text, From="c1@example.com", In_Reply_To=f"<{of}@tiendaluna.example>", **headers)


def post(site: Served, fields: dict[str, Any], path: str = f"{PATH}?token={TOKEN}", **how: Any) -> httpx.Response:
    """As SendGrid posts a form."""
    parts = {name: (None, value) for name, value in fields.items()}
    return site.http.post(path, files=parts, **how)


def made(site: Served) -> list[tuple[str, str | None, int | None]]:
    site.receive()
    return [(row.text, row.channel, row.message_id) for row in rows_of(site.db, Reply)]


@pytest.mark.parametrize("field", ["email", "rawEmail"])
def test_a_whole_mail_becomes_a_reply_once_however_often_it_is_posted(db: Database, site: Served, field: str) -> None:
    raw = answer(db, "Sí, señor\n\n> Hola")
    for _ in range(3):
        assert post(site, {field: raw, "to": "x@y.z"}).status_code == 200

    assert made(site) == [("Sí, señor", "email", message(db, 1, "email").id)]


def test_a_mail_in_parts_becomes_the_same_reply(db: Database, site: Served) -> None:
    raw = answer(db, "Sí")
    head = raw.partition(b"\n\n")[0].decode()
    post(site, {"headers": head, "text": "Sí, señor\n\n> Hola", "html": "<p>x</p>", "charsets": "{}"})
    assert made(site) == [("Sí, señor", "email", message(db, 1, "email").id)]
    post(site, {"email": raw})

    assert len(made(site)) == 1


def test_parts_without_a_plain_text_give_the_html_s(db: Database, site: Served) -> None:
    head = answer(db, "x").partition(b"\n\n")[0].decode()
    post(site, {"headers": head, "html": "<p>Sí, <b>señor</b></p><blockquote>Hola</blockquote>"})

    assert made(site) == [("Sí, señor", "email", message(db, 1, "email").id)]


def test_the_envelope_tells_the_token(db: Database, site: Served) -> None:
    of = message(db, 2, "email")
    envelope = json.dumps({"to": [f"respuestas+{of.public_id}@in.shop.example"], "from": "c2@example.com"})
    post(site, {"email": mail("hola", From="c2@example.com"), "envelope": envelope})

    assert made(site) == [("hola", "email", of.id)]


def test_a_bounce_in_a_whole_mail_is_one(db: Database, site: Served) -> None:
    returned = f"Message-ID: <{message(db, 1, 'email').public_id}@tiendaluna.example>\n\nx\n"
    post(site, {"email": bounce(returned=returned)})

    assert [row.kind for row in rows_of(db, Inbox)] == ["bounced"]


def test_the_password_of_basic_is_as_good_as_the_token(site: Served) -> None:
    assert post(site, {"email": mail()}, PATH, auth=("sendgrid", TOKEN)).status_code == 200
    assert count(site.db, Inbox) == 1


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"params": {"token": "wrong"}},
        {"params": {"token": ""}},
        {"auth": ("sendgrid", "wrong")},
        {"headers": {"Authorization": "Basic %%%"}},
        {"headers": {"Authorization": f"Bearer {TOKEN}"}},
    ],
    ids=str,
)
def test_who_does_not_know_the_secret_changes_nothing(site: Served, how: dict[str, Any]) -> None:
    assert post(site, {"email": mail("BAJA", From="c1@example.com")}, PATH, **how).status_code == 403
    assert count(site.db, Inbox) == 0


def test_where_a_key_is_set_only_a_signature_counts(db: Database, shop: Settings, serve: Serve) -> None:
    with FakeSendGrid() as fake:
        secrets = {"SENDGRID_INBOUND_KEY": fake.public_key, "SENDGRID_INBOUND_TOKEN": TOKEN}
        site = serve(db, shop, secrets=secrets)
        request = site.http.build_request("POST", PATH, files={"email": (None, mail())})
        body, kind = request.read(), request.headers["content-type"]
        signed = {name: value for name, value in fake.signed(body).items() if name.startswith("X-")}
    assert post(site, {"email": mail()}).status_code == 403
    headers = {**signed, "content-type": kind}
    assert site.http.post(PATH, content=body + b" ", headers=headers).status_code == 403
    assert site.http.post(PATH, content=body, headers=headers).status_code == 200
    assert count(db, Inbox) == 1


def test_without_a_key_or_a_secret_there_is_nothing_here(db: Database, shop: Settings, serve: Serve) -> None:
    assert post(serve(db, shop), {"email": mail()}).status_code == 404


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "multipart/form-data; boundary=x", 400),
        (b"--x\r\n", "multipart/form-data", 400),
        (b"--x\r\nContent-Disposition: form-data; name=to\r\n\r\na\r\n--x--", "multipart/form-data; boundary=x", 400),
        (b"{}", "application/json", 415),
        (b"\xff" * 1000, 'multipart/form-data; boundary="\xff"', 400),
    ],
)
def test_what_is_no_mail_is_refused(site: Served, body: bytes, kind: str, status: int) -> None:
    headers = {"content-type": kind.encode("latin-1")}
    answered = site.http.post(f"{PATH}?token={TOKEN}", content=body, headers=headers)  # type: ignore[arg-type]

    assert answered.status_code == status
    assert count(site.db, Inbox) == 0


def test_a_mail_with_large_files_is_taken_and_one_beyond_the_limit_is_not(site: Served) -> None:
    large = base64.encodebytes(b"x" * 4_000_000).decode()
    head = (
        "From: ana@example.com\nMessage-ID: <big@x.y>\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nhola\n--b\n"
    )
    file = f"Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n{large}\n--b--\n"
    assert post(site, {"email": head + file}).status_code == 200
    assert [row.text for row in rows_of(site.db, Inbox)] == ["hola"]

    there = urlsplit(site.url)
    connection = http.client.HTTPConnection(there.hostname or "", there.port)
    connection.putrequest("POST", f"{PATH}?token={quote(TOKEN)}")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(inbound.MOST_REQUEST + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
