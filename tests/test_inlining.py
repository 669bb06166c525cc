"""Style sheets of e-mails: into the elements they describe, reading nothing from outside."""

from __future__ import annotations

from pathlib import Path

from outreach.render import Templates
from outreach.render.inlining import inlined
from outreach.settings import Business

SHOP = Business(name="Luna", timezone="UTC", currency="EUR", locale="es")


def rendered(body: str, **customer: object) -> tuple[str, str]:
    files = {"message_templates/a.email.j2": f"---\nsubject: x\n---\n{body}"}
    made = Templates(files, SHOP).render("a", "email", "es", {"customer": customer}, link=lambda *_: ("t", "https://x"))
    return made.html, made.text


def test_a_rule_stands_in_its_element_and_the_sheet_is_gone() -> None:
    html, _ = rendered("<style>p { color: red }</style><p>Hola</p>")

    assert '<p style="color: red;">Hola</p>' in html
    assert "<style" not in html


def test_an_element_s_own_style_goes_before_the_sheet() -> None:
    html, _ = rendered('<style>p { color: red; margin: 0 }</style><p style="color: blue">Hola</p>')

    assert "color: blue" in html
    assert "color: red" not in html
    assert "margin: 0" in html


def test_what_depends_on_the_screen_stays_in_a_sheet() -> None:
    html, _ = rendered("<style>p { color: red } @media (max-width: 480px) { p { color: blue } }</style><p>Hola</p>")

    assert html.count("<style") == 1
    assert "@media (max-width: 480px)" in html
    assert '<p style="color: red;">' in html


def test_an_email_without_a_sheet_stays_to_the_letter() -> None:
    assert inlined("<p class=a>Hola<br></p>") == "<p class=a>Hola<br></p>"


def test_no_file_and_no_address_is_read(tmp_path: Path) -> None:
    (tmp_path / "theirs.css").write_text("p { color: green }")
    links = f'<link rel="stylesheet" href="file://{tmp_path}/theirs.css"><link rel="stylesheet" href="{tmp_path}/theirs.css">'

    html = inlined(
        f'{links}<link rel="stylesheet" href="http://127.0.0.1:9/x.css"><style>p {{ margin: 0 }}</style><p>Hola</p>'
    )

    assert "green" not in html
    assert '<p style="margin: 0;">Hola</p>' in html


def test_what_a_customer_is_called_cannot_become_markup_or_style() -> None:
    body = '<style>p { color: red }</style><p title="{{ customer.city }}">{{ customer.city }}</p>'
    html, text = rendered(body, city='"><style>*{display:none}</style><script>a()</script>&amp;')

    assert "<script" not in html
    assert "<style" not in html
    assert "display: none" not in html
    assert text == '"><style>*{display:none}</style><script>a()</script>&amp;'


def test_the_plain_text_part_holds_no_style() -> None:
    assert (
        rendered("<html><head><style>p { color: red } @media print { p { color: blue } }</style></head><p>Hola</p>")[1]
        == "Hola"
    )


def test_a_sheet_that_makes_no_sense_does_no_harm() -> None:
    assert ">Hola</p>" in inlined("<style>p { color: ;; } } ! @media {{{ </style><p>Hola</p>")
