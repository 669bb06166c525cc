"""
`where:` expressions → SQL conditions.

sqlglot reads the text, and only for its tree; the tree is checked node by node against the
documented facts and functions (`vocabulary`) and rebuilt as SQLAlchemy expressions with bound values.
Nothing of the text ever reaches SQL, and whatever is not listed here is refused with a sentence.

How an expression reads:

- A fact that is missing compares as false: `country = 'MX'`, `birthday < '2000-01-01'` and
  `city like 'B%'` are false for who has none. `!=`, `not in`, `not between`, `not like` and `not`
  are the exact opposites, so `country != 'MX'` is true for a customer without a country. Every
  expression is therefore true or false, never unknown; `is null` asks for what is missing.
- A date stands for its whole day in the business's time zone: `<= '2026-05-31'` includes the 31st.
- "N days since" counts back in the business's time zone to the same time of day; that day counts.
- Text compares exactly, capitals and accents included. In `like`, `%` is any text and `_` any one
  character. In the patterns of `bought`, `*` is any text, `?` any one character, capitals ignored.
- `attributes.NAME` is text. Beside a number it is compared as a number where it reads as one
  (`12`, `-3`, `4.50`), and counts as missing where it does not.
"""

from __future__ import annotations

from datetime import UTC, datetime

from outreach.conditions.comparing import minor_digits
from outreach.conditions.meaning import read, read_in
from outreach.conditions.scope import Attribute, Bool, Scope
from outreach.conditions.vocabulary import FACTS, FUNCTIONS, KINDS, MAX_LENGTH, OUTCOMES, Fact, Function
from outreach.errors import ConditionError
from outreach.settings import Settings

__all__ = [
    "FACTS",
    "FUNCTIONS",
    "KINDS",
    "MAX_LENGTH",
    "OUTCOMES",
    "Attribute",
    "Fact",
    "Function",
    "attributes",
    "compile_condition",
    "minor_digits",
    "problems",
]

_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


def compile_condition(expression: str, *, subject: str, settings: Settings, now: datetime) -> Bool:
    """
    The expression as a SQL condition that is true or false, never NULL.

    It speaks of `Customer.__table__` and `CustomerStats.__table__` (LEFT JOIN it: a customer
    without orders may have no row there) and, for the subjects order, case and event, of
    `Order`, `Case` and `ShopEvent.__table__`, which the caller joins. `now` is what "days since"
    and `within` count back from.

    Raises:
        ConditionError: the first problem in the text, with its line and column.
    """
    condition, found = read(expression, subject, settings, now)
    if found:
        raise found[0]
    return condition


def problems(expression: str, *, subject: str, settings: Settings) -> list[ConditionError]:
    """Every problem of the expression, in its order; empty when it compiles."""
    return read(expression, subject, settings, _ANY_TIME)[1]


def attributes(expression: str, *, subject: str, settings: Settings) -> list[Attribute]:
    """The attributes that the expression names itself, in its order; those of its segments are the segments'."""
    scope = Scope(expression, subject, settings, _ANY_TIME)
    read_in(scope)
    return scope.attributes
