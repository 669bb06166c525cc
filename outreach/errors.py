"""
Every exception that a user of outreach may meet.

```
OutreachError            what, where, and what to do next, on one line
├── Problems             several things to fix, found in one pass
├── SettingsError        outreach.yaml or the environment
├── CampaignError        a campaign file
├── ConditionError       a `where:` expression
├── TemplateError        a message template
├── ReleaseError         publishing, rolling back, loading a release
├── ImportFileError      an input file that cannot be read at all
├── DatabaseError        the database cannot be reached or is of another version
├── ClockError           a `now` earlier than what the database has already seen
├── NotFound             a customer, campaign, step or release nobody knows
├── ListenError          the web app cannot listen where it should
└── ChannelError         a channel's configuration is wrong: its campaign must stop
```

The first line of each docstring is the message when none is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Problem:
    """One thing to fix, with its place; `line` and `column` count from 1, 0 is unknown."""

    file: str
    line: int
    column: int
    id: str
    text: str
    hint: str = ""
    warning: bool = False
    cause: Problem | None = None  # what several have in common, at its own place: `said_once` shows it for them

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        kind = "warning: " if self.warning else ""
        return f"{place}: {kind}{self.text}" + (f" ({self.hint})" if self.hint else "")


def said_once(problems: Iterable[Problem]) -> list[Problem]:
    """The problems without repetition, in their order; several of one cause are that cause, with their number."""
    each = dict.fromkeys(problems)
    several = Counter(problem.cause for problem in each if problem.cause is not None)
    return list(dict.fromkeys(_alone_or_cause(problem, several) for problem in each))


def _alone_or_cause(problem: Problem, several: Counter[Problem]) -> Problem:
    cause = problem.cause
    if cause is None or several[cause] == 1:
        return problem
    hint = "; ".join(filter(None, (cause.hint, "`outreach check --verbose` names each")))
    return replace(cause, text=f"{cause.text}, in {several[cause]:,} places", hint=hint)


class OutreachError(Exception):
    """Something that the user can fix."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])


class Problems(OutreachError):
    """There are problems to fix."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in said_once(self.problems)))


class SettingsError(Problems):
    """The settings cannot be used."""


class CampaignError(Problems):
    """A campaign file cannot be used."""


class ConditionError(OutreachError):
    """A condition cannot be understood."""

    def __init__(self, message: str, *, line: int = 1, column: int = 1) -> None:
        self.line = line
        self.column = column
        super().__init__(message)


class TemplateError(OutreachError):
    """A template cannot be rendered."""

    def __init__(self, message: str, *, template: str = "", line: int = 0, variable: str = "") -> None:
        self.template = template
        self.line = line
        self.variable = variable
        super().__init__(message)


class ReleaseError(OutreachError):
    """The release cannot be published or used."""


class ImportFileError(OutreachError):
    """The file cannot be imported."""


class DatabaseError(OutreachError):
    """The database cannot be used."""


class ClockError(OutreachError):
    """The time given is earlier than the newest fact that the database has seen."""


class NotFound(OutreachError):
    """There is nothing of that name."""


class ListenError(OutreachError):
    """The web app cannot listen at this address."""


class ChannelError(OutreachError):
    """The channel is not configured so that it can send."""
