"""The documentation keeps up with the code: pages, commands that are shown, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outreach.cli import VERBS, commands, reference

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [page for page in PAGES if page.parent.name != "reference"]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def shown_commands(page: Path) -> Iterator[list[str]]:
    """The arguments of every `outreach …` line in a page's code blocks."""
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True) if "outreach" in line and "{{" not in line else []
            calls = [index for index, word in enumerate(words) if word.endswith("/bin/outreach")]
            if words[:1] == ["outreach"] or calls:
                yield words[calls[0] + 1 if calls else 1 :]


def parse(arguments: list[str]) -> None:
    """Parse a command line as the program would, without running it; raises what Typer raises."""
    command: Any = commands()
    name, parent = "outreach", None
    while True:
        context = command.make_context(name, list(arguments), parent=parent)
        if not hasattr(command, "commands"):
            return
        name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        parent = context


def test_the_reference_pages_are_what_the_code_says() -> None:
    assert reference.stale() == [], "run `make docs`"


def test_every_verb_has_a_heading_in_the_reference() -> None:
    text = reference.commands_page()

    for name in VERBS:
        assert re.search(rf"^### outreach {name}\b", text, re.MULTILINE), name


def test_a_verb_s_line_in_the_help_is_its_docstring_s_first() -> None:
    root = commands()

    for name, verb in VERBS.items():
        assert (root.loaded(name).help or "").splitlines()[0] == verb.help


@pytest.mark.parametrize("page", TEXTS, ids=page_id)
def test_every_command_shown_exists_with_these_options(page: Path) -> None:
    for arguments in shown_commands(page):
        parse(arguments)


def test_the_first_pages_show_commands() -> None:
    shown = {arguments[0] for page in TEXTS for arguments in shown_commands(page) if not arguments[0].startswith("-")}

    assert shown >= {"init", "import", "check", "publish", "tick", "run", "messages", "report", "pause", "cancel"}


@pytest.mark.parametrize("page", TEXTS, ids=page_id)
def test_every_verb_named_in_a_sentence_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert set(re.findall(r"`outreach ([a-z-]+)[^`\n]*`", text)) <= set(VERBS)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        wanted = (page.parent / file).resolve() if file else page
        assert wanted.exists(), target
        assert not anchor or anchor in anchors(wanted), target


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_pages_that_a_newcomer_needs_are_there() -> None:
    tasks = {page.stem for page in (ROOT / "docs" / "how-to").glob("*.md")}

    assert tasks == {
        "add-a-provider",
        "answer-replies",
        "ask-customers-and-use-their-answers",
        "back-up-and-restore",
        "be-told-when-something-is-wrong",
        "call-and-visit",
        "check-your-providers",
        "erase-or-export-a-customer",
        "import-your-records",
        "move-to-postgresql",
        "offer-coupons",
        "pause-and-cancel",
        "preview-a-message",
        "publish-and-roll-back",
        "put-the-pages-on-the-web",
        "read-replies-and-opt-outs",
        "read-the-retention-report",
        "receive-replies-by-e-mail",
        "rehearse-safely",
        "rehearse-with-fake-providers",
        "run-as-a-service",
        "send-by-hand",
        "send-email-by-sendgrid",
        "send-email-by-smtp",
        "settle-messages-in-doubt",
        "send-sms-whatsapp-and-messenger-by-twilio",
        "what-happens-when-a-provider-fails",
        "work-through-cases",
        "write-a-campaign",
        "write-a-template",
    }
    linked = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"docs/how-to/{task}.md" in linked for task in tasks)
