"""The web app against its own description: whatever is sent, signed or not, there is never a fault of ours."""

from __future__ import annotations

import hashlib
import hmac
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from outreach import store
from outreach.models import MessageLink, table
from outreach.settings import EVENTS_KEY, ChannelSettings, Settings, Survey
from outreach.store import Database, make_engine, open_database
from outreach.testing.sendgrid import FakeSendGrid
from outreach.testing.twilio import ACCOUNT_SID, AUTH_TOKEN, FakeTwilio
from outreach.web import create_app
from outreach.web.serving import listen, serving
from tests.conftest import NOW, SECRET
from tests.served import Served
from tests.shop import rows_of, shop_settings
from tests.test_pages import begun

KEY = "a key"
with FakeTwilio() as TWILIO, FakeSendGrid() as SENDGRID:
    pass  # they only sign
FEW = settings(
    max_examples=30,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


def site_settings(folder: Path, url: str = "http://localhost:8080") -> Settings:
    """Every route is set up."""
    twilio = ChannelSettings("twilio", "+15005550006", {"base_url": "http://127.0.0.1:9"})
    sendgrid = ChannelSettings("sendgrid", "hola@luna.example", {"base_url": "http://127.0.0.1:9"})
    secrets = {
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
        EVENTS_KEY: KEY,
        **SENDGRID.environment,
        "SENDGRID_INBOUND_KEY": SENDGRID.public_key,
    }
    surveys = {"csat": Survey("csat", "1-5", why=True, along=("nps",)), "nps": Survey("nps", "0-10", kind="nps")}
    channels = {"sms": twilio, "email": sendgrid}
    return shop_settings(folder, channels=channels, secrets=secrets, public_url=url, surveys=surveys)


schema = schemathesis.openapi.from_dict(
    create_app(site_settings(Path()), Database(make_engine("sqlite://"), b"")).openapi()
)


@dataclass
class Site:
    url: str
    tokens: list[str]


@pytest.fixture(scope="module")
def site(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The web app of a shop whose first letter has left, with its links."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(sqlite_template, folder / "outreach.db")
    db = open_database(f"sqlite:///{folder / 'outreach.db'}", secret=SECRET)
    listening = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    begun(lambda db, settings: Served(db, settings, None), db, shop_settings(folder))  # type: ignore[arg-type]
    with store.write(db) as connection:
        survey = {"token": "survey______", "message_id": 1, "kind": "survey", "target": "csat"}
        store.insert_many(connection, table(MessageLink), [survey])
    with serving(create_app(site_settings(folder, url), db, lambda: NOW), listening):
        yield Site(url, [row.token for row in rows_of(db, MessageLink)])
    db.engine.dispose()


def prepared(case: Any, site: Site) -> requests.PreparedRequest:
    """What schemathesis would send, but for the links: those are ours."""
    if "token" in (case.path_parameters or {}):
        case.path_parameters["token"] = site.tokens[len(str(case.path_parameters["token"])) % len(site.tokens)]
    kwargs = case.as_transport_kwargs(base_url=site.url)
    known = ("method", "url", "headers", "files", "data", "json", "params", "cookies")
    return requests.Request(**{name: value for name, value in kwargs.items() if name in known}).prepare()


def signed(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """The same as its provider, or the shop, would sign it."""
    body = request.body or b""
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    assert isinstance(raw, bytes)
    url = str(request.url).partition("#")[0]
    if "/twilio/" in url:
        form = dict(parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True))
        request.headers["X-Twilio-Signature"] = TWILIO.sign(url, form).headers["X-Twilio-Signature"]
    elif "/sendgrid/" in url:
        request.headers.update({k: v for k, v in SENDGRID.signed(raw).items() if k.startswith("X-")})
    elif url.endswith("/events"):
        timestamp = str(int(NOW.timestamp()))
        mac = hmac.new(KEY.encode(), timestamp.encode() + b"." + raw, hashlib.sha256).hexdigest()
        request.headers.update({"X-Outreach-Timestamp": timestamp, "X-Outreach-Signature": mac})
    return request


def answered(request: requests.PreparedRequest) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.send(request, allow_redirects=False, timeout=30)


@schema.parametrize()
@FEW
def test_nothing_that_is_sent_meets_a_fault_of_ours(case: Any, site: Site) -> None:
    answer = answered(prepared(case, site))

    assert answer.status_code < 500
    assert answer.status_code in (200, 204, 302, 400, 403, 404, 405, 413, 415)


@schema.parametrize()
@FEW
def test_nothing_that_is_signed_meets_one_either(case: Any, site: Site) -> None:
    answer = answered(signed(prepared(case, site)))

    assert answer.status_code < 500


def test_the_description_names_every_route() -> None:
    raw = create_app(site_settings(Path()), Database(make_engine("sqlite://"), b"")).openapi()

    assert {(path, method) for path, methods in raw["paths"].items() for method in methods} == {
        ("/webhooks/twilio/messages", "post"),
        ("/webhooks/twilio/status", "post"),
        ("/webhooks/sendgrid/events", "post"),
        ("/webhooks/sendgrid/inbound", "post"),
        ("/events", "post"),
        ("/l/{token}", "get"),
        ("/l/{token}", "post"),
        ("/l/{token}/choose", "get"),
        ("/l/{token}/choose", "post"),
        ("/join", "get"),
        ("/healthz", "get"),
        ("/metrics", "get"),
    }
