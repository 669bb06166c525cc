"""
Releases: check, compare, publish, roll back and load what marketers wrote.

A release is an immutable snapshot of campaigns, templates and the catalogue (segments, events,
offers, surveys). `plan` and `dispatch` only ever use the current one, the highest number.
"""

from outreach.releases.changes import Changes, diff
from outreach.releases.checking import check
from outreach.releases.control import BY_HAND, cancel, pause, paused, resume
from outreach.releases.publishing import publish, rollback
from outreach.releases.snapshot import (
    CATALOGUE,
    Loaded,
    current,
    date_name,
    ends_at,
    listed,
    published,
    read_files,
    starts_at,
    unread_files,
)

__all__ = [
    "BY_HAND",
    "CATALOGUE",
    "Changes",
    "Loaded",
    "cancel",
    "check",
    "current",
    "date_name",
    "diff",
    "ends_at",
    "listed",
    "pause",
    "paused",
    "publish",
    "published",
    "read_files",
    "resume",
    "rollback",
    "starts_at",
    "unread_files",
]
