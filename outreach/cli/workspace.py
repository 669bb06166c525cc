"""Verbs of somebody who begins: init, demo."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from outreach import settings, starter_kit
from outreach.cli import NOW, here, show
from outreach.cli.writing import write_schema
from outreach.errors import OutreachError
from outreach.settings import SETTINGS_FILE

app = typer.Typer(rich_markup_mode=None)


@dataclass(frozen=True)
class Home:
    """What a country usually has; every one of it may be given instead."""

    timezone: str
    currency: str
    locale: str


HOMES = {
    "AR": Home("America/Argentina/Buenos_Aires", "ARS", "es-AR"),
    "BO": Home("America/La_Paz", "BOB", "es-BO"),
    "BR": Home("America/Sao_Paulo", "BRL", "pt-BR"),
    "CL": Home("America/Santiago", "CLP", "es-CL"),
    "CO": Home("America/Bogota", "COP", "es-CO"),
    "CR": Home("America/Costa_Rica", "CRC", "es-CR"),
    "DO": Home("America/Santo_Domingo", "DOP", "es-DO"),
    "EC": Home("America/Guayaquil", "USD", "es-EC"),
    "ES": Home("Europe/Madrid", "EUR", "es-ES"),
    "GB": Home("Europe/London", "GBP", "en-GB"),
    "GT": Home("America/Guatemala", "GTQ", "es-GT"),
    "HN": Home("America/Tegucigalpa", "HNL", "es-HN"),
    "MX": Home("America/Mexico_City", "MXN", "es-MX"),
    "NI": Home("America/Managua", "NIO", "es-NI"),
    "PA": Home("America/Panama", "USD", "es-PA"),
    "PE": Home("America/Lima", "PEN", "es-PE"),
    "PR": Home("America/Puerto_Rico", "USD", "es-PR"),
    "PT": Home("Europe/Lisbon", "EUR", "pt-PT"),
    "PY": Home("America/Asuncion", "PYG", "es-PY"),
    "SV": Home("America/El_Salvador", "USD", "es-SV"),
    "US": Home("America/New_York", "USD", "en-US"),
    "UY": Home("America/Montevideo", "UYU", "es-UY"),
    "VE": Home("America/Caracas", "VES", "es-VE"),
}

DATA_README = """\
Put the shop's files here, and read them with

    outreach import --customers data/customers.csv --orders data/orders.csv

CSV in UTF-8, `.gz` too. A column marked * is required; any further column is kept with its record.

customers.csv    customer_id*, email, phone, first_name, last_name, locale, country, region, city, postal_code,
                 timezone, birthday, created_at, tags, messenger_id, email_consent, sms_consent, whatsapp_consent,
                 messenger_consent, call_consent, visit_consent
                 (yes, no or empty), consent_at, consent_source
orders.csv       order_id*, customer_id*, placed_at*, status, paid_at, shipped_at, delivered_at, cancelled_at,
                 refunded_at, currency, total, coupon_code; and per line sku, product, category, quantity, unit_price
                 (rows with one order_id are the lines of one order)
cases.csv        case_id*, customer_id*, kind* (complaint, cancellation, return, refund, question), category, sku,
                 opened_at*, answered_at, closed_at, outcome (resolved, unresolved, kept, lost), order_id, note
events.csv       event_id*, customer_id*, name*, at*
suppressions     one address or number a line: people who must not be contacted

A time without an offset is in the business's time zone. An empty consent is not consent.
"""

SETTINGS = """\
# The settings of this workspace. Only `business` is needed; each line below it shows a default or an example.
# Secrets never stand here: they come from the environment (OUTREACH_SECRET, SMTP_PASSWORD, ...).
business:
  name: {name}
  timezone: {timezone}
  currency: {currency}
  locale: {locale}
  country: {country}
  postal_address: Street and number, postal code and city    # marketing e-mails show it
  links:
    help: https://shop.example/help
    returns: https://shop.example/returns
    review: https://shop.example/review

database: sqlite:///outreach.db       # or postgresql://user@host/name
public_url: http://localhost:8080     # what links in messages point to

# How messages leave. `outbox` writes them into the folder outbox/ instead of sending them. What really sends:
# smtp or sendgrid (email), twilio (sms, whatsapp, messenger), staff (call, visit: tasks for a person).
# `outreach doctor` says what they still need.
channels:
  email: {{provider: outbox, from: {sender}}}
  sms: {{provider: outbox, from: "+10000000000"}}
  whatsapp: {{provider: outbox, from: "+10000000000"}}

# A rehearsal: while addresses stand here, everybody else's messages end as skipped.
only_to: []

# When sending is allowed, in the customer's own time.
sending_hours:
  default: {{mon-fri: "09:00-20:00", sat: "10:00-14:00"}}
  email: {{mon-sun: "07:00-22:00"}}

# How often a person may be contacted.
caps:
  - {{purpose: marketing, messages: 1, per: 1 day}}
  - {{purpose: marketing, messages: 3, per: 7 days}}
  - {{purpose: service, messages: 3, per: 1 day}}

# Who is told when something is wrong: alerts: {{email: you@shop.example, webhook: https://…}}

# The share of customers who never get marketing, so that the reports can say what marketing changed.
holdout: 0%

# Where `outreach import` and the daemon read the shop's records.
sources:
  - {{kind: csv, customers: data/customers.csv, orders: data/orders.csv}}

# Exports often lack delivery dates: how to estimate them.
orders: {{delivered: {{else: shipped + 5 days}}}}

# Names for conditions, usable as segment('vip').
segments:
  vip: "orders_count >= 5"

surveys:
  csat:
    question: {{es: "¿Quedaste contento con tu compra?", pt: "Você ficou satisfeito com a compra?", en: "Are you happy with what you bought?"}}
    scale: 1-5
    satisfied: 4-5
"""


@app.command()
def init(
    ctx: typer.Context,
    target: Annotated[Path | None, typer.Argument(metavar="DIR", help="Where; else the current folder.")] = None,
    name: Annotated[str | None, typer.Option(help="The shop's name; else the folder's.")] = None,
    country: Annotated[str, typer.Option(help="Two letters.")] = "MX",
    timezone: Annotated[str | None, typer.Option(help="Such as America/Bogota; else the country's.")] = None,
    currency: Annotated[str | None, typer.Option(help="Such as COP; else the country's.")] = None,
    locale: Annotated[str | None, typer.Option(help="Such as es-CO; else the country's.")] = None,
) -> None:
    """Write a new workspace: settings, campaigns, message templates."""
    where = target or here.folder(ctx)
    _refuse_to_overwrite(where)
    text = settings_text(
        name or where.resolve().name, country.upper(), _home(country.upper(), timezone, currency, locale)
    )
    _try_out(text)
    where.mkdir(parents=True, exist_ok=True)
    starter_kit.copy_into(where)
    write_schema(where, None)
    (where / "data").mkdir(exist_ok=True)
    (where / "data" / "README.txt").write_text(DATA_README, encoding="utf-8")
    (where / SETTINGS_FILE).write_text(text, encoding="utf-8")
    show.line(f"A workspace is ready in {where}. Next: put the shop's files into data/ and run `outreach import`.")


def _refuse_to_overwrite(where: Path) -> None:
    for name in (SETTINGS_FILE, *starter_kit.FOLDERS):
        if (where / name).exists():
            raise OutreachError(f"{where / name} is there already: give a folder that holds no workspace")


def _home(country: str, timezone: str | None, currency: str | None, locale: str | None) -> Home:
    usual = HOMES.get(country)
    if usual is None and not (timezone and currency and locale):
        raise OutreachError(f"nothing is known of country {country}: give --timezone, --currency and --locale too")
    return Home(
        timezone or (usual.timezone if usual else ""),
        currency or (usual.currency if usual else ""),
        locale or (usual.locale if usual else ""),
    )


def settings_text(name: str, country: str, home: Home) -> str:
    """outreach.yaml of a new workspace, every setting explained."""
    sender = "".join(letter for letter in name if letter.isalnum() or letter in " &.'-").strip() or "Shop"
    given = {
        "name": name,
        "timezone": home.timezone,
        "currency": home.currency,
        "locale": home.locale,
        "country": country,
        "sender": f"{sender} <hello@shop.example>",
    }
    return SETTINGS.format(**{key: json.dumps(value, ensure_ascii=False) for key, value in given.items()})


def _try_out(text: str) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / SETTINGS_FILE).write_text(text, encoding="utf-8")
        settings.load(Path(folder), {})


@app.command()
def demo(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to play in.")] = Path("demo-shop"),
    force: Annotated[bool, typer.Option("--force", help="Remove an earlier demo in that folder.")] = False,
) -> None:
    """Play the whole story on sample data in a fresh folder."""
    from rich.console import Console

    from outreach import demo as story

    _make_room(folder, force=force)
    width = None if sys.stdout.isatty() else show.PIPE_WIDTH
    story.run(folder, now=here.at(ctx.meta.get(NOW), "UTC"), show=Console(width=width, highlight=False))


def _make_room(folder: Path, *, force: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not force:
        raise OutreachError(f"{folder} is there already: give another folder, or --force to play the demo there anew")
    if not _is_demo(folder):
        raise OutreachError(f"{folder} was not made by the demo, so it is left alone: give another folder")
    shutil.rmtree(folder)


def _is_demo(folder: Path) -> bool:
    from outreach.demo.replay import SETTINGS as WRITTEN

    file = folder / SETTINGS_FILE
    return file.is_file() and file.read_text(encoding="utf-8", errors="replace") == WRITTEN
