"""`cases`: complaints, cancellations, returns, refund requests and questions."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from outreach.cli import here, show

if TYPE_CHECKING:
    from outreach.cases import Case
    from outreach.cli.here import Here

app = typer.Typer(rich_markup_mode=None)
cases = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Complaints, cancellations, returns, refunds and questions."
)
app.add_typer(cases, name="cases")

KINDS = "complaint, cancellation, return, refund or question"
OUTCOMES = "resolved or unresolved; of a cancellation also kept or lost"

CaseName = Annotated[str, typer.Argument(metavar="CASE", help="The case, as `cases list` shows it.")]
By = Annotated[str, typer.Option("--by", help="Who does this; the name you are logged in with if not given.")]
Said = Annotated[str, typer.Option("--note", help="What there is to say about it, for the case's log.")]


@cases.command("open")
def open_(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"What it is: {KINDS}.")],
    customer: Annotated[str, typer.Argument(help="Whose it is: the shop's own id.")],
    order: Annotated[str | None, typer.Option(help="The order it is about: the shop's own id.")] = None,
    category: Annotated[str | None, typer.Option(help="Your own word for what it is about, such as shipping.")] = None,
    sku: Annotated[str | None, typer.Option(help="The product it is about.")] = None,
    note: Said = "",
    by: By = "",
    as_json: show.Json = False,
) -> None:
    """Open a case; an open one of the same customer and kind is joined."""
    from outreach import cases as work

    if kind not in work.KINDS:
        raise typer.BadParameter(f"{kind!r} is no kind of case: write {KINDS}")
    place = here.here(ctx)
    opening = work.Opening(kind, 0, place.now, _who(by), category=category, sku=sku, note=note)
    db = here.database(place.settings)
    name, new = work.open_for(db, place.settings, place.now, customer, order, opening)
    if as_json:
        show.as_json({"case": work.show(db, place.now, name), "new": new})
    else:
        show.line(f"Case {name} is open." if new else f"It is noted in case {name}, which is open already.")


@cases.command("list")
def list_(
    ctx: typer.Context,
    customer: Annotated[str | None, typer.Option(help="Only those of this customer: the shop's own id.")] = None,
    kind: Annotated[str | None, typer.Option(help=f"Only those of this kind: {KINDS}.")] = None,
    is_open: Annotated[
        bool | None, typer.Option("--open/--closed", help="Only open ones, or only closed ones.")
    ] = None,
    assignee: Annotated[str | None, typer.Option(help="Only those that this person looks after.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=show.MOST, help="Only the first so many.")] = None,
    as_json: show.Json = False,
) -> None:
    """List cases: overdue ones first, then by target time; closed ones last."""
    from outreach import cases as work

    if kind is not None and kind not in work.KINDS:
        raise typer.BadParameter(f"{kind!r} is no kind of case: write {KINDS}")
    place = here.here(ctx)
    found = work.listed(
        here.database(place.settings),
        place.now,
        customer=customer,
        kind=kind,
        is_open=is_open,
        assignee=assignee,
        limit=limit,
    )
    if as_json:
        show.as_json({"cases": found})
        return
    rows = [
        (
            one.id,
            one.kind,
            one.customer,
            show.when(one.opened_at, place.zone),
            _state(one, place),
            show.when(one.answered_at, place.zone),
            one.assignee,
            one.contacts,
            one.category,
        )
        for one in found
    ]
    heads = ("Case", "Kind", "Customer", "Opened", "State", "Answered", "Assignee", ">Contacts", "Category")
    late = sum(one.overdue for one in found)
    title = f"{show.number(len(found))} case{'s' * (len(found) != 1)}" + (f", {late} overdue" if late else "")
    show.table(title if found else "Cases", heads, rows)


@cases.command("show")
def show_(ctx: typer.Context, case: CaseName, as_json: show.Json = False) -> None:
    """Show one case and its log."""
    from outreach import cases as work

    place = here.here(ctx)
    one = work.show(here.database(place.settings), place.now, case)
    if as_json:
        show.as_json({"case": one})
        return
    show.line(show.cell(f"{one.id}: {one.kind} of {one.customer}, {_state(one, place)}"))
    parts = {
        "Category": one.category,
        "Order": one.order,
        "Product": one.sku,
        "Assignee": one.assignee,
        "First answered": one.answered_at and show.when(one.answered_at, place.zone),
        "Opened again": one.reopened or None,
        "Contacts": one.contacts,
        "Note": one.note,
    }
    for name, value in parts.items():
        if value is not None:
            show.line(f"{name}: {show.cell(value)}")
    show.line("")
    rows = [(show.when(line.at, place.zone), line.kind, line.by, line.text) for line in one.log]
    show.table("Log", ("At", "What", "By", "Text"), rows)


@cases.command("assign")
def assign(
    ctx: typer.Context,
    case: CaseName,
    to: Annotated[str, typer.Argument(help="Who looks after it; empty quotes for nobody.")],
    by: By = "",
    as_json: show.Json = False,
) -> None:
    """Say who looks after an open case."""
    from outreach import cases as work

    place = here.here(ctx)
    work.assign(here.database(place.settings), place.now, case, to.strip(), _who(by))
    _done(place, case, f"{case} is looked after by {to.strip() or 'nobody'}.", as_json=as_json)


@cases.command("note")
def note(
    ctx: typer.Context,
    case: CaseName,
    text: Annotated[str, typer.Argument(help="What there is to say.")],
    by: By = "",
    as_json: show.Json = False,
) -> None:
    """Write a note into a case's log."""
    from outreach import cases as work

    place = here.here(ctx)
    work.note(here.database(place.settings), place.now, case, text, _who(by))
    _done(place, case, f"{case}: noted.", as_json=as_json)


@cases.command("answer")
def answer(ctx: typer.Context, case: CaseName, note: Said = "", by: By = "", as_json: show.Json = False) -> None:
    """Note that a person answered the customer; the first time is kept."""
    from outreach import cases as work

    place = here.here(ctx)
    work.answer(here.database(place.settings), place.now, case, note, _who(by))
    _done(place, case, f"{case}: answered.", as_json=as_json)


@cases.command("close")
def close(
    ctx: typer.Context,
    case: CaseName,
    outcome: Annotated[str, typer.Argument(metavar="OUTCOME", help=f"How it ended: {OUTCOMES}.")],
    note: Said = "",
    by: By = "",
    as_json: show.Json = False,
) -> None:
    """Close a case with its outcome."""
    from outreach import cases as work

    if outcome not in work.OUTCOMES:
        raise typer.BadParameter(f"{outcome!r} is no outcome: write {OUTCOMES}")
    place = here.here(ctx)
    work.close(here.database(place.settings), place.now, case, outcome, note, _who(by))
    _done(place, case, f"{case} is closed: {outcome}.", as_json=as_json)


@cases.command("reopen")
def reopen(ctx: typer.Context, case: CaseName, note: Said = "", by: By = "", as_json: show.Json = False) -> None:
    """Open a closed case again, with a new target time."""
    from outreach import cases as work

    place = here.here(ctx)
    work.reopen(here.database(place.settings), place.settings, place.now, case, note, _who(by))
    _done(place, case, f"{case} is open again.", as_json=as_json)


def _who(by: str) -> str:
    """Who does this. Whatever outreach itself writes there is nobody's name."""
    if by.strip():
        return by.strip()
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "person"


def _state(one: Case, place: Here) -> str:
    if one.closed_at is not None and one.closed_at <= place.now:
        return f"{one.outcome or 'closed'} {show.when(one.closed_at, place.zone)}"
    if one.due_at is None:
        return "open"
    return f"{'OVERDUE since' if one.overdue else 'open, due'} {show.when(one.due_at, place.zone)}"


def _done(place: Here, case: str, said: str, *, as_json: bool) -> None:
    from outreach import cases as work

    if as_json:
        show.as_json({"case": work.show(here.database(place.settings), place.now, case)})
    else:
        show.line(show.cell(said))
