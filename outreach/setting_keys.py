"""
The table of what `outreach.yaml` may hold, with its defaults.

`settings` reads by it; the reference page is made from it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from outreach.keys import (
    LENGTH,
    LIMIT,
    SHARE,
    WEEKDAYS,
    WINDOW,
    YES_NO,
    Either,
    Key,
    ListOf,
    MapOf,
    Record,
    Scalar,
    choice,
    matching,
    text,
    whole,
)
from outreach.values import CHANNELS, Duration, parse_duration
from outreach.yamlfile import did_you_mean, shown

STAFF = "staff"  # a person
PROVIDERS: dict[str, tuple[str, ...]] = {
    "email": ("outbox", "smtp", "sendgrid"),
    "sms": ("outbox", "twilio"),
    "whatsapp": ("outbox", "twilio"),
    "messenger": ("outbox", "twilio"),
    "call": ("staff", "outbox"),
    "visit": ("staff", "outbox"),
}
_OURS = tuple(dict.fromkeys(provider for allowed in PROVIDERS.values() for provider in allowed))
PLUG_INS = "outreach.channels"  # the group of entry points of other packages' providers; these take every key
# Which providers take a key of a channel; those not named here are taken by all.
PROVIDER_KEYS: dict[str, tuple[str, ...]] = {
    "host": ("smtp",),
    "port": ("smtp",),
    "security": ("smtp",),
    "user": ("smtp",),
    "connections": ("smtp",),
    "base_url": ("sendgrid", "twilio"),
    "region": ("sendgrid",),
    "sandbox": ("sendgrid",),
    "batch": ("sendgrid",),
    "messaging_service": ("twilio",),
    "parallel": ("sendgrid", "twilio"),
    "timeout": ("smtp", "sendgrid", "twilio"),
}
NEEDED_KEYS: dict[str, tuple[str, ...]] = {"smtp": ("host",)}
NEEDED_SECRETS: dict[str, tuple[str, ...]] = {
    "sendgrid": ("SENDGRID_API_KEY",),
    "twilio": ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"),
}
CANNOT_TELL = ("smtp", STAFF)  # nobody can be asked later what became of a message
DEFAULT_SMTP_PORTS = {"starttls": 587, "tls": 465, "none": 25}
# Of one sender, where the settings say nothing: a long code carries one segment a second, a WhatsApp
# sender 80 messages. Others have none of their own.
DEFAULT_RATES = {("twilio", "sms"): "1 per second", ("twilio", "whatsapp"): "80 per second"}
DEFAULT_CHANNELS = ("email", "sms", "whatsapp")
DEFAULT_HOURS = {
    "default": {"mon-fri": "09:00-20:00", "sat": "10:00-14:00"},
    "email": {"mon-sun": "07:00-22:00"},
}
DEFAULT_CAPS: tuple[dict[str, Any], ...] = (
    {"purpose": "marketing", "messages": 1, "per": Duration(days=1)},
    {"purpose": "marketing", "messages": 3, "per": Duration(days=7)},
    {"purpose": "service", "messages": 3, "per": Duration(days=1)},
)
DEFAULT_CLOCK = {
    "import": "15 minutes",
    "plan": "1 minute",
    "dispatch": "5 seconds",
    "receive": "2 seconds",
    "reconcile": "1 minute",
    "mail": "1 minute",
}
DEFAULT_TARGETS = {
    "complaint": "24 hours",
    "cancellation": "24 hours",
    "return": "3 days",
    "refund": "3 days",
    "question": "24 hours",
}
DEFAULT_SATISFIED = {"1-5": (4, 5), "1-10": (8, 10), "0-10": (8, 10)}
RESERVED = ("order", "customer", "case", "survey", "reply", "coupon", "message", "date", "schedule")
_NOT_COUNTRIES = frozenset(["AC", "CP", "CQ", "DG", "EA", "IC", "TA", "EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"])


# --- providers that installed packages bring ---------------------------------------------------------------------------


def plugged_in(provider: str) -> str:
    """The `module:Class` of a provider that an installed package brings; empty if none does, or we have it ourselves."""
    from importlib.metadata import entry_points  # looks through all that is installed: only for names not ours

    if provider in _OURS:
        return ""
    return next((point.value for point in entry_points(group=PLUG_INS, name=provider)), "")


def _provider() -> Scalar:
    ours = choice(*_OURS, what="a provider")

    def parse(written: str) -> str:
        name = written.strip().lower()
        return name if plugged_in(name) else str(ours.parse(written))

    return replace(ours, parse=parse)


# --- what babel and the time zone data know --------------------------------------------------------------------------


def time_zone(name: str) -> str:
    """A zone of the IANA data; ValueError names the nearest."""
    from zoneinfo import ZoneInfo, available_timezones

    try:
        return ZoneInfo(name.strip()).key
    except (OSError, ValueError, KeyError):
        near = did_you_mean(name, sorted(available_timezones())) or "write one such as America/Mexico_City"
        raise ValueError(f"`{shown(name)}` is no known time zone: {near}") from None


def currency(code: str) -> str:
    """An ISO 4217 code that is in use today (CLDR's list, by babel), in capitals."""
    from babel.core import get_global

    in_use = {row[0] for rows in get_global("territory_currencies").values() for row in rows if row[2] is None}
    if code.strip().upper() in in_use:
        return code.strip().upper()
    raise ValueError(f"`{shown(code)}` is no currency of ISO 4217 in use: write one such as MXN, COP, EUR")


def country(code: str) -> str:
    """An ISO 3166 code of two letters (CLDR's list, by babel), in capitals."""
    from babel import Locale

    known = {str(name) for name in Locale("en").territories if re.fullmatch("[A-Z]{2}", str(name))} - _NOT_COUNTRIES
    if code.strip().upper() in known:
        return code.strip().upper()
    raise ValueError(f"`{shown(code)}` is no country: write its two letters, such as MX, CO, ES")


def locale(name: str) -> str:
    """A language that CLDR knows, with its country if any, as `es` or `es-MX`."""
    from babel import Locale, UnknownLocaleError

    try:
        return str(Locale.parse(name.strip().replace("_", "-"), sep="-")).replace("_", "-")
    except (UnknownLocaleError, ValueError, TypeError):
        raise ValueError(f"`{shown(name)}` is no known language: write one such as es, es-MX, pt-BR") from None


# --- small forms -----------------------------------------------------------------------------------------------------


def as_number(value: str) -> Decimal | None:
    """The value as a finite decimal number, or None."""
    try:
        number = Decimal(value.strip())
    except InvalidOperation:
        return None
    if re.fullmatch(r"[1-9]\d{0,2}(\.\d{3})+", value.strip()):  # 1.000 is a thousand where it is mostly written
        return None
    return number if number.is_finite() else None


def _amount(value: str) -> str:
    number = as_number(value)
    if number is None or number < 0 or not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,4})?", value.strip()):
        raise ValueError(f"`{shown(value)}` is not an amount such as 300 or 99.90")
    return value.strip()


def _estimate(bases: tuple[str, ...]) -> Scalar:
    example = f"`{bases[-1]} + 5 days`"

    def parse(value: str) -> tuple[str, Duration]:
        base, plus, length = (part.strip() for part in value.partition("+"))
        if base not in bases or not plus:
            raise ValueError(f"`{shown(value)}` is not one of {', '.join(bases)} plus a length of time, as {example}")
        return base, parse_duration(length)

    pattern = rf"^\s*({'|'.join(bases)})\s*\+\s*\d+\s*[a-z]+\s*$"
    return Scalar(f"a time and a length such as {example}", parse, {"type": "string", "pattern": pattern})


def _range(value: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*([0-9]{1,2})(?:\s*-\s*([0-9]{1,2}))?\s*", value)
    if match is None:
        raise ValueError(f"`{shown(value)}` is not a score or a range such as 4-5")
    return int(match[1]), int(match[2] or match[1])


def _event_name(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}(\.[a-z0-9_]{1,40}){0,3}", value):
        raise ValueError(f"`{shown(value)}` is not a name such as cart.abandoned (small letters, digits, _ and dots)")
    if value.partition(".")[0] in RESERVED:
        raise ValueError(f"`{shown(value)}`: names under {value.partition('.')[0]} are outreach's own; choose another")
    return value


_WEB = r"https?://[^\s\"'<>]+"
_URL = matching("a web address such as https://shop.example", _WEB)
_CHANNEL = choice(*CHANNELS, what="a channel")
_NAME = matching("a name such as vip (small letters, digits, _ and -)", r"[a-z][a-z0-9_-]{0,59}")
_FILE = text("a path from the workspace")
_AMOUNT = Scalar("an amount such as 300 or 99.90", _amount, {"type": ["string", "number"]})
_COST = matching("an amount such as 0.90, or `0.90 per segment`", r"\d{1,9}(\.\d{1,6})?(\s+per\s+(segment|message))?")
_LOCALE = Scalar("a language such as es or es-MX", locale)

# --- the table -------------------------------------------------------------------------------------------------------

BUSINESS = Record(
    (
        Key("name", text("the name customers know", 200), "The shop's name, as messages sign with it.", required=True),
        Key(
            "timezone",
            Scalar("a time zone such as America/Mexico_City", time_zone),
            "The business's time zone: files without an offset, schedules and reports are in it.",
            required=True,
        ),
        Key(
            "currency",
            Scalar("a currency of ISO 4217 such as MXN", currency),
            "The currency of amounts that name none.",
            required=True,
        ),
        Key("locale", _LOCALE, "The language of customers whose own is not known.", "es"),
        Key(
            "country",
            Scalar("a country's two letters such as MX", country),
            "The country of phone numbers and addresses that name none.",
        ),
        Key("postal_address", text("a postal address", lines=True), "The address that marketing e-mail must show."),
        Key(
            "links",
            MapOf(_NAME, _URL),
            "Pages of the shop that templates name as `business.links.NAME`.",
        ),
    ),
    "{name: My Shop, timezone: America/Mexico_City, currency: MXN}",
)

CHANNEL = Record(
    (
        Key(
            "provider",
            _provider(),
            "Who sends: `outbox` writes files; `smtp` and `sendgrid` send e-mail; `twilio` sends SMS, WhatsApp "
            "and Messenger; `staff` makes tasks for a person.",
            "outbox",
        ),
        Key(
            "from",
            ListOf(text("an address or a number", 320), lone=True),
            "The sender that people see; of several, each customer always gets the same.",
        ),
        Key("rate", LIMIT, "How many messages each sender may send; parts of an SMS count one each.", "the provider's"),
        Key("host", text("a host name", 253), "smtp: the server."),
        Key("port", whole(1, 65535), "smtp: its port.", "587; 465 with tls, 25 with none"),
        Key(
            "security",
            choice("starttls", "tls", "none"),
            "smtp: how the connection is protected; `none` only on your own machine or network.",
            "starttls",
        ),
        Key("user", text("a user name", 320), "smtp: who logs in, with SMTP_PASSWORD; nobody if not given."),
        Key("connections", whole(1, 100), "smtp: how many connections are used at once.", "10"),
        Key("base_url", _URL, "sendgrid, twilio: what stands in for the provider's host."),
        Key("region", choice("global", "eu"), "sendgrid: where the account is.", "global"),
        Key("sandbox", YES_NO, "sendgrid: everything is checked and nothing sent.", "no"),
        Key("batch", whole(1, 1000), "sendgrid: how many messages one request may carry.", "1"),
        Key("messaging_service", text("an id such as MG0123…", 34), "twilio: sends in place of `from`."),
        Key("parallel", whole(1, 50), "sendgrid, twilio: how many requests are made at once.", "8"),
        Key(
            "timeout",
            LENGTH,
            "smtp, sendgrid, twilio: how long an answer is waited for; smtp: six times as long for the answer to a "
            "whole message, up to 4 minutes.",
            "20 seconds",
        ),
        Key(
            "in_doubt",
            choice("hold", "resend_if_absent"),
            "Messages that may or may not have gone out and that the provider turns out not to have: they wait for a "
            "person, or are sent again (smtp and staff cannot be asked).",
            "hold",
        ),
    ),
    '{provider: outbox, from: "My Shop <hola@shop.example>"}',
)

CAP = Record(
    (
        Key("messages", whole(1, 1000), "How many messages at most.", required=True),
        Key("per", LENGTH, "In any window of this length.", required=True),
        Key(
            "purpose",
            choice("marketing", "service"),
            "Counts only messages of this purpose; transactional ones have no caps.",
        ),
        Key("channel", _CHANNEL, "Counts only messages on this channel."),
        Key("campaign", _NAME, "Counts only messages of this campaign."),
    ),
    "{purpose: marketing, messages: 1, per: 1 day}",
)

SOURCE = Record(
    (
        Key("kind", choice("csv"), "What kind of source.", required=True),
        Key("customers", _FILE, "The customers' file."),
        Key("orders", _FILE, "The orders' file."),
        Key("cases", _FILE, "The cases' file."),
        Key("events", _FILE, "The file of the shop's own events."),
        Key("suppressions", _FILE, "The file of addresses not to contact."),
        Key(
            "format",
            choice("auto", "canonical"),
            "The files' format. There is one, so both words mean the same: CSV with the columns that"
            " `docs/how-to/import-your-records.md` lists; encoding and delimiter are told from the file.",
            "auto",
        ),
    ),
    "{kind: csv, customers: data/customers.csv, orders: data/orders.csv}",
)

EVENT = Record(
    (Key("fields", ListOf(_NAME, lone=True), "The fields it carries, as templates and conditions name them."),),
    "{fields: [url, total]}",
)

SURVEY = Record(
    (
        Key("scale", choice("1-5", "1-10", "0-10", "yes_no"), "The answers that are possible.", required=True),
        Key("question", MapOf(_LOCALE, text("a question", lines=True)), "The question in each language."),
        Key("satisfied", Scalar("a range such as 4-5", _range), "The answers that count as satisfied.", "by scale"),
        Key("codes", MapOf(text("a digit or word", 40), text("what it means", 40)), "What short answers mean."),
        Key("why", YES_NO, "Whether the reason is asked for, too.", "no"),
        Key("kind", choice("csat", "nps"), "How answers are counted up.", "csat"),
        Key("with", ListOf(_NAME, lone=True), "Further surveys that stand on the same page, each answered on its own."),
    ),
    '{scale: 1-5, question: {es: "¿…?"}}',
)

OFFER = Record(
    (
        Key("kind", choice("percent", "amount", "gift", "free_shipping"), "What the customer gets.", required=True),
        Key("value", text("a number, or what the gift is", 100), "How much; for a gift, what."),
        Key(
            "codes",
            Either(
                text("`generated` or a CSV file of codes", 300),
                Record(
                    (Key("shared", text("a code", 60), "One code for everybody.", required=True),), "{shared: CODE}"
                ),
            ),
            "Where the codes come from: made by `outreach coupons make`, a file from the shop's cart, or one for all.",
            "generated",
        ),
        Key("expires", LENGTH, "How long a code is good for, from its sending."),
        Key("budget", whole(1, 10_000_000), "How many codes may be given out in all."),
        Key("minimum", _AMOUNT, "The smallest order it applies to."),
        Key("per_customer", LIMIT, "How often one customer may get it."),
        Key(
            "prefix",
            matching("capital letters, digits and -, at most 12", r"[A-Z0-9][A-Z0-9-]{0,11}"),
            "What generated codes begin with.",
        ),
        Key(
            "trust",
            YES_NO,
            "`yes`: codes are made as they are given out, and good at once: for a shop where a person grants them and"
            " looks them up by `outreach coupons list --code`, since no cart knows them; without it only codes that"
            " `outreach coupons activate` has marked live are given out.",
            "no",
        ),
        Key(
            "replaces", ListOf(_NAME, lone=True), "Weaker offers: whoever gets this one loses an unused code of those."
        ),
        Key(
            "uses",
            whole(1, 1_000_000),
            "How often one code may be redeemed.",
            "once; a shared code as often as they like",
        ),
        Key("shareable", YES_NO, "Whether others may redeem it, too; its owner is credited.", "no"),
    ),
    "{kind: percent, value: 10, codes: {shared: CODE}}",
)

CATALOGUE = Record(
    (
        Key(
            "segments",
            MapOf(_NAME, text("a condition", 2000, lines=True)),
            "Conditions with a name, for `segment('NAME')`.",
        ),
        Key(
            "events",
            MapOf(Scalar("a name such as cart.abandoned", _event_name), EVENT),
            "The shop's own events, which campaigns may start on.",
        ),
        Key("surveys", MapOf(_NAME, SURVEY), "Questions that steps may ask."),
        Key("offers", MapOf(_NAME, OFFER), "Discounts that steps may offer."),
    ),
    "{segments: …, events: …, surveys: …, offers: …}",
)


def _plus_address(value: str) -> str:
    local, at, domain = value.strip().rpartition("@")
    if not at or not re.fullmatch(r"[A-Za-z0-9._-]{1,31}", local) or not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", domain):
        raise ValueError(
            f"`{shown(value)}` is not an address such as replies@shop.example, with at most 31 before the @"
        )
    return value.strip()


MAILBOX = Record(
    (
        Key("host", text("a host name", 253), "The IMAP server; without one no mail is fetched."),
        Key("port", whole(1, 65535), "Its port.", "993; 143 with starttls and none"),
        Key(
            "security",
            choice("tls", "starttls", "none"),
            "How the connection is protected; `none` only on your own machine or network.",
            "tls",
        ),
        Key("user", text("a user name", 320), "Who logs in, with IMAP_PASSWORD."),
        Key("folder", text("a folder's name", 200), "The folder that is read.", "INBOX"),
        Key("mark_seen", YES_NO, "Whether mails are marked as seen once they are read.", "no"),
        Key(
            "reply_to",
            Scalar("an address such as replies@shop.example", _plus_address, {"type": "string"}),
            "Where answers to our e-mails go, with a token after a plus sign (`replies+TOKEN@shop.example`); if not "
            "given, answers go to the sender, and are known by the message that they answer.",
        ),
    ),
    "{host: imap.shop.example, user: replies@shop.example}",
)

_ESTIMATE_KEYS = (
    Key(
        "delivered",
        Record(
            (Key("else", _estimate(("placed", "paid", "shipped")), "The estimate.", required=True),),
            "{else: shipped + 5 days}",
        ),
        "The delivery time of orders that have none.",
    ),
    Key(
        "shipped",
        Record((Key("else", _estimate(("placed", "paid")), "The estimate.", required=True),), "{else: paid + 2 days}"),
        "The shipping time of orders that have none.",
    ),
)

_CLOCK_TEXTS = {
    "import": "How often the sources are read.",
    "plan": "How often due messages are written.",
    "dispatch": "How often due messages are sent.",
    "receive": "How often events and replies are read (by providers that have any).",
    "reconcile": "How often messages in doubt are looked for (at providers that can tell).",
    "mail": "How often new mail is fetched (from `mailbox`).",
}

SETTINGS = Record(
    (
        Key("business", BUSINESS, "Who is writing.", required=True),
        Key(
            "database",
            text("sqlite:///FILE or postgresql://USER@HOST/NAME"),
            "Where everything is kept; a relative file is in the workspace. OUTREACH_DATABASE overrides it.",
            "sqlite:///outreach.db",
        ),
        Key("public_url", _URL, "What links in messages point to.", "http://localhost:8080"),
        Key(
            "channels",
            MapOf(_CHANNEL, CHANNEL),
            "The channels that can send.",
            "email, sms and whatsapp, each by outbox",
        ),
        Key(
            "only_to",
            ListOf(text("an address or a number", 320), lone=True),
            "While set, nobody else is contacted: a safe rehearsal.",
        ),
        Key(
            "sending_hours",
            MapOf(choice("default", *CHANNELS, what="default or a channel"), MapOf(WEEKDAYS, WINDOW)),
            "When sending is allowed, in the customer's local time; days not named are closed. "
            "A `default` replaces all of the built-in hours.",
            '{default: {mon-fri: "09:00-20:00", sat: "10:00-14:00"}, email: {mon-sun: "07:00-22:00"}}',
        ),
        Key(
            "caps",
            ListOf(CAP),
            "How many messages one person may get; written caps replace the built-in ones.",
            "marketing 1 per day and 3 per 7 days, service 3 per day",
        ),
        Key(
            "rates",
            MapOf(choice("smtp", "sendgrid", "twilio", what="a provider"), LIMIT),
            "How many messages a provider takes in all, whatever the sender.",
        ),
        Key(
            "limits",
            Record(
                (
                    Key("bounces", SHARE, "Refused and bounced addresses, of messages sent in 7 days.", "5%"),
                    Key("complaints", SHARE, "Complaints, of messages sent in 7 days.", "0.3%"),
                ),
                "{bounces: 5%, complaints: 0.3%}",
            ),
            "Above which share a campaign is paused.",
        ),
        Key("holdout", SHARE, "The share of customers that marketing never contacts, to measure by.", "0%"),
        Key(
            "unknown_zone",
            choice("hold", "business"),
            "Customers whose time zone is unknown: hold their messages, or take the business's zone.",
            "hold",
        ),
        Key(
            "clock",
            Record(
                tuple(Key(name, LENGTH, _CLOCK_TEXTS[name], every) for name, every in DEFAULT_CLOCK.items()),
                "{plan: 1 minute, dispatch: 5 seconds}",
            ),
            "How often `outreach run` calls each stage.",
        ),
        Key("sources", ListOf(SOURCE), "Where customers and orders come from."),
        Key("orders", Record(_ESTIMATE_KEYS, "{delivered: {else: shipped + 5 days}}"), "Times to estimate."),
        *CATALOGUE.keys,
        Key(
            "cases",
            Record(
                (
                    Key(
                        "targets",
                        Record(
                            tuple(Key(kind, LENGTH, f"For a {kind}.", most) for kind, most in DEFAULT_TARGETS.items()),
                            "{complaint: 24 hours}",
                        ),
                        "How long after its opening a case should be closed; what takes longer is overdue.",
                    ),
                ),
                "{targets: {complaint: 24 hours}}",
            ),
            "Complaints, cancellations, returns, refunds and questions.",
        ),
        Key("mailbox", MAILBOX, "Where answers to e-mails, bounces and complaints arrive."),
        Key("costs", MapOf(_CHANNEL, _COST), "What a message costs, in the business's currency."),
        Key(
            "alerts",
            Record(
                (
                    Key("email", text("an e-mail address", 320), "Whom to write to."),
                    Key("webhook", _URL, "Where to post to."),
                ),
                "{email: owner@shop.example}",
            ),
            "Who is told of pauses and doubtful messages.",
        ),
        Key("sms_segments", whole(1, 10), "`check` warns of an SMS of more parts than this.", "2"),
        Key(
            "keep_bodies",
            LENGTH,
            "How long what messages said is kept; of those in doubt it stays until they are settled.",
            "24 months",
        ),
    ),
    "{business: {name: My Shop, timezone: America/Mexico_City, currency: MXN}}",
)
