"""`tasks`: what a person is to do: calls and visits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outreach.cli import here, show

if TYPE_CHECKING:
    from outreach.dispatcher.tasks import Task

app = typer.Typer(rich_markup_mode=None)
tasks = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Calls and visits that a person makes.")
app.add_typer(tasks, name="tasks")

RESULTS = "reached, no_answer, call_back, wrong_number, do_not_call or not_called"


@tasks.command("list")
def list_(ctx: typer.Context, as_json: show.Json = False) -> None:
    """
    List the tasks that are open or in doubt, then those that wait, in the order in which `tasks next` gives them.

    Those of a paused campaign come last: `tasks next` passes them over until it is resumed.
    """
    from outreach import releases
    from outreach.dispatcher import tasks as work

    place = here.here(ctx)
    db = here.database(place.settings)
    paused = releases.paused(db)
    found = sorted(work.listed(db, place.settings), key=lambda task: _is_held(task, paused))
    if as_json:
        show.as_json({"tasks": [_plain(task) | {"paused": _is_held(task, paused)} for task in found]})
        return
    rows = [
        (
            task.id[:12],
            "paused" if _is_held(task, paused) else task.status,
            task.name or task.customer,
            task.channel,
            f"{task.campaign}/{task.step}",
            show.when(task.due_at, place.zone),
            show.when(task.best_before, place.zone),
            task.calls,
        )
        for task in found
    ]
    heads = ("Task", "Status", "Customer", "Channel", "Step", "Due", "Best before", ">Calls")
    show.table(f"{show.number(len(found))} task{'s' * (len(found) != 1)}", heads, rows)
    if any(task.status == "waiting" and not _is_held(task, paused) for task in found):
        show.line("Open the most urgent one with: outreach tasks next")


@tasks.command("next")
def next_(
    ctx: typer.Context,
    task: Annotated[str, typer.Option("--task", help="This one, instead of the most urgent.")] = "",
    as_json: show.Json = False,
) -> None:
    """Open the most urgent task that every rule still lets pass, and show whom to call and what to say."""
    from outreach.dispatcher import tasks as work

    place = here.here(ctx)
    db = here.database(place.settings)
    opened = work.open_next(db, place.settings, place.now, task=work.full_id(db, task) if task else "")
    if as_json:
        extra = {"address": opened.address, "script": opened.script, "survey": opened.survey} if opened else {}
        show.as_json({"task": {**_plain(opened.task), **extra} if opened else None})
        return
    if opened is None:
        show.line("No task can be opened now.")
        return
    one = opened.task
    show.line(show.cell(f"{one.channel.capitalize()} {one.name or one.customer} at {opened.address}"))
    show.line(show.cell(f"{one.campaign}/{one.step}, best before {show.when(one.best_before, place.zone)}"))
    show.line("")
    for line in opened.script.splitlines():
        show.line(show.cell(line))
    show.line("")
    scored = " --score N" if opened.survey else ""
    show.line(f"Then say: outreach tasks done {one.id[:12]} reached{scored}   (or {RESULTS.removeprefix('reached, ')})")


@tasks.command("done")
def done(
    ctx: typer.Context,
    task: Annotated[str, typer.Argument(help="The task, as `tasks next` shows it.")],
    result: Annotated[str, typer.Argument(metavar="RESULT", help=f"What became of it: {RESULTS}.")],
    score: Annotated[int | None, typer.Option(help="The answer to the step's survey.")] = None,
    notes: Annotated[str, typer.Option(help="What was said, in your own words.")] = "",
    at: Annotated[
        datetime | None,
        typer.Option(
            "--at",
            help="call_back: when, in the business's time zone.",
            formats=["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"],
        ),
    ] = None,
    as_json: show.Json = False,
) -> None:
    """Record what became of an opened task."""
    from outreach.dispatcher import tasks as work

    place = here.here(ctx)
    try:
        said = work.Result(result.lower().replace("-", "_"))
    except ValueError:
        raise typer.BadParameter(f"{result!r} is not a result: write {RESULTS}") from None
    db = here.database(place.settings)
    call_at = here.at(at, place.settings.business.timezone) if at else None
    one = work.full_id(db, task)
    follows = work.done(db, place.settings, one, said, place.now, score=score, notes=notes, call_at=call_at)
    if as_json:
        show.as_json({"task": one, "result": said.value, "follows": follows})
        return
    show.line(f"{one[:12]}: {follows}.")


def _is_held(task: Task, paused: Collection[str]) -> bool:
    return task.status == "waiting" and task.campaign in paused


def _plain(task: Task) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(task).items()}
