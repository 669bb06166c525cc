"""A template put together with its layouts says what Jinja2 makes of them, or is not put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jinja2 import DictLoader, Template, nodes
from jinja2.exceptions import TemplateSyntaxError
from markupsafe import Markup

from outreach import render
from outreach.errors import TemplateError
from outreach.render import Templates
from outreach.render.filters import FUNCTIONS, zone_of
from outreach.render.flattening import flattened
from outreach.render.sandbox import GLOBALS, RUN, Run, Sandbox, gathered
from outreach.settings import Business

SHOP = Business("Luna", "America/Mexico_City", "MXN", "es-MX")
CONSTANTS = {"business": {"name": "Luna & Sol"}}
FACTS = {"name": "Ana <b>", "some": ["a", "&"], "x": "outside", **CONSTANTS}


def environment(files: Mapping[str, str]) -> Sandbox:
    return Sandbox(DictLoader(dict(files)), FUNCTIONS, html=True, constants=CONSTANTS)


def flat(files: Mapping[str, str], name: str = "leaf") -> Template | None:
    made = environment(files)

    def read(wanted: str) -> nodes.Template | None:
        return made.parse(files[wanted], filename=wanted) if wanted in files else None

    tree = flattened(read, name, CONSTANTS)
    if tree is None:
        return None
    return made.template_class.from_code(made, made.compile(tree, name, name), made.make_globals(None))


def said(template: Template) -> list[Any] | str:
    """The words and the values apart, or what went wrong."""
    facts = {**GLOBALS, **FACTS, RUN: Run("es", zone_of("UTC"), lambda kind, _: (kind, kind))}
    try:
        parts = gathered(template.root_render_func(template.new_context(facts, shared=True)))
    except Exception as error:
        return type(error).__name__
    words: list[Any] = [""]
    for part in parts:
        if type(part) is Markup and part not in ("Luna &amp; Sol",):
            words += [part, ""]
        else:
            words[-1] += str(part)
    return words


def both(files: Mapping[str, str]) -> tuple[list[Any] | str, list[Any] | str | None]:
    together = flat(files)
    return said(environment(files).get_template("leaf")), None if together is None else said(together)


LAYOUT = "<p>{% block a %}A{% endblock %}</p>{% if name %}{% block b %}B {{ name }}{% endblock %}{% endif %}"
EXTENDS = '{% extends "root" %}'
BLOCK = "{% block a %}<i>{{ name }}</i> {{ business.name }}{% endblock %}"

TOGETHER = {
    "no layout": {"leaf": "Hola, {{ name }} de {{ business.name }}."},
    "a layout": {"root": LAYOUT, "leaf": EXTENDS + BLOCK},
    "nothing said": {"root": LAYOUT, "leaf": EXTENDS},
    "words before and after": {"root": LAYOUT, "leaf": f"before{EXTENDS}between{BLOCK}after"},
    "a value before": {"root": LAYOUT, "leaf": "{{ name }}" + EXTENDS + BLOCK},
    "three files": {"root": LAYOUT, "middle": EXTENDS + BLOCK, "leaf": '{% extends "middle" %}{% block b %}b{% endblock %}'},
    "a block that the layout lacks": {"root": LAYOUT, "leaf": EXTENDS + "{% block c %}c{% endblock %}"},
    "blocks in blocks": {
        "root": "{% block a %}1{% block b %}2{% endblock %}3{% endblock %}",
        "leaf": EXTENDS + "{% block b %}{{ name }}{% endblock %}",
    },
    "a block in a block that is replaced": {
        "root": "{% block a %}1{% block b %}2{% endblock %}3{% endblock %}",
        "leaf": EXTENDS + "{% block a %}x{% endblock %}{% block b %}y{% endblock %}",
    },
    "names within a block": {
        "root": LAYOUT,
        "leaf": EXTENDS + '{% block a %}{% set x = "in" %}{{ x }}{% endblock %}{% block b %}{{ x }}{% endblock %}',
    },
    "a name for all blocks": {"root": LAYOUT, "leaf": EXTENDS + '{% set x = name %}{% block a %}{{ x }}{% endblock %}'},
    "a name changed within a block": {
        "root": LAYOUT,
        "leaf": EXTENDS + '{% set x = "1" %}{% block a %}{% set x = x ~ "2" %}{{ x }}{% endblock %}{% block b %}{{ x }}{% endblock %}',
    },
    "a loop within a block": {
        "root": LAYOUT,
        "leaf": EXTENDS + "{% block a %}{% for x in some %}{{ loop.index }}{{ x }}{% endfor %}{{ x }}{% endblock %}",
    },
    "a macro and an import": {
        "root": LAYOUT,
        "of": "{% macro told(y) %}<u>{{ y }}</u>{% endmacro %}",
        "leaf": EXTENDS
        + '{% from "of" import told %}{% macro own(y) %}({{ y }}{{ x }}){% endmacro %}'
        + "{% block a %}{{ told(name) }}{{ own(name) }}{% endblock %}",
    },
    "an import within a block": {
        "root": LAYOUT,
        "of": "{% macro told(y) %}<u>{{ y }}</u>{% endmacro %}",
        "leaf": EXTENDS + '{% block a %}{% from "of" import told %}{{ told(name) }}{% endblock %}',
    },
    "what is included": {
        "root": LAYOUT,
        "other": "[{{ x }}{{ name }}]",
        "leaf": EXTENDS + '{% block a %}{% set x = "in" %}{% include "other" %}{% endblock %}',
    },
    "an if about what is the same for all": {
        "root": "{% if business.name %}1{% block a %}{% endblock %}{% else %}2{% endif %}{% if business.city %}3{% endif %}",
        "leaf": EXTENDS + BLOCK,
    },
    "elif and else": {
        "root": "{% if nobody %}1{% elif name %}{% block a %}{% endblock %}{% else %}{% block b %}{% endblock %}{% endif %}",
        "leaf": EXTENDS + BLOCK,
    },
    "a value that is missing": {"root": LAYOUT, "leaf": EXTENDS + "{% block a %}{{ nobody }}{% endblock %}"},
}  # fmt: skip
APART = {
    "super": {"root": LAYOUT, "leaf": EXTENDS + "{% block a %}{{ super() }}{% endblock %}"},
    "self": {"root": LAYOUT + "{{ self.a() }}", "leaf": EXTENDS + BLOCK},
    "a block in a loop": {"root": "{% for x in some %}{% block a %}{{ x }}{% endblock %}{% endfor %}", "leaf": EXTENDS},
    "a name around a block": {
        "root": "{% block a %}{% set x = 1 %}{% block b %}{{ x }}{% endblock %}{% endblock %}",
        "leaf": EXTENDS,
    },
    "a name under an if around a block": {
        "root": "{% block a %}{% if name %}{% set x = 1 %}{% endif %}{% block b %}{{ x }}{% endblock %}{% endblock %}",
        "leaf": EXTENDS,
    },
    "a block that must be said": {"root": "{% block a required %}{% endblock %}", "leaf": EXTENDS},
    "a layout that facts decide": {"root": LAYOUT, "leaf": "{% extends x %}"},
    "a layout under an if": {"root": LAYOUT, "leaf": '{% if name %}{% extends "root" %}{% endif %}' + BLOCK},
    "a layout that is not there": {"leaf": EXTENDS},
    "two layouts": {"root": LAYOUT, "leaf": EXTENDS + EXTENDS},
    "a layout of itself": {"leaf": '{% extends "leaf" %}'},
    "a loop beside the blocks": {"root": LAYOUT, "leaf": EXTENDS + "{% for x in some %}{{ x }}{% endfor %}"},
    "business means something else": {
        "root": LAYOUT,
        "leaf": EXTENDS + '{% set business = {"name": "x"} %}{% block a %}{{ business.name }}{% endblock %}',
    },
    "a block that stands in two places": {
        "root": "{% block a %}{% endblock %}{% block b %}{{ name }}{% endblock %}",
        "leaf": EXTENDS + "{% block a %}{% block b %}b{% endblock %}{% endblock %}",
    },
}  # fmt: skip


@pytest.mark.parametrize("files", TOGETHER.values(), ids=TOGETHER)
def test_a_template_and_its_layouts_say_together_what_they_say_apart(files: dict[str, str]) -> None:
    apart, together = both(files)

    assert together == apart


@pytest.mark.parametrize("files", APART.values(), ids=APART)
def test_what_is_not_certain_is_left_to_jinja(files: dict[str, str]) -> None:
    assert flat(files) is None


_words = st.sampled_from(["w ", "<p>", "{{ name }}", "{{ business.name }}", "{{ nobody }}", "{{ x }}", "{{ y }}"])
_plain = st.lists(_words, max_size=3).map("".join)
_naming = st.sampled_from(['{% set x = "new" %}', "{% set x = x ~ name %}", "{% set y = name %}", ""])


def _wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    block = st.builds("{{% block {} %}}{}{{% endblock %}}".format, st.sampled_from("abc"), inner)
    choice = st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, st.sampled_from(["name", "none", "business.name", "x"]), inner, inner)  # fmt: skip
    loop = st.builds("{{% for x in some %}}{}{{% endfor %}}".format, inner)
    return st.lists(st.one_of(_plain, _naming, block, block, choice, loop), max_size=4).map("".join)


_bodies = st.recursive(_plain, _wrapped, max_leaves=6)


@hypothesis_settings(max_examples=120, deadline=None)
@given(root=_bodies, middle=_bodies, leaf=_bodies)
def test_whatever_templates_say_they_say_it_together_as_well(root: str, middle: str, leaf: str) -> None:
    files = {"root": root, "middle": EXTENDS + middle, "leaf": '{% extends "middle" %}' + leaf}
    try:
        apart, together = both(files)
    except TemplateSyntaxError:  # two blocks of one name
        return

    assert together in (apart, None)


# --- in Templates ----------------------------------------------------------------------------------


def test_a_mistake_in_a_template_filled_often_is_still_told_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "OFTEN", 1)
    files = {
        "message_templates/root.email.j2": "<p>\n{% if customer.city %}{{ customer.region }}{% endif %}\n{% block a %}{% endblock %}",
        "message_templates/a.email.j2": '---\nsubject: x\n---\n{% extends "root.email.j2" %}\n{% block a %}hola{% endblock %}',
    }
    made = Templates(files, SHOP)

    def filled(**customer: str) -> str:
        return made.render("a", "email", "es", {"customer": customer}, link=lambda *_: ("", "")).text

    assert filled() == "hola"
    assert made._compiled("message_templates/a.email.j2").flat is not None
    with pytest.raises(TemplateError) as caught:
        filled(city="Oaxaca")
    place = (caught.value.template, caught.value.line, caught.value.variable)
    assert place == ("message_templates/root.email.j2", 2, "customer.region")


def test_a_preheader_that_is_the_same_for_all_is_a_word_of_the_shape_once_a_template_is_filled_often() -> None:
    files = {
        "message_templates/root.email.j2": "<i>{{ email.preheader }}</i><p>{{ customer.first_name }}</p>",
        "message_templates/a.email.j2": '---\nsubject: x\npreheader: "  Dos  palabras & más "\n---\n{% extends "root.email.j2" %}',
    }
    made = Templates(files, SHOP)
    several = [
        made.render("a", "email", "es", {"customer": {"first_name": f"Ana {n}"}}, link=lambda *_: ("", ""))
        for n in range(render.OFTEN + 1)
    ]

    assert several[0].values == ("Dos palabras &amp; más", "Ana 0")
    assert several[-1].values == (f"Ana {render.OFTEN}",)
    assert {content.html.replace(f"Ana {n}", "") for n, content in enumerate(several)} == {
        "<i>Dos palabras &amp; más</i><p></p>"
    }
