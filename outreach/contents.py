"""
Contents: what was handed over, kept as it was, without keeping what all copies of an e-mail share more than once.

A message's text stands in its row. Its HTML is ten times as long and much the same for everybody: where nobody's
values are among its words, the words are kept once as a shape, and with the message only what fills it.

Contents are kept for the settings' `keep_bodies`, and as long as their message is in doubt; a shape, as long as
there may be any content of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, select, text

from outreach import store
from outreach.models import ContentShape, Message, MessageContent, table, to_micros
from outreach.render import Content, Shape, read_html
from outreach.store import Database, among
from outreach.values import Duration

AT_ONCE = 1_000  # contents that are dropped in one transaction
MOST_STEPS = 10  # of one call: a minute later there is another
USED = timedelta(days=30)  # how much older than its last content a shape may look
MARGIN = timedelta(days=1)  # clocks differ, and a transaction takes its time
_BETWEEN = "\x1f"  # values; none holds a control character (render.shaping)
_contents, _shapes, _messages = table(MessageContent), table(ContentShape), table(Message)
_COLUMNS = ("message_id", "subject", "text", "html", "shape", "filling", "content_hash", "segments", "at")
_KNOWN = select(_shapes.c.key).where(among(_shapes.c.key, "keys"), _shapes.c.at > bindparam("since"))
_ADD = text(
    "INSERT INTO content_shapes (key, words, at) VALUES (:key, :words, :at) ON CONFLICT (key) DO UPDATE SET at = :at"
)
_GONE = delete(_contents).where(among(_contents.c.message_id, "ids"))
_WORDS = (
    select(_contents.c.filling, _shapes.c.words)
    .join(_shapes, _shapes.c.key == _contents.c.shape)
    .where(_contents.c.message_id == bindparam("message"))
)


def keep(connection: Connection, contents: Sequence[tuple[int, Content]], now: datetime) -> None:
    """Keep the contents, each with the id of its message, which has none yet. Locks shapes: take no lock after."""
    _keep_shapes(connection, {one.shape.key: one.shape for _, one in contents if one.shape is not None}, now)
    at = to_micros(now)
    rows = []
    for message, one in contents:
        html, shape, filling = one.own_html, "", ""
        if one.shape is not None:
            shape, filling = one.shape.key, _BETWEEN.join(one.values)
        parts = (one.subject.encode(), one.text.encode(), html.encode(), shape.encode(), filling.encode())
        fingerprint = hashlib.sha256(b"\n".join(parts)).hexdigest()
        rows.append((message, one.subject, one.text, html, shape, filling, fingerprint, one.segments, at))
    store.insert_stored(connection, _contents, _COLUMNS, rows)


def _keep_shapes(connection: Connection, shapes: dict[str, Shape], now: datetime) -> None:
    known = set(connection.execute(_KNOWN, {"keys": shapes, "since": now - USED}).scalars()) if shapes else set()
    if new := sorted(shapes.keys() - known):  # in one order, so that two dispatchers never wait for each other
        connection.execute(_ADD, [{"key": key, "words": shapes[key].as_json(), "at": to_micros(now)} for key in new])


def forget(connection: Connection, messages: Iterable[int]) -> None:
    """Drop the contents of attempts that certainly reached nobody, or are made anew; their links stay in any case."""
    if gone := list(messages):
        connection.execute(_GONE, {"ids": gone})


_OLD = (
    select(_contents.c.message_id)
    .join(_messages, _messages.c.id == _contents.c.message_id)
    .where(_contents.c.at < bindparam("before"), text("messages.status NOT IN ('sending', 'unknown')"))
    .order_by(_contents.c.at)
    .limit(AT_ONCE)
)
_UNUSED = delete(_shapes).where(
    _shapes.c.at < bindparam("unused"),
    _shapes.c.key.not_in(select(_contents.c.shape).where(_contents.c.at < bindparam("before"))),
)


def expire(db: Database, keep: Duration, now: datetime, stop: Callable[[], bool]) -> int:
    """
    Drop the contents that are older than `keep`, and the shapes of none; gives how many contents.

    A month counts as 31 days. At most 10,000, in steps of their own transactions; `stop` is asked before each. Where
    nothing is that old, it costs a probe of an index.
    """
    before = now - keep.clock - timedelta(days=keep.months)
    dropped = 0
    for _ in range(MOST_STEPS):
        with store.read(db) as connection:
            is_done = connection.execute(_OLD, {"before": before}).first() is None
        if (is_done and not dropped) or stop():
            break
        with store.write(db) as connection:
            if is_done:
                connection.execute(_UNUSED, {"unused": before - USED - MARGIN, "before": before})
                break
            old = connection.execute(_OLD, {"before": before}).scalars().all()
            forget(connection, old)
        dropped += len(old)
    return dropped


def html_of(connection: Connection, message: int, html: str) -> str:
    """The HTML of a message's content, whose own column holds `html`."""
    if html:
        return html
    kept = connection.execute(_WORDS, {"message": message}).first()
    return read_html(kept.words).filled(kept.filling.split(_BETWEEN)) if kept is not None else ""
