"""
`outreach.yaml` and the environment → one frozen `Settings`.

Only `business.name`, `timezone` and `currency` are required. Secrets come from the environment
alone. `load` raises one SettingsError that names every problem with its file, line and column.
What may be written stands in one table (`setting_keys`), which also makes the reference page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parseaddr
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from outreach import yamlfile
from outreach.addresses import any_email, normal_phone
from outreach.errors import Problem, SettingsError
from outreach.keys import read_record, rows
from outreach.setting_keys import (
    CANNOT_TELL,
    CATALOGUE,
    DEFAULT_CAPS,
    DEFAULT_CHANNELS,
    DEFAULT_CLOCK,
    DEFAULT_HOURS,
    DEFAULT_SATISFIED,
    DEFAULT_TARGETS,
    NEEDED_KEYS,
    NEEDED_SECRETS,
    PROVIDER_KEYS,
    PROVIDERS,
    SETTINGS,
    STAFF,
    as_number,
    plugged_in,
)
from outreach.values import WEEKDAYS, Duration, Limit, WeekHours, parse_duration, parse_week_hours
from outreach.yamlfile import Node, did_you_mean, listed, problem, shown

_TWO_YEARS = Duration(months=24)
_ANSWER = Duration(seconds=20)
EVENTS_KEY = "OUTREACH_EVENTS_KEY"  # signs the events that the shop posts
SECRETS = {
    "SENDGRID_API_KEY": "Sends by SendGrid, and asks it what became of messages.",
    "TWILIO_ACCOUNT_SID": "The Twilio account.",
    "TWILIO_AUTH_TOKEN": "Sends by Twilio, and tells its reports from forged ones.",
    "SMTP_PASSWORD": "Logs in to the SMTP server as `channels.email.user`.",
    "SENDGRID_WEBHOOK_KEY": "Tells SendGrid's events from forged ones.",
    "SENDGRID_INBOUND_KEY": "Tells the mails that SendGrid passes on from forged ones, by their signature.",
    "SENDGRID_INBOUND_TOKEN": "The same, by a secret in the address that it posts to.",
    "IMAP_PASSWORD": "Logs in to the mailbox as `mailbox.user`.",
    EVENTS_KEY: "Tells the shop's own events from forged ones.",
}


@dataclass(frozen=True)
class Business:
    name: str
    timezone: str
    currency: str
    locale: str = "es"
    country: str | None = None
    postal_address: str = ""
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ChannelSettings:
    provider: str = "outbox"
    sender: str = ""  # `from:` in the file; of several the first
    options: Mapping[str, Any] = field(default_factory=dict)  # the provider's own keys, as PROVIDER_KEYS names them
    pool: tuple[str, ...] = ()  # all of `from:`, where it names several
    rate: Limit | None = None  # of each sender
    in_doubt: str = "hold"  # hold | resend_if_absent

    @property
    def senders(self) -> tuple[str, ...]:
        """Every sender; one empty text where the file names none."""
        return self.pool or (self.sender,)

    @property
    def is_stand_in(self) -> bool:
        """Whether something on this very machine takes the provider's place, so that nobody is reached."""
        host = urlsplit(str(self.options.get("base_url", ""))).hostname
        return self.provider == "outbox" or host in ("127.0.0.1", "::1", "localhost")

    @property
    def timeout(self) -> float:
        """How long an answer is waited for, in seconds."""
        length: Duration = self.options.get("timeout", _ANSWER)
        return length.clock.total_seconds()


@dataclass(frozen=True)
class Cap:
    """At most `limit.count` messages in any rolling `limit.per`, of those that match every word given."""

    limit: Limit
    purpose: str | None = None
    channel: str | None = None
    campaign: str | None = None


@dataclass(frozen=True)
class Survey:
    name: str
    scale: str  # "1-5", "1-10", "0-10", "yes_no"
    question: Mapping[str, str] = field(default_factory=dict)
    satisfied: tuple[int, int] | None = None
    codes: Mapping[str, str] = field(default_factory=dict)
    why: bool = False
    kind: str = "csat"  # csat | nps
    along: tuple[str, ...] = ()  # `with:` in the file: further surveys on the same page


@dataclass(frozen=True)
class Offer:
    name: str
    kind: str  # percent | amount | gift | free_shipping
    value: str = ""
    shared_code: str | None = None
    codes: str = "generated"  # generated | shared | a file
    expires: Duration | None = None
    budget: int | None = None
    minimum: str | None = None
    per_customer: Limit | None = None
    prefix: str = ""  # of generated codes
    trust: bool = False  # a code is good the moment it is given out: no cart has to know it before
    replaces: tuple[str, ...] = ()  # weaker offers, whose codes of the same customer this one voids
    uses: int = 0  # how often one code may be redeemed; 0: once, a shared one as often as they like
    shareable: bool = False  # whoever redeems it, its owner is credited

    @property
    def is_generated(self) -> bool:
        return self.codes == "generated"

    @property
    def most_uses(self) -> int:
        """How often a customer's code may be redeemed; 0: no limit."""
        return self.uses or (0 if self.shared_code else 1)


@dataclass(frozen=True)
class SourceSettings:
    kind: str
    files: Mapping[str, str] = field(default_factory=dict)  # customers, orders, cases, events, suppressions
    format: str = "auto"


@dataclass(frozen=True)
class OrderEstimates:
    """`orders: {delivered: {else: shipped + 5 days}}`: a missing time as another one plus a length."""

    delivered: tuple[str, Duration] | None = None
    shipped: tuple[str, Duration] | None = None


@dataclass(frozen=True)
class MailboxSettings:
    """Where answers to e-mails arrive."""

    host: str = ""  # of the IMAP server; empty: nothing is fetched
    port: int | None = None
    security: str = "tls"  # tls | starttls | none
    user: str = ""
    folder: str = "INBOX"
    mark_seen: bool = False
    reply_to: str = ""  # the address that gets a token


def _default_targets() -> dict[str, Duration]:
    return {kind: parse_duration(most) for kind, most in DEFAULT_TARGETS.items()}


@dataclass(frozen=True)
class Settings:
    workspace: Path
    business: Business
    database: str = "sqlite:///outreach.db"  # relative SQLite paths are taken from the workspace
    secret: str = field(default="", repr=False)  # OUTREACH_SECRET
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)  # by name in SECRETS, those that are set
    public_url: str = "http://localhost:8080"
    channels: Mapping[str, ChannelSettings] = field(default_factory=dict)  # every channel that is configured
    only_to: tuple[str, ...] = ()
    sending_hours: Mapping[str, WeekHours] = field(default_factory=dict)  # "default" and channel names
    caps: tuple[Cap, ...] = ()
    rates: Mapping[str, Limit] = field(default_factory=dict)  # by provider
    bounces: float = 0.05  # shares above which a campaign is paused
    complaints: float = 0.003
    holdout: float = 0.0
    unknown_zone: str = "hold"  # hold | business
    clock: Mapping[str, Duration] = field(default_factory=dict)
    sources: tuple[SourceSettings, ...] = ()
    orders: OrderEstimates = field(default_factory=OrderEstimates)
    segments: Mapping[str, str] = field(default_factory=dict)
    events: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name → its fields
    surveys: Mapping[str, Survey] = field(default_factory=dict)
    offers: Mapping[str, Offer] = field(default_factory=dict)
    targets: Mapping[str, Duration] = field(default_factory=_default_targets)  # by kind of case: when it is overdue
    mailbox: MailboxSettings | None = None
    costs: Mapping[str, str] = field(default_factory=dict)
    alerts: Mapping[str, str] = field(default_factory=dict)
    sms_segments: int = 2  # `check` warns above this many
    keep_bodies: Duration = _TWO_YEARS
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False, repr=False)
    # "segments.vip" → line and column in outreach.yaml


SETTINGS_FILE = "outreach.yaml"
KEYS = rows(SETTINGS.keys)


def load(workspace: Path, environ: Mapping[str, str]) -> Settings:
    """The settings of a workspace; SettingsError names every problem of the file and the environment at once."""
    found, text = [], None
    path = workspace / SETTINGS_FILE
    if not path.exists():
        found.append(
            Problem(str(path), 0, 0, "no-settings", "does not exist", "`outreach init` makes a workspace with one")
        )
    else:
        text, found = yamlfile.read_text(path, SETTINGS_FILE)
    if text is None:
        raise SettingsError(found)
    node, found = yamlfile.read(SETTINGS_FILE, text)
    settings = _settings(workspace, node, environ, found) if node else None
    if found or settings is None:
        raise SettingsError(sorted(found, key=lambda one: (one.line, one.column)))
    return settings


def raw_catalogue(text: str) -> dict[str, Any]:
    """The segments, events, offers and surveys of a settings text as plain, JSON-serialisable data.

    Always these four keys; values are texts as they were written. A text that cannot be read has none.
    """
    node, _ = yamlfile.read(SETTINGS_FILE, text)
    sections = {key.name: node.get(key.name) if node else None for key in CATALOGUE.keys}
    return {name: yamlfile.plain(section) if section else {} for name, section in sections.items()}


def with_catalogue(settings: Settings, raw: Mapping[str, Any]) -> Settings:
    """A copy whose segments, events, offers and surveys are those of `raw_catalogue`; SettingsError if invalid."""
    found: list[Problem] = []
    node = yamlfile.from_plain("catalogue", {name: raw[name] for name in raw if raw[name]})
    values = read_record(CATALOGUE, node, "", found)
    sections = _catalogue(values, node, found)
    if found:
        raise SettingsError(found)
    return replace(settings, **sections)


def position(settings: Settings, *path: str) -> tuple[str, int, int]:
    """File, line and column of the value at this path, such as ("segments", "vip"), or of the nearest above it."""
    for length in range(len(path), 0, -1):
        if place := settings.places.get(".".join(path[:length])):
            return SETTINGS_FILE, *place
    return SETTINGS_FILE, 0, 0


def problems(settings: Settings) -> list[Problem]:
    """What would keep these settings from working, beyond their form: channels and providers."""
    found = []
    if not settings.channels:
        file, line, column = position(settings, "channels")
        hint = "write channels: {email: {provider: outbox}}"
        found.append(Problem(file, line, column, "no-channel", "no channel is configured: nothing can be sent", hint))
    for name in settings.channels:
        found += channel_problems(settings, name)
    return [*found, *_mailbox_problems(settings), *_address_problems(settings)]


def _address_problems(settings: Settings) -> Iterator[Problem]:
    """Addresses that nobody could be reached at; the texts never repeat them."""
    if (to := settings.alerts.get("email")) and (why := _no_email(to)):
        yield Problem(*position(settings, "alerts", "email"), "wrong-value", f"`alerts.email` {why}")
    for number, one in enumerate(settings.only_to, 1):
        if why := _nobody(one, settings):
            which = "`only_to`" if len(settings.only_to) == 1 else f"`only_to`: entry {number}"
            yield Problem(*position(settings, "only_to"), "wrong-value", f"{which} {why}")


def _no_email(written: str) -> str:
    """Why it is no e-mail address; empty where it is one."""
    try:
        any_email(written)
    except ValueError as error:
        return str(error)
    return ""


def _nobody(written: str, settings: Settings) -> str:
    """Why nobody has this address, as addresses are kept: a number with its + and country."""
    if "@" in written:
        return _no_email(written)
    if "messenger" in settings.channels and written.isdecimal():
        return ""
    if not written.startswith("+"):
        return "is neither an e-mail address nor a number with its +country code, such as +52 55 1234 5678"
    try:
        kept = normal_phone(written, None)
    except ValueError as error:
        return str(error)
    as_kept = re.sub(r"[^\d+]", "", written) == kept
    return "" if as_kept else "is not as numbers are kept: write no 1 after +52, and no 0 before an area code"


def _mailbox_problems(settings: Settings) -> list[Problem]:
    box, at = settings.mailbox, position(settings, "mailbox")
    if box is None or not (box.host or not box.reply_to):
        return []
    missing = [key for key in ("host", "user") if not getattr(box, key)]
    found = [Problem(*at, "missing-key", f"`mailbox` needs `{key}`: without it no mail is fetched") for key in missing]
    if not missing and "IMAP_PASSWORD" not in settings.secrets:
        text = "`mailbox`: the environment variable IMAP_PASSWORD is not set, and the mailbox needs it"
        hint = "set it, or IMAP_PASSWORD_FILE to a file that holds it"
        found.append(Problem(*at, "missing-secret", text, hint, warning=True))  # the daemon may have it
    return found


def channel_problems(settings: Settings, name: str) -> list[Problem]:
    """What keeps one channel from sending: a provider of another kind, keys that it lacks or does not take, secrets."""
    channel = settings.channels[name]
    provider, allowed = channel.provider, PROVIDERS[name]
    ours = not plugged_in(provider)
    if provider not in allowed and ours:
        text = f"`{provider}` does not send {name}"
        place = position(settings, "channels", name, "provider")
        return [Problem(*place, "unknown-provider", text, f"allowed: {listed(allowed)}")]
    at = position(settings, "channels", name)
    found = []
    for key in channel.options:
        if provider not in PROVIDER_KEYS[key] and ours:
            place, text = position(settings, "channels", name, key), f"`{key}` means nothing to {provider}"
            found.append(Problem(*place, "wrong-key", text, f"it is a key of {listed(PROVIDER_KEYS[key])}"))
    missing = [key for key in NEEDED_KEYS.get(provider, ()) if key not in channel.options]
    found += [Problem(*at, "missing-key", f"`channels.{name}`: {provider} needs `{key}`") for key in missing]
    if provider not in ("outbox", STAFF) and not channel.sender and not channel.options.get("messaging_service"):
        found.append(Problem(*at, "missing-key", f"`channels.{name}`: {provider} needs `from`"))
    if provider in ("smtp", "sendgrid"):
        place, hint = (
            position(settings, "channels", name, "from"),
            "such as My Shop <hola@shop.example>; a name that has a comma stands in quotes of its own",
        )
        wrong = filter(None, (_no_email(parseaddr(sender)[1]) for sender in channel.senders if sender))
        found += [Problem(*place, "wrong-value", f"`channels.{name}.from` {why}", hint) for why in wrong]
    if channel.in_doubt != "hold" and provider in CANNOT_TELL:
        text = f"`in_doubt` changes nothing here: {provider} cannot be asked what became of a message"
        hint = "settle those in doubt with `outreach resolve`"
        place = position(settings, "channels", name, "in_doubt")
        found.append(Problem(*place, "wrong-key", text, hint, warning=True))
    secrets = list(NEEDED_SECRETS.get(provider, ()))
    if channel.options.get("user"):
        secrets.append("SMTP_PASSWORD")
    for secret in secrets:
        if secret not in settings.secrets:
            text = f"the environment variable {secret} is not set, and {provider} needs it"
            hint = f"set it, or {secret}_FILE to a file that holds it"
            place = position(settings, "channels")
            cause = Problem(*place, "missing-secret", text, hint, warning=True)
            of_channel = f"`channels.{name}`: {text}"  # a warning, for the daemon may have it
            found.append(Problem(*at, "missing-secret", of_channel, hint, warning=True, cause=cause))
    return found


# --- from the file's tree to Settings --------------------------------------------------------------------------------


def _settings(workspace: Path, node: Node, environ: Mapping[str, str], found: list[Problem]) -> Settings | None:
    values = read_record(SETTINGS, node, "", found)
    database = _database(workspace, values.get("database"), node, environ, found)
    secret = _from_environment("OUTREACH_SECRET", environ, found) or ""
    sections = _catalogue(values, node, found)
    hours = _sending_hours(values.get("sending_hours"), node, found)
    if any(not one.warning for one in found):
        return None
    secrets = {name: _from_environment(name, environ, found) for name in SECRETS}
    simple = (
        "public_url",
        "only_to",
        "rates",
        "holdout",
        "unknown_zone",
        "sms_segments",
        "keep_bodies",
        "costs",
        "alerts",
    )
    return Settings(
        workspace=workspace,
        business=Business(**values["business"]),
        database=database,
        secret=secret,
        secrets={name: value for name, value in secrets.items() if value},
        channels=_channels(values.get("channels")),
        sending_hours=hours,
        caps=tuple(_cap(cap) for cap in values.get("caps", DEFAULT_CAPS)),
        clock={name: parse_duration(every) for name, every in DEFAULT_CLOCK.items()} | values.get("clock", {}),
        sources=tuple(_source(source) for source in values.get("sources", ())),
        orders=_estimates(values.get("orders", {})),
        targets=_default_targets() | values.get("cases", {}).get("targets", {}),
        mailbox=MailboxSettings(**values["mailbox"]) if "mailbox" in values else None,
        places=dict(_places(node, "")),
        **values.get("limits", {}),
        **sections,
        **{name: values[name] for name in simple if name in values},
    )


def _places(node: Node, path: str) -> Iterator[tuple[str, tuple[int, int]]]:
    for name, value in (node.entries or {}).items():
        here = f"{path}{name}"
        yield here, (value.content or (value.line, value.column))
        yield from _places(value, f"{here}.")


def _from_environment(name: str, environ: Mapping[str, str], found: list[Problem]) -> str | None:
    """NAME, or what the file that NAME_FILE names holds; None when neither is set."""
    path = environ.get(f"{name}_FILE")
    if not path:
        return environ.get(name) or None
    if environ.get(name):
        text = f"{name} and {name}_FILE are both set"
        found.append(Problem("environment", 0, 0, "environment", text, "keep one of them"))
        return None
    content, unreadable = yamlfile.read_text(Path(path), f"{name}_FILE")
    found += unreadable
    if content is not None and not content.strip():
        found.append(Problem(f"{name}_FILE", 0, 0, "environment", "the file it names is empty"))
    return content.strip() if content else None


def _database(
    workspace: Path, written: str | None, node: Node, environ: Mapping[str, str], found: list[Problem]
) -> str:
    if written and _has_password(written):
        text = "`database` holds a password, and secrets never stand in this file"
        hint = "set the environment variable OUTREACH_DATABASE to the whole address"
        found.append(problem(node.nearest("database"), "secret", text, hint))
        return ""
    override = _from_environment("OUTREACH_DATABASE", environ, found)
    at = Node("OUTREACH_DATABASE", 0, 0) if override else node.nearest("database")
    return _resolved(workspace, override or written or Settings.database, at, found)


def _has_password(address: str) -> bool:
    try:
        return bool(urlsplit(address).password) or "password=" in address
    except ValueError:
        return False


def _resolved(workspace: Path, address: str, at: Node, found: list[Problem]) -> str:
    scheme, colon, rest = address.partition("://")
    kind = scheme.partition("+")[0]
    if not colon or kind not in ("sqlite", "postgresql", "postgres"):
        text = "`database` is not an address of SQLite or PostgreSQL"
        hint = "write sqlite:///outreach.db or postgresql://user@host/name"
        found.append(problem(at, "wrong-value", text, hint))
        return ""
    if kind != "sqlite":
        return address
    path, question, query = rest.removeprefix("/").partition("?")
    if not rest.startswith("/") or not path or path == ":memory:":
        text = "`database` names no SQLite file"
        found.append(problem(at, "wrong-value", text, "write sqlite:///outreach.db, with three slashes"))
        return ""
    return f"{scheme}:///{(workspace / path).absolute()}{question}{query}"


def _channels(values: Mapping[str, Any] | None) -> dict[str, ChannelSettings]:
    if values is None:
        return {name: ChannelSettings() for name in DEFAULT_CHANNELS}
    return {name: _channel(channel or {}) for name, channel in values.items()}


def _channel(values: Mapping[str, Any]) -> ChannelSettings:
    provider, senders = values.get("provider", "outbox"), tuple(values.get("from", ()))
    options = {name: value for name, value in values.items() if name in PROVIDER_KEYS}
    rate, in_doubt = values.get("rate"), values.get("in_doubt", "hold")
    pool = senders if len(senders) > 1 else ()
    return ChannelSettings(provider, senders[0] if senders else "", options, pool, rate, in_doubt)


def _sending_hours(written: Mapping[str, Any] | None, node: Node, found: list[Problem]) -> dict[str, WeekHours]:
    hours = {name: _week(name, days, node, found) for name, days in (written or {}).items()}
    built_in = {name: parse_week_hours(days) for name, days in DEFAULT_HOURS.items()}
    return hours if "default" in hours else built_in | hours


def _week(name: str, windows: Mapping[tuple[int, ...], Any], node: Node, found: list[Problem]) -> WeekHours:
    """The windows of one channel; a day that is named twice is a problem."""
    days: list[tuple[int, int] | None] = [None] * 7
    for named, window in windows.items():
        for day in named:
            if days[day] is not None:
                text = f"`sending_hours.{name}`: {WEEKDAYS[day]} has two windows: a day has one"
                found.append(problem(node.nearest("sending_hours", name), "wrong-value", text))
            days[day] = window
    if not any(days) and not found:
        text = f"`sending_hours.{name}` names no day: nothing could ever be sent"
        found.append(problem(node.nearest("sending_hours", name), "wrong-value", text))
    return WeekHours(tuple(days))


def _cap(values: Mapping[str, Any]) -> Cap:
    limit = Limit(values["messages"], values["per"])
    return Cap(limit, values.get("purpose"), values.get("channel"), values.get("campaign"))


def _source(values: Mapping[str, Any]) -> SourceSettings:
    files = {name: path for name, path in values.items() if name not in ("kind", "format")}
    return SourceSettings(values["kind"], files, values.get("format", "auto"))


def _estimates(values: Mapping[str, Any]) -> OrderEstimates:
    return OrderEstimates(**{name: estimate["else"] for name, estimate in values.items()})


# --- what a release takes along: segments, events, surveys, offers ---------------------------------------------------


def _catalogue(values: Mapping[str, Any], node: Node, found: list[Problem]) -> dict[str, Any]:
    before = len(found)
    surveys, offers = values.get("surveys", {}), values.get("offers", {})
    for name, survey in surveys.items():
        found += _survey_problems(name, survey, node.nearest("surveys", name))
        found += _along_problems(name, survey, surveys, node.nearest("surveys", name))
    for name, offer in offers.items():
        found += _offer_problems(name, offer, node.nearest("offers", name))
        found += _code_problems(name, offer, offers, node.nearest("offers", name))
    wrong = len(found) > before or None in (*surveys.values(), *offers.values())
    return {
        "segments": values.get("segments", {}),
        "events": {name: (event or {}).get("fields", ()) for name, event in values.get("events", {}).items()},
        "surveys": {}
        if wrong
        else {name: _survey(name, survey) for name, survey in surveys.items() if "scale" in survey},
        "offers": {} if wrong else {name: _offer(name, offer) for name, offer in offers.items() if "kind" in offer},
    }


def _survey(name: str, values: Mapping[str, Any]) -> Survey:
    satisfied = values.get("satisfied", DEFAULT_SATISFIED.get(values["scale"]))
    if values.get("kind") == "nps":
        satisfied = None
    question = values.get("question", {})
    return Survey(
        name=name,
        scale=values["scale"],
        question=question,
        satisfied=satisfied,
        codes=values.get("codes", {}),
        why=values.get("why", False),
        kind=values.get("kind", "csat"),
        along=tuple(values.get("with", ())),
    )


def _survey_problems(name: str, values: Mapping[str, Any], node: Node) -> Iterator[Problem]:
    scale, satisfied = values.get("scale"), values.get("satisfied")
    if values.get("kind") == "nps" and scale not in (None, "0-10"):
        text = f"`surveys.{name}` is of kind nps, which needs the scale 0-10"
        yield problem(node.nearest("scale"), "survey", text)
    if satisfied and scale == "yes_no":
        text = f"`surveys.{name}`: a scale of yes or no takes no `satisfied`: yes is"
        yield problem(node.nearest("satisfied"), "survey", text)
    elif satisfied and values.get("kind") == "nps":
        text = f"`surveys.{name}`: nps has its own scale (9-10 promote) and takes no `satisfied`"
        yield problem(node.nearest("satisfied"), "survey", text)
    elif satisfied and scale:
        low, high = (int(end) for end in scale.split("-"))
        if not low <= satisfied[0] <= satisfied[1] <= high:
            text = f"`surveys.{name}`: satisfied {satisfied[0]}-{satisfied[1]} is not within the scale {scale}"
            yield problem(node.nearest("satisfied"), "survey", text)


def _along_problems(name: str, values: Mapping[str, Any], surveys: Mapping[str, Any], node: Node) -> Iterator[Problem]:
    named = values.get("with", ())
    for index, other in enumerate(named):
        at = node.nearest("with", index)
        if other is None:
            continue  # its own problem is noted already
        if other == name:
            yield problem(at, "survey", f"`surveys.{name}.with` names the survey itself")
        elif other in named[:index]:
            yield problem(at, "survey", f"`surveys.{name}.with` names `{other}` twice")
        elif other not in surveys:
            text = f"`surveys.{name}.with` names `{shown(other)}`, which is no survey: there are {listed(surveys)}"
            yield problem(at, "survey", text, did_you_mean(other, list(surveys)))


def _offer(name: str, values: Mapping[str, Any]) -> Offer:
    codes = values.get("codes", "generated")
    shared = codes.get("shared") if isinstance(codes, dict) else None
    plain = {word: value for word, value in values.items() if word != "codes"}
    if "replaces" in plain:
        plain["replaces"] = tuple(other for other in plain["replaces"] if other is not None)
    return Offer(name=name, shared_code=shared, codes="shared" if shared else codes, **plain)


def _offer_problems(name: str, values: Mapping[str, Any], node: Node) -> Iterator[Problem]:
    kind, value = values.get("kind"), values.get("value")
    if kind in ("percent", "amount") and value is None and "value" not in (node.entries or {}):
        yield problem(node, "offer", f"`offers.{name}` is of kind {kind}, which needs a `value`")
    elif kind in ("percent", "amount") and value is not None:
        number = as_number(value)
        if number is None or number <= 0 or (kind == "percent" and number > 100):
            allowed = "a number over 0, at most 100" if kind == "percent" else "an amount over 0, such as 150 or 99.90"
            yield problem(node.nearest("value"), "offer", f"`offers.{name}.value`: `{shown(value)}` is not {allowed}")
    elif kind == "free_shipping" and value is not None:
        yield problem(node.nearest("value"), "offer", f"`offers.{name}`: free_shipping takes no `value`")


def _code_problems(name: str, values: Mapping[str, Any], offers: Mapping[str, Any], node: Node) -> Iterator[Problem]:
    """What an offer says of its codes that cannot hold together."""
    codes = values.get("codes", "generated")
    shared = isinstance(codes, dict)
    if "prefix" in values and codes != "generated":
        yield problem(node.keys["prefix"], "offer", f"`offers.{name}`: only generated codes have a `prefix`")
    for key in ("trust", "shareable"):
        if shared and values.get(key):
            text = f"`offers.{name}`: `{key}` means nothing where everybody has the same code"
            yield problem(node.keys[key], "offer", text)
    for index, other in enumerate(values.get("replaces", ())):
        at = node.nearest("replaces", index)
        if other is None:
            continue  # its own problem is noted already
        if other == name:
            yield problem(at, "offer", f"`offers.{name}.replaces` names the offer itself")
        elif other not in offers:
            text = f"`offers.{name}.replaces` names `{shown(other)}`, which is no offer: there are {listed(offers)}"
            yield problem(at, "offer", text, did_you_mean(other, list(offers)))
        elif name in ((offers[other] or {}).get("replaces") or ()):
            yield problem(at, "offer", f"`offers.{name}` and `offers.{other}` replace each other")
