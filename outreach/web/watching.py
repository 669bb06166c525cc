"""
What machines ask: /healthz, whether everything runs, and /metrics, how much of what.

Neither names anybody, a campaign or a number of people beyond counts; they are meant for the
machine itself and its monitoring, so a proxy need not pass them on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from outreach import __version__
from outreach.alerts.holding import PATIENCE
from outreach.errors import DatabaseError
from outreach.reports.health import LastTick, alarms, last_ticks, waiting
from outreach.settings import Settings
from outreach.web.intake import Reason, Site

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"  # prometheus.io/docs/instrumenting/exposition_formats
SERVICE = "outreach"  # by which `doctor` knows that an address leads here

_HEALTH: dict[int | str, dict[str, Any]] = {503: {"description": "The database is away, or a stage is overdue."}}
_METRICS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {}}},
    503: {"description": "The database is away."},
}


def routes(site: Site) -> APIRouter:
    """What machines ask."""
    router = APIRouter(tags=["watching"])

    @router.get("/healthz", responses=_HEALTH)
    def healthz() -> JSONResponse:
        """Whether the database can be used and no stage is overdue."""
        now = site.clock()
        try:
            ticks = last_ticks(site.db)
        except DatabaseError:
            site.count_refusal(Reason.UNAVAILABLE)
            return JSONResponse({"service": SERVICE, "ok": False, "database": False, "stages": {}}, 503)
        stages = {stage: _stage(site.settings, stage, tick, now) for stage, tick in ticks.items()}
        ok = not any(stage["overdue"] for stage in stages.values())
        return JSONResponse({"service": SERVICE, "ok": ok, "database": True, "stages": stages}, 200 if ok else 503)

    @router.get("/metrics", response_class=Response, responses=_METRICS)
    def metrics() -> Response:
        """Figures in the text format of Prometheus."""
        return Response("".join(_lines(site)), media_type=PROMETHEUS)

    return router


def _stage(settings: Settings, stage: str, tick: LastTick, now: datetime) -> dict[str, Any]:
    return {
        "finished_at": tick.finished_at.isoformat(timespec="seconds"),
        "failed": tick.failed,
        "overdue": now - tick.finished_at > patience(settings, stage),
    }


def patience(settings: Settings, stage: str) -> timedelta:
    """How long a stage may take to finish its next tick: a quarter of an hour, or three of its rounds."""
    every = settings.clock.get(stage)
    return max(PATIENCE, 3 * every.clock) if every else PATIENCE


def _lines(site: Site) -> Iterator[str]:
    now = site.clock()
    left, ticks = waiting(site.db, now), last_ticks(site.db)
    yield from _family("outreach_info", "gauge", "The program.", {f'version="{__version__}"': 1})
    unsettled = {"planned": left.planned, "sending": left.sending, "unknown": left.unknown}
    text = "Messages that are not settled yet, by status."
    yield from _family("outreach_messages", "gauge", text, _by("status", unsettled))
    text = "Planned messages whose time has come."
    yield from _family("outreach_messages_due", "gauge", text, {"": left.due})
    text = "Messages ever written, whatever became of them."
    yield from _family("outreach_messages_written_total", "counter", text, {"": left.written})
    text = "What a person should know that holds now, by kind."
    yield from _family("outreach_alarms", "gauge", text, _by("kind", dict(sorted(alarms(site.db).items()))))
    text = "Events and replies that are stored and not handled yet."
    yield from _family("outreach_inbox_waiting", "gauge", text, {"": left.inbox})
    text = "Events and replies that this process has stored, by who brought them; repeats count."
    yield from _family("outreach_taken_total", "counter", text, _by("source", dict(sorted(site.taken.items()))))
    text = "Requests that this process has refused."
    refused = {reason.value: site.refused[reason] for reason in Reason}
    yield from _family("outreach_refused_total", "counter", text, _by("reason", refused))
    times = {stage: tick.seconds for stage, tick in ticks.items()}
    yield from _family("outreach_stage_seconds", "gauge", "How long the last tick took.", _by("stage", times))
    ages = {stage: tick.finished_at.timestamp() for stage, tick in ticks.items()}
    text = "When the last tick ended, in seconds since 1970."
    yield from _family("outreach_stage_finished_timestamp_seconds", "gauge", text, _by("stage", ages))
    failed = {stage: int(tick.failed) for stage, tick in ticks.items()}
    yield from _family("outreach_stage_failed", "gauge", "Whether the last tick failed.", _by("stage", failed))


def _by(label: str, values: Mapping[str, float]) -> dict[str, float]:
    """Our own words alone become labels, so nothing in them needs a backslash."""
    return {f'{label}="{name}"': value for name, value in values.items()}


def _family(name: str, kind: str, text: str, values: Mapping[str, float]) -> Iterator[str]:
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
    for labels, value in values.items():
        yield f"{name}{{{labels}}} {value}\n" if labels else f"{name} {value}\n"
