"""The starter kit: every template reads well for every customer a shop may have."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from outreach import campaigns
from outreach.render import Content, Templates
from outreach.settings import Business, ChannelSettings, Settings
from outreach.values import Money

ROOT = Path(__file__).resolve().parent.parent
WHEN = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
SHOP = Business(
    name="Tienda Luna",
    timezone="America/Mexico_City",
    currency="MXN",
    locale="es-MX",
    country="MX",
    postal_address="Av. Reforma 1, 06600 Ciudad de México",
    links={"review": "https://tienda.example/review"},
)
BARE = Business(name="Luna", timezone="UTC", currency="EUR", locale="es")
LINK = "https://pedidos.tiendaluna.example/l/Ab3dEf7hIj1k"
FILES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in ROOT.glob("message_templates/**/*.j2")
}
CAMPAIGNS = sorted(ROOT.glob("campaigns/*.yaml"))


def _order(total: int = 123450, lines: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    some = [{"product": "Café de Chiapas", "quantity": "2"}, {"product": "Taza", "quantity": "1"}]
    money = Money(total, "MXN")
    return {"id": "MX-1", "placed_at": WHEN, "currency": "MXN", "total": money, "attributes": {}, "counted": True} | {
        "lines": some if lines is None else lines,
        **more,
    }


def _facts(first: str | None = "Ana", order: dict[str, Any] | None = None, **customer: Any) -> dict[str, Any]:
    used = _order() if order is None else order
    person = {"tags": [], "attributes": {}, "orders_count": 2, "total_spent": Money(5000, "MXN"), "last_order": used}
    named = {} if first is None else {"first_name": first}
    return {"customer": {**person, **named, **customer}, "order": used, "matched": used["lines"]}


PEOPLE: dict[str, dict[str, Any]] = {
    "ordinary": _facts(),
    "no name": _facts(None),
    "empty name": _facts(""),
    "blank name": _facts("   "),
    "spaced name": _facts("  Ana   María "),
    "long name": _facts("A" * 60),
    "emoji name": _facts("🎉Ana🎉"),
    "emoji family": _facts("👩‍👩‍👧"),
    "right to left": _facts("محمد عبد الله"),
    "hebrew": _facts("שרה"),
    "markup": _facts('<b onclick="x()">Ana</b>'),
    "template": _facts("{{ 7 * 7 }}"),
    "newlines": _facts("Ana\r\nBcc: x@y.example"),
    "nul": _facts("A\x00na"),
    "dash": _facts("-"),
    "shouting": _facts("ANA MARIA"),
    "no lines": _facts(order=_order(lines=[])),
    "nameless lines": _facts(order=_order(lines=[{"sku": "X"}, {}])),
    "many lines": _facts(order=_order(lines=[{"product": f"Producto {i}"} for i in range(300)])),
    "same lines": _facts(order=_order(lines=[{"product": "Taza"}] * 9)),
    "hostile product": _facts(order=_order(lines=[{"product": "<script>a()</script>"}])),
    "zero total": _facts(order=_order(total=0)),
    "no last order": {"customer": {**_facts()["customer"]}, "order": _order(), "matched": []},
    "huge total": _facts(order=_order(total=10**14)),
}
del PEOPLE["no last order"]["customer"]["last_order"]


def _steps() -> list[tuple[str, str, str, str]]:
    """(campaign, template, channel, variant) of every step."""
    found = []
    for path in CAMPAIGNS:
        for step in YAML(typ="safe").load(path)["steps"]:
            channels = step["channel"] if isinstance(step["channel"], list) else [step["channel"]]
            for variant in step.get("variants", {"": 1}):
                found += [(path.stem, step["template"], channel, variant) for channel in channels]
    return found


STEPS = _steps()


def _rendered(business: Business, template: str, channel: str, variant: str, locale: str | None, facts: Any) -> Content:
    made = _TEMPLATES[business.name]
    return made.render(
        template,
        channel,
        locale,
        facts,
        variant=variant,
        link=lambda *_: ("Ab3dEf7hIj1k", LINK),
    )


_TEMPLATES = {business.name: Templates(FILES, business) for business in (SHOP, BARE)}


def test_there_are_the_four_starter_campaigns() -> None:
    assert [path.stem for path in CAMPAIGNS] == ["post_sale", "review_request", "second_purchase", "win_back"]


@pytest.mark.parametrize("path", CAMPAIGNS, ids=lambda path: path.stem)
def test_a_starter_file_opens_with_its_schema_and_says_when_to_use_it(path: Path) -> None:
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    assert first == "# yaml-language-server: $schema=./.campaign.schema.json"
    said = "\n".join(rest)
    for word in ("When to use it", "What to change first", "Goal:", "oldout"):
        assert word in said


def test_the_starter_campaigns_have_no_problem() -> None:
    channels = dict.fromkeys(("email", "sms", "whatsapp"), ChannelSettings())
    files = {f"campaigns/{path.name}": path.read_text(encoding="utf-8") for path in CAMPAIGNS}
    loaded, problems = campaigns.load(files, Settings(workspace=ROOT, business=SHOP, channels=channels))
    assert problems == []
    assert loaded["win_back"].holdout == 0.1
    assert [step.id for step in loaded["post_sale"].steps] == ["thanks", "question"]


@pytest.mark.parametrize(("campaign", "template", "channel", "variant"), STEPS)
@pytest.mark.parametrize("locale", ["es-MX", "es", "en-US", "pt-BR", None])
def test_every_starter_message_reads_well_for_every_customer(
    campaign: str, template: str, channel: str, variant: str, locale: str | None
) -> None:
    for business in (SHOP, BARE):
        for name, facts in PEOPLE.items():
            content = _rendered(business, template, channel, variant, locale, facts)
            for part in (content.subject, content.preheader, content.text):
                assert not re.search(
                    r"\S {2,}|None|\{\{|Undefined| [,.!:;?]|, ?!|¡!", part.replace("{{ 7 * 7 }}", "Ana")
                ), (
                    name,
                    part,
                )
                assert part == part.strip(), (name, part)
            assert content.text, name
            assert "<b onclick" not in content.html
            assert "<script" not in content.html
            assert "\n" not in content.subject


@pytest.mark.parametrize(("campaign", "template", "channel", "variant"), STEPS)
def test_spanish_and_english_are_both_written(campaign: str, template: str, channel: str, variant: str) -> None:
    spanish = _rendered(SHOP, template, channel, variant, "es-AR", PEOPLE["ordinary"])
    english = _rendered(SHOP, template, channel, variant, "fr", PEOPLE["ordinary"])
    assert "Hola, Ana" in spanish.text
    assert "Hi, Ana" in english.text


@pytest.mark.parametrize(("campaign", "template", "channel", "variant"), STEPS)
def test_a_starter_sms_is_one_part(campaign: str, template: str, channel: str, variant: str) -> None:
    if channel != "sms":
        return
    for locale in ("es-MX", "en"):
        for business in (SHOP, BARE):
            content = _rendered(business, template, channel, variant, locale, PEOPLE["shouting"])
            assert (content.segments, content.encoding) == (1, "GSM-7"), content.text


def test_marketing_emails_can_be_stopped_and_every_email_names_the_shop_and_its_address() -> None:
    for _, template, channel, variant in STEPS:
        if channel == "email":
            content = _rendered(SHOP, template, channel, variant, "es-MX", PEOPLE["ordinary"])
            assert "unsubscribe" in [link.kind for link in content.links]
            assert LINK in content.text
            assert "Av. Reforma 1, 06600 Ciudad de México" in content.text
            assert content.preheader
            assert content.preheader not in content.text
            assert len(content.html) < 20_000  # a mailbox provider cuts an e-mail off at 102 KB


@pytest.mark.parametrize("business", [SHOP, BARE], ids=["full", "bare"])
def test_the_starter_templates_have_no_problem_at_all(business: Business) -> None:
    made = Templates(FILES, business)
    assert made.file_problems() == []
    for path in CAMPAIGNS:
        campaign = YAML(typ="safe").load(path)
        for step in campaign["steps"]:
            channels = step["channel"] if isinstance(step["channel"], list) else [step["channel"]]
            problems = made.problems(
                step["template"],
                channels,
                variants=tuple(step.get("variants", ())),
                subject=campaign["trigger"]["event"].partition(".")[0],
                purpose=campaign["purpose"],
                max_segments=1,
            )
            assert problems == []
