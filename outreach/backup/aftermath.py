"""What must be different in a database that was set back, written into the copy before it takes its place."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from outreach import store
from outreach.backup import files
from outreach.models import Status, to_micros

_DOUBT = "it may have left after the backup that this database was restored from"
EARLIER = "it may have left before an earlier restore"  # how the detail of what such a one put in doubt begins


@dataclass(frozen=True)
class Aftermath:
    """What a restore changed in what the backup holds."""

    doubtful: Mapping[str, int] = field(default_factory=dict)  # messages that became unknown, by campaign
    paused: tuple[str, ...] = ()  # campaigns
    opt_outs: int = 0  # addresses that only the replaced database knew to be blocked, or a consent of to be revoked
    void_codes: Mapping[str, int] = field(default_factory=dict)  # codes that nobody had at the backup, by offer


def paused_reason(made_at: datetime, *, heard: bool) -> str:
    """Why a campaign is paused after a restore; `heard`: the opt-outs since have been read again."""
    of = f"restored from the backup of {made_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if not heard:
        return f"{of}; who opted out since is not known yet: run `outreach db opt-outs`"
    return f"{of}: look at what is in doubt (`outreach messages --status unknown`), then resume"


def write(part: Path, made_at: datetime, until: datetime, replaced: Path | None, secret: bytes) -> Aftermath:
    """
    Make the copy of a backup into a database that goes on from `until` and sends nothing twice.

    1. What the replaced database (a backup of it) knows of opt-outs comes along, those that staff recorded included.
    2. Every campaign that runs is paused.
    3. Every message that was being sent, or was planned and due by `until`, is in doubt: it may have
       left since. Calls and visits, too: the person may have made them, or the message has gone on to
       the step's next channel. What ended before the backup stays as it is, and so does what falls
       due later, which nobody can have sent. What an earlier restore put in doubt says so from now on.
    4. No claim is in force, and what is in doubt is asked after at once.
    5. Whoever got one of those in doubt finds the way out behind its links.
    6. A code that nobody had at the backup may have been given out since: nobody else gets it. New ones are made,
       or come from the shop's cart (`outreach coupons make`).

    `secret` is the installation's.
    """
    with closing(files.connect(part)) as copy:
        opt_outs = _bring_opt_outs(copy, replaced) if replaced is not None else 0
        copy.execute("BEGIN IMMEDIATE")
        copy.execute(f"DROP TABLE {files.NOTE}")
        copy.execute(_DATED, {"made": to_micros(made_at), "until": to_micros(until)})
        paused = [row[0] for row in copy.execute("SELECT name FROM campaign_states WHERE paused_at IS NULL")]
        reason = paused_reason(made_at, heard=False)
        copy.execute(_PAUSE, {"until": to_micros(until), "reason": reason})
        copy.execute(_DOUBTED_EARLIER, {"detail": EARLIER})
        doubtful = dict(copy.execute(_COUNT_DOUBTFUL, {"until": to_micros(until)}).fetchall())
        copy.execute(_DOUBTFUL, {"until": to_micros(until), "detail": _DOUBT})
        copy.execute("UPDATE messages SET claim = NULL, lease_until = NULL WHERE claim IS NOT NULL")
        copy.execute(_LOOK, {"until": to_micros(until)})
        void_codes = dict(copy.execute(_COUNT_VOID).fetchall())
        copy.execute(_VOID, {"until": to_micros(until), "reason": _GIVEN})
        asked = copy.execute(_ASKED, {"until": to_micros(until)})
        while some := asked.fetchmany(store.BATCH):
            copy.executemany(store.ADD_LINK, store.ways_out(secret, some))
        copy.execute("COMMIT")
    return Aftermath(doubtful, tuple(sorted(paused)), opt_outs, void_codes)


_DATED = (
    "UPDATE installation SET backup_at = :made, restored_at = :until, newest = max(coalesce(newest, :until), :until)"
)
_PAUSE = "UPDATE campaign_states SET paused_at = :until, paused_reason = :reason WHERE paused_at IS NULL"
_MAY_BE_GONE = f"(status = '{Status.SENDING}' OR (status = '{Status.PLANNED}' AND due_at <= :until))"
# What only a restore put in doubt was never handed over, as far as anybody knows.
_DOUBTED_EARLIER = f"UPDATE messages SET detail = :detail WHERE status = '{Status.UNKNOWN}' AND sent_at IS NULL"
_COUNT_DOUBTFUL = f"SELECT campaign, count(*) FROM messages WHERE {_MAY_BE_GONE} GROUP BY campaign ORDER BY campaign"
_DOUBTFUL = (
    f"UPDATE messages SET status = '{Status.UNKNOWN}', claim = NULL, lease_until = NULL, look_at = :until,"
    f" detail = :detail WHERE {_MAY_BE_GONE}"
)
# One that was in doubt at the backup, too: a `look_at` tells it from what was never settled.
_LOOK = f"UPDATE messages SET look_at = :until WHERE status = '{Status.UNKNOWN}' AND look_at IS NULL"

_GIVEN = "it may have been given out after the backup that this database was restored from"
_FREE = "status IN ('made', 'live')"
_COUNT_VOID = f"SELECT offer, count(*) FROM coupons WHERE {_FREE} GROUP BY offer ORDER BY offer"
_VOID = f"UPDATE coupons SET status = 'void', voided_at = :until, reason = :reason WHERE {_FREE}"

_ASKED = f"SELECT id, public_id FROM messages WHERE status = '{Status.UNKNOWN}' AND look_at = :until"


# --- what the replaced database knows ----------------------------------------------------------------


def _bring_opt_outs(copy: sqlite3.Connection, replaced: Path) -> int:
    """
    Take over the do-not-contact entries, and the revocations that recipients wrote and that staff recorded for them.

    Gives of how many addresses something is new. A file's revocations come with the next import.

    Only from a database with the same secret: its hashes are of the same addresses.
    """
    copy.execute("ATTACH ? AS replaced", (str(replaced),))
    try:
        same = "SELECT 1 FROM installation i JOIN replaced.installation r ON r.secret_check = i.secret_check"
        if copy.execute(same).fetchone() is None:
            return 0
        copy.execute("BEGIN IMMEDIATE")
        new = set(copy.execute(_SUPPRESSIONS).fetchall())
        copy.execute(_CONTACTS)
        new.update(copy.execute(_REVOCATIONS).fetchall())
        copy.execute("COMMIT")
    finally:
        copy.execute("DETACH replaced")
    return len(new)


_SUPPRESSIONS = """
    INSERT INTO suppressions (address_hash, kind, scope, channel, source, at)
    SELECT address_hash, kind, scope, channel, source, at FROM replaced.suppressions WHERE lifted_at IS NULL
    ON CONFLICT (address_hash, kind, scope, channel)
    DO UPDATE SET source = excluded.source, at = excluded.at, lifted_at = NULL
    WHERE suppressions.lifted_at < excluded.at
    RETURNING address_hash
"""
_SAID = "g.status = 'revoked' AND g.\"by\" IN ('recipient', 'person')"
_CONTACTS = f"""
    INSERT INTO contacts (kind, address, address_hash)
    SELECT DISTINCT c.kind, c.address, c.address_hash
    FROM replaced.consents g JOIN replaced.contacts c ON c.id = g.contact_id WHERE {_SAID}
    ON CONFLICT (kind, address_hash) DO NOTHING
"""
_REVOCATIONS = f"""
    INSERT INTO consents (contact_id, channel, status, at, "by", basis, source, words, recorded_at)
    SELECT mine.id, g.channel, g.status, g.at, g."by", g.basis, g.source, g.words, g.recorded_at
    FROM replaced.consents g JOIN replaced.contacts c ON c.id = g.contact_id
    JOIN contacts mine ON mine.kind = c.kind AND mine.address_hash = c.address_hash WHERE {_SAID}
    ON CONFLICT (contact_id, channel, at, status) DO NOTHING
    RETURNING (SELECT address_hash FROM contacts WHERE contacts.id = contact_id)
"""
