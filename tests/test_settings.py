from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from outreach import keys, settings
from outreach.channels import CHANNELS
from outreach.cli import reference
from outreach.errors import SettingsError
from outreach.keys import Either, Kind, ListOf, MapOf, Record, Row, Scalar
from outreach.setting_keys import PROVIDER_KEYS, PROVIDERS, SETTINGS, STAFF
from outreach.settings import Cap, ChannelSettings, Offer, Settings, SourceSettings, Survey
from outreach.values import Duration, Limit, parse_week_hours

BUSINESS = "business: {name: Luna, timezone: America/Mexico_City, currency: MXN}\n"

FULL = """
business:
  name: Tienda Luna
  timezone: America/Mexico_City
  currency: MXN
  locale: es-MX
  country: MX
  postal_address: Av. Reforma 1, 06600 Ciudad de México
  links: {returns: https://luna.example/r, help: https://luna.example/h, review: https://luna.example/v}
database: sqlite:///outreach.db        # or postgresql://user@host/db
public_url: http://localhost:8080      # what links in messages point to
channels:
  email: {provider: outbox, from: "Tienda Luna <hola@tiendaluna.example>"}
  sms: {provider: outbox, from: "+525500000000"}
  whatsapp: {provider: outbox, from: "+525500000000"}
  call: {provider: staff}
only_to: []
sending_hours:
  default: {mon-fri: "09:00-20:00", sat: "10:00-14:00"}
  email: {mon-sun: "07:00-22:00"}
caps:
  - {purpose: marketing, messages: 1, per: 1 day}
  - {purpose: marketing, messages: 3, per: 7 days}
holdout: 0%
clock: {import: 15 minutes, plan: 1 minute, dispatch: 5 seconds, receive: 2 seconds, reconcile: 1 minute}
sources:
  - {kind: csv, customers: data/customers.csv, orders: data/orders.csv, format: auto}
orders: {delivered: {else: shipped + 5 days}}
segments: {vip: "orders_count >= 5 and total_spent >= 5000"}
events: {cart.abandoned: {fields: [url, items, total]}}
surveys:
  csat: {question: {es: "¿Quedaste contento?", pt: "Você ficou satisfeito?"}, scale: 1-5, satisfied: 4-5, why: true}
  expectations: {question: {es: "¿Cumplió? 1 sí, 2 no"}, scale: yes_no, codes: {1: yes, 2: no}}
  nps: {scale: 0-10, kind: nps}
offers:
  sorry10: {kind: percent, value: 10, expires: 14 days, codes: generated, budget: 500, minimum: 300,
            per_customer: 1 per 180 days}
  back15: {kind: percent, value: 15, codes: {shared: VUELVE15}}
costs: {sms: 0.90 per segment, whatsapp: 0.80, call: 15}
alerts: {email: duena@tiendaluna.example, webhook: https://luna.example/hook}
keep_bodies: 24 months
"""


def loaded(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    (folder / "outreach.yaml").write_text(text, encoding="utf-8")
    return settings.load(folder, environ or {})


def refusals(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        loaded(folder, text, environ)
    return str(refused.value).splitlines()


def test_only_name_zone_and_currency_are_needed(tmp_path: Path) -> None:
    found = loaded(tmp_path, BUSINESS)
    assert (found.business.name, found.business.timezone, found.business.currency) == (
        "Luna",
        "America/Mexico_City",
        "MXN",
    )
    assert found.database == f"sqlite:///{tmp_path}/outreach.db"
    assert found.channels == {name: ChannelSettings() for name in ("email", "sms", "whatsapp")}
    assert found.sending_hours == {
        "default": parse_week_hours({"mon-fri": "09:00-20:00", "sat": "10:00-14:00"}),
        "email": parse_week_hours({"mon-sun": "07:00-22:00"}),
    }
    assert found.caps == (
        Cap(Limit(1, Duration(days=1)), "marketing"),
        Cap(Limit(3, Duration(days=7)), "marketing"),
        Cap(Limit(3, Duration(days=1)), "service"),
    )
    assert found.clock["plan"] == Duration(seconds=60)
    assert settings.problems(found) == []


def test_the_designs_example_is_read_whole(tmp_path: Path) -> None:
    found = loaded(tmp_path, FULL)
    assert found.channels["email"].sender == "Tienda Luna <hola@tiendaluna.example>"
    assert found.sources == (
        SourceSettings("csv", {"customers": "data/customers.csv", "orders": "data/orders.csv"}, "auto"),
    )
    assert found.orders.delivered == ("shipped", Duration(days=5))
    assert found.events == {"cart.abandoned": ("url", "items", "total")}
    assert found.surveys["csat"].satisfied == (4, 5)
    assert found.surveys["expectations"].codes == {"1": "yes", "2": "no"}
    assert found.surveys["nps"] == Survey("nps", "0-10", kind="nps")
    assert found.offers["sorry10"] == Offer(
        "sorry10",
        "percent",
        "10",
        expires=Duration(days=14),
        budget=500,
        minimum="300",
        per_customer=Limit(1, Duration(days=180)),
    )
    assert (found.offers["back15"].codes, found.offers["back15"].shared_code) == ("shared", "VUELVE15")
    assert found.costs == {"sms": "0.90 per segment", "whatsapp": "0.80", "call": "15"}
    assert found.segments["vip"].startswith("orders_count >= 5")


def test_a_provider_of_another_kind_is_refused_with_those_that_send_such_messages(tmp_path: Path) -> None:
    text = BUSINESS + "channels:\n  sms: {provider: smtp, from: A <a@b.example>, host: mail.example}\n"
    assert [str(one) for one in settings.problems(loaded(tmp_path, text))] == [
        "outreach.yaml:3:19: `smtp` does not send sms (allowed: outbox, twilio)"
    ]


def test_the_providers_of_the_full_example_are_ready(tmp_path: Path) -> None:
    assert settings.problems(loaded(tmp_path, FULL)) == []


def test_a_channel_that_lacks_what_its_provider_needs_says_what(tmp_path: Path) -> None:
    text = BUSINESS + "channels:\n  email: {provider: smtp, user: shop, batch: 5}\n"
    assert [str(one) for one in settings.problems(loaded(tmp_path, text))] == [
        "outreach.yaml:3:46: `batch` means nothing to smtp (it is a key of sendgrid)",
        "outreach.yaml:3:10: `channels.email`: smtp needs `host`",
        "outreach.yaml:3:10: `channels.email`: smtp needs `from`",
        (
            "outreach.yaml:3:10: warning: `channels.email`: the environment variable SMTP_PASSWORD is not set, and smtp needs it"
            " (set it, or SMTP_PASSWORD_FILE to a file that holds it)"
        ),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alerts: {email: duena}", "`alerts.email` is no e-mail address"),
        ("alerts: {email: duena@}", "`alerts.email` is no e-mail address"),
        ("only_to: me", "`only_to` is neither an e-mail"),
        ("only_to: [me@luna.example, ana@]", "`only_to`: entry 2 is no e-mail address"),
        ("only_to: 55 4100 0001", "`only_to` is neither an e-mail address nor a number with its +country code"),
        ("only_to: '+5215541000001'", "`only_to` is not as numbers are kept"),
        (
            "channels: {email: {provider: smtp, host: x.example, from: Luna}}",
            "`channels.email.from` is no e-mail address",
        ),
        (
            "channels: {email: {provider: smtp, host: x.example, from: 'Luna, la tienda <no-mail@luna.example>'}}",
            "`channels.email.from` is no e-mail address",
        ),
        (
            "channels: {email: {provider: smtp, host: x.example, from: [a@luna.example, Luna <hola>]}}",
            "`channels.email.from` is no e-mail address",
        ),
    ],
)
def test_an_address_that_is_none_is_a_problem_that_does_not_repeat_it(tmp_path: Path, text: str, expected: str) -> None:
    (found,) = settings.problems(loaded(tmp_path, BUSINESS + text))

    assert (found.warning, found.line) == (False, BUSINESS.count("\n") + 1)
    assert found.text.startswith(expected)
    assert not re.search("duena|ana|4100|5541|hola", found.text)


@pytest.mark.parametrize(
    "text",
    [
        "alerts: {email: root@localhost}",
        "only_to: [me@luna.example, +52 55 4100 0001, '+52 (55) 4100-0002']",
        "channels: {messenger: {provider: outbox}}\nonly_to: 4812345678901234",
        'channels: {email: {provider: smtp, host: x.example, from: "\\"Luna, la tienda\\" <hola@luna.example>"}}',
    ],
)
def test_an_address_of_any_kind_passes(tmp_path: Path, text: str) -> None:
    found = settings.problems(loaded(tmp_path, BUSINESS.replace("}", ", country: MX}") + text))

    assert [str(one) for one in found] == []


def test_secrets_come_from_the_environment_and_are_never_shown(tmp_path: Path) -> None:
    text = (
        BUSINESS + "channels:\n  email: {provider: sendgrid, from: A <a@b.example>, batch: 100, timeout: 5 seconds}\n"
    )
    found = loaded(tmp_path, text, {"SENDGRID_API_KEY": "SG.very-secret"})

    assert found.secrets == {"SENDGRID_API_KEY": "SG.very-secret"}
    assert settings.problems(found) == []
    assert "very-secret" not in repr(found)
    assert (found.channels["email"].options["batch"], found.channels["email"].timeout) == (100, 5.0)


def test_of_several_senders_the_first_stands_for_all(tmp_path: Path) -> None:
    text = (
        BUSINESS
        + 'channels:\n  sms: {provider: twilio, from: ["+525500000001", "+525500000002"], rate: 3 per second}\n'
    )
    channel = loaded(tmp_path, text).channels["sms"]

    assert (channel.sender, channel.senders) == ("+525500000001", ("+525500000001", "+525500000002"))
    assert channel.rate == Limit(3, Duration(seconds=1))


def test_the_providers_that_settings_allow_are_those_that_exist() -> None:
    assert {provider for allowed in PROVIDERS.values() for provider in allowed} == {*CHANNELS, STAFF}
    assert {provider for takers in PROVIDER_KEYS.values() for provider in takers} <= set(CHANNELS)


def test_settings_without_a_channel_are_a_problem(tmp_path: Path) -> None:
    assert [str(one) for one in settings.problems(loaded(tmp_path, BUSINESS + "channels: {}"))] == [
        (
            "outreach.yaml:2:11: no channel is configured: nothing can be sent"
            " (write channels: {email: {provider: outbox}})"
        )
    ]


QUIET = (
    "there are no quiet hours: `sending_hours` of outreach.yaml says when sending is allowed"
    ' (write sending_hours: {default: {mon-fri: "09:00-20:00", sat: "10:00-14:00"}})'
)
SECRET_HINT = "(set the environment variable {0}, or {0}_FILE to a file that holds it)"


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("quiet_hours: 22:00-07:00", [f"outreach.yaml:2:1: {QUIET}"]),
        ("sending_hours: {quiet_hours: {mon: x}}", [f"outreach.yaml:2:17: {QUIET}"]),
        ("channels: {sms: {quiet-hours: x}}", [f"outreach.yaml:2:18: {QUIET}"]),
        (
            'sending_hours:\n  default: {mon-fri: "21:00-09:00"}',
            [
                (
                    "outreach.yaml:3:22: `sending_hours.default.mon-fri`: `21:00-09:00` runs over midnight: sending hours"
                    ' say when sending is allowed, so write the hours of the day, such as "09:00-21:00"'
                )
            ],
        ),
        (
            'sending_hours: {default: {mon-fri: "09:00-20:00", fri: "10:00-12:00"}}',
            ["outreach.yaml:2:26: `sending_hours.default`: fri has two windows: a day has one"],
        ),
        (
            "sending_hours: {default: {}}",
            ["outreach.yaml:2:26: `sending_hours.default` names no day: nothing could ever be sent"],
        ),
        (
            "chanels: {}",
            [
                (
                    "outreach.yaml:2:1: unknown key `chanels`: allowed are business, database, public_url, channels,"
                    " only_to, sending_hours, caps, rates, limits, holdout, unknown_zone, clock, sources, orders, segments, events,"
                    " surveys, offers, cases, mailbox, costs, alerts, sms_segments, keep_bodies (did you mean `channels`?)"
                )
            ],
        ),
        (
            "caps: [{purpose: marketing, mesages: 1, per: 1 day}]",
            [
                "outreach.yaml:2:8: `messages` is missing in `caps` (it takes a whole number from 1 to 1,000)",
                (
                    "outreach.yaml:2:29: unknown key `mesages` in `caps`: allowed are messages, per, purpose, channel,"
                    " campaign (did you mean `messages`?)"
                ),
            ],
        ),
        (
            "channels: {emial: {provider: outbox}}",
            [
                (
                    "outreach.yaml:2:12: `channels`: `emial` is unknown: allowed are email, sms, whatsapp, messenger,"
                    " call, visit (did you mean `email`?)"
                )
            ],
        ),
        (
            "channels: {email: {provider: sendgrid, api_key: hush}}",
            [
                "outreach.yaml:2:40: `api_key` is a secret, and secrets never stand in a file "
                + SECRET_HINT.format("SENDGRID_API_KEY")
            ],
        ),
        (
            "secret: hush",
            [
                "outreach.yaml:2:1: `secret` is a secret, and secrets never stand in a file "
                + SECRET_HINT.format("OUTREACH_SECRET")
            ],
        ),
        (
            "database: postgresql://me:hush@db/shop",
            [
                (
                    "outreach.yaml:2:11: `database` holds a password, and secrets never stand in this file"
                    " (set the environment variable OUTREACH_DATABASE to the whole address)"
                )
            ],
        ),
        (
            "database: oracle://x",
            [
                (
                    "outreach.yaml:2:11: `database` is not an address of SQLite or PostgreSQL"
                    " (write sqlite:///outreach.db or postgresql://user@host/name)"
                )
            ],
        ),
        (
            "database: sqlite://outreach.db",
            ["outreach.yaml:2:11: `database` names no SQLite file (write sqlite:///outreach.db, with three slashes)"],
        ),
        ("holdout: ten", ["outreach.yaml:2:10: `holdout`: `ten` is not a share: write a percentage such as `10%`"]),
        ("holdout:", ["outreach.yaml:2:1: `holdout` has no value (it takes a percentage such as `10%`)"]),
        ("caps: 3", ["outreach.yaml:2:7: `caps` takes a list: {purpose: marketing, messages: 1, per: 1 day}"]),
        (
            "keep_bodies: 0 days",
            ["outreach.yaml:2:14: `keep_bodies`: it must be longer than nothing, such as `3 days`"],
        ),
        (
            "clock: {plan: 0 seconds}",
            ["outreach.yaml:2:15: `clock.plan`: it must be longer than nothing, such as `3 days`"],
        ),
        (
            "orders: {delivered: {else: shiped + 5 days}}",
            [
                (
                    "outreach.yaml:2:28: `orders.delivered.else`: `shiped + 5 days` is not one of placed, paid, shipped"
                    " plus a length of time, as `shipped + 5 days`"
                )
            ],
        ),
        (
            "events: {order.gifted: {}}",
            ["outreach.yaml:2:10: `events`: `order.gifted`: names under order are outreach's own; choose another"],
        ),
        (
            "surveys: {n: {scale: 1-5, kind: nps}, m: {scale: 1-5, satisfied: 4-9}, y: {scale: yes_no, satisfied: 1}}",
            [
                "outreach.yaml:2:22: `surveys.n` is of kind nps, which needs the scale 0-10",
                "outreach.yaml:2:66: `surveys.m`: satisfied 4-9 is not within the scale 1-5",
                "outreach.yaml:2:102: `surveys.y`: a scale of yes or no takes no `satisfied`: yes is",
            ],
        ),
        (
            "surveys: {a: {scale: 1-5, with: [a, b, c, b]}, b: {scale: 0-10, kind: nps}}",
            [
                "outreach.yaml:2:34: `surveys.a.with` names the survey itself",
                "outreach.yaml:2:40: `surveys.a.with` names `c`, which is no survey: there are a, b",
                "outreach.yaml:2:43: `surveys.a.with` names `b` twice",
            ],
        ),
        (
            "offers: {a: {kind: percent, value: 120}, b: {kind: amount}, c: {kind: gratis}, d: {kind: gift, codes: {}}}",
            [
                "outreach.yaml:2:36: `offers.a.value`: `120` is not a number over 0, at most 100",
                "outreach.yaml:2:45: `offers.b` is of kind amount, which needs a `value`",
                (
                    "outreach.yaml:2:71: `offers.c.kind`: `gratis` is unknown: allowed are percent, amount, gift,"
                    " free_shipping"
                ),
                "outreach.yaml:2:103: `shared` is missing in `offers.d.codes` (it takes a code)",
            ],
        ),
        (
            'channels:\n  email: {from: "Tienda\\r\\nBcc: all@x.example <hola@x.example>"}',
            [
                "outreach.yaml:3:17: `channels.email.from`: it has a line break in it; it takes an address or a number, on one line"
            ],
        ),
        (
            "caps:",
            ["outreach.yaml:2:1: `caps` has no value (it takes a list: {purpose: marketing, messages: 1, per: 1 day})"],
        ),
        (
            "offers: {o: {kind: amount, value: 1.000}}",
            ["outreach.yaml:2:35: `offers.o.value`: `1.000` is not an amount over 0, such as 150 or 99.90"],
        ),
        (
            "country: MX",
            [
                (
                    "outreach.yaml:2:1: unknown key `country`: allowed are business, database, public_url, channels,"
                    " only_to, sending_hours, caps, rates, limits, holdout, unknown_zone, clock, sources, orders, segments, events,"
                    " surveys, offers, cases, mailbox, costs, alerts, sms_segments, keep_bodies (`country` stands under `business`)"
                )
            ],
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, extra: str, expected: list[str]) -> None:
    assert refusals(tmp_path, BUSINESS + extra) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a", ["outreach.yaml:1:1: holds a list where `key: value` lines are expected"]),
        ("", ["outreach.yaml: is empty"]),
        ("business: {name: x}\n\tdatabase: y", ["outreach.yaml:2:1: a tab: YAML is indented with spaces only"]),
        ("caps: []", ["outreach.yaml:1:1: `business` is missing (it takes {name: My Shop, timezone: America/Mexico_City, currency: MXN})"]),
        (
            "business: {timezone: America/Mexico, currency: MXP, country: XY, locale: klingon}",
            [
                "outreach.yaml:1:11: `name` is missing in `business` (it takes the name customers know)",
                ("outreach.yaml:1:22: `business.timezone`: `America/Mexico` is no known time zone: did you mean"
                " `America/Mexico_City`?"),
                ("outreach.yaml:1:48: `business.currency`: `MXP` is no currency of ISO 4217 in use: write one such as"
                " MXN, COP, EUR"),
                "outreach.yaml:1:62: `business.country`: `XY` is no country: write its two letters, such as MX, CO, ES",
                ("outreach.yaml:1:74: `business.locale`: `klingon` is no known language: write one such as es, es-MX,"
                " pt-BR"),
            ],
        ),
    ],
)  # fmt: skip
def test_a_file_that_says_too_little_is_refused(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert refusals(tmp_path, text) == expected


def test_a_folder_without_settings_is_told_to_begin_with_init(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist \\(`outreach init` makes a workspace"):
        settings.load(tmp_path, {})
    (tmp_path / "outreach.yaml").mkdir()
    with pytest.raises(SettingsError, match="is a folder, not a file"):
        settings.load(tmp_path, {})


def test_norway_is_a_country_and_no_is_a_no(tmp_path: Path) -> None:
    text = "business: {name: no, timezone: Europe/Oslo, currency: nok, country: no}\n"
    found = loaded(tmp_path, text + "surveys: {s: {scale: 1-5, why: on, with: t}, t: {scale: 1-10, why: No}}")
    assert (found.business.name, found.business.country, found.business.currency) == ("no", "NO", "NOK")
    assert (found.surveys["s"].why, found.surveys["t"].why) == (True, False)
    assert (found.surveys["s"].along, found.surveys["t"].along) == (("t",), ())


def test_sending_hours_of_ones_own_replace_the_built_in_ones(tmp_path: Path) -> None:
    own = loaded(tmp_path, BUSINESS + 'sending_hours: {default: {mon-sun: "10:00-18:00"}}')
    assert set(own.sending_hours) == {"default"}
    sms = loaded(tmp_path, BUSINESS + 'sending_hours: {sms: {mon-sun: "10:00-18:00"}}')
    assert set(sms.sending_hours) == {"default", "email", "sms"}


def test_the_environment_gives_the_database_and_the_secret(tmp_path: Path) -> None:
    environ = {"OUTREACH_DATABASE": "postgresql://me:hush@db/shop", "OUTREACH_SECRET": "s3"}
    found = loaded(tmp_path, BUSINESS + "database: sqlite:///x.db", environ)
    assert (found.database, found.secret) == ("postgresql://me:hush@db/shop", "s3")
    (tmp_path / "secret").write_text("from a file\n")
    (tmp_path / "address").write_text("sqlite:////srv/shop.db\n")
    files = {"OUTREACH_SECRET_FILE": str(tmp_path / "secret"), "OUTREACH_DATABASE_FILE": str(tmp_path / "address")}
    found = loaded(tmp_path, BUSINESS, files)
    assert (found.database, found.secret) == ("sqlite:////srv/shop.db", "from a file")


def test_a_wrong_environment_is_a_settings_error(tmp_path: Path) -> None:
    both = {"OUTREACH_SECRET": "a", "OUTREACH_SECRET_FILE": "b"}
    assert refusals(tmp_path, BUSINESS, both) == [
        "environment: OUTREACH_SECRET and OUTREACH_SECRET_FILE are both set (keep one of them)"
    ]
    missing = {"OUTREACH_SECRET_FILE": str(tmp_path / "nowhere")}
    assert refusals(tmp_path, BUSINESS, missing) == ["OUTREACH_SECRET_FILE: does not exist"]
    (tmp_path / "empty").write_text("\n")
    empty = {"OUTREACH_SECRET_FILE": str(tmp_path / "empty")}
    assert refusals(tmp_path, BUSINESS, empty) == ["OUTREACH_SECRET_FILE: the file it names is empty"]
    wrong = {"OUTREACH_DATABASE": "mysql://me:hush@db/shop"}
    assert refusals(tmp_path, BUSINESS, wrong) == [
        (
            "OUTREACH_DATABASE: `database` is not an address of SQLite or PostgreSQL"
            " (write sqlite:///outreach.db or postgresql://user@host/name)"
        )
    ]


@pytest.mark.parametrize("text", [BUSINESS + "secret: hush-hush", BUSINESS + "database: postgresql://a:hush-hush@b/c"])
def test_a_secret_is_never_repeated_in_the_error(tmp_path: Path, text: str) -> None:
    assert "hush-hush" not in "\n".join(refusals(tmp_path, text))


def test_a_catalogue_travels_as_plain_data(tmp_path: Path) -> None:
    whole = loaded(tmp_path, FULL)
    raw = json.loads(json.dumps(settings.raw_catalogue(FULL)))
    assert list(raw) == ["segments", "events", "surveys", "offers"]
    bare = loaded(tmp_path, BUSINESS)
    again = settings.with_catalogue(bare, raw)
    assert again == replace(
        bare, segments=whole.segments, events=whole.events, surveys=whole.surveys, offers=whole.offers
    )
    assert settings.raw_catalogue(BUSINESS) == {"segments": {}, "events": {}, "surveys": {}, "offers": {}}
    assert settings.with_catalogue(whole, settings.raw_catalogue(BUSINESS)).offers == {}


def test_a_broken_catalogue_is_a_settings_error(tmp_path: Path) -> None:
    bare = loaded(tmp_path, BUSINESS)
    with pytest.raises(SettingsError, match=r"^catalogue: `offers.x.kind`: `gratis` is unknown"):
        settings.with_catalogue(bare, {"offers": {"x": {"kind": "gratis"}}})
    assert settings.raw_catalogue("- no\n- mapping") == {"segments": {}, "events": {}, "surveys": {}, "offers": {}}


def test_settings_know_where_their_values_stand(tmp_path: Path) -> None:
    found = loaded(tmp_path, BUSINESS + 'segments:\n  vip: "orders_count > 5"\n')
    assert settings.position(found, "segments", "vip") == ("outreach.yaml", 3, 9)
    assert settings.position(found, "segments", "other") == ("outreach.yaml", 3, 3)
    assert settings.position(found, "offers") == ("outreach.yaml", 0, 0)


def paths(kind: Kind, path: str) -> list[str]:
    """Every key that the parser takes, found by walking its own tables."""
    match kind:
        case Record():
            inner = [(f"{path}.{key.name}".lstrip("."), key.kind) for key in kind.keys]
            return [place for name, below in inner for place in (name, *paths(below, name))]
        case ListOf():
            return paths(kind.of, f"{path}[]")
        case MapOf():
            return paths(kind.value, f"{path}.NAME")
        case Either():
            return paths(kind.other, path)
        case Scalar():
            return []


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("mailbox: {host: x.example, password: x}", "IMAP_PASSWORD"),
        ("channels: {email: {provider: smtp, host: x.example, password: x}}", "SMTP_PASSWORD"),
        ("channels: {email: {provider: sendgrid, webhook_key: x}}", "SENDGRID_WEBHOOK_KEY"),
        *((f"{name.lower()}: x", name) for name in settings.SECRETS),
    ],
)
def test_a_secret_in_the_file_is_told_the_variable_it_belongs_in(tmp_path: Path, text: str, variable: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        loaded(tmp_path, BUSINESS + text)

    (found,) = wrong.value.problems
    assert found.hint == f"set the environment variable {variable}, or {variable}_FILE to a file that holds it"


def test_every_secret_stands_in_the_reference() -> None:
    page = reference.settings_page()

    assert all(f"`{name}`" in page for name in (*settings.SECRETS, *keys.SECRETS.values()))


def test_the_reference_table_holds_just_the_keys_that_are_read() -> None:
    assert [row.path for row in settings.KEYS] == paths(SETTINGS, "")
    assert all(row.text.endswith(".") and row.what for row in settings.KEYS)


@pytest.mark.parametrize("row", [row for row in settings.KEYS if "[]" not in row.path and "NAME" not in row.path])
def test_every_key_of_the_reference_is_known_to_the_parser(tmp_path: Path, row: Row) -> None:
    text = "\n".join(f"{'  ' * depth}{part}:" for depth, part in enumerate(row.path.split("."))) + " '\\'"
    assert not any("unknown key" in line for line in refusals(tmp_path, text))


YAMLISH = st.lists(
    st.one_of(
        st.sampled_from([row.path.split(".")[0] + ": " for row in settings.KEYS]),
        st.sampled_from(
            ["{", "}", "[", "]", "\n", "\n  ", ", ", "email: ", "kind: ", "value: ", "mon: ", "1-5", "yes"]
        ),
        st.sampled_from(
            ["scale: ", "else: ", "codes: ", "~", "-", "3 days", "50%", "'", "\t", "&a ", "*a", "database: "]
        ),
        st.text(max_size=5),
    ),
    max_size=25,
).map("".join)


@given(YAMLISH)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_settings_or_a_settings_error(tmp_path: Path, text: str) -> None:
    written = BUSINESS + text.encode("utf-8", "replace").decode()
    try:
        found = loaded(tmp_path, written)
    except SettingsError:
        return
    assert found.business.name == "Luna"
    settings.with_catalogue(found, settings.raw_catalogue(written))
