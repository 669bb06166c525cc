"""The starter kit: every message reads well, in every language and channel, for every customer a shop may have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import simplemma
from ruamel.yaml import YAML

from outreach import campaigns, releases, render, settings, starter_kit
from outreach.cli.homes import HOMES
from outreach.cli.workspace_files import settings_text
from outreach.render import Content, Templates, shaping
from outreach.render.filters import LONGEST_NAME
from outreach.settings import Business
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
    links={"review": "https://tienda.example/review", "help": "https://tienda.example/ayuda"},
)
BARE = Business(name="Luna", timezone="UTC", currency="EUR", locale="es")
LINK = "https://pedidos.tiendaluna.example/l/Ab3dEf7hIj1k"
FILES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in ROOT.glob("message_templates/**/*.j2")
}
CAMPAIGNS = sorted(ROOT.glob("campaigns/*.yaml"))
ALL_CHANNELS = ("email", "sms", "whatsapp", "call")
# Each language of the kit: whose locale it is, the ending of its files, and how its messages greet Ana.
LANGUAGES = {
    "es-MX": ("es", "Hola, Ana"),
    "es-AR": ("es", "Hola, Ana"),
    "pt-BR": ("pt", "Olá, Ana"),
    "en-US": ("", "Hi, Ana"),
}


# --- fifty customers ---------------------------------------------------------------------------------------------


def _order(total: int = 123450, lines: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    some = [{"product": "Café de Chiapas", "quantity": "2"}, {"product": "Taza", "quantity": "1"}]
    money = Money(total, "MXN")
    return {"id": "MX-1", "placed_at": WHEN, "currency": "MXN", "total": money, "attributes": {}, "counted": True} | {
        "lines": some if lines is None else lines,
        **more,
    }


def _facts(
    first: str | None = "Ana",
    order: dict[str, Any] | None = None,
    case: dict[str, Any] | None = None,
    answer: dict[str, Any] | None = None,
    coupon: dict[str, Any] | None = None,
    **customer: Any,
) -> dict[str, Any]:
    used = _order() if order is None else order
    person = {"tags": [], "attributes": {}, "orders_count": 2, "total_spent": Money(5000, "MXN"), "last_order": used}
    named = {} if first is None else {"first_name": first, "name": f"{first} Paz"}
    return {
        "customer": {**person, **named, **customer},
        "order": used,
        "matched": used["lines"],
        "case": {"id": "C-1", "kind": "complaint", "opened_at": WHEN, "attributes": {}, **(case or {})},
        "answer": {"survey": "csat", "scale": "1-5", "score": 2, "satisfied": False, "at": WHEN, **(answer or {})},
        "coupon": {"code": "LUNA-7K3M9QX2", "kind": "percent", "value": "10", "expires_at": WHEN}
        if coupon is None
        else coupon,
    }


PEOPLE: dict[str, dict[str, Any]] = {
    "ordinary": _facts(),
    "no name": _facts(None),
    "empty name": _facts(""),
    "blank name": _facts("   "),
    "spaced name": _facts("  Ana   María "),
    "60 letters": _facts("A" * 60),
    "60 letters in words": _facts("María de los Ángeles Guadalupe del Sagrado Corazón de Jesús y"),
    "30 letters": _facts("B" * 30),
    "one letter": _facts("Ñ"),
    "accents": _facts("Begoña Íñigo"),
    "apostrophe": _facts("D'Angelo"),
    "hyphen": _facts("Jean-Luc"),
    "double quotes": _facts('"Pepe"'),
    "ampersand": _facts("Ana & Luis"),
    "digits": _facts("Ana 2"),
    "emoji name": _facts("🎉Ana🎉"),
    "emoji alone": _facts("🎉"),
    "emoji family": _facts("👩‍👩‍👧"),
    "arabic": _facts("محمد عبد الله"),
    "hebrew": _facts("שרה"),
    "chinese": _facts("王小明"),
    "cyrillic": _facts("Анна"),
    "combining": _facts("Jose\u0301"),
    "right-to-left mark": _facts("\u202eAna"),
    "zero width": _facts("A\u200bna"),
    "markup": _facts('<b onclick="x()">Ana</b>'),
    "template": _facts("{{ 7 * 7 }}"),
    "newlines": _facts("Ana\r\nBcc: x@y.example"),
    "tab": _facts("Ana\tMaría"),
    "nul": _facts("A\x00na"),
    "dash": _facts("-"),
    "dot": _facts(".", name="Paz"),
    "shouting": _facts("ANA MARIA"),
    "no last name": _facts(name="Ana"),
    "no lines": _facts(order=_order(lines=[])),
    "nameless lines": _facts(order=_order(lines=[{"sku": "X"}, {}])),
    "many lines": _facts(order=_order(lines=[{"product": f"Producto {i}"} for i in range(300)])),
    "same lines": _facts(order=_order(lines=[{"product": "Taza"}] * 9)),
    "hostile product": _facts(order=_order(lines=[{"product": "<script>a()</script>"}])),
    "long product": _facts(order=_order(lines=[{"product": "Taza de barro " * 15 + "fin"}])),
    "zero total": _facts(order=_order(total=0)),
    "no last order": _facts(),
    "huge total": _facts(order=_order(total=10**14)),
    "no orders": _facts(orders_count=0, total_spent=Money(0, "MXN")),
    "case with a note": _facts(case={"note": "<b>Llegó roto</b>", "category": "envio", "sku": "X"}),
    "comment": _facts(answer={"comment": "Tardó <b>mucho</b>", "score": 1}),
    "amount off": _facts(coupon={"code": "A1", "kind": "amount", "value": "100", "minimum": "300"}),
    "a gift": _facts(coupon={"code": "GIFT", "kind": "gift", "value": "Taza <b>", "expires_at": WHEN, "minimum": "5"}),
    "free delivery": _facts(coupon={"code": "FREE", "kind": "free_shipping", "value": ""}),
    "bare coupon": _facts(coupon={"code": "X", "kind": "percent", "value": "15"}),
    "nothing at all": _facts(
        None, order=_order(lines=[], total=0), coupon={"code": "X", "kind": "percent", "value": "1"}
    ),
}
del PEOPLE["no last order"]["customer"]["last_order"]
del PEOPLE["nothing at all"]["customer"]["last_order"]
ORDINARY = PEOPLE["ordinary"]


# --- every message of the kit ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """A template of a step, on one channel."""

    template: str
    channel: str
    variant: str
    purpose: str
    survey: str


def _texts() -> Iterator[Text]:
    for path in CAMPAIGNS:
        campaign = YAML(typ="safe").load(path)
        for step in campaign["steps"]:
            channels = step["channel"] if isinstance(step["channel"], list) else [step["channel"]]
            purpose, survey = step.get("purpose", campaign["purpose"]), step.get("survey", "")
            for variant in step.get("variants", {"": 1}):
                for channel in channels:
                    yield Text(step["template"], channel, variant, purpose, survey)


TEXTS = sorted(set(_texts()), key=str)
EMAILS = [text for text in TEXTS if text.channel == "email"]
SMS = [text for text in TEXTS if text.channel == "sms"]


def text_id(text: object) -> str:
    return f"{text.template}.{text.channel}" if isinstance(text, Text) else str(text)


@cache
def _templates(name: str) -> Templates:
    return Templates(FILES, {business.name: business for business in (SHOP, BARE)}[name])


def _rendered(
    text: Text, locale: str | None, facts: Any, business: Business = SHOP, made: Templates | None = None
) -> Content:
    return (made or _templates(business.name)).render(
        text.template,
        text.channel,
        locale,
        facts,
        variant=text.variant,
        survey=text.survey,
        link=lambda *_: ("Ab3dEf7hIj1k", LINK),
    )


# --- the campaigns -----------------------------------------------------------------------------------------------


def test_the_kit_has_the_campaigns_that_a_shop_begins_with() -> None:
    assert {path.stem for path in CAMPAIGNS} == {
        "post_sale", "delivery_check", "nps", "support_survey", "review_request", "how_to_use", "replenishment",
        "second_purchase", "win_back_60", "win_back", "win_back_150", "cancellation_save", "unresolved_complaint",
        "birthday", "coupon_expiring", "vip", "ambassador", "low_score", "high_score",
    }  # fmt: skip


@pytest.mark.parametrize("path", CAMPAIGNS, ids=lambda path: path.stem)
def test_a_starter_file_opens_with_its_schema_and_says_when_to_use_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    said = {one.name: one for one in starter_kit.said()}[path.stem]

    assert text.startswith("# yaml-language-server: $schema=./.campaign.schema.json\n#\n")
    assert said.when.endswith((".", ")"))
    assert said.change
    assert "oldout" in said.goal
    assert text.count(f"\n{starter_kit.ACTIVE}") == 1


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new workspace with every channel of the kit, all campaigns switched on."""
    folder = tmp_path_factory.mktemp("kit")
    starter_kit.copy_into(folder)
    text = settings_text("Tienda Luna", "MX", HOMES["MX"], ALL_CHANNELS)
    (folder / "outreach.yaml").write_text(text, encoding="utf-8")
    return folder


def test_the_whole_kit_switched_on_has_no_problem_with_the_settings_that_init_writes(fresh: Path) -> None:
    written = settings.load(fresh, {})

    assert releases.check(releases.read_files(fresh), written, None) == []


def test_every_survey_offer_and_segment_of_the_new_settings_is_used_by_a_campaign(fresh: Path) -> None:
    written = settings.load(fresh, {})
    used = "\n".join(path.read_text(encoding="utf-8") for path in CAMPAIGNS)

    assert set(re.findall(r"^    survey: (\w+)", used, re.MULTILINE)) == set(written.surveys)
    assert set(re.findall(r"^    offer: (\w+)", used, re.MULTILINE)) == set(written.offers)
    assert set(re.findall(r"segment\('(\w+)'\)", used)) == set(written.segments)


def test_only_marketing_steps_give_anything_away_and_only_service_listens_first(fresh: Path) -> None:
    loaded, _ = campaigns.load(releases.read_files(fresh), settings.load(fresh, {}))

    assert {step.purpose for one in loaded.values() for step in one.steps if step.offer} == {"marketing"}
    for name in ("low_score", "cancellation_save", "unresolved_complaint"):
        assert loaded[name].steps[0].purpose == "service"
        assert loaded[name].steps[0].offer is None
        assert "call" in [channel for step in loaded[name].steps for channel in step.channels]


def test_the_three_win_backs_hold_out_the_same_people_and_give_more_only_later(fresh: Path) -> None:
    loaded, _ = campaigns.load(releases.read_files(fresh), settings.load(fresh, {}))
    three = [loaded[name] for name in ("win_back_60", "win_back", "win_back_150")]

    assert [one.trigger.after.days if one.trigger.after else 0 for one in three] == [60, 90, 150]
    assert {(one.experiment, one.holdout) for one in three} == {("win_back", 0.1)}
    assert [[step.offer for step in one.steps] for one in three] == [[None], [None, None], ["back10", "back15"]]


# --- copying it --------------------------------------------------------------------------------------------------


def test_a_workspace_has_only_its_own_channels_in_the_steps(tmp_path: Path) -> None:
    starter_kit.copy_into(tmp_path, active=("post_sale",), channels=("email", "whatsapp", "messenger"))
    steps = [
        step for path in tmp_path.glob("campaigns/*.yaml") for step in YAML(typ="safe").load(path)["steps"]
    ]  # fmt: skip
    named = {
        name for step in steps for name in ([step["channel"]] if isinstance(step["channel"], str) else step["channel"])
    }

    assert named == {"email", "whatsapp", "messenger"}
    complaint = YAML(typ="safe").load(tmp_path / "campaigns" / "unresolved_complaint.yaml")
    assert [step["id"] for step in complaint["steps"]] == ["sorry", "coupon"]  # nobody calls
    assert complaint["steps"][0]["channel"] == ["whatsapp", "messenger", "email"]
    assert {path.stem for path in tmp_path.glob("campaigns/*.yaml")} == {path.stem for path in CAMPAIGNS}


def test_a_campaign_without_any_step_left_is_not_written(tmp_path: Path) -> None:
    starter_kit.copy_into(tmp_path, channels=("call",))

    written = {path.stem: YAML(typ="safe").load(path)["steps"] for path in tmp_path.glob("campaigns/*.yaml")}

    assert set(written) == {"low_score", "cancellation_save", "unresolved_complaint"}
    assert [step["channel"] for steps in written.values() for step in steps] == ["call"] * 3


def test_only_the_chosen_campaigns_are_on(tmp_path: Path) -> None:
    starter_kit.copy_into(tmp_path, active=("post_sale",))

    on = {path.stem: YAML(typ="safe").load(path)["active"] for path in tmp_path.glob("campaigns/*.yaml")}

    assert {name for name, active in on.items() if active is True or active == "yes"} == {"post_sale"}
    assert len(on) == len(CAMPAIGNS)


# --- the words ---------------------------------------------------------------------------------------------------

# A gap or slip where a value is missing: two blanks, a blank before a comma, `Hola, !`, `None`, braces.
SLIP = re.compile(r"\S {2,}|\bNone\b|\{\{|\}\}|Undefined| [,.!:;?]|, ?[!.]|[¡¿][!?]|\.\.")


@cache
def _without_text_parts() -> Templates:
    """The same templates with an empty plain-text part for each e-mail: making it takes most of the time."""
    parts = {path.replace(".email.", ".email_text."): "-" for path in FILES if ".email." in path}
    return Templates(FILES | parts, SHOP)


def _words_shown(html: str) -> str:
    """The words of an e-mail's body, blanks as they stand there."""
    body = html.partition("</div>")[2]  # after the preheader
    return unescape(re.sub(r"<[^>]*>", "", re.sub(r"<!--.*?-->", "", body)))


BY_FILE = {
    _templates(SHOP.name).path(text.template, text.channel, locale, text.variant) or "": (text, locale)
    for locale in LANGUAGES
    for text in TEXTS
}


@pytest.mark.parametrize("path", BY_FILE)
def test_every_message_reads_well_for_every_customer(path: str) -> None:
    text, locale = BY_FILE[path]
    for name, facts in PEOPLE.items():
        content = _rendered(text, locale, facts, made=_without_text_parts())
        for part in (content.subject, content.preheader, _words_shown(content.html) or content.text):
            plain = part.replace("{{ 7 * 7 }}", "Ana").replace("Hola, -", "Hola").replace('"Pepe"', "Pepe")
            assert not SLIP.search(plain), (name, SLIP.search(plain), part)
        for part in (content.subject, content.preheader, content.text):
            assert part == part.strip(), (name, part)
        assert content.text, name
        assert "\n" not in content.subject
        for harm in ("<b onclick", "<script", "Taza <b>", "<b>Lleg", "<b>mucho"):
            assert harm not in content.html, name


@pytest.mark.parametrize("text", TEXTS, ids=text_id)
def test_a_shop_without_links_address_or_country_loses_no_word(text: Text) -> None:
    for locale in (*LANGUAGES, None):
        for name in ("ordinary", "no name", "nothing at all", "free delivery"):
            content = _rendered(text, locale, PEOPLE[name], BARE)
            for part in (content.subject, content.preheader, content.text):
                assert not SLIP.search(part), (name, part)


@pytest.mark.parametrize("locale", LANGUAGES)
@pytest.mark.parametrize("text", TEXTS, ids=text_id)
def test_every_message_is_written_in_every_language(text: Text, locale: str) -> None:
    language, greeting = LANGUAGES[locale]
    path = _templates(SHOP.name).path(text.template, text.channel, locale, text.variant) or ""

    assert path.split(".")[2:-1] in ([language], [locale]) if language else path.count(".") == 2, path
    if text.channel != "call":
        said = _rendered(text, locale, ORDINARY).text
        assert greeting in said or (locale == "pt-BR" and text.channel != "email" and "Oi, Ana" in said)


@pytest.mark.parametrize("locale", LANGUAGES)
@pytest.mark.parametrize("text", SMS, ids=text_id)
def test_an_sms_is_one_part_in_the_plain_alphabet(text: Text, locale: str) -> None:
    for business in (SHOP, BARE):
        for name in ("ordinary", "shouting", "no name", "free delivery", "amount off", "nothing at all"):
            content = _rendered(text, locale, PEOPLE[name], business)
            seen = f"{content.segments} parts, {content.encoding}, {len(content.text)} characters: {content.text}"
            assert (content.segments, content.encoding) == (1, "GSM-7"), seen


STOP_WORDS = {"es": "BAJA", "pt": "SAIR", "": "STOP"}


@pytest.mark.parametrize("locale", LANGUAGES)
def test_a_marketing_sms_says_how_to_stop_and_no_other_does(locale: str) -> None:
    for text in SMS:
        said = _rendered(text, locale, ORDINARY).text
        assert (STOP_WORDS[LANGUAGES[locale][0]] in said) == (text.purpose == "marketing"), said


@pytest.mark.parametrize("locale", LANGUAGES)
def test_no_message_shouts_or_storms(locale: str) -> None:
    for text in TEXTS:
        content = _rendered(text, locale, ORDINARY)
        assert (content.subject + content.text).count("!") <= 2, content.text
        assert not set(re.findall(r"\b[A-ZÁÉÍÓÚÑ]{4,}\b", content.text)) - {"BAJA", "SAIR", "STOP", "LUNA"}


VOS = re.compile(
    r"\b(tenés|querés|podés|sos|vos|respondé|contanos|respondenos|decinos|buscás|preferís|conocés|sabés|encontrás"
    r"|merecés|usás|llevás|regalás|decí|preguntá|escuchá|pedí|compartilo|pasale)\b",
    re.IGNORECASE,
)
TU = re.compile(
    r"\b(tienes|quieres|puedes|eres|tú|ti|contigo|cuéntanos|respóndenos|dinos|buscas|prefieres|conoces|sabes"
    r"|encuentras|mereces|usas|llevas|regalas|escucha|compártelo|pasa)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("text", [text for text in TEXTS if text.channel != "whatsapp"], ids=text_id)
def test_argentines_are_addressed_as_vos_and_others_as_tu(text: Text) -> None:
    for name in ("ordinary", "comment"):
        for business in (SHOP, BARE):
            here, there = (
                re.sub(LINK, "", " ".join((one.subject, one.preheader, one.text)))
                for one in (_rendered(text, locale, PEOPLE[name], business) for locale in ("es-AR", "es-CO"))
            )
            assert not TU.search(here), TU.search(here)
            assert not VOS.search(there), VOS.search(there)


# The shop's own words, names, the words a person is to answer, and verbs with a pronoun at their end.
KNOWN = {
    "es": """mail tan kept lost baja lun tienda luna reforma av méxico ana paz chiapas mxn arreglarlo ayudarnos contarnos
        darle darnos darte decirte dejarlo leerte prepararte quedarte revisarlo saberlo tomarte compártelo cuéntanos
        dinos disfrútalo hazlo mándaselo respóndenos anótalo anotalo compartilo contanos decinos disfrutalo hacelo
        mandáselo merecés pasale podés respondenos""",
    "pt": """oi cupom kept lost sair pessoalmente tienda luna reforma av ciudad de méxico ana paz café chiapas taza mxn
        e-mail mails""",
    "en": "e stop tienda luna reforma av ciudad de méxico ana paz café chiapas taza mxn",
}  # fmt: skip
# Small words of one language that the dictionaries of the others hold, too.
FOREIGN = {
    "es": "the you your and with of to is it for você não com uma seu sua isso está-se obrigado",
    "pt": "the you your and with of is it el la los las usted con tu pedido-lo y hasta gracias muy",
    "en": "el la los las tu con hasta gracias muy você não com uma seu sua y o",
}


@pytest.mark.parametrize("locale", LANGUAGES)
def test_every_word_is_spelt_as_the_dictionary_has_it_and_in_its_own_language(locale: str) -> None:
    language = locale[:2]
    known, foreign = set(KNOWN[language].split()), set(FOREIGN[language].split())
    wrong: dict[str, str] = {}
    for text in (text for text in TEXTS if text.channel != "whatsapp"):  # the same file as for SMS
        for name, business in (("ordinary", SHOP), ("amount off", BARE), ("a gift", BARE), ("free delivery", BARE)):
            for word, where in _words(text, locale, PEOPLE[name], business):
                plain = word.lower()
                if plain in foreign or not (plain in known or simplemma.is_known(plain, language)):
                    wrong[word] = where

    assert wrong == {}


def _words(text: Text, locale: str, facts: Any, business: Business) -> Iterator[tuple[str, str]]:
    """Each word of the message and the file it stands in, without addresses, codes and what the customer bought."""
    path = _templates(business.name).path(text.template, text.channel, locale, text.variant) or ""
    content = _rendered(text, locale, facts, business)
    said = " ".join((content.subject, content.preheader, content.text))
    said = re.sub(
        r"https?://\S+|LUNA-\w+|\b(A1|GIFT|FREE)\b|Taza <b>|Café de Chiapas|Taza|MX-1|Av\. Reforma[^\n]*", " ", said
    )
    said = re.sub(r"\d+ \w+\.? \d{4}|\d+ de \w+\.? de \d{4}|\w+ \d+, \d{4}|EUR|MXN", " ", said)  # dates and money
    yield from ((word, path) for word in re.findall(r"[^\W\d_]+", said))


# --- e-mails -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", EMAILS, ids=text_id)
def test_an_email_can_be_stopped_names_the_shop_and_its_address_and_has_a_preheader(text: Text) -> None:
    content = _rendered(text, "es-MX", ORDINARY)

    assert "unsubscribe" in [link.kind for link in content.links]
    assert LINK in content.text
    assert "Av. Reforma 1, 06600 Ciudad de México" in content.text
    assert content.preheader
    assert content.preheader not in content.text
    assert len(content.subject) <= 60
    assert len(content.html) < 20_000  # a mailbox provider cuts an e-mail off at 102 KB


@pytest.mark.parametrize("text", EMAILS, ids=text_id)
def test_an_email_s_styles_stand_in_its_elements_and_only_screens_and_darkness_in_a_sheet(text: Text) -> None:
    html = _rendered(text, "pt-BR", ORDINARY).html
    sheets = re.findall(r"<style[^>]*>(.*?)</style>", html, re.DOTALL)

    assert len(sheets) == 1
    assert "prefers-color-scheme: dark" in sheets[0]
    assert "max-width: 480px" in sheets[0]
    for element in re.findall(r"<(?:p|td|a|body|ul)\b[^>]*>", html):
        assert 'style="' in element or element in ("<td>", '<td align="center">'), element
    assert 'role="presentation"' in html
    assert "<!--[if mso]>" in html
    assert '<html lang="pt-BR"' in html
    assert "position" not in html
    assert "flex" not in html


@pytest.mark.parametrize("text", [one for one in EMAILS if one.survey], ids=text_id)
def test_a_survey_s_email_links_every_score_once(text: Text) -> None:
    content = _rendered(text, "en-US", ORDINARY)
    scores = [link.target for link in content.links if link.kind == "survey_score"]
    first, last = (0, 10) if text.survey == "nps" else (1, 5)

    assert scores == [f"{text.survey}:{score}" for score in range(first, last + 1)]


@pytest.mark.parametrize("business", [SHOP, BARE], ids=["full", "bare"])
def test_no_template_file_has_a_problem(business: Business) -> None:
    assert _templates(business.name).file_problems() == []


def test_a_name_that_is_too_long_is_left_out() -> None:
    assert LONGEST_NAME < 60
    for text in SMS:
        assert "AAAA" not in _rendered(text, "es-MX", PEOPLE["60 letters"]).text


def test_every_template_file_belongs_to_a_step() -> None:
    made, used = _templates(SHOP.name), set()
    for text in TEXTS:
        for locale in LANGUAGES:
            used.add(made.path(text.template, text.channel, locale, text.variant))
    shared = {path for path in FILES if path.count("/") == 1}

    assert set(FILES) - shared == used


# --- the pages about it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["docs/es/campanas.md", "docs/pt/campanhas.md", "docs/reference/starter.md"])
def test_every_campaign_is_listed_in_every_language(page: str) -> None:
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(listed) == [path.stem for path in CAMPAIGNS]


@pytest.mark.parametrize("page", ["docs/es/una-campana-linea-por-linea.md", "docs/pt/uma-campanha-linha-por-linha.md"])
def test_the_campaign_explained_line_by_line_is_the_one_of_the_kit_and_every_key_of_it_is_explained(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    file = (ROOT / "campaigns" / "win_back_150.yaml").read_text(encoding="utf-8")

    assert shown is not None
    assert shown[1] == re.sub(r"^#.*\n", "", file, flags=re.MULTILINE)
    keys = set(re.findall(r"^ *(?:- )?(\w+):", shown[1], re.MULTILINE))
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == keys


@pytest.mark.parametrize("text", EMAILS, ids=text_id)
def test_an_email_is_styled_once_for_customers_whose_values_alone_differ(
    text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "OFTEN", 0)  # what is put together with its layouts is styled once more
    first = _rendered(text, "es-MX", _facts("Ana", coupon={"code": "LUNA-AAAA"}))
    before = shaping._shape.cache_info().misses
    second = _rendered(text, "es-MX", _facts("Beatriz", coupon={"code": "LUNA-BBBB"}))

    assert shaping._shape.cache_info().misses == before
    assert ("Ana" in first.text, "Ana" in second.text, "LUNA-AAAA" in second.html) == (True, False, False)


@pytest.mark.parametrize("locale", ["es-AR", "pt-BR"])
def test_an_email_filled_often_reads_as_it_did_at_first(locale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    often = Templates(FILES, SHOP)
    monkeypatch.setattr(render, "OFTEN", 1)
    for text in EMAILS:
        for name, facts in PEOPLE.items():
            first, now = (_rendered(text, locale, facts, made=made) for made in (_templates(SHOP.name), often))
            assert (now.subject, now.text, now.links) == (first.subject, first.text, first.links), (text, name)
            assert now.html == first.html, (text, name)
        assert often._compiled(often.path(text.template, "email", locale, text.variant) or "").flat is not None, text
