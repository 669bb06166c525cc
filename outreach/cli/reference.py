"""
Writes docs/reference/ from the code: `python -m outreach.cli.reference` (`--check`: only say what is stale).

Each page is made from the table that the program itself works from, so a page cannot promise what
the code does not do; `tests/test_docs.py` fails while a page is stale or missing.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer

import outreach
from outreach import campaigns, conditions, models, render, settings, starter_kit
from outreach.campaign_keys import TRIGGER_KEYS, UNTIL_WORDS
from outreach.cli import VERBS, commands, show

FOLDER = Path(outreach.__file__).parent.parent / "docs" / "reference"
NOTE = "<!-- Made from the code by `make docs`: change the code, not this page. -->"


def pages() -> dict[str, str]:
    """Every reference page: file name → Markdown."""
    return {
        "commands.md": commands_page(),
        "settings.md": settings_page(),
        "campaigns.md": campaigns_page(),
        "conditions.md": conditions_page(),
        "templates.md": templates_page(),
        "reasons.md": reasons_page(),
        "starter.md": starter_page(),
    }


def stale() -> list[str]:
    """The pages in docs/reference/ that differ from the code, are missing, or have no code any more."""
    wanted = pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    return sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", NOTE, *(part.strip("\n") for part in parts)]) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ").strip()


def _code(text: object) -> str:
    return f"`{text}`" if str(text) else ""


# --- commands ------------------------------------------------------------------------------------


def commands_page() -> str:
    """Every verb with its arguments and options, from the Typer app."""
    root = commands()
    parts = [
        "Exit codes: 0 done; 1 something to fix, said in one line per problem on stderr; 2 wrong usage.",
        "Before or after every verb:\n\n" + _options(root, shared=True),
    ]
    panel = ""
    for name, verb in VERBS.items():
        if verb.panel != panel:
            panel = verb.panel
            parts.append(f"## {panel}")
        parts += _command(name, root.loaded(name))
    return _page("Commands", *parts)


def _command(path: str, command: Any) -> list[str]:
    inner = getattr(command, "commands", None)
    if inner:
        return [text for name, one in inner.items() for text in _command(f"{path} {name}", one)]
    context = typer.Context(command, info_name=path)
    usage = " ".join(["outreach", path, *command.collect_usage_pieces(context)])
    parts = [f"### outreach {path}", (command.help or "").strip(), f"```\n{usage}\n```"]
    if any(_is_own(param) for param in command.params):
        parts.append(_options(command))
    return parts


def _is_option(param: Any) -> bool:
    return bool(param.param_type_name == "option")


def _is_own(param: Any) -> bool:
    return param.name not in ("now", "workspace", "help", "version") and not param.name.endswith("_completion")


def _options(command: Any, *, shared: bool = False) -> str:
    context = typer.Context(command)
    rows = []
    for param in command.params:
        if _is_own(param) == shared or param.hidden or param.name in ("help", "version"):
            continue
        if param.name.endswith("_completion"):
            continue
        name = (
            ", ".join([*param.opts, *param.secondary_opts])
            if _is_option(param)
            else param.metavar or param.name.upper()
        )
        default = "" if param.default in (None, False, "", ()) else _code(param.default)
        default = "required" if param.required else default
        rows.append((_code(name), _values(param, context), param.help or "", default))
    return _table(("Argument or option", "Values", "Meaning", "Default"), rows)


PLAIN = {"bool": "", "str": "", "list[str]": "", "path": "", "int": "a number", "int range": "a number"}


def _values(param: Any, context: Any) -> str:
    """What may be given, as `--help` shows it: the words, or the kind of value; for an argument only the words."""
    shown = str(param.display_type_rich(ctx=context) or "")
    several = shown.startswith("<list[") and "|" in shown
    kind = shown.removeprefix("<list[").removesuffix("]>") if several else shown.strip("<>")
    if "%Y" in kind:
        return "a time, such as `2026-06-15T09:30`"
    if shown.startswith("<") and "|" in kind:
        return ", ".join(_code(word) for word in kind.split("|")) + ("; again for more" if several else "")
    bounds = ""
    if param.min is not None:
        bounds = f"{param.min} or more" if param.max in (None, show.MOST) else f"{param.min} to {param.max}"
    named = not shown.startswith("<")  # by us: of an argument it is the name itself
    kind = (_code(shown) if named and _is_option(param) else "") if named else PLAIN.get(kind, kind)
    return ", ".join(text for text in (kind if named or not bounds else "", bounds) if text)


# --- statuses and reasons ------------------------------------------------------------------------


def reasons_page() -> str:
    """Every status and reason, with the comment that stands beside it in `models`."""
    return _page(
        "Statuses and reasons",
        "Every intended message is one row, and stands in exactly one status. What did not go out has a reason from the"
        " closed list below; `outreach messages` shows both.",
        "## Statuses\n\n" + _table(("Status", "Set by, and meaning"), _commented(models.Status)),
        *(
            f"## Reasons: {group}\n\n" + _table(("Reason", "Meaning"), rows)
            for group, rows in _grouped(models.Reason).items()
        ),
        "## Do-not-contact scopes\n\n" + _table(("Scope", "Blocks"), _commented(models.Scope)),
    )


def _commented(words: type[StrEnum]) -> list[tuple[str, str]]:
    return [row for rows in _grouped(words).values() for row in rows]


def _grouped(words: type[StrEnum]) -> dict[str, list[tuple[str, str]]]:
    """The words with the comment beside each, by the comment line above them."""
    groups: dict[str, list[tuple[str, str]]] = {}
    group, seen = "", []
    for heading, name, text in re.findall(
        r"^    (?:# (.+)|[A-Z_]+ = \"(\w+)\"  # (.+))$", inspect.getsource(words), re.MULTILINE
    ):
        group = heading or group
        if name:
            seen.append(name)
            groups.setdefault(group, []).append((_code(name), text))
    assert seen == [word.value for word in words], f"a word of {words.__name__} has no comment"  # noqa: S101
    return groups


# --- settings, campaigns, conditions, templates --------------------------------------------------


def _keys(rows: Iterable[Any]) -> str:
    return _table(
        ("Key", "Takes", "Default", "Meaning"),
        [(_code(row.path), row.what, row.default, row.text) for row in rows],
    )


def _all_of(texts: Mapping[str, tuple[str, str]], known: Iterable[str]) -> list[tuple[str, str]]:
    """The forms and texts of exactly the words that the code knows, in its order."""
    words = list(known)
    assert {*words} == {*texts}, f"words without a text, or the other way round: {sorted({*words} ^ {*texts})}"  # noqa: S101
    return [texts[word] for word in words]


TRIGGERS = {
    "order.placed": ("{event: order.placed}", "when an order was placed"),
    "order.paid": ("{event: order.paid}", "when it was paid"),
    "order.shipped": ("{event: order.shipped}", "when it was shipped"),
    "order.delivered": ("{event: order.delivered}", "when it was delivered, or is estimated to have been"),
    "order.cancelled": ("{event: order.cancelled}", "when it was cancelled"),
    "order.refunded": ("{event: order.refunded}", "when it was refunded"),
    "customer.created": ("{event: customer.created}", "when the shop first knew the customer"),
    "customer.birthday": ("{event: customer.birthday}", "on the birthday, each year"),
    "customer.inactive": (
        "{event: customer.inactive, after: 90 days}",
        "that long after the last order, once per lapse",
    ),
    "case.opened": ("{event: case.opened}", "when a case was opened"),
    "case.closed": ("{event: case.closed}", "when it was closed"),
    "case.overdue": ("{event: case.overdue, after: 2 days}", "when it has been open that long"),
    "coupon.expiring": (
        "{event: coupon.expiring, before: 3 days}",
        "that long before a coupon expires that they have not redeemed",
    ),
    "survey.answered": (
        "{event: survey.answered, survey: csat, score: 1-2}",
        "when a survey was answered, once per answer",
    ),
    "reply.received": (
        "{event: reply.received, intent: question, to: post_sale/thanks}",
        "when a customer wrote back, once per reply",
    ),
    "schedule": ('{schedule: "0 10 1 * *"}', "at each of these times, in the business's time zone"),
    "date": ("{date: 2026-11-13}", "once, on that day"),
    "attribute": ("{date: attributes.warranty_end}", "on a date of the customer's own, or `before` it"),
}

WORDS = {
    "ordered": ("ordered", "the customer placed another order"),
    "ordered_same": ("ordered_same", "a later order has a line that the trigger's patterns fit"),
    "paid": ("paid", "the occasion's order was paid"),
    "shipped": ("shipped", "the occasion's order was shipped"),
    "delivered": ("delivered", "the occasion's order was delivered"),
    "refunded": ("refunded", "the occasion's order was refunded"),
    "cancelled": ("cancelled", "the occasion's order was cancelled"),
    "replied": ("replied", "the customer wrote back"),
    "answered": ("answered", "the customer answered a survey"),
    "clicked": ("clicked", "the customer followed a link"),
    "reached": ("reached", "the customer was reached by phone"),
    "opted_out": ("opted_out", "the customer opted out"),
    "case_open": ("case_open", "the customer has an open case"),
    "case_closed": ("case_closed", "a case of the customer was closed"),
    "coupon_redeemed": ("coupon_redeemed", "the customer redeemed a coupon"),
}

KEY_NOTE = "`[]` stands for the entries of a list, `NAME` for a name of your own."


def settings_page() -> str:
    """Every key of outreach.yaml, and the environment."""
    secrets = "\n".join(f"| {_code(name)} | {text} |" for name, text in settings.SECRETS.items())
    return _page(
        "Settings",
        "`outreach.yaml` in the workspace. Only `business.name`, `business.timezone` and `business.currency` are"
        f" required. {KEY_NOTE}",
        _keys(settings.KEYS),
        "## Environment\n\nSecrets never stand in the file. They come from the environment, or from a file that"
        " `NAME_FILE` names. `OUTREACH_DATABASE` overrides `database`.",
        f"| Variable | What it does |\n|---|---|\n{secrets}",
        "`OUTREACH_SECRET` keys everything that must not be guessed: addresses' hashes, message ids, who is in which"
        " arm. Without one, the database keeps a random secret of its own. It cannot be changed afterwards.",
    )


def starter_page() -> str:
    """The campaigns that a new workspace begins with, from the comment on top of each."""
    return _page(
        "Starter campaigns",
        "What `outreach init` writes into `campaigns/`. All of them are off (`active: no`) but `post_sale`; each file"
        " says the same on top. [Every line of such a file](campaigns.md), [how to write one](../how-to/write-a-campaign.md).",
        _table(
            ("Campaign", "When to use it", "What to change first", "Goal and holdout"),
            [(_code(one.name), *map(_sentence, (one.when, one.change, one.goal))) for one in starter_kit.said()],
        ),
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def campaigns_page() -> str:
    """Every key of a campaign file, the triggers, and the words of `unless` and `stop_when`."""
    return _page(
        "Campaigns",
        "One YAML file in `campaigns/` per campaign; its file name is its identity."
        f" [How to write one](../how-to/write-a-campaign.md). {KEY_NOTE}",
        _keys(campaigns.KEYS),
        "## Triggers\n\n"
        + _table(
            ("Trigger", "Further keys", "Starts for one customer"),
            [
                (_code(form), ", ".join(_code(key) for key in allowed), text)
                for (form, text), allowed in zip(_all_of(TRIGGERS, TRIGGER_KEYS), TRIGGER_KEYS.values(), strict=True)
            ],
        )
        + "\n\nAn event that `events:` of the settings declares is a trigger, too: `{event: cart.abandoned}`.",
        "## Words of `unless` and `stop_when`\n\nCounted strictly since the occasion.\n\n"
        + _table(("Word", "True when"), [(_code(form), text) for form, text in _all_of(WORDS, UNTIL_WORDS)]),
    )


def conditions_page() -> str:
    """Every fact and function of `where:`."""
    return _page(
        "Conditions",
        "What `where:`, `segments:` and `outreach audience` may name. Texts stand in single quotes; conditions are"
        " joined by `and`, `or`, `not`.",
        "## Facts\n\n"
        + _table(
            ("Fact", "Type", "Of", "Meaning"),
            [(_code(fact.name), fact.type, fact.subject, fact.text) for fact in conditions.FACTS],
        ),
        "## Functions\n\n"
        + _table(("Function", "Meaning"), [(_code(one.form), one.text) for one in conditions.FUNCTIONS]),
    )


def templates_page() -> str:
    """Every variable and filter of message templates."""
    return _page(
        "Templates",
        "What message templates may name. [How to write one](../how-to/write-a-template.md). `[]` stands for the entries"
        " of a list, `*` for any name; what may be missing needs an `{% if %}`.",
        "## Variables\n\n"
        + _table(
            ("Variable", "Type", "May be missing", "Only", "Meaning"),
            [
                (_code(one.name), one.type, "yes" if one.optional else "", ", ".join(one.subjects), one.text)
                for one in render.VARIABLES
            ],
        ),
        "## Filters\n\n"
        + _table(("Filter", "Meaning"), [(_code(name), text) for name, text in render.FILTERS.items()]),
    )


def main() -> None:
    """Write the pages, or with --check say which are stale."""
    old = stale()
    if "--check" not in sys.argv[1:]:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for path in FOLDER.glob("*.md"):
            path.unlink()
        for name, text in pages().items():
            (FOLDER / name).write_text(text, encoding="utf-8")
    elif old:
        sys.exit(f"stale: {', '.join(old)}; run `make docs`")


if __name__ == "__main__":
    main()
