"""Who opted out since a backup, read again from the providers that keep a list of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy import Connection, select, text, update

from outreach import store
from outreach.addresses import normal_email, normal_messenger, normal_phone
from outreach.backup.aftermath import paused_reason
from outreach.channels import Channels, OptOut
from outreach.errors import ChannelError
from outreach.models import CampaignState, Contact, Installation, Scope, table, to_micros
from outreach.setting_keys import STAFF
from outreach.settings import Settings
from outreach.store import BATCH, Database, among

LATE = timedelta(days=1)  # what providers told us may have come in so long after it was said

_contacts, _states, _installation = table(Contact), table(CampaignState), table(Installation)


@dataclass(frozen=True)
class Heard:
    """What a channel's provider listed."""

    channel: str
    provider: str
    listed: int = 0
    new: int = 0  # that the database did not know
    unreadable: int = 0  # addresses that are none
    error: str = ""  # why the list is not complete; never an address


def read_since(db: Database) -> datetime | None:
    """From when on to read: a day before the backup that the database was restored from; None: it never was."""
    with store.read(db) as connection:
        at = connection.execute(select(_installation.c.backup_at)).scalar()
    return None if at is None else at - LATE


def read_again(
    db: Database, settings: Settings, since: datetime, now: datetime, channels: Channels | None = None
) -> list[Heard]:
    """
    Suppress everybody whom a provider lists since then as opted out, complaining or bounced, by channel.

    As often as you like: what is known stays as it is. A list that cannot be read to its end is said,
    and what came of it is kept. Once every list is complete, campaigns that a restore paused no longer
    wait for it.

    Raises:
        DatabaseError: the database cannot be used; read again.
    """
    opened = channels or Channels()
    try:
        asked = {name: one for name, one in sorted(settings.channels.items()) if one.provider != STAFF}
        heard = [_read(db, settings, name, one.provider, since, now, opened) for name, one in asked.items()]
    finally:
        if channels is None:
            opened.close()
    if not any(one.error for one in heard):
        _note_heard(db, since)
    return heard


def _read(
    db: Database, settings: Settings, name: str, provider: str, since: datetime, now: datetime, channels: Channels
) -> Heard:
    listed = new = unreadable = 0
    error = ""
    told = _listed(channels, name, settings, since)
    while True:
        page: list[OptOut] = []
        try:
            page.extend(islice(told, BATCH))
        except ChannelError as wrong:
            error = str(wrong)
        except Exception as wrong:  # its own text may hold anything
            error = f"the provider cannot be asked ({type(wrong).__name__})"
        read = [(one, _normal(one, settings.business.country)) for one in page]
        known = [(one, address) for one, address in read if address]
        listed, unreadable = listed + len(page), unreadable + len(page) - len(known)
        if known:
            with store.write(db) as connection:
                new += _believe(connection, db.secret, name, provider, known, now)
        if error or len(page) < BATCH:
            return Heard(name, provider, listed, new, unreadable, error)


def _listed(channels: Channels, name: str, settings: Settings, since: datetime) -> Iterator[OptOut]:
    """Also what goes wrong on the way to the list goes wrong when it is read."""
    yield from channels.get(name, settings).opt_outs(since)


def _normal(one: OptOut, country: str | None) -> str:
    try:
        if one.kind == "phone":
            return normal_phone(one.address, country)
        return normal_email(one.address) if one.kind == "email" else normal_messenger(one.address)
    except ValueError:
        return ""


# --- writing ---------------------------------------------------------------------------------------


def _believe(
    connection: Connection,
    secret: bytes,
    channel: str,
    provider: str,
    known: Sequence[tuple[OptOut, str]],
    now: datetime,
) -> int:
    """Write what was said under the locks that a sender takes; gives how many entries are new."""
    said = {(one.kind, store.address_hash(secret, one.kind, address), one.reason): one for one, address in known}
    contacts = _hold(connection, {hashed for _, hashed, _ in said})
    source, new = f"restore: {provider}", 0
    for (kind, hashed, reason), one in sorted(said.items()):
        scope = Scope.ADDRESS if reason == "bounced" else Scope.CONTACT
        entry = {"hash": hashed, "kind": kind, "scope": scope, "channel": channel}
        at = {"source": source, "at": to_micros(one.at)}
        new += connection.execute(_SUPPRESS, {**entry, **at}).first() is not None
        if scope is Scope.CONTACT and (kind, hashed) in contacts:
            line = {"contact": contacts[kind, hashed], "channel": channel, "now": to_micros(now)}
            connection.execute(_REVOKE, {**line, **at})
    return new


def _hold(connection: Connection, hashes: Iterable[str]) -> dict[tuple[str, str], int]:
    """Lock the contacts that have these addresses, in the order of their ids; gives which they are."""
    c = _contacts.c
    query = select(c.kind, c.address_hash, c.id).where(among(c.address_hash, hashes)).order_by(c.id).with_for_update()
    return {(kind, hashed): i for kind, hashed, i in connection.execute(query)}


_SUPPRESS = text(
    "INSERT INTO suppressions (address_hash, kind, scope, channel, source, at)"
    " VALUES (:hash, :kind, :scope, :channel, :source, :at)"
    " ON CONFLICT (address_hash, kind, scope, channel)"
    " DO UPDATE SET source = excluded.source, at = excluded.at, lifted_at = NULL"
    " WHERE suppressions.lifted_at < excluded.at RETURNING id"
)
_REVOKE = text(
    'INSERT INTO consents (contact_id, channel, status, at, "by", basis, source, words, recorded_at)'
    " VALUES (:contact, :channel, 'revoked', :at, 'recipient', 'consent', :source, '', :now)"
    " ON CONFLICT (contact_id, channel, at, status) DO NOTHING"
)


def _note_heard(db: Database, since: datetime) -> None:
    """Campaigns that a restore paused wait for a person's look alone, if nothing since the backup was left out."""
    with store.write(db) as connection:
        at = connection.execute(select(_installation.c.backup_at)).scalar()
        if at is None or since > at:
            return
        before, after = (paused_reason(at, heard=heard) for heard in (False, True))
        paused = update(_states).where(_states.c.paused_reason == before, _states.c.paused_at.is_not(None))
        connection.execute(paused.values(paused_reason=after))
