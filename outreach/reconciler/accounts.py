"""
Accounts: since when each channel has led to where it leads now.

That a provider does not have a message says something only if the message was handed to that very
provider and account. What was handed over before somebody changed the channel stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import delete, insert, select

from outreach import store
from outreach.models import EPOCH, Alarm, table
from outreach.setting_keys import NEEDED_SECRETS, STAFF
from outreach.settings import ChannelSettings, Settings
from outreach.store import Database

NOTE = ".account:"  # + channel: beside the alarms, where names that begin with a dot are notes
TUNING = frozenset({"timeout", "parallel", "batch", "connections"})  # these do not change who is spoken to
ACCOUNTS = frozenset({"TWILIO_ACCOUNT_SID", "SENDGRID_API_KEY"})  # of the secrets, those that say whose account it is

_alarms = table(Alarm)


def since(db: Database, settings: Settings, now: datetime) -> Mapping[str, datetime]:
    """
    By channel, since when it leads to the provider and account of these settings, as far as anybody has looked.

    A channel never looked at before has always led there. Only a keyed hash of the account is kept.
    """
    marks = {
        f"{NOTE}{name}": _mark(db, settings, of) for name, of in settings.channels.items() if _is_set_up(settings, of)
    }
    query = select(_alarms).where(_alarms.c.name.in_(sorted(marks)))
    with store.read(db) as connection:
        rows = {row.name: row for row in connection.execute(query)}
    if any(name not in rows or rows[name].text != mark for name, mark in marks.items()):
        with store.write(db) as connection:
            store.lock(connection, store.Lock.PUBLISH, "accounts")
            rows = {row.name: row for row in connection.execute(query)}
            for name, mark in marks.items():
                if name in rows and rows[name].text == mark:
                    continue
                connection.execute(delete(_alarms).where(_alarms.c.name == name))
                values = {"name": name, "text": mark, "since": now if name in rows else EPOCH, "told_at": None}
                connection.execute(insert(_alarms).values(values))
            rows = {row.name: row for row in connection.execute(query)}
    return {name.removeprefix(NOTE): row.since for name, row in rows.items()}


def _is_set_up(settings: Settings, channel: ChannelSettings) -> bool:
    """A shell that lacks the provider's key is no change of provider."""
    needed = NEEDED_SECRETS.get(channel.provider, ())
    return channel.provider != STAFF and all(settings.secrets.get(name) for name in needed)


def _mark(db: Database, settings: Settings, channel: ChannelSettings) -> str:
    options = sorted((name, str(value)) for name, value in channel.options.items() if name not in TUNING)
    needed = NEEDED_SECRETS.get(channel.provider, ())
    secrets = [settings.secrets.get(name, "") for name in sorted(ACCOUNTS.intersection(needed))]
    return store.keyed_hash(db.secret, "account", channel.provider, repr(options), repr(channel.senders), *secrets)
