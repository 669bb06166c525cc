"""
Further columns that conditions and templates name: whether any record has them.

What the sources' files have now, and what the newest records have, is known; where neither is there, nothing is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import select

from outreach import campaigns as campaign_files
from outreach import conditions, store
from outreach.campaigns import Campaign
from outreach.errors import Problem
from outreach.models import Case, Customer, Order, table
from outreach.render import Templates
from outreach.settings import Settings
from outreach.settings import position as settings_position
from outreach.store import Database
from outreach.yamlfile import did_you_mean, shown

NEWEST = 2_000  # records of a kind whose attributes are looked at
_OF = {  # what a condition and a template call the record, and where it comes from
    "attributes": "customers",
    "order.attributes": "orders",
    "case.attributes": "cases",
    "customer": "customers",
    "customer.last_order": "orders",
    "order": "orders",
    "case": "cases",
}
_RECORDS = {"customers": table(Customer), "orders": table(Order), "cases": table(Case)}

Place = tuple[str, int, int]
Asked = tuple[str, str, Place]  # the table, the attribute's name, and where it is named


def nowhere_known(
    files: Mapping[str, str],
    campaigns: Iterable[Campaign],
    templates: Templates,
    settings: Settings,
    db: Database | None,
) -> list[Problem]:
    """Attributes that no source and no record has: what asks for them is never true, and a message would wait."""
    asked = [*_in_conditions(files, campaigns, settings), *_in_templates(templates)]
    known = {name: _known(name, settings, db) for name in {of for of, _, _ in asked}}
    found = []
    for of, name, place in asked:
        names = known[of]
        if names is not None and name not in names:
            text = (
                f"no record of {of} has the attribute `{shown(name)}`: it is a column of no file, and of none imported"
            )
            found.append(Problem(*place, "unknown-attribute", text, did_you_mean(name, sorted(names)), warning=True))
    return found


def _in_conditions(files: Mapping[str, str], campaigns: Iterable[Campaign], settings: Settings) -> list[Asked]:
    found = []
    for campaign in campaigns:
        places: list[tuple[str | None, tuple[str | int, ...]]] = [(campaign.where, ("where",))]
        places += [(step.where, ("steps", index, "where")) for index, step in enumerate(campaign.steps)]
        for expression, path in places:
            if expression is not None:
                at = campaign_files.position(files, campaign.name, *path)
                found += _in_condition(expression, campaign.trigger.subject, settings, at)
    for name, expression in settings.segments.items():
        found += _in_condition(expression, "customer", settings, settings_position(settings, "segments", name))
    return found


def _in_condition(expression: str, subject: str, settings: Settings, at: Place) -> list[Asked]:
    if "attributes" not in expression:
        return []
    file, line, column = at
    return [
        (_OF[one.of], one.name, (file, line, column + one.column - 1 if line else 0))
        for one in conditions.attributes(expression, subject=subject, settings=settings)
    ]


def _in_templates(templates: Templates) -> list[Asked]:
    found = []
    for path, place in templates.attributes():
        record, _, name = path.partition(".attributes.")
        found.append((_OF[record], name.partition(".")[0], place))
    return found


def _known(of: str, settings: Settings, db: Database | None) -> set[str] | None:
    """The names that are known of such records; None where there is neither a file nor a record to know from."""
    from outreach.sources.csv import columns_of

    paths = [settings.workspace / source.files[of] for source in settings.sources if of in source.files]
    headers = [header for path in paths if (header := columns_of(of, path)) is not None]
    records = [] if db is None else _of_records(of, db)
    return {name for names in (*headers, *records) for name in names} if headers or records else None


def _of_records(of: str, db: Database) -> list[set[str]]:
    c = _RECORDS[of].c
    with store.read(db) as connection:
        rows = connection.execute(select(c.attributes).order_by(c.id.desc()).limit(NEWEST))
        return [set(row.attributes) for row in rows]
