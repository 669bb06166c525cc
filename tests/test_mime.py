"""E-mails as bytes, held to what two parsers that are not ours read in them: the standard library's and mailparse's."""

from __future__ import annotations

import email
import email.policy
import re
from dataclasses import replace
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr

import fast_mail_parser
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from outreach.channels import Outgoing, mime
from outreach.render import Content, Gaps, Shape, as_read
from tests.conftest import NOW

ID = "0123456789abcdef0123456789abcdef"
SENDER = "Tienda Luna <hola@tienda.example>"
UNSUBSCRIBE = "https://tienda.example/u/" + "a" * 150

FAMILY = "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}"  # one picture made of several characters
words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=40)
lines = st.lists(words, min_size=1, max_size=12).map(" ".join)
plain_lines = st.text(st.sampled_from("abc xyz,.;:!?=_()<>@\"'\\"), min_size=1, max_size=200).map(mime.one_line)
emoji = st.text(st.sampled_from("🎉🛍️❤ñ a" + FAMILY), min_size=1, max_size=120).map(mime.one_line)
texts = lines | plain_lines | emoji
anything = st.text(max_size=120)
bodies = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.sampled_from("\n \t.=\r"), max_size=600)


def an_email(**changes: object) -> Outgoing:
    content = Content("email", "Hola Ñandú", subject="¡Gracias, Ana!", own_html="<p>Hola Ñandú</p>")
    message = Outgoing(ID, "email", "ana@example.com", "", content, "marketing", UNSUBSCRIBE, NOW, NOW.date())
    return replace(message, **changes)  # type: ignore[arg-type]


def wrote(subject: str = "x", text: str = "x", html: str = "", sender: str = SENDER, **changes: object) -> bytes:
    return mime.message(an_email(content=Content("email", text, subject=subject, own_html=html), **changes), sender)


def read(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def other(raw: bytes) -> fast_mail_parser.PyMail:
    """As a parser in Rust reads it, which shares nothing with the standard library's."""
    return fast_mail_parser.parse_email(raw)


def older(raw: bytes, header: str) -> str:
    """A header as the oldest of the standard library's parsers reads it."""
    return str(make_header(decode_header(email.message_from_bytes(raw, policy=email.policy.compat32)[header])))


def body(raw: bytes, kind: str) -> str:
    part = read(raw).get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def canonical(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def header_lines(raw: bytes) -> list[str]:
    return raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")


def test_a_message_holds_what_it_was_made_of() -> None:
    raw = mime.message(an_email(), SENDER)

    message = read(raw)
    assert message["From"] == "Tienda Luna <hola@tienda.example>"
    assert message["To"] == "ana@example.com"
    assert message["Subject"] == "¡Gracias, Ana!"
    assert message["Message-ID"] == f"<{ID}@tienda.example>"
    assert message["Date"].datetime == NOW
    assert message["MIME-Version"] == "1.0"
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert body(raw, "plain") == "Hola Ñandú\n"[:-1]
    assert body(raw, "html") == "<p>Hola Ñandú</p>"


def test_text_alone_has_no_parts() -> None:
    raw = wrote(text="Hola")

    assert read(raw).get_content_type() == "text/plain"
    assert body(raw, "plain") == "Hola\n"


def test_the_same_message_is_the_same_at_every_attempt() -> None:
    assert mime.message(an_email(), SENDER) == mime.message(an_email(), SENDER)


# --- headers read back -----------------------------------------------------------------------------------------------


@given(texts)
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_subject_reads_as_it_was_written(subject: str) -> None:
    raw = wrote(subject=subject)

    assert read(raw)["Subject"] == subject
    assert older(raw, "Subject") == subject
    assert other(raw).subject == subject


@given(texts)
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_sender_s_name_reads_as_it_was_written(name: str) -> None:
    raw = wrote(sender=mime.written("hola@tienda.example", name))

    (address,) = read(raw)["From"].addresses  # Python 3.11 reads a space between two encoded words of a name
    assert address.display_name.replace(" ", "") == name.replace(" ", "")
    assert address.addr_spec == "hola@tienda.example"
    seen, spec = parseaddr(email.message_from_bytes(raw, policy=email.policy.compat32)["From"])
    assert (str(make_header(decode_header(seen))), spec) == (name, "hola@tienda.example")
    if not name.isascii():
        assert other(raw).headers["From"] == [f"{name} <hola@tienda.example>"]


@given(subject=texts, name=texts)
@hypothesis_settings(max_examples=40, deadline=None)
def test_headers_are_folded_and_encoded_words_are_short_and_whole(subject: str, name: str) -> None:
    raw = wrote(subject=subject, sender=mime.written("hola@tienda.example", name), unsubscribe_url="")

    head = header_lines(raw)
    assert all(line.isascii() and len(line) <= 78 and line.strip() for line in head)
    for word in re.findall(r"=\?utf-8\?[qb]\?[^ ?]*\?=", " ".join(head)):
        assert len(word) <= 75
        decoded, charset = decode_header(word)[0]
        assert isinstance(decoded, bytes)
        assert charset == "utf-8"
        decoded.decode()  # a character that was cut in two is an error


@pytest.mark.parametrize(
    "subject", ["🎉" * 90, FAMILY * 20, "á" * 100, "¡Ofertas! " * 40, "a" * 500, "=?utf-8?q?x?=", ""]
)
def test_a_subject_that_is_hard_to_fold_reads_as_it_was_written(subject: str) -> None:
    raw = wrote(subject=subject, unsubscribe_url="")

    assert older(raw, "Subject") == subject.strip()
    assert max(map(len, header_lines(raw))) <= 78


def test_marketing_carries_the_headers_of_one_click_unsubscribing_unbroken() -> None:
    head = header_lines(wrote())

    assert f"List-Unsubscribe: <{UNSUBSCRIBE}>" in head
    assert "List-Unsubscribe-Post: List-Unsubscribe=One-Click" in head


@pytest.mark.parametrize("changes", [{"purpose": "service"}, {"unsubscribe_url": ""}])
def test_other_mail_carries_none(changes: dict[str, str]) -> None:
    assert b"List-Unsubscribe" not in wrote(**changes)


@pytest.mark.parametrize(
    ("url", "stands"),
    [
        ("https://x.example/a>\r\nBcc: all@x.example", "https://x.example/a%3E%20Bcc:%20all@x.example"),
        ("https://x.example/ñ", "https://x.example/%C3%B1"),
        ("https://x.example/a?b=c&d=%20#e", "https://x.example/a?b=c&d=%20#e"),
    ],
)
def test_a_link_to_unsubscribe_stays_in_its_brackets(url: str, stands: str) -> None:
    assert f"List-Unsubscribe: <{stands}>" in header_lines(wrote(unsubscribe_url=url))


# --- nothing breaks out ------------------------------------------------------------------------------------------------

EXPECTED = [
    "From", "To", "Subject", "Message-ID", "Date", "List-Unsubscribe", "List-Unsubscribe-Post",
    "MIME-Version", "Content-Type",
]  # fmt: skip


@given(subject=anything, name=anything, text=anything, html=anything)
@hypothesis_settings(max_examples=40, deadline=None)
def test_no_subject_name_or_body_can_break_out_of_its_place(subject: str, name: str, text: str, html: str) -> None:
    raw = wrote(subject, text, f"<p>{html}</p>", mime.written("hola@tienda.example", name))

    message = read(raw)
    assert message.keys() == EXPECTED
    assert list(other(raw).headers) == EXPECTED
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert [address.addr_spec for address in message["From"].addresses] == ["hola@tienda.example"]
    assert [address.addr_spec for address in message["To"].addresses] == ["ana@example.com"]


@pytest.mark.parametrize(
    "hostile", ["x\r\nBcc: all@x.example", "x\nBcc: all@x.example", "x\rBcc: a@x.example", "x\u2028y"]
)
def test_line_breaks_become_spaces(hostile: str) -> None:
    raw = wrote(subject=hostile, sender=mime.written("hola@tienda.example", hostile), unsubscribe_url="")

    assert read(raw)["Subject"] == " ".join(hostile.split())
    assert read(raw)["Bcc"] is None


@pytest.mark.parametrize(
    "address",
    [
        "", "ana", "@example.com", "ana@", "ana@example..com", "ana@.example.com", "a na@example.com", "ana@exa mple.com",
        "ana@example.com\r\nBcc: all@example.com", "ana@example.com\n", "ana@example.com,b@example.com",
        "ana@example.com>,<b", "<ana@example.com>", "Ana <ana@example.com>", '"a b"@example.com', "ana(x)@example.com",
        ".ana@example.com", "ana.@example.com", "a..b@example.com", "ana@[127.0.0.1]", "ana\ud800@example.com",
        "ana\u2028@example.com", "a" * 65 + "@example.com", "a@" + "b" * 250 + ".example", "ana@ex\x00ample.com",
    ],
)  # fmt: skip
def test_an_address_that_is_not_one_in_its_plain_form_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="not an e-mail address"):
        wrote(address=address)


@given(st.text(max_size=30).map("{}@example.com".format) | st.text(max_size=40))
@hypothesis_settings(max_examples=40, deadline=None)
def test_an_address_is_refused_or_stands_alone(address: str) -> None:
    try:
        raw = wrote(address=address, unsubscribe_url="")
    except ValueError:
        return
    local, _, _ = address.rpartition("@")

    assert [line for line in header_lines(raw) if line.startswith(f"To: {local}@")]
    assert len(header_lines(raw)) == 8
    assert other(raw).headers["To"][0].startswith(f"{local}@")


def test_a_domain_beyond_ascii_is_written_as_dns_has_it() -> None:
    assert read(wrote(address="ana@ñandú.example"))["To"] == "ana@xn--and-6ma2c.example"


def test_a_local_part_beyond_ascii_stands_as_it_is() -> None:
    assert "To: ñandú@tienda.example" in header_lines(wrote(address="ñandú@tienda.example"))


# --- bodies --------------------------------------------------------------------------------------------------------------


@given(text=bodies, html=bodies)
@hypothesis_settings(max_examples=40, deadline=None)
def test_bodies_read_as_they_were_written(text: str, html: str) -> None:
    html = f"<p>{html}"
    raw = wrote(text=text, html=html)

    assert body(raw, "plain") == canonical(text)
    assert body(raw, "html") == canonical(html)
    parsed = other(raw)
    assert [canonical(one) for one in parsed.text_plain] == [canonical(text)]
    assert [canonical(one) for one in parsed.text_html] == [canonical(html)]


@given(words=st.lists(bodies, min_size=1, max_size=5), values=st.lists(bodies, min_size=1, max_size=3), data=st.data())
@hypothesis_settings(max_examples=60, deadline=None)
def test_html_of_a_shape_reads_as_if_it_had_been_written_whole(
    words: list[str], values: list[str], data: st.DataObject
) -> None:
    places = st.lists(st.integers(0, len(values) - 1), min_size=len(words) - 1, max_size=len(words) - 1)
    gaps = Gaps(("<p>" + words[0], *words[1:]), tuple(data.draw(places)))
    html, text = gaps.filled(values), gaps.filled(as_read(values))
    content = Content("email", text, subject="x", shape=Shape(gaps, gaps, "0"), values=tuple(values))

    raw = mime.message(an_email(content=content, unsubscribe_url=""), SENDER)

    assert body(raw, "html") == canonical(html)
    assert body(raw, "plain") == canonical(text)
    assert [canonical(one) for one in other(raw).text_plain] == [canonical(text)]
    assert [canonical(one) for one in other(raw).text_html] == [canonical(html)]
    assert raw.isascii()
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    assert max(map(len, raw.split(b"\r\n"))) <= 76
    assert b"\n." not in raw


@pytest.mark.parametrize("length", range(70, 80))
def test_a_value_ending_in_a_dot_begins_no_line_with_it_wherever_lines_break(length: int) -> None:
    for value in ("." * length, "." + "x" * length + ".", "x" * length + ".", "ñ" * length + "."):
        gaps = Gaps(("<p>", "</p>"), (0,))
        content = Content("email", f"<p>{value}</p>", subject="x", shape=Shape(gaps, gaps, "0"), values=(value,))
        last = Gaps(("<p>", ""), (0,))
        at_the_end = Content("email", f"<p>{value}", subject="x", shape=Shape(last, last, "1"), values=(value,))
        for one in (content, at_the_end):
            raw = mime.message(an_email(content=one, unsubscribe_url=""), SENDER)

            assert b"\n." not in raw
            assert body(raw, "html") == one.html
            assert body(raw, "plain") == one.text
            assert max(map(len, raw.split(b"\r\n"))) <= 76


@given(text=bodies)
@hypothesis_settings(max_examples=40, deadline=None)
def test_text_alone_reads_as_it_was_written(text: str) -> None:
    assert body(wrote(text=text), "plain") in (canonical(text), canonical(text) + "\n")


@given(text=st.text(max_size=400), repeated=st.integers(1, 40))
@hypothesis_settings(max_examples=40, deadline=None)
def test_every_line_of_a_body_is_ascii_crlf_and_short(text: str, repeated: int) -> None:
    raw = wrote(text=text * repeated, html="<p>" + text * repeated, unsubscribe_url="")

    assert raw.isascii()
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    assert max(map(len, raw.split(b"\r\n"))) <= 78


@given(text=st.text(st.sampled_from("..x="), min_size=60, max_size=400), html=st.text(st.sampled_from(".x<\n")))
@hypothesis_settings(max_examples=60, deadline=None)
@example(text="." * 200, html=".")
def test_no_line_begins_with_a_dot(text: str, html: str) -> None:
    raw = wrote(subject="." * 100, text=text, html=html, unsubscribe_url="")

    assert b"\n." not in raw
    assert max(map(len, raw.split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    "text", ["x" * 5000, "ñ" * 5000, "🎉" * 2000, "a\n" * 3000, "a " * 3000, "=" * 3000, "." * 3000]
)
def test_long_bodies_read_as_they_were_written(text: str) -> None:
    raw = wrote(text=text, html=text)

    assert body(raw, "plain") == body(raw, "html") == text
    assert max(map(len, raw.split(b"\r\n"))) <= 200  # the link to unsubscribe


def test_links_come_through_unchanged() -> None:
    link = "https://tienda.example/p?x=1&y=" + "=3D" * 40 + "#é"
    html = f'<p>¡Hola!</p><a href="{link}">{link}</a>' * 20

    raw = wrote(text=f"Mira: {link}\n" * 20, html=html)

    assert body(raw, "plain").count(link) == 20
    assert body(raw, "html").count(f'href="{link}"') == 20
    assert other(raw).text_html[0].count(f'href="{link}"') == 20


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert body(wrote(text="a\ud800b", html="a\ud800b"), "html") == "a?b"
