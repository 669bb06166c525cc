"""Making codes, taking them from a file, marking them live, and making them void."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, text, update

from outreach import store
from outreach.coupons.codes import MOST, SHARED_MARK, Refused, generate, key_of, read
from outreach.coupons.holding import State, coupons, lock, of_code
from outreach.errors import NotFound, OutreachError
from outreach.settings import Offer, Settings
from outreach.store import BATCH, Database, among, in_chunks
from outreach.yamlfile import did_you_mean


@dataclass
class Taken:
    """What became of the codes of a file."""

    codes: list[str] = field(default_factory=list)  # that were taken, or marked live
    unchanged: int = 0  # that were so already
    refused: list[Refused] = field(default_factory=list)


def offer_of(settings: Settings, name: str) -> Offer:
    """
    The offer of this name, as the settings have it.

    Raises:
        NotFound: there is none.
    """
    if (offer := settings.offers.get(name)) is not None:
        return offer
    near = did_you_mean(name, list(settings.offers))
    have = ", ".join(settings.offers) or "none"
    raise NotFound(f"there is no offer {name!r}: outreach.yaml has {have}" + (f" ({near})" if near else ""))


def make(db: Database, offer: Offer, count: int, now: datetime) -> list[str]:
    """
    So many new codes of the offer, which nobody can guess; the shop's cart does not know them yet.

    A thousand a transaction: cut off, those that were written are `made`, and `coupons export` shows them.

    Raises:
        OutreachError: the offer's codes are not generated, or these are more than one call makes.
    """
    if not offer.is_generated:
        how = "everybody has the same code" if offer.shared_code else f"they come from {offer.codes}"
        raise OutreachError(f"the offer {offer.name} has no generated codes: {how}")
    if count > MOST:
        raise OutreachError(f"{count:,} codes are too many at once: make at most {MOST:,}")
    made: list[str] = []
    while len(made) < count:
        with store.write(db) as connection:
            lock(connection, [offer.name])
            drawn = generate(offer.prefix, min(BATCH, count - len(made)))
            known = _statuses(connection, drawn)
            new = [code for code in drawn if key_of(code) not in known]
            _insert(connection, offer, new, State.MADE, now)
        made += new
    return made


def take(db: Database, offer: Offer, path: Path, now: datetime) -> Taken:
    """
    The codes of a file from the shop's cart, live at once; the same file again takes nothing.

    Refused by line: what cannot be a code, a code that stands twice in the file, and one that another offer has.

    Raises:
        OutreachError: everybody has the same code of the offer.
        ImportFileError: the file cannot be read.
    """
    if offer.shared_code:
        raise OutreachError(f"the offer {offer.name} has one code for everybody: there is nothing to take from a file")
    codes, refused = read(path)
    taken = Taken(refused=refused)
    for some in in_chunks(codes):
        with store.write(db) as connection:
            lock(connection, [offer.name])
            known = _statuses(connection, [code for _, code in some])
            new = []
            for line, code in some:
                row = known.get(key_of(code))
                if row is None:
                    new.append(code)
                elif row.offer == offer.name and row.status == State.LIVE:
                    taken.unchanged += 1
                else:
                    taken.refused.append(Refused(line, _used(row, offer.name)))
            _insert(connection, offer, new, State.LIVE, now)
        taken.codes += new
    taken.refused.sort(key=lambda one: one.line)
    return taken


def _used(row: Any, offer: str) -> str:
    if row.offer != offer:
        return f"it is a code of the offer {row.offer}"
    if row.status == State.MADE:
        return "it was made here: mark it live with `outreach coupons activate`"
    if row.status == State.VOID:
        return _void(row)
    return f"it has been used already: it is {row.status}"


def _void(row: Any) -> str:
    return f"it is void: {row.reason}" if row.reason else "it is void"


def activate(db: Database, path: Path) -> Taken:
    """
    Mark the codes of a file live: the shop's cart knows them now, and customers may get them.

    Refused by line: what cannot be a code, what stands twice, codes that nobody made here, and void ones.

    Raises:
        ImportFileError: the file cannot be read.
    """
    codes, refused = read(path)
    taken = Taken(refused=refused)
    for some in in_chunks(codes):
        with store.write(db) as connection:
            known = _statuses(connection, [code for _, code in some])
            lock(connection, {row.offer for row in known.values()})
            known = _statuses(connection, [code for _, code in some])
            live = []
            for line, code in some:
                row = known.get(key_of(code))
                if row is None:
                    taken.refused.append(Refused(line, "nobody made this code here"))
                elif row.status == State.MADE:
                    live.append(row)
                elif row.status == State.VOID:
                    taken.refused.append(Refused(line, _void(row)))
                else:
                    taken.unchanged += 1
            _set_live(connection, [row.id for row in live])
        taken.codes += [row.code for row in live]
    taken.refused.sort(key=lambda one: one.line)
    return taken


def activate_all(db: Database, offer: str) -> int:
    """Mark every code of the offer live that was made; gives how many."""
    c, done = coupons.c, 0
    while True:
        with store.write(db) as connection:
            lock(connection, [offer])
            query = select(c.id).where(text("status = 'made'"), c.offer == offer).order_by(c.id).limit(BATCH)
            ids = connection.execute(query).scalars().all()
            _set_live(connection, ids)
        done += len(ids)
        if len(ids) < BATCH:
            return done


def void(db: Database, codes: Sequence[str], reason: str, now: datetime) -> list[str]:
    """
    Make codes void: nobody gets them any more, and who uses one later is recorded so. Gives those that were not.

    A shared code's rows are all made void; who is sent it later has a new one.

    Raises:
        NotFound: one of them is no code of ours; then none is void.
        OutreachError: one of them has been redeemed; then none is void.
    """
    with store.write(db) as connection:
        rows = _rows(connection, codes)
        lock(connection, {row.offer for row in rows})
        rows = _rows(connection, codes)
        for row in rows:
            if row.status == State.REDEEMED and row.used >= max(row.uses, 1) and SHARED_MARK not in row.key:
                raise OutreachError(f"the code {row.code} has been redeemed: there is nothing to make void")
        ids = [row.id for row in rows if row.voided_at is None]
        values = {"status": State.VOID, "voided_at": now, "reason": reason}
        connection.execute(update(coupons).where(among(coupons.c.id, ids)).values(values))
    return [row.code for row in rows if row.voided_at is None]


def _rows(connection: Connection, codes: Sequence[str]) -> list[Any]:
    found: list[Any] = []
    for code in codes:
        rows = connection.execute(select(coupons).where(of_code(code)).order_by(coupons.c.id)).all()
        if not rows:
            raise NotFound(f"there is no code {code!r}: `outreach coupons list` shows those there are")
        found += rows
    return found


# --- rows ------------------------------------------------------------------------------------------


def _statuses(connection: Connection, codes: Iterable[str]) -> dict[str, Any]:
    c = coupons.c
    query = select(c.id, c.key, c.code, c.offer, c.status, c.reason).where(
        among(c.key, {key_of(code) for code in codes})
    )
    return {row.key: row for row in connection.execute(query)}


def _insert(connection: Connection, offer: Offer, codes: Sequence[str], state: State, now: datetime) -> None:
    rows = [
        {
            "key": key_of(code),
            "code": code,
            "offer": offer.name,
            "status": state,
            "uses": offer.most_uses,
            "shareable": offer.shareable,
            "used": 0,
            "made_at": now,
            "reason": "",
        }
        for code in codes
    ]
    if rows:
        connection.execute(insert(coupons), rows)


def _set_live(connection: Connection, ids: Collection[int]) -> None:
    if ids:
        connection.execute(update(coupons).where(among(coupons.c.id, ids)).values(status=State.LIVE))
