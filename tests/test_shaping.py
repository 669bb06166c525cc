"""E-mails from their shape and their values: the same as if each had been styled and read whole."""

from __future__ import annotations

from html import unescape

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from markupsafe import Markup

from outreach.errors import TemplateError
from outreach.render import shaping
from outreach.render.inlining import inlined
from outreach.render.plain_text import from_html
from outreach.render.shaping import Shaped, as_read, html_and_text, read_html

SHEET = "<style>.a { color: red } p { margin: 0 } .b td { padding: 4px } @media (max-width: 480px) { .a { margin: 0 } }</style>"
# Words of a template, with %s where it prints a value.
PLACES = (
    "<p>Hola, %s.</p>", '<p class="a">%s</p>', '<p class="%s">x</p>', "<p>%s%s</p>", "<h1>%s</h1>",
    '<p>Lee <a href="%s">%s</a></p>', '<a href="https://shop.example/%s?y=%s">más</a>', "<ul><li>%s</li><li>%s</li></ul>",
    '<table class="b"><tr><td>%s</td><td>%s</td></tr></table>', "<!-- %s -->", "<style>.c { color: %s }</style>",
    '<img src="https://shop.example/a.png" alt="%s">', "<b>%s</b> y <i>%s</i>", '<div class="preheader">%s</div>',
    "<title>%s</title>", "<p>a\n  %s  b</p>", "<p %s>x</p>", '<img alt="x > y" class="%s">', '<p>%s</p><p class="%s">x</p>', '<a href="https://t.example/%s">https://t.example/%s</a>', '<p id="%s">x</p>', "%s", "<br>%s<hr>", "&nbsp;%s &amp; co",
)  # fmt: skip
ODD = ("", " ", "a  b", " a", "1. a", "# a", "*a*", "_a_", "https://shop.example/x?a=1&b=2", "&lt;b&gt;", "<b>", 'q"uo\'te', "a",
       "\ue1000\ue101", "\ue000", "a\nb", "–", "مريم", "🎁", "red", "x" * 300, "\xa0", "[a](b)", "\\*", "+ a", "- a")  # fmt: skip
values = st.one_of(st.sampled_from(ODD), st.text(max_size=12))

addresses = st.sampled_from(
    ("https://shop.example/x?a=1&b=2", "https://shop.example/y", "/b", "mailto:a@shop.example", "")
)


def whole(parts: list[str]) -> tuple[str, str]:
    html = "".join(part.replace("\ue100", "") for part in parts).strip()
    return inlined(html), from_html(html)


@st.composite
def emails(draw: st.DrawFn) -> list[str]:
    parts: list[str] = [SHEET] if draw(st.booleans()) else []
    for place in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=6)):
        first, *others = place.split("%s")
        parts.append(first)
        is_link = 'href="' in place
        drawn = draw(addresses if is_link else values)
        for other in others:
            value = drawn if draw(st.booleans()) else draw(addresses if is_link else values)
            bold = not is_link and draw(st.integers(0, 9)) == 0
            parts += [Markup("<b>%s</b>") % value if bold else Markup.escape(value), other]
    return parts


@hypothesis_settings(max_examples=200, deadline=None)
@given(parts=emails())
def test_an_email_means_the_same_as_if_it_had_been_worked_on_whole(parts: list[str]) -> None:
    made = html_and_text(parts, "m", text=True)
    wanted_html, wanted_text = whole(parts)

    assert unescape(made.html) == unescape(wanted_html)
    assert made.text == wanted_text


@hypothesis_settings(max_examples=100, deadline=None)
@given(parts=emails())
def test_a_shape_filled_again_from_what_is_kept_of_it_is_the_email_and_holds_nobodys_values(parts: list[str]) -> None:
    told = [Markup(f"zz{n}") if type(part) is Markup and "<" not in part else part for n, part in enumerate(parts)]
    made = html_and_text(told, "m", text=True)
    if made.shape is None:
        assert made.values == ()
        return
    assert read_html(made.shape.as_json()).filled(made.values) == made.html
    assert made.shape.text is not None
    assert made.shape.text.filled(as_read(made.values)) == made.text
    assert "zz" not in "".join((*made.shape.html.words, *made.shape.text.words))


def test_an_email_whose_values_stand_among_its_words_has_no_shape() -> None:
    for value in ('<p class="%s">x</p>', "<p><b>%s</b>  </p><!-- %s -->"):
        first, *others = value.split("%s")
        parts = [first, *(part for other in others for part in (Markup("Ana"), other))]
        assert html_and_text(parts, "m", text=False).shape is None
    assert html_and_text(["<p>", Markup("<b>Ana</b>"), "</p>"], "m", text=False).shape is None
    assert html_and_text(["<p>", Markup("Ana  María"), "</p>"], "m", text=False).shape is None
    assert html_and_text(["<p>", Markup(""), Markup("Ana"), "</p>"], "m", text=False).values == ("Ana",)


def test_what_was_worked_out_for_one_customer_serves_the_next_with_other_values() -> None:
    def one(name: str) -> Shaped:
        return html_and_text([SHEET, '<p class="a">Hola, ', Markup.escape(name), "</p>"], "m", text=True)

    one("Ana")
    before = shaping._shape.cache_info().misses
    made = one("Bea & <Hijos>")

    assert shaping._shape.cache_info().misses == before
    assert 'style="margin: 0;color: red;">Hola, Bea &amp; &lt;Hijos&gt;</p>' in made.html.replace('" ', '"')
    assert made.text == "Hola, Bea & <Hijos>"


def test_a_value_that_decides_a_style_is_seen_by_the_sheet() -> None:
    made = html_and_text([SHEET, '<p class="', Markup("a"), '">x</p>'], "m", text=False)

    assert "color: red" in made.html.partition("<p")[2]


def test_a_value_that_is_read_and_decides_a_style_is_seen_by_the_sheet() -> None:
    made = html_and_text([SHEET, "<p>", Markup("a"), '</p><p class="', Markup("a"), '">x</p>'], "m", text=True)

    assert "color: red" in made.html.rpartition("<p")[2]
    assert made.text == "a\n\nx"


def test_more_values_than_there_are_marks_are_all_there() -> None:
    parts = [SHEET, *(part for n in range(250) for part in ("<p>", Markup.escape(f"n{n}"), "</p>"))]

    assert html_and_text(parts, "m", text=True).text == whole(parts)[1]


def test_what_looks_like_a_mark_is_none() -> None:
    parts = ["<p>\ue1001\ue101 ", Markup.escape("\ue1000\ue101"), " ", Markup.escape("Ana"), "</p>"]
    html_and_text(["<p>", Markup.escape("Ana"), "</p>"], "m", text=True)

    assert html_and_text(["<p>", Markup.escape("\ue1000\ue101"), "</p>"], "m", text=True).text == "0\ue101"
    made = html_and_text(parts, "m", text=True)

    assert made.html == "<p>1\ue101 0\ue101 Ana</p>"
    assert made.text == "1\ue101 0\ue101 Ana"


def test_without_need_no_text_is_made() -> None:
    made = html_and_text(["<p>", Markup("Ana"), "</p>"], "m", text=False)

    assert (made.html, made.text) == ("<p>Ana</p>", "")


def test_a_sheet_that_cannot_be_read_names_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_html: str, path: str) -> str:
        raise TemplateError(f"{path}: a style sheet of this e-mail cannot be read", template=path, line=1)

    monkeypatch.setattr(shaping, "inlined", broken)

    with pytest.raises(TemplateError, match=r"^nobody's"):
        html_and_text(["<p>only here</p>"], "nobody's", text=False)
