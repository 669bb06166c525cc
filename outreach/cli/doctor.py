"""`doctor`: whether everything that messages need is there, without sending any."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path, PurePath
from queue import Empty, SimpleQueue
from urllib.parse import unquote, urlsplit

import typer

from outreach import channels, settings
from outreach.channels import Finding
from outreach.cli import here, show
from outreach.cli.here import Here
from outreach.cli.workspace_files import NO_ADDRESS
from outreach.errors import ChannelError, DatabaseError
from outreach.setting_keys import STAFF
from outreach.settings import Settings

app = typer.Typer(rich_markup_mode=None)

LIMIT_SECONDS = 10.0  # for all providers together
SKEW = timedelta(minutes=1)
# File systems on which SQLite's write-ahead log does not work: www.sqlite.org/wal.html, "Overview", 3.
NETWORKS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs"})


@dataclass(frozen=True)
class About:
    """A finding, and what it is about."""

    about: str  # database, secret, postal address, public_url, clock, time zones, sources, alerts, or a channel
    finding: Finding


@app.command()
def doctor(ctx: typer.Context, as_json: show.Json = False) -> None:
    """Look whether providers, database and settings are ready to send."""
    place = here.here(ctx)
    found = [*_surroundings(place), *_channels(place.settings)]
    wrong = any(_mark(one.finding) == "✗" for one in found)
    if as_json:
        listed = [{"about": one.about, **_plain(one.finding)} for one in found]
        show.as_json({"ok": not wrong, "findings": listed})
    else:
        for one in found:
            hint = f" ({one.finding.hint})" if one.finding.hint and not one.finding.ok else ""
            show.line(f"{_mark(one.finding)} {one.about}: {show.cell(one.finding.text + hint)}")
    if wrong:
        raise typer.Exit(1)


def _plain(finding: Finding) -> dict[str, object]:
    return {"ok": finding.ok, "warning": finding.warning, "text": finding.text, "hint": finding.hint}


def _mark(finding: Finding) -> str:
    return "✓" if finding.ok else "!" if finding.warning else "✗"


def _good(text: str) -> Finding:
    return Finding(ok=True, text=text)


def _doubtful(text: str, hint: str) -> Finding:
    return Finding(ok=False, text=text, hint=hint, warning=True)


def _wrong(text: str, hint: str) -> Finding:
    return Finding(ok=False, text=text, hint=hint)


# --- what is here --------------------------------------------------------------------------------------------------


def _surroundings(place: Here) -> Iterator[About]:
    parts = {
        "database": _database(place.settings),
        "clock": _clock(place.settings, place.now),
        "time zones": _time_zones(place.settings),
        "postal address": _postal_address(place.settings),
        "public_url": _public_url(place.settings),
        "what comes back": _answers(place.settings),
        "sources": _sources(place.settings),
        "alerts": _alerts(place.settings),
        "mailbox": _mailbox(place.settings),
    }
    for about, findings in parts.items():
        yield from (About(about, finding) for finding in findings)


def _database(used: Settings) -> Iterator[Finding]:
    from outreach import store

    file = _sqlite_file(used)
    if file is not None:
        kind = _file_system(file.parent)
        if kind in NETWORKS:
            text = f"{file.name} lies on a network file system ({kind}), where SQLite can lose what it wrote"
            yield _wrong(text, "put it on a local disk, or move to PostgreSQL")
        if not file.is_file():
            yield _doubtful(f"there is no database at {file} yet", "`outreach import` makes it")
            return
    try:
        engine = store.make_engine(used.database)
        try:
            version = store.version(engine)
        finally:
            engine.dispose()
        if version != store.HEAD and file is not None and (version or "") < store.HEAD:
            yield _doubtful("its tables are of an earlier version", "the next verb that uses it brings them up to date")
            return
        db = here.database(used)
        db.engine.dispose()
    except DatabaseError as error:
        yield _wrong(str(error), "mend that first")
        return
    yield _good(f"{'SQLite' if file else 'PostgreSQL'} can be used, at version {store.HEAD}")
    where = "comes from OUTREACH_SECRET" if used.secret else "is kept in the database: a backup of it holds it, too"
    yield _good(f"the secret behind ids and links {where}")


def _sqlite_file(used: Settings) -> Path | None:
    if not used.database.startswith("sqlite"):
        return None
    return Path(unquote(used.database.partition(":///")[2].partition("?")[0]))


def _file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The kind of the file system that a folder is on; empty where the system does not say (proc(5))."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    real = folder.resolve()
    found, kind = PurePath("/"), ""
    for line in lines:
        words = line.split()
        point = PurePath(words[1].replace("\\040", " "))
        if real.is_relative_to(point) and len(point.parts) >= len(found.parts):
            found, kind = point, words[2]
    return kind


def _clock(used: Settings, now: datetime) -> Iterator[Finding]:
    """Against the newest time that the stages have seen: they refuse an earlier one."""
    from outreach.reports import status

    try:
        newest = status.read(used.database, now).newest
    except DatabaseError:
        return  # there is none yet, or that has just been said
    if newest is not None and now < newest - SKEW:
        text = f"it is {now:%Y-%m-%d %H:%M} UTC here, and the database has already seen {newest:%Y-%m-%d %H:%M}"
        yield _wrong(text, "set the machine's clock, by NTP if it can be")
    else:
        yield _good(f"it is {now:%Y-%m-%d %H:%M} UTC")


def _time_zones(used: Settings) -> Iterator[Finding]:
    """
    Whether the data is recent, told by two changes of law in our markets.

    Mexico has no daylight saving time since 2022 (IANA's release 2022f), Paraguay is at -03:00 all
    year since 2024 (release 2024b): data.iana.org/time-zones/tzdb/NEWS.
    """
    from zoneinfo import ZoneInfo

    known = {"America/Mexico_City": datetime(2026, 6, 15), "America/Asuncion": datetime(2026, 7, 1)}  # noqa: DTZ001
    hours = [at.replace(tzinfo=ZoneInfo(name)).utcoffset() for name, at in known.items()]
    if hours == [timedelta(hours=-6), timedelta(hours=-3)]:
        yield _good(f"the time zone data is recent; the business is in {used.business.timezone}")
    else:
        text = "the time zone data is years old: hours are wrong in Mexico or Paraguay"
        yield _doubtful(text, "upgrade the system's package `tzdata`, and Python's")


def _postal_address(used: Settings) -> Iterator[Finding]:
    email = used.channels.get("email")
    if email is None or email.is_stand_in:
        return
    address = used.business.postal_address
    if address and address != NO_ADDRESS:
        yield _good(f"marketing e-mails show {address}")
    else:
        missing = "is not set" if not address else "is still the one that `outreach init` wrote"
        text = f"`business.postal_address` {missing}, and marketing e-mails must show where the shop is"
        yield _doubtful(text, "write the shop's own into outreach.yaml")


def _public_url(used: Settings) -> Iterator[Finding]:
    real = sorted(n for n, channel in used.channels.items() if channel.provider != STAFF and not channel.is_stand_in)
    url = urlsplit(used.public_url)
    if not real:
        yield _good(f"links begin with {used.public_url}; nothing leaves this machine yet")
    elif not _is_public(url.hostname or ""):
        text = f"{used.public_url} leads nowhere outside, and {', '.join(real)} would reach people"
        yield _wrong(text, "set `public_url` to the https address at which this machine is reached")
    elif url.scheme != "https":
        text = f"{used.public_url} is not https: who opens a link can be seen, and providers may not call back"
        yield _doubtful(text, "put it behind https")
    else:
        yield _good(f"links lead to {used.public_url}")


def _answers(used: Settings) -> Iterator[Finding]:
    """Whether `public_url` leads to a web app of ours, asked the way a provider would ask it."""
    if all(channel.provider == STAFF or channel.is_stand_in for channel in used.channels.values()):
        return
    said = _health(f"{used.public_url.rstrip('/')}/healthz")
    if said is None:
        text = (
            f"nothing of outreach answers at {used.public_url}: nobody can unsubscribe, and no report or reply arrives"
        )
        yield _doubtful(
            text, "start `outreach run` and lead that address to it (docs/how-to/put-the-pages-on-the-web.md)"
        )
    elif said.get("ok") is not True:
        yield _doubtful(f"{used.public_url} is answered, but not everything runs there", "see `outreach status`")
    else:
        yield _good(f"webhooks and the links in messages are answered at {used.public_url}")


def _health(url: str) -> dict[str, object] | None:
    """What the web app says of itself; None where something else answers, or nothing."""
    import json
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        try:
            answer = urlopen(url, timeout=LIMIT_SECONDS / 2)  # noqa: S310  the settings' own http or https address
        except HTTPError as error:
            answer = error
        with answer:
            said = json.loads(answer.read(100_000))
    except (OSError, ValueError, HTTPException):
        return None
    return said if isinstance(said, dict) and said.get("service") == "outreach" else None


def _is_public(host: str) -> bool:
    try:
        return ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".localhost", ".local", ".internal"))


def _sources(used: Settings) -> Iterator[Finding]:
    files = [file for source in used.sources for file in source.files.values()]
    missing = [file for file in files if not (used.workspace / file).is_file()]
    for file in missing:
        yield _wrong(f"there is no {file}", "put it there, or mend `sources` in outreach.yaml")
    if not files:
        yield _doubtful("none is configured", "name your files under `sources`, or import them by hand")
    elif not missing:
        yield _good(f"{', '.join(files)}")


def _alerts(used: Settings) -> Iterator[Finding]:
    told = [name for name in ("email", "webhook") if used.alerts.get(name)]
    email = used.channels.get("email")
    wrong = [one for one in settings.problems(used) if one.text.startswith("`alerts.")]
    yield from (_wrong(one.text, one.hint) for one in wrong)
    if not told:
        yield _doubtful("nobody is told when something is wrong", "write `alerts: {email: you@shop.example}`")
    elif "email" in told and email is None:
        yield _wrong("they go by e-mail, and the channel email is not configured", "add `email` under `channels`")
    elif told == ["email"] and email is not None and email.provider == "outbox":
        yield _doubtful("they are only written to the folder outbox", "give `channels.email` a provider that sends")
    elif not wrong:
        yield _good(f"they go by {' and '.join(told)}")


def _mailbox(used: Settings) -> Iterator[Finding]:
    """Log in and open the folder, where one is named."""
    box = used.mailbox
    if box is None or not box.host:
        return
    wrong = [one for one in settings.problems(used) if one.text.startswith("`mailbox`")]
    yield from (_wrong(one.text, one.hint) for one in wrong)
    if not wrong:
        from outreach.channels import imap

        yield from imap.check(used, box)


# --- providers -------------------------------------------------------------------------------------------------------


def _channels(used: Settings) -> list[About]:
    """What each channel's provider says; where the settings are wrong it is not asked."""
    found: dict[str, list[Finding]] = {name: [] for name in used.channels}
    for name, channel in used.channels.items():
        for one in settings.channel_problems(used, name):
            may_wait = one.warning and one.id != "missing-secret"  # without it nothing can be asked here
            found[name].append(Finding(ok=False, text=one.text, hint=one.hint, warning=may_wait))
        if not found[name] and channel.provider == STAFF:
            found[name].append(_good("calls become tasks: `outreach tasks list`"))
    _ask(used, [name for name, findings in found.items() if not findings], found)
    if not used.channels:
        return [About("channels", _wrong("none is configured", "write channels: {email: {provider: outbox}}"))]
    return [About(name, finding) for name, findings in found.items() for finding in findings]


def _ask(used: Settings, names: Sequence[str], found: dict[str, list[Finding]]) -> None:
    """
    Ask all at once, and wait no longer than the limit in all.

    Their threads are daemons: one that is stuck in a dead network keeps nobody waiting.
    """
    said: SimpleQueue[tuple[str, Finding | None]] = SimpleQueue()
    asked = set(names)
    outboxes = [name for name in names if used.channels[name].provider == "outbox"]  # they share one folder
    for together in (outboxes, *([name] for name in names if name not in outboxes)):
        threading.Thread(target=_in_turn, args=(used, together, said), daemon=True).start()
    end = time.monotonic() + LIMIT_SECONDS
    while asked:
        try:
            name, finding = said.get(timeout=max(0.0, end - time.monotonic()))
        except Empty:
            break
        if finding is None:
            asked.discard(name)
        else:
            found[name].append(finding)
    for name in sorted(asked):
        text = f"{used.channels[name].provider} did not answer within {LIMIT_SECONDS:g} seconds"
        found[name].append(_wrong(text, "look at the network, and at a firewall or proxy between"))


def _in_turn(used: Settings, names: Sequence[str], said: SimpleQueue[tuple[str, Finding | None]]) -> None:
    for name in names:
        _one(used, name, said)


def _one(used: Settings, name: str, said: SimpleQueue[tuple[str, Finding | None]]) -> None:
    """Every finding of one channel as it comes, then None."""
    try:
        channel = channels.open_channel(name, used)
        try:
            for finding in channel.check():
                said.put((name, finding))
        finally:
            channel.close()
    except ChannelError as error:
        said.put((name, _wrong(str(error), "mend it in outreach.yaml")))
    except Exception as error:
        text = f"it cannot be looked at ({type(error).__name__})"  # its own text may hold anything
        said.put((name, _wrong(text, "try again; if it stays so, it is a fault of ours")))
    finally:
        said.put((name, None))
