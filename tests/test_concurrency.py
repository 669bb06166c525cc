"""Real processes on one database: each message is written once and sent once, whatever they do to each other."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from outreach import channels, dispatcher, planner, releases, store
from outreach.channels import Outgoing, Receipt
from outreach.channels.outbox import Outbox
from outreach.dispatcher import recording
from outreach.models import (
    Consent,
    Contact,
    Customer,
    Enrolment,
    Fresh,
    Message,
    MessageContent,
    Scope,
    Status,
    Suppression,
    table,
)
from outreach.settings import Business, Cap, ChannelSettings, Settings
from outreach.store import Database
from outreach.values import Duration, Limit, WeekHours
from tests.conftest import NOW, SECRET
from tests.killing.processes import PRELOAD

CUSTOMERS, OPT_OUTS = 120, 30
CAMPAIGNS = ("first", "second")
CAMPAIGN = """
title: {name}
priority: {priority}
trigger: {{event: customer.created}}
steps:
  - {{id: hello, after: 0 minutes, channel: email, template: hello}}
"""
TEMPLATE = (
    "---\nsubject: Hola {{ customer.first_name }}\n---\n"
    '<p>Hola {{ customer.first_name }}</p><a href="{{ links.unsubscribe }}">Baja</a>'
)
FILES = {
    **{f"campaigns/{name}.yaml": CAMPAIGN.format(name=name, priority=9 - i) for i, name in enumerate(CAMPAIGNS)},
    "message_templates/hello.email.j2": TEMPLATE,
    "catalogue.json": "{}",
}
WENT = (Status.SENDING, Status.SENT, Status.UNKNOWN)
_messages, _enrolments, _contacts, _fresh = table(Message), table(Enrolment), table(Contact), table(Fresh)


LOGGED = "tests.test_concurrency.Logged"


class Logged(Outbox):
    """The outbox, which would hide a second hand-over, with a log of every one."""

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        return super().send(self._noted(message) for message in batch)

    def _noted(self, message: Outgoing) -> Outgoing:
        note(self.folder.parent, "handed_over", message.public_id)
        return message


def note(workspace: Path, log: str, line: str) -> None:
    """Append a short line, whole, also when others do."""
    file = os.open(workspace / log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{line}\n".encode())
    os.close(file)


def notes(workspace: Path, log: str) -> list[str]:
    path = workspace / log
    return path.read_text().splitlines() if path.exists() else []


@dataclass(frozen=True)
class Place:
    """Where the processes of one test meet."""

    url: str
    workspace: Path

    def open(self) -> tuple[Database, Settings]:
        settings = Settings(
            self.workspace,
            Business("Tienda Luna", "America/Mexico_City", "MXN"),
            channels={"email": ChannelSettings("outbox", "Tienda <hola@tienda.example>")},
            sending_hours={"default": WeekHours(((0, 1440),) * 7)},
            caps=(Cap(Limit(1, Duration(days=1)), purpose="marketing"),),
        )
        return store.open_database(self.url, secret=SECRET), settings


@pytest.fixture
def place(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A published release, and customers new since; every third shares its contact with the one before."""
    monkeypatch.setitem(channels.CHANNELS, "outbox", LOGGED)
    made = Place(database_url, tmp_path)
    db, settings = made.open()
    releases.publish(db, settings, FILES, NOW - timedelta(hours=1))
    with store.write(db) as connection:
        contact = 0
        for i in range(CUSTOMERS):
            if i % 3 != 2:
                contact = add_contact(connection, db, f"c{i}@example.com")
            values = {"external_id": f"c{i}", "email_id": contact, "first_name": "Ana", "created_at": NOW}
            values |= {"zones": "America/Mexico_City", "tags": [], "attributes": {}, "row_hash": b""}
            of = insert(table(Customer)).values(values).returning(table(Customer).c.id)
            customer = connection.execute(of).scalar_one()
            fresh = {"kind": "customer.created", "record_id": customer, "customer_id": customer, "at": NOW}
            connection.execute(insert(_fresh).values(fresh))
    db.engine.dispose()
    return made


def add_contact(connection: Any, db: Database, address: str) -> int:
    """A contact that granted e-mail marketing; gives its id."""
    values = {"kind": "email", "address": address, "address_hash": store.address_hash(db.secret, "email", address)}
    contact = int(connection.execute(insert(_contacts).values(values).returning(_contacts.c.id)).scalar_one())
    granted = {"contact_id": contact, "channel": "email", "status": "granted", "at": NOW, "by": "shop"}
    granted |= {"basis": "consent", "source": "", "words": "", "recorded_at": NOW}
    connection.execute(insert(table(Consent)).values(granted))
    return contact


# --- what the processes do -------------------------------------------------------------------------


def count(db: Database, of: Any, *where: Any) -> int:
    with store.read(db) as connection:
        return connection.execute(select(func.count()).select_from(of).where(*where)).scalar() or 0


def plan_all(place: Place, start: Any) -> None:
    db, settings = place.open()
    start.wait()
    while not everything_planned(db):
        planner.plan(db, settings, NOW)


def dispatch_all(place: Place, start: Any) -> None:
    db, settings = place.open()
    start.wait()
    c = _messages.c
    while True:
        complete = everything_planned(db)
        dispatcher.dispatch(db, settings, NOW, chunk=5)
        if complete and not count(db, _messages, c.status.in_([Status.PLANNED, Status.SENDING]), c.ready_at <= NOW):
            break


def dispatch_and_die(place: Place, start: Any, chunks: int) -> None:
    """Like a process that is killed after the hand-over of a chunk, before it can record it."""
    db, settings = place.open()
    start.wait()
    record, done = recording.record, iter(range(chunks))

    def dying(*arguments: Any) -> None:
        if next(done, None) is None:
            os._exit(9)
        record(*arguments)

    setattr(recording, "record", dying)  # noqa: B010  the type checker would not have it
    dispatcher.dispatch(db, settings, NOW, chunk=5)


def everything_planned(db: Database) -> bool:
    """Every occasion is taken up, and every enrolment's only step has its message."""
    with store.read(db) as connection:
        taken = connection.execute(select(func.count()).select_from(_enrolments)).scalar()
        assigned = connection.execute(select(func.count(_enrolments.c.arm))).scalar()
        written = connection.execute(select(func.count()).select_from(_messages)).scalar()
    return taken == CUSTOMERS * len(CAMPAIGNS) and assigned == written


def opt_out_all(place: Place, start: Any) -> None:
    """Opt out the very contacts that a dispatcher has in hand; else, now and then, one whose turn comes last."""
    db, _ = place.open()
    with store.read(db) as connection:
        left = {row.id: row for row in connection.execute(select(_contacts).order_by(_contacts.c.id))}
    start.wait()
    for number in range(OPT_OUTS):
        opt_out(place, db, left.pop(in_hand(db, left) or next_in_turn(db, left, number)))


def in_hand(db: Database, left: Mapping[int, Any]) -> int | None:
    c, of = _messages.c, table(Customer).c
    claimed = select(of.email_id).join(_messages, c.customer_id == of.id)
    claimed = claimed.where(c.claim.is_not(None), c.status == Status.PLANNED).order_by(c.id.desc())
    with store.read(db) as connection:
        return next((i for i in connection.execute(claimed).scalars() if i in left), None)


def next_in_turn(db: Database, left: Mapping[int, Any], number: int) -> int:
    while count(db, _messages, _messages.c.status == Status.SENT) < 2 * number and not everything_settled(db):
        if (found := in_hand(db, left)) is not None:
            return found
    return max(left)


def everything_settled(db: Database) -> bool:
    c = _messages.c
    waiting = count(db, _messages, c.status.in_([Status.PLANNED, Status.SENDING]), c.ready_at <= NOW)
    return everything_planned(db) and not waiting


def opt_out(place: Place, db: Database, contact: Any) -> None:
    """
    Suppress the contact under its lock, and note what had been committed for it by then.

    Whatever goes to it and is not in the note was committed after the opt-out.
    """
    with store.write(db) as connection:
        held = select(_contacts.c.id).where(_contacts.c.id == contact.id)
        connection.execute(held.with_for_update()).all()
        entry = {"address_hash": contact.address_hash, "kind": "email", "scope": Scope.CONTACT, "channel": "email"}
        connection.execute(insert(table(Suppression)).values(**entry, source="reply", at=NOW))
        gone = select(_messages.c.id).where(_messages.c.contact_id == contact.id, _messages.c.status.in_(WENT))
        before = connection.execute(gone.order_by(_messages.c.id)).scalars().all()
    note(place.workspace, "opted_out", f"{contact.id}:{','.join(map(str, before))}")


def together(place: Place, *work: tuple[Callable[..., None], tuple[Any, ...]]) -> list[int | None]:
    """Run each in a process of its own, from one starting signal on; gives their exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    start = context.Barrier(len(work))
    processes: list[BaseProcess] = [context.Process(target=alone, args=(place, start, *one)) for one in work]
    for process in processes:
        process.start()
    until = time.monotonic() + 120
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    for process in processes:
        process.kill()
    return [process.exitcode for process in processes]


def alone(place: Place, start: Any, what: Callable[..., None], more: tuple[Any, ...]) -> None:
    channels.CHANNELS["outbox"] = LOGGED
    what(place, start, *more)


# --- what must hold ------------------------------------------------------------------------------


def files(place: Place) -> list[str]:
    return [path.name[11:43] for path in (place.workspace / "outbox").glob("*.eml")]


def rows(db: Database, of: Any) -> list[Any]:
    with store.read(db) as connection:
        return list(connection.execute(select(of)).all())


def sent_per_contact(messages: Iterable[Any]) -> Counter[int]:
    return Counter(row.contact_id for row in messages if row.status in WENT)


def test_planners_dispatchers_and_opt_outs_at_once_write_and_send_everything_once(place: Place) -> None:
    codes = together(
        place,
        (plan_all, ()),
        (plan_all, ()),
        (dispatch_all, ()),
        (dispatch_all, ()),
        (dispatch_all, ()),
        (opt_out_all, ()),
    )

    db, _ = place.open()
    messages, enrolments = rows(db, _messages), rows(db, _enrolments)
    sent = [row for row in messages if row.status == Status.SENT]
    assert codes == [0] * 6
    # written once
    assert len(enrolments) == CUSTOMERS * len(CAMPAIGNS)
    assert Counter(row.enrolment_id for row in messages) == Counter(row.id for row in enrolments if row.arm)
    # sent once
    assert Counter(notes(place.workspace, "handed_over")) == Counter(row.public_id for row in sent)
    assert sorted(files(place)) == sorted(row.public_id for row in sent)
    assert sorted(row.message_id for row in rows(db, table(MessageContent))) == sorted(row.id for row in sent)
    assert {row.status for row in messages} <= {Status.SENT, Status.PLANNED, Status.SKIPPED}
    assert {row.blocked_by for row in messages if row.status == Status.PLANNED} <= {"cap"}
    # no cap broken: one marketing message a day for each contact
    assert set(sent_per_contact(messages).values()) == {1}
    # nothing left after its opt-out
    opted_out = dict(line.split(":") for line in notes(place.workspace, "opted_out"))
    assert len(opted_out) == OPT_OUTS
    for contact, before in opted_out.items():
        assert [str(row.id) for row in sent if row.contact_id == int(contact)] == [i for i in before.split(",") if i]
    db.engine.dispose()


def test_what_a_killed_dispatcher_handed_over_is_in_doubt_and_nobody_sends_it_again(place: Place) -> None:
    db, settings = place.open()
    planner.plan(db, settings, NOW)
    codes = together(place, (dispatch_and_die, (1,)), (dispatch_and_die, (0,)))
    dispatcher.dispatch(db, settings, NOW, chunk=5)  # leaves those alone that others were sending
    later: datetime = NOW + timedelta(hours=1)

    dispatcher.dispatch(db, settings, later, chunk=5)

    messages = rows(db, _messages)
    status = {row.public_id: row.status for row in messages}
    handed_over = Counter(notes(place.workspace, "handed_over"))
    assert codes == [9, 9]
    assert set(handed_over.values()) == {1}
    assert sorted(files(place)) == sorted(handed_over)
    assert {status[i] for i in handed_over} == {Status.SENT, Status.UNKNOWN}
    assert {i for i, s in status.items() if s in (Status.SENT, Status.UNKNOWN)} == set(handed_over)
    assert 2 <= Counter(status.values())[Status.UNKNOWN] <= 10
    assert set(sent_per_contact(messages).values()) == {1}
    assert {row.status for row in messages} == {Status.SENT, Status.UNKNOWN, Status.PLANNED}
    db.engine.dispose()
