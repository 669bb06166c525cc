"""Templates: look-up, rendering, the sandbox, and the checks before publishing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from html import unescape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outreach.errors import Problem, TemplateError
from outreach.render import FILTERS, VARIABLES, Content, Link, Templates, sample_facts
from outreach.render.plain_text import from_html
from outreach.render.source import name_of, normal_locale
from outreach.settings import Business
from outreach.values import Money

NOW = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)
SHOP = Business(
    name="Tienda Luna",
    timezone="America/Mexico_City",
    currency="MXN",
    locale="es-MX",
    country="MX",
    postal_address="Av. Reforma 1",
    links={"review": "https://tienda.example/review?a=1&b=2"},
)
LAYOUT = (
    '<div class="preheader">{{ email.preheader | default("") }}</div>\n'
    "{% block content %}{% endblock %}\n"
    '{% block stop %}<a href="{{ links.unsubscribe }}">stop</a>{% endblock %}\n'
)


def templates(files: Mapping[str, str], business: Business = SHOP) -> Templates:
    return Templates({f"message_templates/{path}": text for path, text in files.items()}, business)


def numbered() -> Callable[[str, str], tuple[str, str]]:
    made: list[str] = []

    def link(kind: str, target: str) -> tuple[str, str]:
        made.append(kind)
        return f"t{len(made)}", f"https://s.example/{len(made)}"

    return link


def sms(text: str, context: Mapping[str, Any] | None = None, **options: Any) -> Content:
    facts = {"customer": {"first_name": "Ana"}} if context is None else context
    return templates({"a.sms.j2": text}).render("a", "sms", "es-MX", facts, **{"link": numbered(), **options})


def email(text: str, context: Mapping[str, Any], files: Mapping[str, str] | None = None) -> Content:
    made = templates({"layout.email.j2": LAYOUT, "a.email.j2": text, **(files or {})})
    return made.render("a", "email", "es-MX", context, link=numbered())


def refused(text: str, context: Mapping[str, Any] | None = None) -> TemplateError:
    with pytest.raises(TemplateError) as caught:
        sms(text, context)
    return caught.value


# --- which file --------------------------------------------------------------------------------


def test_a_locale_falls_back_to_its_language_and_then_to_the_file_without_one() -> None:
    made = templates({"a.sms.es-MX.j2": "", "a.sms.es.j2": "", "a.sms.j2": "", "b.sms.es.j2": "", "b.sms.j2": ""})
    assert made.path("a", "sms", "es-MX") == "message_templates/a.sms.es-MX.j2"
    assert made.path("a", "sms", "es_mx") == "message_templates/a.sms.es-MX.j2"
    assert made.path("a", "sms", "es-AR") == "message_templates/a.sms.es.j2"
    assert made.path("b", "sms", "es-MX") == "message_templates/b.sms.es.j2"
    assert made.path("a", "sms", "de") == "message_templates/a.sms.j2"


def test_a_customer_without_a_locale_or_of_an_unwritten_one_reads_the_business_language() -> None:
    made = templates({"a.sms.es.j2": "", "a.sms.pt.j2": ""})
    assert made.path("a", "sms", None) == "message_templates/a.sms.es.j2"
    assert made.path("a", "sms", "fr") == "message_templates/a.sms.es.j2"
    assert made.path("a", "sms", "pt-BR") == "message_templates/a.sms.pt.j2"
    assert made.path("b", "sms", "es") is None


def test_a_text_file_serves_the_short_channels_that_have_no_own_file() -> None:
    made = templates({"a.text.es.j2": "", "a.sms.es.j2": "", "a.call.j2": ""})
    assert made.path("a", "sms", "es") == "message_templates/a.sms.es.j2"
    assert made.path("a", "whatsapp", "es") == "message_templates/a.text.es.j2"
    assert made.path("a", "messenger", "es") == "message_templates/a.text.es.j2"
    assert made.path("a", "call", "es") == "message_templates/a.call.j2"
    assert made.path("a", "email", "es") is None


def test_language_goes_before_the_channels_own_file() -> None:
    made = templates({"a.text.es.j2": "", "a.sms.j2": ""})
    assert made.path("a", "sms", "es-MX") == "message_templates/a.text.es.j2"


def test_a_variant_has_its_own_template_or_the_steps() -> None:
    made = templates({"w/miss.sms.es.j2": "", "w/miss.sms.j2": "", "w/miss-warm.sms.j2": ""})
    assert made.path("w/miss", "sms", "es", "warm") == "message_templates/w/miss-warm.sms.j2"
    assert made.path("w/miss", "sms", "es", "plain") == "message_templates/w/miss.sms.es.j2"


def test_files_without_a_kind_are_only_there_to_be_included() -> None:
    assert name_of("message_templates/macros.j2") is None
    assert name_of("message_templates/a/_part.sms.es.j2") is None
    made = templates({"_sign.es.j2": "Saludos, {{ business.name }}", "a.sms.j2": "Hola. {% include '_sign.es.j2' %}"})
    assert made.render("a", "sms", "es", {}, link=numbered()).text == "Hola. Saludos, Tienda Luna"
    assert made.file_problems() == []


@pytest.mark.parametrize(("text", "expected"), [("es_mx", "es-MX"), ("ES", "es"), ("pt-Latn-BR", "pt-BR"), ("", "")])
def test_locales_are_read_in_every_common_spelling(text: str, expected: str) -> None:
    assert normal_locale(text) == expected


def test_a_template_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(TemplateError, match="no template b for sms"):
        templates({"a.sms.j2": "x"}).render("b", "sms", "es", {}, link=numbered())


# --- values ------------------------------------------------------------------------------------


def test_a_documented_name_without_a_value_is_false_and_equal_to_nothing() -> None:
    text = "{% if customer.first_name %}yes{% else %}no{% endif %} {{ customer.city | default('-') }} "
    text += "{{ 'MX' if customer.country == 'MX' else 'other' }} {{ 'a' if customer.last_order.total else 'none' }}"
    assert sms(text, {"customer": {}}).text == "no - other none"


@pytest.mark.parametrize(
    ("expression", "variable"),
    [
        ("customer.first_name", "customer.first_name"),
        ("customer.first_name | upper", "customer.first_name"),
        ("customer.last_order.total | money", "customer.last_order.total"),
        ("customer.birthday | date", "customer.birthday"),
        ("'Hola ' ~ customer.city", "customer.city"),
        ("customer['city']", "customer.city"),
        ("customer.attributes.size", "customer.attributes.size"),
        ("order.id", "order.id"),
        ("customer.tags[3]", "customer.tags[3]"),
        ("customer.first_name.upper()", "customer.first_name.upper"),
    ],
)
def test_printing_a_name_without_a_value_names_template_line_and_variable(expression: str, variable: str) -> None:
    error = refused("Hola\n\n{{ " + expression + " }}", {"customer": {"attributes": {}, "tags": []}})
    assert (error.template, error.line, error.variable) == ("message_templates/a.sms.j2", 3, variable)
    assert str(error).startswith(f"message_templates/a.sms.j2:3: {variable} has no value")


def test_a_name_missing_inside_a_loop_is_found_by_its_list() -> None:
    facts = {"order": {"lines": [{"product": "Mug"}, {}]}}
    error = refused("{% for line in order.lines %}\n{{ line.product }}\n{% endfor %}", facts)
    assert (error.line, error.variable) == (2, "order.lines[].product")


def test_an_unknown_name_raises_even_where_it_would_only_be_asked_for() -> None:
    error = refused("a\n{% if customer.frist_name %}x{% endif %}")
    assert (error.line, error.variable) == (2, "customer.frist_name")
    assert "did you mean `first_name`" in str(error)


def test_a_key_goes_before_a_method_of_the_same_name() -> None:
    facts = {"event": {"name": "cart.abandoned", "items": "two mugs", "copy": "c"}}
    assert sms("{{ event.items }} {{ event.copy }} {{ event['items'] }}", facts).text == "two mugs c two mugs"
    assert refused("{{ event.keys }}", {"event": {}}).variable == "event.keys"


@pytest.mark.parametrize(
    ("value", "name", "hint"),
    [
        (Money(100, "MXN"), "customer.total_spent", "| money"),
        (NOW, "customer.created_at", "| date"),
        (True, "customer.attributes.x", "{% if %}"),
        (None, "customer.attributes.x", "cannot be printed"),
        (["a"], "customer.tags", "cannot be printed"),
    ],
)
def test_values_that_would_read_badly_are_not_printed(value: object, name: str, hint: str) -> None:
    _, *middle, last = name.split(".")
    facts = {"customer": {middle[0]: {last: value}} if middle else {last: value}}
    assert hint in str(refused("{{ " + name + " }}", facts))


def test_whole_lines_of_tags_leave_no_empty_lines_and_spaces_are_single() -> None:
    text = "a  {{ '' }}  b   \n{% if true %}\nc\n{% endif %}\n\n\n\nd\n"
    assert sms(text).text == "a b\nc\n\nd"


def test_control_characters_and_direction_overrides_in_values_are_dropped() -> None:
    facts = {"customer": {"city": "a\x00b\x1b[31m\u202ec\r\nd"}}
    assert sms("{{ customer.city }}", facts).text == "ab[31mc\nd"


def test_an_email_that_shows_nothing_is_an_error_and_one_of_pictures_alone_is_not() -> None:
    head = "---\nsubject: x\n---\n"
    with pytest.raises(TemplateError, match="is empty for these facts"):
        email(head + "<p>{% if customer.city %}Hola{% endif %}</p>", {"customer": {}})
    assert email(head + '<p><img src="https://shop.example/a.png" alt=""></p>', {"customer": {}}).text == ""


def test_an_empty_message_is_an_error() -> None:
    assert "empty" in str(refused("{% if customer.city %}x{% endif %}"))


# --- filters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("locale", "value", "expected"),
    [
        ("es-MX", Money(123450, "MXN"), "$1,234.50"),
        ("es-AR", Money(123450, "ARS"), "$1.234,50"),  # the file's Spanish, the reader's country
        ("es-ES", Money(123450, "EUR"), "1.234,50 €"),
        ("es-MX", Money(0, "MXN"), "$0.00"),
        ("es-MX", Money(-1999, "MXN"), "-$19.99"),
        ("es-CL", Money(1990, "CLP"), "$1.990"),  # no minor unit
    ],
)
def test_money_is_written_as_in_the_readers_country(locale: str, value: Money, expected: str) -> None:
    made = templates({"a.sms.es.j2": "{{ order.total | money }}"})
    assert made.render("a", "sms", locale, {"order": {"total": value}}, link=numbered()).text == expected


def test_the_readers_country_comes_from_the_customer_where_the_locale_names_none() -> None:
    made = templates({"a.sms.es.j2": "{{ order.total | money }}"})
    facts = {"order": {"total": Money(123450, "COP")}, "customer": {"country": "CO"}}
    assert made.render("a", "sms", "es", facts, link=numbered()).text == "$1.234,50"


def test_dates_are_the_readers_day_in_the_zone_given() -> None:
    facts = {"order": {"placed_at": datetime(2026, 6, 16, 3, 30, tzinfo=UTC)}}
    text = "{{ order.placed_at | date }}; {{ order.placed_at | date('short') }}; {{ order.placed_at | datetime }}"
    assert sms(text, facts).text == "15 de junio de 2026; 15/06/26; 15 de junio de 2026, 9:30 p.m."
    assert sms(text, facts, zone="Europe/Madrid").text.startswith("16 de junio de 2026; ")
    assert sms(text, facts, zone="No/Where").text.startswith("15 de junio de 2026; ")


def test_a_date_is_read_from_a_birthday_too() -> None:
    assert sms("{{ customer.birthday | date }}", {"customer": {"birthday": "1990-03-14"}}).text == "14 de marzo de 1990"
    facts = {"customer": {"attributes": {"day": date(2024, 2, 29)}}}
    assert sms("{{ customer.attributes.day | date }}", facts).text == "29 de febrero de 2024"


@pytest.mark.parametrize(
    ("locale", "name", "expected"),
    [
        ("es", "Ana", "Hola, Ana"),
        ("es", None, "Hola"),
        ("es", "  ", "Hola"),
        ("es", "...", "Hola"),
        ("es", " Ana\r\n  María ", "Hola, Ana María"),
        ("es", "A" * 60, "Hola"),  # a company, or a slip
        ("es", "🎉 Ana", "Hola, 🎉 Ana"),
        ("es", "محمد", "Hola, محمد"),
        ("pt", "Ana", "Olá, Ana"),
        ("en", "Ana", "Hi, Ana"),
    ],
)
def test_a_greeting_reads_well_with_and_without_a_name(locale: str, name: str | None, expected: str) -> None:
    customer = {} if name is None else {"first_name": name}
    made = templates({f"a.sms.{locale}.j2": "{{ customer | greeting }}|{{ customer.first_name | greeting }}"})
    content = made.render("a", "sms", locale, {"customer": customer}, link=numbered())
    assert content.text == f"{expected}|{expected}"


def test_the_file_without_a_locale_is_english_beside_the_business_language_and_else_the_business_language() -> None:
    both = templates({"a.sms.es.j2": "x", "a.sms.j2": "{{ customer | greeting }}"})
    assert both.render("a", "sms", "fr", {"customer": {}}, link=numbered()).text == "Hi"
    one = templates({"a.sms.j2": "{{ customer | greeting }}"})
    assert one.render("a", "sms", "fr", {"customer": {}}, link=numbered()).text == "Hola"
    said = templates({"a.sms.es.j2": "x", "a.sms.j2": "---\nlocale: pt\n---\n{{ customer | greeting }}"})
    assert said.render("a", "sms", "fr", {"customer": {}}, link=numbered()).text == "Olá"


@pytest.mark.parametrize("text", ["{{ 5 | money }}", "{{ 'x' | date }}", "{{ customer.first_name | datetime }}"])
def test_a_filter_on_the_wrong_kind_of_value_says_what_it_is_for(text: str) -> None:
    assert "is for" in str(refused(text))


# --- links -------------------------------------------------------------------------------------


def test_only_the_links_that_a_message_holds_are_made_each_once() -> None:
    text = (
        "{{ links.unsubscribe }} {{ links.unsubscribe }} {{ business.links.review | link }} {{ links.survey_score(5) }}"
    )
    text += "{% if customer.city %}{{ links.preferences }}{% endif %}"
    content = sms(text, {"customer": {}}, survey="csat")
    assert content.text == "https://s.example/1 https://s.example/1 https://s.example/2 https://s.example/3"
    assert content.links == (
        Link("t1", "unsubscribe"),
        Link("t2", "url", "https://tienda.example/review?a=1&b=2"),
        Link("t3", "survey_score", "csat:5"),
    )


@pytest.mark.parametrize("url", ["javascript:alert(1)", "//evil.example", "https://a b", "mailto:x@y.example", ""])
def test_only_web_addresses_are_tracked(url: str) -> None:
    assert "begin with https" in str(refused("{{ event.url | link }}", {"event": {"url": url}}))


# --- e-mail and WhatsApp -----------------------------------------------------------------------

EMAIL = (
    "---\nsubject: {{ customer | greeting }}, gracias\npreheader: Dos minutos\n---\n"
    '{% extends "layout.email.j2" %}\n'
    "{% block content %}<h1>{{ customer | greeting }}</h1>\n"
    '<p>1. Mira <a href="{{ business.links.review | link }}">esto</a></p>{% endblock %}\n'
)


def test_an_email_has_subject_preheader_html_and_a_derived_text_part() -> None:
    content = email(EMAIL, {"customer": {"first_name": "Ana & <b>Co"}})
    assert content.subject == "Hola, Ana & <b>Co, gracias"
    assert content.preheader == "Dos minutos"
    assert "<h1>Hola, Ana &amp; &lt;b&gt;Co</h1>" in content.html
    assert content.text == "Hola, Ana & <b>Co\n\n1. Mira esto: https://s.example/1\n\nstop: https://s.example/2"
    assert [link.kind for link in content.links] == ["url", "unsubscribe"]


def test_a_written_text_part_takes_the_place_of_the_derived_one() -> None:
    files = {"a.email_text.j2": "{{ customer | greeting }} & {{ links.unsubscribe }}"}
    content = email(EMAIL, {"customer": {"first_name": "<Ana>"}}, files)
    assert content.text == "Hola, <Ana> & https://s.example/2"


@pytest.mark.parametrize("evil", ["x\r\nBcc: a@b.example", "x\nBcc: y", "x\u2028Bcc: y", "x\x85Bcc: y", "x\x0bBcc: y"])
def test_no_value_can_begin_another_header(evil: str) -> None:
    text = "---\nsubject: Hola {{ customer.city }}\npreheader: {{ customer.city }}\n---\nx"
    content = email(text, {"customer": {"city": evil}})
    for header in (content.subject, content.preheader):
        assert len(header.splitlines()) == 1
        assert "Bcc" in header


@pytest.mark.parametrize(
    "text",
    [
        "{{ customer.city }}",
        "{{ customer.city ~ '!' }}",
        "{{ '<i>' ~ customer.city }}",
        "{{ [customer.city] | join(', ') }}",
        "{{ customer.city | replace('a', 'a') }}",
        "{% set x = customer.city %}{{ x }}",
        "{% set x %}{{ customer.city }}{% endset %}{{ x }}",
        "{% macro m(v) %}{{ v }}{% endmacro %}{{ m(customer.city) }}",
        "{% filter trim %}{{ customer.city }}{% endfilter %}",
        "{% filter replace('x', 'y') %}{{ customer.city }}{% endfilter %}",
        '<a title="{{ customer.city }}">x</a>',
    ],
)
def test_a_hostile_value_is_escaped_in_html_whatever_the_template_does(text: str) -> None:
    content = email(f"---\nsubject: x\n---\n{text}", {"customer": {"city": '"><script>a()</script>'}})
    assert "<script>" not in content.html
    assert '""' not in content.html
    assert "&lt;script&gt;" in content.html


def test_what_a_filter_block_makes_of_a_value_is_escaped_again() -> None:
    text = "---\nsubject: x\n---\n{% filter striptags %}{{ customer.city }}{% endfilter %}"
    content = email(text, {"customer": {"city": "<script>a()</script>"}})
    assert content.html == "&lt;script&gt;a()&lt;/script&gt;"


@pytest.mark.parametrize(
    "text", ["{{ customer.city | safe }}", "{% autoescape false %}{{ customer.city }}{% endautoescape %}"]
)
def test_escaping_cannot_be_switched_off(text: str) -> None:
    with pytest.raises(TemplateError):
        email(f"---\nsubject: x\n---\n{text}", {"customer": {"city": "<b>"}})


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_no_name_whatever_breaks_a_header_or_the_html(name: str) -> None:
    content = email(
        "---\nsubject: Hola {{ customer.city }}.\n---\n<p>Hola {{ customer.city }}</p>", {"customer": {"city": name}}
    )
    assert len(content.subject.splitlines()) == 1
    assert content.html.count("<") == 2


def test_text_from_html_keeps_words_and_addresses_only() -> None:
    html = "<title>t</title><style>p{}</style><p>a &amp; b<br>c</p><hr><p>* no list</p><ul><li>x</li></ul>"
    html += '<a href="https://a.example/?x=1&amp;y=2">https://a.example/?x=1&amp;y=2</a>'
    assert from_html(html) == "a & b\nc\n\n* no list\n\n  * x\n\nhttps://a.example/?x=1&y=2"


def test_whatsapp_front_matter_names_the_approved_template_and_its_values() -> None:
    text = '---\ncontent_sid: HX12\nvariables:\n  1: "{{ customer | greeting }}"\n  order: {{ order.id }}\n---\n'
    text += "Pedido {{ order.id }}"
    made = templates({"a.whatsapp.es.j2": text})
    facts = {"customer": {"first_name": "Ana"}, "order": {"id": "A\n 1"}}
    content = made.render("a", "whatsapp", "es", facts, link=numbered())
    assert content.content_sid == "HX12"
    assert content.variables == (("1", "Hola, Ana"), ("order", "A 1"))


def test_an_error_in_the_front_matter_has_its_own_line() -> None:
    made = templates({"a.email.j2": "---\npreheader: x\nsubject: {{ customer.city }}\n---\nx"})
    with pytest.raises(TemplateError) as caught:
        made.render("a", "email", "es", {"customer": {}}, link=numbered())
    assert (caught.value.line, caught.value.variable) == (3, "customer.city")


def test_an_error_in_the_layout_names_the_layout() -> None:
    made = templates(
        {"l.email.j2": "a\n{{ email.preheader }}", "a.email.j2": "---\nsubject: x\n---\n{% extends 'l.email.j2' %}"}
    )
    with pytest.raises(TemplateError) as caught:
        made.render("a", "email", "es", {}, link=numbered())
    assert (caught.value.template, caught.value.line) == ("message_templates/l.email.j2", 2)


def test_sms_content_knows_its_parts() -> None:
    assert (sms("Hola").segments, sms("Hola").encoding) == (1, "GSM-7")
    assert (sms("á" * 80).segments, sms("á" * 80).encoding) == (2, "UCS-2")


# --- the sandbox -------------------------------------------------------------------------------

ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ customer.__class__ }}",
    "{{ customer['__class__'] }}",
    "{{ customer.first_name['__class__'] }}",
    "{{ customer.first_name | attr('__class__') }}",
    "{{ [customer.first_name] | map(attribute='__class__') | list }}",
    "{{ [customer.first_name] | map(attribute='format') | first }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ cycler('a') }}",
    "{{ lipsum(n=100000) }}",
    "{{ joiner() }}",
    "{{ dict(a=1) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ range.__class__ }}",
    "{{ links._run }}",
    "{{ links['_run'] }}",
    "{{ links.__init__ }}",
    "{{ _run }}",
    "{{ _run.link('unsubscribe', '') }}",
    "{{ '{0.__class__}'.format(customer) }}",
    "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "{{ '%s' % customer.first_name }}",
    "{{ '%s' | format(customer.first_name) }}",
    "{{ 'abc'.encode('utf-8') }}",
    "{{ 'x'.center(1000000000) }}",
    "{{ 'x'.join(['a', 'b']) }}",
    "{{ 'x' | center(1000000000) }}",
    "{{ customer.tags.append('x') }}",
    "{{ customer.pop('first_name') }}",
    "{{ customer.update({'a': 1}) }}",
    "{% include '/etc/passwd' %}",
    "{% include '../outreach.yaml' %}",
    "{% import 'os' as os %}x",
    "{% extends '../../etc/passwd' %}",
    "{% set x = namespace(a=1) %}{{ x.__class__ }}",
    "{% macro m() %}x{% endmacro %}{{ m.__globals__ }}",
    "{% macro m() %}x{% endmacro %}{{ m._func }}",
    "{% for x in [1] %}{{ loop.__class__ }}{{ loop._iterator }}{% endfor %}",
    "{% set x = namespace(v=customer.first_name) %}{{ x.v['__cl' ~ 'ass__'] }}",
    "{% set x = [customer.first_name] %}{{ x[0]['format'] }}",
    "{% for c in [links] %}{{ c['_run'] }}{% endfor %}",
    "{% macro m(a) %}{{ a['mro'] }}{% endmacro %}{{ m(range) }}",
    "{% macro m(a) %}{{ a['keys']() }}{% endmacro %}{{ m(customer) }}",
    "{{ [customer.first_name] | map('attr', '__class__') | list }}",
    "{{ [customer.first_name.upper] | map(attribute='__self__') | first }}",
    "{{ namespace['__init__'] }}",
    "{{ self['__init__'] }}",
    "{{ self }}",
    "{{ super() }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ ns.__class__ }}",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_nothing_of_python_is_in_reach(text: str) -> None:
    refused(text, {"customer": {"first_name": "Ana", "tags": []}})


BOMBS = [
    "{% for i in range(10 ** 9) %}x{% endfor %}",
    "{% for i in range(10001) %}x{% endfor %}",
    "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "{% for a in range(9999) %}{% for b in range(9999) %}{% set x = 1 %}{% endfor %}{% endfor %}",
    "{{ 'x' * 10 ** 9 }}",
    "{{ 10 ** 9 * 'x' }}",
    "{{ [1] * 10 ** 9 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 10 ** 99 * 10 ** 99 }}",
    "{{ range(10 ** 12) | list | length }}",
    "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x | length }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x | replace('a', ns.x) %}{% endfor %}x",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}x",
    "{{ range(9999) | join('y' * 1000) }}",
    "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% for x in [[1]] recursive %}{{ loop(x) }}{{ loop([[1]]) }}{% endfor %}",
    "{% include 'a.sms.j2' %}",
    "{% extends 'a.sms.j2' %}",
    "{% for a in range(9999) %}" + "x" * 100 + "{% endfor %}",
    "(" * 3 + "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "-" * 20000 + "1 }}",
    "{% if true %}" * 200 + "x" + "{% endif %}" * 200,
]


@pytest.mark.parametrize("text", BOMBS, ids=range(len(BOMBS)))
def test_every_template_ends(text: str) -> None:
    refused(text)


def test_an_error_text_holds_no_value_of_the_customer() -> None:
    facts = {"customer": {"first_name": "Zyxw", "attributes": {"n": "Zyxw"}}}
    for expression in ("customer.first_name + 1", "customer.first_name | sum", "customer.attributes.n | date"):
        assert "Zyxw" not in str(refused("{{ " + expression + " }}", facts))


def test_errors_of_the_link_table_are_not_mistaken_for_the_templates() -> None:
    def broken(kind: str, target: str) -> tuple[str, str]:
        raise TemplateError(f"no room for {kind}{target}")

    with pytest.raises(TemplateError, match=r"^no room for unsubscribe$"):
        sms("{{ links.unsubscribe }}", link=broken)


# --- checks ------------------------------------------------------------------------------------

PLACE = ("campaigns/a.yaml", 7, 15)


def found(text: str, path: str = "a.sms.j2", **options: Any) -> list[Problem]:
    channel = path.split(".")[1]
    made = templates({"layout.email.j2": LAYOUT, path: text})
    return made.problems("a", [channel], position=PLACE, **options)


def only(problems: list[Problem]) -> Problem:
    assert len(problems) == 1, problems
    return problems[0]


def test_a_sound_template_has_no_problem() -> None:
    text = (
        "{{ customer | greeting }}! {% for l in order.lines if l.product %}{{ loop.index }}. {{ l.product | upper }} "
    )
    text += "{% else %}-{% endfor %}{% set n = order.total %}{{ n | money }} {{ order.placed_at | date('short') }}"
    assert found(text, subject="order") == []


def test_a_missing_template_is_reported_at_its_step_with_the_nearest_match() -> None:
    made = templates({"post_sale/thanks.sms.j2": "x", "post_sale/thanks.email.j2": "---\nsubject: x\n---\nx"})
    problem = only(made.problems("post_sale/thank", ["sms"], position=PLACE))
    assert str(problem).startswith("campaigns/a.yaml:7:15: there is no template post_sale/thank for sms")
    assert "did you mean `post_sale/thanks`" in problem.hint
    other = only(made.problems("post_sale/thanks", ["sms", "whatsapp"], position=PLACE))
    assert "there is no template post_sale/thanks for whatsapp" in other.text
    assert "post_sale/thanks.text.j2" in other.hint


def test_a_syntax_error_has_its_line() -> None:
    problem = only(found("a\nb {{ customer.first_name | }}\nc"))
    assert (problem.file, problem.line, problem.id) == ("message_templates/a.sms.j2", 2, "template-syntax")
    problem = only(found("a\n\n{% if x %}"))
    assert problem.id == "template-syntax"


@pytest.mark.parametrize(
    ("text", "name", "hint"),
    [
        ("{{ custmer.name }}", "custmer", "`customer`"),
        ("{{ customer.frist_name }}", "customer.frist_name", "`first_name`"),
        ("{{ order.totl | money }}", "order.totl", "`total`"),
        ("{% for l in order.lines %}{{ l.skuu }}{% endfor %}", "order.lines[].skuu", "`sku`"),
        ("{% for l in order.lines | sort(attribute='sku') %}{{ l.skuu }}{% endfor %}", "order.lines[].skuu", "`sku`"),
        ("{% set l = order.lines[0] %}{% if l %}{{ l.prodct }}{% endif %}", "order.lines[].prodct", "`product`"),
        ("{% with o = order %}{{ o.idd }}{% endwith %}", "order.idd", "`id`"),
        ("{% if customer.last_order.totl %}x{% endif %}", "customer.last_order.totl", "`total`"),
        ("{{ order.total.cents }}", "order.total.cents", "amount"),
        ("{{ order.id.format }}", "order.id.format", "capitalize"),
        ("{% for l in order.lines %}{{ loop.indx }}{% endfor %}", "indx", "`index`"),
        ("{% for l in order.lines %}{% endfor %}{{ l }}", "l", "there is"),
        ("{{ links.unsubscrib }}", "links.unsubscrib", "`unsubscribe`"),
        ("{{ 'x' if ordr else 'y' }}", "ordr", "`order`"),
        ("{% macro m(a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}", "b", "there is"),
        ("{{ customer['frist_name'] }}", "customer.frist_name", "`first_name`"),
        ("{{ business.links.reviw | link }}", "business.links.reviw", "`review`"),
        ("{{ email.subject }}", "email", "e-mail"),
    ],
)
def test_unknown_names_are_found_without_running_the_template(text: str, name: str, hint: str) -> None:
    errors = [problem for problem in found("\n" + text, subject="order") if not problem.warning]
    assert errors, text
    assert errors[0].line == 2
    assert name in errors[0].text
    assert hint in str(errors[0])


def test_the_column_of_an_unknown_name_is_given() -> None:
    problem = only(found("Hola\nTu pedido {{ order.idd }} va", subject="order"))
    assert (problem.line, problem.column) == (2, 14)


def test_names_of_other_triggers_are_unknown_unless_asked_for_first() -> None:
    assert "comes with triggers about an order" in only(found("{{ order.id }}", subject="customer")).text
    assert "comes with a step that names an offer" in found("{{ coupon.code }}")[0].text
    assert "comes with a step that names a survey" in found("{{ links.survey }}")[0].text
    assert found("x{% if coupon %}{{ coupon.code }}{% endif %}") == []
    assert found("{{ coupon.code }}", has_offer=True) == []
    assert found("{{ links.survey_score(5) }}", has_survey=True) == []
    assert found("{{ event.anything | default('x') }}", subject="event") == []


def test_unknown_filters_and_tests_are_found() -> None:
    assert "did you mean `money`" in only(found("{{ customer.total_spent | mony }}")).hint
    assert "unknown test" in found("{% if customer.orders_count is odddd %}x{% endif %}")[0].text


def test_names_that_some_records_lack_are_warned_of_unless_guarded() -> None:
    problem = only(found("Hola {{ customer.first_name }}"))
    assert problem.warning
    assert problem.id == "template-optional"
    guarded = [
        "{% if customer.first_name %}{{ customer.first_name }}{% endif %}",
        "{{ customer.first_name | default('x') }}",
        "{{ customer.first_name if customer.first_name else 'x' }}",
        "{% if customer.last_order %}{{ customer.last_order.total | money }}{% endif %}x",
        "{% if customer.first_name and customer.first_name.startswith('A') %}A{% endif %}x",
        "{{ customer.attributes.size | d('-') }}",
    ]
    for text in guarded:
        assert found(text) == [], text
    assert only(found("{{ customer.last_order.total | money }}")).warning


def test_values_that_cannot_be_printed_are_found() -> None:
    for name in ("customer.total_spent", "customer.tags", "customer", "customer.attributes"):
        assert only(found("{{ " + name + " }}")).id == "template-print"


def test_a_marketing_email_needs_an_unsubscribe_link_in_itself_or_its_layout() -> None:
    plain = "---\nsubject: x\n---\n<p>x</p>"
    assert only(found(plain, "a.email.j2")).id == "template-unsubscribe"
    assert found(plain, "a.email.j2", purpose="service") == []
    framed = '---\nsubject: x\n---\n{% extends "layout.email.j2" %}{% block content %}x{% endblock %}'
    assert found(framed, "a.email.j2") == []
    emptied = framed + "{% block stop %}{% endblock %}"
    assert only(found(emptied, "a.email.j2")).id == "template-unsubscribe"
    kept = framed + "{% block stop %}-{{ super() }}{% endblock %}"
    assert found(kept, "a.email.j2") == []


def test_an_email_needs_a_subject() -> None:
    assert only(found("<p>{{ links.unsubscribe }}</p>", "a.email.j2")).id == "template-subject"


def test_a_block_that_the_layout_does_not_have_is_an_error() -> None:
    text = '---\nsubject: x\n---\n{% extends "layout.email.j2" %}\n{% block contnt %}x{% endblock %}'
    problem = next(p for p in found(text, "a.email.j2") if p.id == "template-block")
    assert (problem.line, "did you mean `content`" in problem.hint) == (5, True)


def test_a_block_may_stand_in_a_block_of_any_layout() -> None:
    files = {
        "root.email.j2": "{% block content %}{% endblock %}{{ links.unsubscribe }}",
        "middle.email.j2": '{% extends "root.email.j2" %}{% block content %}<p>{% block words %}{% endblock %}</p>{% endblock %}',
        "a.email.j2": '---\nsubject: x\n---\n{% extends "middle.email.j2" %}{% block words %}Hola{% endblock %}',
        "b.email.j2": '---\nsubject: x\n---\n{% extends "middle.email.j2" %}{% block wrds %}Hola{% endblock %}',
    }
    made = templates(files)

    assert made.problems("a", ["email"]) == []
    assert made.render("a", "email", "es", {}, link=numbered()).text.startswith("Hola")
    assert [(one.id, "words" in one.hint) for one in made.problems("b", ["email"])] == [("template-block", True)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<p>Hola</p><![foo[x]]>", "its HTML cannot be read"),
        ("<p>{{ customer.first_name }}</p><![foo[x]]>", "its HTML"),
    ],
)
def test_html_that_cannot_be_read_is_an_error_of_its_template(text: str, what: str) -> None:
    made = templates({"a.email.j2": f"---\nsubject: x\n---\n{text}{{{{ links.unsubscribe }}}}"})

    with pytest.raises(TemplateError, match=what) as caught:
        made.render("a", "email", "es", {"customer": {"first_name": "Ana"}}, link=numbered())

    assert caught.value.template == "message_templates/a.email.j2"
    assert "Ana" not in str(caught.value)
    assert what in str(only([one for one in made.problems("a", ["email"]) if not one.warning]))


def test_half_a_character_is_dropped_and_stops_no_message() -> None:
    text = '{{ "\\ud83d" }}Hola {{ customer.first_name }} {{ "a" ~ customer.last_name }}'
    content = sms(text, {"customer": {"first_name": "An\udc00a", "last_name": "\ud83dB"}})

    assert content.text == "Hola Ana aB"
    content.text.encode()


def test_a_layout_that_is_not_there_is_an_error_with_the_nearest_match() -> None:
    problem = found('---\nsubject: x\n---\n{% extends "layot.email.j2" %}', "a.email.j2")[0]
    assert problem.id == "template-file"
    assert "did you mean `layout.email.j2`" in problem.hint


def test_a_long_sms_is_a_warning_that_names_the_characters_to_blame() -> None:
    problem = only(found("camión " * 30, max_segments=2))
    assert problem.warning
    assert "4 parts (UCS-2" in problem.text
    assert "'ó'" in problem.hint
    assert found("camion " * 30, max_segments=2) == []


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("---\nsubject: x\n", 1, "not closed"),
        ("---\nsubjct: x\n---\nx", 2, "unknown key subjct"),
        ("---\nsubject: x\nsubject: y\n---\nx", 3, "stands twice"),
        ("---\nsubject x\n---\nx", 2, "is not `key: value`"),
        ("---\nsubject: x\n---\nx", 2, "subject has no use in this file"),
        ("---\nlocale: es\n---\n\n{{ oops", 5, "cannot be read"),
    ],
)
def test_front_matter_mistakes_have_their_line(text: str, line: int, what: str) -> None:
    problem = found(text)[0]
    assert problem.line == line
    assert what in problem.text


def test_variants_that_all_read_the_same_are_a_warning() -> None:
    problem = only(found("x", variants=["plain", "warm"]))
    assert problem.warning
    made = templates({"a.sms.j2": "x", "a-warm.sms.j2": "{{ oops }}"})
    assert "oops" in only(made.problems("a", ["sms"], variants=["plain", "warm"], position=PLACE)).text


def test_a_file_whose_name_names_no_channel_is_an_error() -> None:
    problem = only(templates({"a.smss.es.j2": "x"}).file_problems())
    assert "did you mean `sms`" in problem.hint
    assert only(templates({"a.sms.es.mx.j2": "x"}).file_problems()).id == "template-name"


def test_every_documented_name_can_be_rendered_from_the_sample_facts() -> None:
    subjects = ("order", "case", "event", "answer", "offer")
    facts = sample_facts(subjects)
    checked = 0
    for variable in VARIABLES:
        if (
            variable.type in ("text", "number", "date")
            and "*" not in variable.name
            and "email" not in variable.subjects
        ):
            first = variable.name.replace("[]", "[0]")
            assert sms("{{ " + first + " }}", facts, survey="csat").text, variable.name
            checked += 1
    assert checked > 50


def test_names_and_filters_are_documented_once() -> None:
    names = [variable.name for variable in VARIABLES]
    assert len(names) == len(set(names))
    assert all(variable.text for variable in VARIABLES)
    assert {"money", "date", "datetime", "greeting", "link"} <= set(FILTERS)
    assert "safe" not in FILTERS


# --- the business's own facts, written into the words around them --------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{{ business.name }}, {{ business.currency }}", "Tienda «Luna», MXN"),
        ("{% set business = customer %}{{ business.name }}", "Ana"),
        ("{% for business in ['a', 'b'] %}{{ business }}{% endfor %}", "ab"),
        ("{% macro m(business) %}{{ business }}{% endmacro %}{{ m('x') }}", "x"),
        ("{% macro m(a='50%', business=customer) %}{{ business.name }}{% endmacro %}{{ m() }}", "Ana"),
        ("{% with a='5%', business=customer %}{{ business.name }}{% endwith %}", "Ana"),
        ("{% if business.name %}{{ business.name }}{% endif %} business", "Tienda «Luna» business"),
        ("{{ business.name | upper }}", "TIENDA «LUNA»"),
        ("{{ business.links.help }}", "https://luna.example/?a=1&b=2"),
    ],
)
def test_what_is_the_same_for_everybody_is_printed_as_if_it_were_asked_for(body: str, text: str) -> None:
    shop = Business(
        "Tienda «Luna»", "America/Mexico_City", "MXN", "es-MX", "MX", links={"help": "https://luna.example/?a=1&b=2"}
    )
    files = {
        f"message_templates/m.{kind}.j2": f"{head}{body}"
        for kind, head in (("sms", ""), ("email", "---\nsubject: x\n---\n"))
    }
    made = Templates(files, shop)
    facts = {"customer": {"name": "Ana"}}

    sms = made.render("m", "sms", "es-MX", facts, link=lambda _kind, _target: ("t", "u"))
    mail = made.render("m", "email", "es-MX", facts, link=lambda _kind, _target: ("t", "u"))

    assert (sms.text, mail.text) == (text, text)
    assert unescape(mail.html) == text
