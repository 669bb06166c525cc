"""`report`: retention, cohorts, repurchase, campaigns, coupons, as table, JSON or CSV."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from outreach.cli import here, show
from outreach.reports import Report
from outreach.values import written

app = typer.Typer(rich_markup_mode=None)
report = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Report retention, cohorts, repurchase, campaigns and coupons."
)
app.add_typer(report, name="report")

MONEY = ("revenue", "discount")  # columns of amounts by currency
EVER, NEVER = date(1970, 1, 1), date(2200, 1, 1)


class By(StrEnum):
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day: write 2026-06-15") from None


From = Annotated[date | None, typer.Option("--from", metavar="DAY", parser=_day, help="The first day.")]
To = Annotated[date | None, typer.Option("--to", metavar="DAY", parser=_day, help="The day after the last.")]
Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the rows there, for a spreadsheet.")]


@report.command()
def retention(
    ctx: typer.Context,
    since: From = None,
    until: To = None,
    by: Annotated[By | None, typer.Option(help="One row for each; else one row for all of it.")] = None,
    csv: Csv = None,
    as_json: show.Json = False,
) -> None:
    """
    Of the customers who ordered in one period, how many ordered again in the next.

    Without days given, the last twelve whole months.
    """
    from outreach.reports.retention import retention as made

    place = here.here(ctx)
    start, end = _year_before(place, since, until)
    found = made(here.database(place.settings), place.settings, start, end, by, now=place.now)
    _put(found, csv, as_json=as_json, title="Retention")


@report.command()
def cohorts(
    ctx: typer.Context,
    since: From = None,
    until: To = None,
    by: Annotated[By, typer.Option(help="How long a period is.")] = By.MONTH,
    csv: Csv = None,
    as_json: show.Json = False,
) -> None:
    """
    Of the customers who first ordered in one period, how many ordered in each later one.

    Without days given, the last twelve whole months.
    """
    from outreach.reports.retention import cohorts as made

    place = here.here(ctx)
    start, end = _year_before(place, since, until)
    found = made(here.database(place.settings), place.settings, start, end, by, now=place.now)
    if as_json:
        show.as_json(found.as_json())
    else:
        _put(_spread(found), csv, as_json=False, title="Customers who ordered, by the periods after their first order")


def _spread(found: Report) -> Report:
    """The list `active` as one column for each period after the first order."""
    width = max((len(row["active"]) for row in found.rows), default=0)
    rows = [
        {"cohort": row["cohort"], "size": row["size"], **{f"+{k}": value for k, value in enumerate(row["active"])}}
        for row in found.rows
    ]
    return Report(("cohort", "size", *(f"+{k}" for k in range(width))), rows, found.more)


@report.command()
def repurchase(
    ctx: typer.Context, since: From = None, until: To = None, csv: Csv = None, as_json: show.Json = False
) -> None:
    """
    Of the first-time buyers, how many ordered a second time, and how soon.

    The days say when the first order was; without any, at any time.
    """
    from outreach.reports.repurchase import repurchase as made

    place = here.here(ctx)
    found = made(here.database(place.settings), place.settings, *_ever(since, until), now=place.now)
    _put(found, csv, as_json=as_json, title="Repurchase: a second order within so many days")


@report.command()
def campaigns(
    ctx: typer.Context, since: From = None, until: To = None, csv: Csv = None, as_json: show.Json = False
) -> None:
    """
    What each campaign sent, held back and ended, the goals that followed, and its coupons.

    The days say when messages were due; without any, at any time.
    """
    from outreach import releases
    from outreach.reports.campaigns import campaigns as made

    place = here.here(ctx)
    db = here.database(place.settings)
    release = releases.current(db, place.settings)
    goals = {name: campaign.goal for name, campaign in release.campaigns.items()} if release else {}
    found = made(db, place.settings, *_ever(since, until), now=place.now, goals=goals)
    if csv or as_json:
        _put(found, csv, as_json=as_json, title="Campaigns")
    else:
        _print_campaigns(found)


@report.command()
def coupons(
    ctx: typer.Context,
    since: From = None,
    until: To = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=show.MOST, help="Only so many offers: those that gave out the most codes.")
    ] = None,
    csv: Csv = None,
    as_json: show.Json = False,
) -> None:
    """
    Of each offer: what became of its codes, the orders that used them, and what they cost.

    The days say when codes were given out; without any, at any time.
    """
    from outreach.reports.coupons import coupons as made

    place = here.here(ctx)
    days = _ever(since, until)
    found = made(here.database(place.settings), place.settings, *days, now=place.now, limit=limit)
    if csv or as_json:
        _put(found, csv, as_json=as_json, title="Coupons")
        return
    money = ("orders", "left_out", "revenue", "discount", "median_days")
    columns = tuple(name for name in found.columns if name not in money)
    _put(Report(columns, found.rows, found.more), None, as_json=False, title="Coupons")
    if used := [row for row in found.rows if row["used"]]:
        _put(Report(("offer", *money), used), None, as_json=False, title="Orders that used them")


GOALS = ("goal", "attributed", "rate", "low", "high")
GIVEN = ("coupons", "coupons_used", "coupons_expired", "revenue", "discount")


def _print_campaigns(found: Report) -> None:
    """Narrower than all of the columns: zero ones, reasons, goals and coupons apart."""
    apart = ("by_reason", *GOALS, *GIVEN)
    used = [name for name in found.columns if name not in apart and any(row[name] for row in found.rows)]
    _put(Report(("campaign", *used[1:]), found.rows), None, as_json=False, title="Campaigns")
    reasons = [(row["campaign"], why.replace("_", " "), n) for row in found.rows for why, n in row["by_reason"].items()]
    if reasons:
        show.table("Why not", ("Campaign", "Reason", ">Times"), reasons)
    goals = Report(("campaign", *GOALS), [row for row in found.rows if row["goal"]])
    _put(goals, None, as_json=False, title="Goals met after a message (attributed to it, not necessarily caused by it)")
    given = Report(("campaign", *GIVEN), [row for row in found.rows if row["coupons"]])
    if given.rows:
        _put(given, None, as_json=False, title="Coupons that their messages brought, and the orders that used them")


def _ever(since: date | None, until: date | None) -> tuple[date, date]:
    """[start, end) as given, else at any time."""
    return _in_order(since or EVER, until or NEVER)


def _in_order(start: date, end: date) -> tuple[date, date]:
    if start >= end:
        raise typer.BadParameter(f"--to {end} is not after --from {start}: it is the day after the last")
    return start, end


def _year_before(place: here.Here, since: date | None, until: date | None) -> tuple[date, date]:
    """[start, end) as given; else the twelve whole months before the end, the end being this month's first day."""
    end = until or place.now.astimezone(place.zone).date().replace(day=1)
    if since:
        if until is None and since >= end:
            raise typer.BadParameter(f"{since} is not before {end}, where this report ends without --to: give --to")
        return _in_order(since, end)
    return (end.replace(year=end.year - 1) if (end.month, end.day) != (2, 29) else end - timedelta(days=366)), end


def _put(found: Report, csv: Path | None, *, as_json: bool, title: str) -> None:
    if csv:
        rows = [[_plain(name, row[name]) for name in found.columns] for row in found.rows]
        show.write_csv(csv, found.columns, rows)
    if as_json:
        show.as_json(found.as_json())
    elif csv:
        show.line(f"{csv} is written.")
    else:
        heads = [name.replace("_", " ") for name in found.columns]
        shown = [[_shown(name, row[name]) for name in found.columns] for row in found.rows]
        show.table(
            title,
            [head if _is_text(name) else f">{head}" for head, name in zip(heads, found.columns, strict=True)],
            shown,
        )
        for name, value in found.more.items():
            show.line(f"{name.replace('_', ' ').capitalize()}: {_listed(value)}.")


def _is_text(column: str) -> bool:
    return column in ("period", "cohort", "campaign", "goal", "by_reason", "offer")


def _shown(column: str, value: Any) -> object:
    if column in ("rate", "low", "high", "contract_retention"):
        return show.percent(value)
    if column in MONEY:
        return _amounts(value)
    return _listed(value) if isinstance(value, Mapping) else value


def _listed(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{show.number(count)} {name.replace('_', ' ')}" for name, count in value.items()) or "none"
    return str(value)


def _amounts(value: Mapping[str, int]) -> str:
    return ", ".join(written(amount, currency) for currency, amount in value.items())


def _plain(column: str, value: Any) -> object:
    if column in MONEY:
        return _amounts(value)
    return _listed(value) if isinstance(value, Mapping) else value
