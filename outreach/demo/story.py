"""
What happened in the demo, told as a short story with headings for somebody who has never seen this program.

Everything told is read back from the workspace's database; the files it is about stay there to be looked at.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from sqlalchemy import Select, case, func, select

from outreach import importer, releases, store
from outreach.channels.outbox import FOLDER as OUTBOX
from outreach.demo import year
from outreach.demo.replay import Replay, live, prepare
from outreach.demo.words import CHANNELS, PURPOSES, SINCE, WORDS
from outreach.models import (
    Coupon,
    Customer,
    Enrolment,
    Message,
    MessageContent,
    Reason,
    Reject,
    Status,
    table,
)
from outreach.reports.campaigns import campaigns
from outreach.reports.repurchase import repurchase
from outreach.reports.retention import cohorts, retention
from outreach.store import Database
from outreach.values import written

MONTHS = (
    "Every morning the shop's new records are imported. Twice a day, when it is morning in Spain and when it is"
    " morning in America, `plan` decides whom to write to and `dispatch` sends what is due, under every rule."
    " The clock is virtual, everything else is real."
)
YEAR = (
    "Once a day the shop's new records are imported and the stages do their work. Customers answer questions, write"
    " back, complain, and use the codes they were sent; the staff calls, and closes the cases. What they do is drawn"
    " by lot, never because of a message: nothing here says that messages work. The clock is virtual, everything else"
    " is real."
)
SHOWN = ((("sms", "whatsapp"), "es"), (("email",), "es"), (("sms", "whatsapp", "email"), "en"))  # the three messages

_messages, _contents, _customers = table(Message), table(MessageContent), table(Customer)
_enrolments, _rejects, _coupons = table(Enrolment), table(Reject), table(Coupon)


def run(folder: Path, *, now: datetime, show: Console, customers: int = 2000, whole_year: bool = False) -> None:
    """
    Make a workspace in `folder`, live through the sample shop's last months until `now`, and tell what happened.

    `whole_year`: a year instead, with every starter campaign, and customers who answer and use their codes.
    Nothing leaves the machine: every message becomes a file in the workspace's outbox.
    """
    show.print("\n[bold]outreach demo[/bold]: a shop that does not exist, followed up by the program as it is.")
    if whole_year:
        replay = prepare(folder, now=now, customers=customers, days=year.DAYS, campaigns=None)
    else:
        replay = prepare(folder, now=now, customers=customers)
    try:
        watch(show, replay, whole_year=whole_year)
        tell(show, replay, whole_year=whole_year)
    finally:
        replay.db.engine.dispose()


def watch(show: Console, replay: Replay, *, whole_year: bool = False) -> None:
    """Tell of the shop and its campaigns, then live through its last months, with a progress bar."""
    _tell_shop(show, replay)
    _tell_campaigns(show, replay)
    _heading(show, 3, f"{(replay.now - replay.began).days} days pass")
    show.print(YEAR if whole_year else MONTHS)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
        console=show, transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task(_day(replay.began), total=(replay.now - replay.began).total_seconds())
        for at, sent in year.live(replay) if whole_year else live(replay):
            passed = (at - replay.began).total_seconds()
            progress.update(task, completed=passed, description=f"{_day(at)}: {sent:,} sent")


def tell(show: Console, replay: Replay, *, whole_year: bool = False) -> None:
    """What was sent, what was not and why, what it came to, the retention tables, and where to look next."""
    part = _tell_ledger if whole_year else _tell_messages
    for number, told in enumerate((_tell_sent, _tell_not_sent, part, _tell_retention, _tell_where_next), start=4):
        told(show, replay, number)


# --- telling -------------------------------------------------------------------------------------


def _heading(show: Console, number: int, text: str) -> None:
    show.print()
    show.rule(f"[bold]{number}. {text}", align="left")


def _table(*columns: str, numbers: int = 1) -> Table:
    """A plain table whose last `numbers` columns are numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        made.add_column(name, justify="right" if index >= len(columns) - numbers else "left")
    return made


def _tell_shop(show: Console, replay: Replay) -> None:
    shop = replay.shop
    _heading(show, 1, "A shop's files are read")
    show.print(
        f"Tienda Luna sells coffee and things for the home, from Mexico City to Mexico, Colombia, Argentina and Spain."
        f" Its files lie in {escape(str(shop.folder))}: {len(shop.people):,} customers,"
        f" {len(shop.purchases):,} orders in 18 months, {len(shop.troubles):,} complaints, returns and questions."
        f" First, everything up to {_day(replay.began)} is imported."
    )
    _tell_rejects(show, replay)
    _tell_reach(show, replay)


def _tell_rejects(show: Console, replay: Replay) -> None:
    with store.read(replay.db) as connection:
        rows = connection.execute(select(_rejects).order_by(_rejects.c.id)).all()
    show.print(f"\n{len(rows)} values in these files are wrong. They are refused and listed, never guessed:")
    wrong = _table("file", "line", "column", "value", "why", numbers=0)
    for row in rows:
        wrong.add_row(Path(row.file).name, str(row.line), row.column, escape(row.value), escape(row.reason))
    show.print(wrong)


def _tell_reach(show: Console, replay: Replay) -> None:
    show.print("\nWhom may this shop write to? Silence is not consent, so offers and reminders reach the fewest:")
    rows = importer.reach(replay.db, replay.settings)
    reach = _table("channel", "customers", *(PURPOSES[purpose] for purpose in PURPOSES), numbers=len(PURPOSES) + 1)
    for channel in dict.fromkeys(row.channel for row in rows):
        of = {row.purpose: row for row in rows if row.channel == channel}
        numbers = [of["service"].customers, *(of[purpose].reachable for purpose in PURPOSES)]
        reach.add_row(CHANNELS[channel], *(f"{number:,}" for number in numbers))
    show.print(reach)


def _tell_campaigns(show: Console, replay: Replay) -> None:
    loaded = releases.current(replay.db, replay.settings)
    campaigns = loaded.campaigns if loaded else {}
    _heading(show, 2, f"On {_day(replay.began)} {len(campaigns)} campaigns are published")
    show.print("They see only what happens from now on: switching on a campaign never blasts the past.")
    published = _table("campaign", "what it is", "starts with", "messages", "held out")
    for name, campaign in campaigns.items():
        published.add_row(
            name, escape(campaign.title), _started_by(campaign.trigger), str(len(campaign.steps)),
            f"{campaign.holdout:.0%}" if campaign.holdout else "–",
        )  # fmt: skip
    show.print(published)


def _started_by(trigger: Any) -> str:
    if trigger.event == "customer.inactive":
        return f"{trigger.after} without an order"
    return f"{trigger.event} {trigger.after or ''}".strip()


def _tell_sent(show: Console, replay: Replay, number: int) -> None:
    with store.read(replay.db) as connection:
        rows = connection.execute(
            select(_messages.c.campaign, _messages.c.step, _messages.c.channel, func.count().label("number"))
            .where(_messages.c.status == Status.SENT)
            .group_by(_messages.c.campaign, _messages.c.step, _messages.c.channel)
        ).all()
    counts = {(row.campaign, row.step, row.channel): row.number for row in rows}
    _heading(show, number, f"What was sent: {sum(counts.values()):,} messages, none of them twice")
    channels = [name for name in CHANNELS if any(name == key[2] for key in counts)]
    sent = _table("campaign", "step", *(CHANNELS[name] for name in channels), "all", numbers=len(channels) + 1)
    for campaign, step in _steps_in_order(replay):
        numbers = [counts.get((campaign, step, channel), 0) for channel in channels]
        sent.add_row(campaign, step, *(f"{number:,}" for number in numbers), f"{sum(numbers):,}")
    show.print(sent)
    show.print(f"Each is a file in {escape(str(replay.settings.workspace / OUTBOX))}.")
    if waited := first_waited(replay.db):
        why = "; ".join(f"{WORDS[Reason(reason)]} ({count:,})" for reason, count in waited.most_common())
        show.print(f"{sum(waited.values()):,} of them had to wait for their moment: {why}.")


def first_waited(db: Database) -> Counter[str]:
    """Of the messages sent, how many were held back first, by the last reason."""
    wanted = select(_messages.c.blocked_by, func.count()).where(_messages.c.status == Status.SENT)
    with store.read(db) as connection:
        rows = connection.execute(wanted.where(_messages.c.blocked_by.is_not(None)).group_by(_messages.c.blocked_by))
        return Counter({row[0]: row[1] for row in rows})


def _steps_in_order(replay: Replay) -> Iterable[tuple[str, str]]:
    loaded = releases.current(replay.db, replay.settings)
    return [
        (name, step.id) for name, campaign in (loaded.campaigns if loaded else {}).items() for step in campaign.steps
    ]


def _tell_not_sent(show: Console, replay: Replay, number: int) -> None:
    never, ended, waiting = not_sent(replay.db)
    _heading(show, number, "What was not sent, and why")
    show.print("Nothing disappears: whatever is not sent has a reason, from a closed list.")
    why = _table("", "because", "count")
    for what, counts in (
        ("customers not taken up", never), ("messages that ended unsent", ended), ("messages still waiting", waiting)
    ):  # fmt: skip
        for index, (reason, count) in enumerate(counts.most_common()):
            why.add_row(f"[bold]{what}" if index == 0 else "", reason, f"{count:,}")
    show.print(why)


def not_sent(db: Database) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """In words: why occasions were not taken up, messages ended unsent, messages still wait."""
    with store.read(db) as connection:
        never = connection.execute(
            select(_enrolments.c.reason, func.count().label("number"))
            .where(_enrolments.c.reason.is_not(None))
            .group_by(_enrolments.c.reason)
        ).all()
        columns = (_messages.c.status, _messages.c.reason, _messages.c.blocked_by, _messages.c.detail)
        rows = connection.execute(
            select(*columns, func.count().label("number"))
            .where(_messages.c.status.not_in([Status.SENT, Status.SENDING]))
            .group_by(*columns)
        ).all()
    ended: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for row in rows:
        (waiting if row.status == Status.PLANNED else ended)[_why(row)] += row.number
    return Counter({WORDS[Reason(row.reason)]: row.number for row in never}), ended, waiting


def _why(row: Any) -> str:
    if row.reason in (Reason.UNLESS, Reason.STOPPED):
        return f"{WORDS[Reason(row.reason)]}: {SINCE.get(row.detail, row.detail)}"
    if row.reason == Reason.EXPIRED and row.blocked_by:
        return f"{WORDS[Reason.EXPIRED]}: {WORDS[Reason(row.blocked_by)]}"
    return WORDS[Reason(row.reason or row.blocked_by or Reason.PAUSED)]


def _tell_ledger(show: Console, replay: Replay, number: int) -> None:
    """What `report campaigns` and `report coupons` say of it all."""
    loaded = releases.current(replay.db, replay.settings)
    goals = {name: campaign.goal for name, campaign in loaded.campaigns.items()} if loaded else {}
    ever = (date(1970, 1, 1), date(2200, 1, 1))
    rows = campaigns(replay.db, replay.settings, *ever, now=replay.now, goals=goals).rows
    _heading(show, number, "The ledger, campaign by campaign")
    counts = _table("campaign", "waiting", "held out", "sent", "not sent", "codes", "used", "expired", numbers=7)
    reasons = _table("campaign", "not sent, and why", numbers=0)
    for row in rows:
        unsent = sum(row[status] for status in ("failed", "unknown", "skipped", "expired", "cancelled"))
        given = (row["coupons"], row["coupons_used"], row["coupons_expired"]) if row["coupons"] else ()
        numbers = (row["planned"], row["held"], row["sent"], unsent, *given)
        counts.add_row(row["campaign"], *(f"{number:,}" for number in numbers))
        if row["by_reason"]:
            why = ", ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in row["by_reason"].items())
            reasons.add_row(row["campaign"], why)
    show.print(counts)
    show.print("\nThe reasons, of occasions that were not taken up and of messages that were not sent:")
    show.print(reasons)
    show.print(
        "\nWhat the codes brought in, and what they cost: orders that used one, in the currency they were paid in."
    )
    money = _table("campaign", "revenue", "discount", numbers=2)
    for row in rows:
        if row["revenue"]:
            money.add_row(row["campaign"], _amounts(row["revenue"]), _amounts(row["discount"]))
    show.print(money)


def _amounts(of: Mapping[str, int]) -> str:
    return ", ".join(written(amount, currency) for currency, amount in of.items()) or "–"


def _tell_messages(show: Console, replay: Replay, number: int) -> None:
    _heading(show, number, "Three of the messages, in full")
    show.print("The starter templates write Spanish, and English to customers whose language it is.")
    for row in three_messages(replay.db):
        show.print(Panel(_content(row), title=_envelope(row, replay), title_align="left", border_style="dim"))


def three_messages(db: Database) -> list[Any]:
    """A short message, an e-mail, and one in English; of different campaigns where there are that many."""
    found: list[Any] = []
    with store.read(db) as connection:
        for channels, language in SHOWN:
            row = connection.execute(_message_to_show(channels, language, found).limit(1)).first()
            found += [row] if row else []
    return found


def _message_to_show(channels: Sequence[str], language: str, before: Sequence[Any]) -> Select[Any]:
    """The messages sent there that were not shown before, those in the language and of other campaigns first."""
    c, person = _messages.c, _customers.c
    other_language = case((person.locale.like(f"{language}%"), 0), else_=1)
    shown_campaign = case((c.campaign.in_([row.campaign for row in before]), 1), else_=0)
    return (
        select(_messages, _contents.c.subject, _contents.c.text, person.first_name, person.city, person.zones)
        .join(_contents, _contents.c.message_id == c.id)
        .join(_customers, person.id == c.customer_id)
        .where(c.status == Status.SENT, c.channel.in_(channels), person.city.is_not(None))
        .where(c.id.not_in([row.id for row in before]))
        .order_by(other_language, shown_campaign, c.id.desc())
    )


def _envelope(row: Any, replay: Replay) -> str:
    at = row.sent_at.astimezone(ZoneInfo(row.zones.split()[0] if row.zones else replay.settings.business.timezone))
    return escape(
        f"{CHANNELS.get(row.channel, row.channel)} to {row.first_name} in {row.city}, {at:%A %H:%M} there"
        f" ({row.campaign}, {row.step})"
    )


def _content(row: Any) -> Text:
    subject = Text(f"Subject: {row.subject}\n\n", style="bold") if row.subject else Text()
    return subject + Text(row.text.strip())


# --- the figures ---------------------------------------------------------------------------------


def _whole_months(replay: Replay) -> tuple[date, date]:
    """From the second month of the records, which has one before it, to the month of `now`, itself not over."""
    first, last = replay.shop.start.date(), replay.shop.end.date().replace(day=1)
    return date(first.year + (first.month > 10), (first.month + 1) % 12 + 1, 1), last


def monthly_retention(replay: Replay) -> list[dict[str, Any]]:
    """The retention rows of the whole months that the sample shop has behind it."""
    start, end = _whole_months(replay)
    return retention(replay.db, replay.settings, start, end, "month", now=replay.now).rows


def _tell_retention(show: Console, replay: Replay, number: int) -> None:
    _heading(show, number, "Did customers come back?")
    show.print(
        "Retention: of those who ordered in the month before, how many ordered in this one; with a 95 % interval."
        " The sample's customers do not read their messages: they order as they would have anyway."
    )
    kept = _table(
        "month", "ordered the month before", "and in this", "retention", "interval", "new", "back again", numbers=6
    )
    for row in monthly_retention(replay):
        kept.add_row(
            row["period"], str(row["before"]), str(row["retained"]), _percent(row["rate"]),
            f"{_percent(row['low'])} to {_percent(row['high'])}", str(row["new"]), str(row["reactivated"]),
        )  # fmt: skip
    show.print(kept)
    _tell_cohorts(show, replay)
    _tell_repurchase(show, replay)


def _tell_cohorts(show: Console, replay: Replay) -> None:
    _, end = _whole_months(replay)
    rows = cohorts(replay.db, replay.settings, end.replace(year=end.year - 1), end, now=replay.now).rows
    show.print("\nOf the customers whose first order fell in a month, the share who ordered in each month after it:")
    shares = _table("first order", "customers", *(f"+{k}" for k in range(1, len(rows))), numbers=len(rows))
    for row in rows:
        after = [
            _percent(count / row["size"]) if count is not None and row["size"] else "" for count in row["active"][1:]
        ]
        shares.add_row(row["cohort"], str(row["size"]), *after)
    show.print(shares)


def _tell_repurchase(show: Console, replay: Replay) -> None:
    start, end = _whole_months(replay)
    show.print("\nOf those who bought for the first time, the share with a second order within so many days:")
    again = _table("days", "share", "interval", "followed that long", numbers=4)
    for row in repurchase(replay.db, replay.settings, start, end, now=replay.now).rows:
        if row["rate"] is not None:
            interval = f"{_percent(row['low'])} to {_percent(row['high'])}"
            again.add_row(str(row["days"]), _percent(row["rate"]), interval, f"{row['at_risk']:,}")
    show.print(again)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _tell_where_next(show: Console, replay: Replay, number: int) -> None:
    folder = replay.settings.workspace
    _heading(show, number, "Where to look next")
    show.print("Everything stays in that folder, and nothing in it leaves this machine. Go there and look around:")
    places = _table("", "", numbers=0)
    places.show_header = False
    for what, why in (
        (f"cd {shlex.quote(str(folder))}", ""),
        ("ls rejects/", "what the imports refused: file, line, column, value and why"),
        (f"ls {OUTBOX}/", "every message sent, one file each; e-mails open in any mail program"),
        (
            "cat campaigns/post_sale.yaml",
            "a campaign: when, to whom, which messages; what they say is in message_templates/",
        ),
        ("outreach status", "what waits, what is paused"),
        ("outreach messages --status skipped", "who was not written to, and why"),
        ("outreach report campaigns", "what each campaign did"),
        *([("outreach report coupons", "what became of the codes")] if _gave_codes(replay) else []),
        ('outreach audience "orders_count >= 5"', "how many customers a condition means, and how many can be reached"),
        ("outreach init my-shop", "a workspace for your own shop"),
    ):
        places.add_row(f"  [bold]{escape(what)}", why)
    show.print(places)


def _gave_codes(replay: Replay) -> bool:
    with store.read(replay.db) as connection:
        return connection.execute(select(_coupons.c.id).limit(1)).first() is not None


def _day(at: datetime) -> str:
    return f"{at.day} {at:%B %Y}"
