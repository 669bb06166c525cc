"""Mail that comes in: what people wrote, which message it answers, bounces, complaints, machines; and hostile bytes."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from outreach.channels import AUTOMATIC, InboundEvent, mail_in
from outreach.channels.mail_in import Ours, quoting
from outreach.settings import ChannelSettings
from tests.shop import shop_settings

OURS = Ours(frozenset({"tienda.example"}), frozenset({"hola@tienda.example"}))
ID, OTHER = "0123456789abcdef" * 2, "f" * 32
AT = datetime(2026, 6, 15, 15, 0, tzinfo=UTC)


def mail(text: str = "Sí, gracias", html: str = "", **headers: str) -> bytes:
    made = EmailMessage()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in {
        "From": "Ana <ana@example.com>",
        "Message-ID": "<m1@example.com>",
        "Subject": "Re: Hola",
        **named,
    }.items():
        made[name] = value
    if text or not html:
        made.set_content(text)
    if html:
        made.add_alternative(html, subtype="html") if text else made.set_content(html, subtype="html")
    return made.as_bytes()


def only(raw: bytes, **how: Any) -> InboundEvent:
    (event,) = mail_in.read(raw, OURS, **how)
    return event


# --- what was written -------------------------------------------------------------------------------------------------

WROTE = {
    "Gmail, Spanish, its line broken": (
        "BAJA\n\nEl lun, 3 nov 2026 a las 10:00, Tienda Luna (<hola@tiendaluna.example>)\nescribió:\n\n> Hola\n> BAJA",
        "BAJA",
    ),
    "Gmail, Portuguese": (
        "Sim, adorei!\n\nEm seg., 3 de nov. de 2026 às 10:00, Loja <a@b.c> escreveu:\n\n> x",
        "Sim, adorei!",
    ),
    "Gmail, English, its line broken twice": (
        "ok\n\nOn Mon, Nov 3, 2026 at 10:00 AM A Shop With A Very Long Name Indeed\n<a@b.c>\nwrote:\n\nHola",
        "ok",
    ),
    "Outlook, Spanish": (
        "Quiero devolverlo\n\n________________________________\nDe: Tienda <a@b.c>\nEnviado: lunes\nPara: Ana\nAsunto: x\n\nHola",
        "Quiero devolverlo",
    ),
    "Outlook, Portuguese, without a line": (
        "Quero cancelar\n\nDe: Loja <a@b.c>\nEnviada em: segunda\nPara: Ana\nAssunto: x\n\nOlá",
        "Quero cancelar",
    ),
    "Outlook, English": ("fine\n\nFrom: Shop <a@b.c>\nSent: Monday\nTo: Ana\nSubject: x\n\nHello", "fine"),
    "Outlook, old": ("No llegó\n\n-----Mensaje original-----\nHola", "No llegó"),
    "Portuguese, old": ("Não chegou\n\n-----Mensagem original-----\nOlá", "Não chegou"),
    "an iPhone": ("4\n\nEnviado desde mi iPhone\n\n> El 3 nov 2026, Tienda <a@b.c> escribió:\n> \n> hola", "4"),
    "an Android": ("Nota 5\n\nEnviado do meu Galaxy", "Nota 5"),
    "Outlook for mobile": ("yes\n\nGet Outlook for iOS<https://aka.ms/o0ukef>", "yes"),
    "between the quoted lines": ("> ¿quieres?\nsí, el martes\n> ¿otra?\nno", "sí, el martes\nno"),
    "a signature": ("Gracias\n-- \nAna Pérez\nTel. 55 1234", "Gracias"),
    "a closing": ("Me llegó roto\n\nSaludos,\nAna Pérez", "Me llegó roto"),
    "a closing that says more": (
        "Hola\n\nSaludos a todos\n¿Cuándo llega mi pedido?",
        "Hola\n\nSaludos a todos\n¿Cuándo llega mi pedido?",
    ),
    "below the quote, as Thunderbird does": (
        "El 15/6/26 a las 10:00, Tienda Luna escribió:\n> Hola\n> date de baja aquí\n\nNo me manden más correos.",
        "No me manden más correos.",
    ),
    "between the lines of the quote": (
        "Em 15/06/2026 10:00, Loja escreveu:\n> Gostou?\nNão, veio quebrado\n> Abraços",
        "Não, veio quebrado",
    ),
    "Zoho": (
        "¡Gracias!\n\n---- El lun, 15 jun 2026 10:00:00 -0600 Tienda <a@b.c> escribió ----\n\nHola\nDarme de baja",
        "¡Gracias!",
    ),
    "old Gmail": ("Gracias\n\n2026-06-15 10:00 GMT-06:00 Tienda <a@b.c>:\n\nHola\nDarme de baja", "Gracias"),
    "mail.ru": ("Gracias\n\nLunes, 15 de junio de 2026, 10:00 -06:00 de Tienda <a@b.c>:\n\nHola", "Gracias"),
    "an afterword": (
        "Todo bien.\n\nSaludos,\nAna\n\nPD: no me manden más correos",
        "Todo bien.\n\nAna\n\nPD: no me manden más correos",
    ),
    "a request after a greeting": (
        "Buenos días,\nSaludos.\nFavor darme de baja de su lista",
        "Buenos días,\nFavor darme de baja de su lista",
    ),
    "a sentence like a device's": ("Enviado por error el pedido, quiero mi dinero",) * 2,
    "a sentence about a device": ("Enviado por mi esposo, el celular llegó roto",) * 2,
    "a sentence about mail": ("Get back to me by mail about it, please",) * 2,
    "a street that begins like an afterword": ("Llegó roto\n\nSaludos,\nAna\nAhumada 12", "Llegó roto"),
    "a lawyer's notice": (
        "Gracias!\n\nAVISO LEGAL: Este correo es confidencial. Si no es el destinatario, elimínelo. Para la baja…",
        "Gracias!",
    ),
    "a notice in Portuguese": (
        "Tudo certo!\n\nEsta mensagem é confidencial. Se você não é o destinatário, apague.",
        "Tudo certo!",
    ),
    "a printer's notice": ("5\n\nAntes de imprimir este correo piense en el medio ambiente.", "5"),
    "a sentence like a quote": (
        "On Monday I wrote to you and nobody answered: I want my money",
        "On Monday I wrote to you and nobody answered: I want my money",
    ),
    "a sentence like a header": (
        "De: verdad no entiendo\nEl pedido no llegó",
        "De: verdad no entiendo\nEl pedido no llegó",
    ),
    "only a quote": ("> hola", ""),
}


@pytest.mark.parametrize("name", WROTE)
def test_what_a_person_wrote_stands_alone(name: str) -> None:
    text, expected = WROTE[name]

    assert quoting.stripped(text) == expected
    event = only(mail(text, In_Reply_To=f"<{ID}@tienda.example>"))
    assert event.text == expected
    assert event.raw["text"].split() == text.split()


HTML = {
    "gmail": '<div dir="ltr">Llegó <b>roto</b></div><div class="gmail_quote">El lunes escribió:<blockquote>Hola</blockquote></div>',
    "outlook": "<p>Llegó roto</p><div id='appendonsend'></div><hr><div id='divRplyFwdMsg'>De: x</div><p>Hola</p>",
    "apple": "<body>Llegó roto<br><blockquote type=cite>Hola</blockquote></body>",
    "yahoo": "<div>Llegó roto</div><div id='x' class='yahoo_quoted'><div>Hola</div></div>",
    "scripts": "<style>p{}</style><script>Hola()</script><p>Llegó roto</p><!-- Hola -->",
}


@pytest.mark.parametrize("name", HTML)
def test_html_alone_becomes_text_without_what_it_quotes(name: str) -> None:
    text = only(mail("", HTML[name])).text

    assert text.replace("*", "") == "Llegó roto"


def test_html_that_is_all_quote_is_not_lost() -> None:
    assert "Hola" in only(mail("", "<blockquote>Hola</blockquote>")).text


def test_the_plain_part_is_read_and_attached_files_are_not() -> None:
    made = EmailMessage()
    made["From"], made["Subject"] = "ana@example.com", "Re: x"
    made.set_content("Me llegó así")
    made.add_alternative("<p>otra cosa</p>", subtype="html")
    made.add_attachment("BAJA", filename="baja.txt")
    event = only(made.as_bytes())

    assert event.text == "Me llegó así"
    assert event.raw["attached"] == ["text/plain"]


@pytest.mark.parametrize(
    ("charset", "data"),
    [("iso-8859-1", "Sí, señor".encode("latin-1")), ("nonsense", "Sí, señor".encode()), ("", "Sí, señor".encode("cp1252")),
     ("unicode_escape", b"\\x41"), ("utf-8", b"\xffs\xc3\xad")],
)  # fmt: skip
def test_broken_charsets_are_read_as_well_as_can_be(charset: str, data: bytes) -> None:
    head = b"From: ana@example.com\nContent-Type: text/plain; charset=" + charset.encode() + b"\n\n"
    expected = {"unicode_escape": "\\x41", "utf-8": "�sí"}.get(charset, "Sí, señor")

    assert only(head + data).text == expected


def test_a_new_mail_without_a_text_says_what_its_subject_says() -> None:
    assert only(mail("\n", Subject="BAJA")).text == "BAJA"
    assert only(mail("\n", Subject="Re: Cancelar", In_Reply_To="<x@y.z>")).text == ""


# --- which message it answers ---------------------------------------------------------------------------------------------


def test_a_reply_names_the_message_that_it_answers() -> None:
    assert only(mail(In_Reply_To=f"<{ID}@tienda.example>")).public_id == ID
    assert only(mail(In_Reply_To="<x@y.z>", References=f"<a@b.c> <{ID}@tienda.example> <x@y.z>")).public_id == ID
    assert only(mail(To=f"Tienda <respuestas+{ID}@tienda.example>")).public_id == ID
    assert only(mail(), envelope=f"respuestas+{ID}@tienda.example").public_id == ID
    assert only(mail(In_Reply_To=f"<{OTHER}@y.z>", To=f"r+{ID}@tienda.example")).public_id == ID
    assert only(mail(In_Reply_To=f"<{ID}@old.example>")).public_id == ID
    assert only(mail()).public_id == ""


def test_a_reply_to_sendgrid_s_mail_names_sendgrid_s_id() -> None:
    event = only(mail(In_Reply_To="<14c5d75ce93.dfd.64b469@geopod-ismtpd-1>"))

    assert (event.provider_id, event.public_id) == ("14c5d75ce93.dfd.64b469", "")


def test_who_wrote_is_the_address_in_brackets_and_no_name() -> None:
    assert only(mail(From='"<jefe@tienda.example>" <ana@example.com>')).address == "ana@example.com"
    assert mail_in.read(mail(From="nobody"), OURS) == ()


def test_copies_of_our_own_are_passed_over() -> None:
    assert mail_in.read(mail(From="Tienda <Hola@tienda.example>"), OURS) == ()


def test_ours_are_the_senders_of_the_settings(tmp_path: Any) -> None:
    pool = ("Luna <a@uno.example>", "b@dos.example", "no address")
    settings = shop_settings(tmp_path, channels={"email": ChannelSettings("smtp", pool[0], pool=pool)})

    assert mail_in.ours_of(settings) == Ours(
        frozenset({"uno.example", "dos.example"}), frozenset({"a@uno.example", "b@dos.example"})
    )


def test_the_same_mail_has_the_same_id_by_every_way_and_dates_of_its_own_are_not_believed() -> None:
    first = only(mail(Date="Mon, 1 Jan 2001 00:00:00 +0000"), at=AT)
    again = only(mail(Date="Mon, 1 Jan 2001 00:00:00 +0000", Received="by another server"))
    other = only(mail(From="Eva <eva@example.com>"))

    assert first.event_id == again.event_id != other.event_id
    assert (first.at, again.at) == (AT, None)


# --- machines -------------------------------------------------------------------------------------------------------------

AUTOMATIC_MAILS = [
    {"Auto_Submitted": "auto-replied"},
    {"X_Autoreply": "yes"},
    {"Precedence": "auto_reply"},
    {"Subject": "Respuesta automática: Hola"},
    {"Subject": "Re: Fuera de la oficina"},
    {"Subject": "Resposta automática: Olá"},
    {"Subject": "Automatic reply: Hello"},
    {"Subject": "Out of office"},
]
MASS_MAILS = [
    {"Precedence": "bulk"},
    {"List_Id": "<news.example>"},
    {"Auto_Submitted": "auto-generated"},
    {"From": "Mail Delivery <MAILER-DAEMON@example.com>"},
    {"From": "no-reply@example.com"},
    {"Return_Path": "<>"},
]


@pytest.mark.parametrize("headers", AUTOMATIC_MAILS, ids=str)
def test_an_automatic_answer_is_marked(headers: dict[str, str]) -> None:
    assert only(mail("Estoy de vacaciones", **headers)).code == AUTOMATIC


@pytest.mark.parametrize("headers", MASS_MAILS, ids=str)
def test_mass_mail_is_passed_over(headers: dict[str, str]) -> None:
    assert mail_in.read(mail("Ofertas", **headers), OURS) == ()


@pytest.mark.parametrize(
    "subject",
    [
        "Re: Hola",
        "No puedo ir a la oficina",
        "¿Respuesta?",
        "Estuve ausente y no llegó",
        "Ausencia de la taza en mi pedido",
        "Ausente la taza",
        "Ausência de um item",
    ],
)
def test_people_are_not_taken_for_machines(subject: str) -> None:
    assert only(mail("hola", Subject=subject, Auto_Submitted="no")).code == ""


@pytest.mark.parametrize("sender", ["casabounce@example.com", '"no-reply@foro.example" <ana@example.com>'])
def test_nobody_is_a_machine_by_a_part_of_their_address(sender: str) -> None:
    raw = mail("BAJA").replace(b"Ana <ana@example.com>", sender.encode())
    assert (only(raw).text, only(raw).code) == ("BAJA", "")


def test_who_asks_not_to_be_answered_by_machines_is_no_machine() -> None:
    assert only(mail("Llegó roto", X_Auto_Response_Suppress="DR, OOF, AutoReply")).code == ""


@pytest.mark.parametrize("headers", MASS_MAILS, ids=str)
def test_mass_mail_that_answers_ours_is_heard_as_a_machine_s(headers: dict[str, str]) -> None:
    event = only(mail("BAJA", In_Reply_To=f"<{ID}@tienda.example>", **headers))
    assert (event.text, event.code) == ("BAJA", AUTOMATIC)


def test_a_subject_that_somebody_wrote_into_an_empty_answer_is_what_they_say() -> None:
    answer = {"In_Reply_To": f"<{ID}@tienda.example>"}
    assert only(mail(" ", Subject="BAJA", **answer)).text == "BAJA"
    assert only(mail(" ", Subject="Re: Date de baja cuando quieras", **answer)).text == ""


# --- reports --------------------------------------------------------------------------------------------------------------

RETURNED = f"From: hola@tienda.example\nTo: ana@example.com\nMessage-ID: <{ID}@tienda.example>\nSubject: Hola\n\n"


def bounce(status: str = "5.1.1", action: str = "failed", returned: str = RETURNED, whole: bool = True) -> bytes:
    kind = "message/rfc822" if whole else "text/rfc822-headers"
    return (
        "From: MAILER-DAEMON@mx.example\nReturn-Path: <>\nMessage-ID: <b1@mx.example>\nSubject: failure\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="bb"\n\n'
        "--bb\nContent-Type: text/plain\n\nIt failed. <ana@example.com>\n"
        "--bb\nContent-Type: message/delivery-status\n\n"
        "Reporting-MTA: dns; mx.example\n\n"
        f"Final-Recipient: rfc822; victim@example.com\nAction: {action}\nStatus: {status}\n"
        "Diagnostic-Code: smtp; 550 5.1.1 <victim@example.com> unknown\n\n"
        f"--bb\nContent-Type: {kind}\n\n{returned}\n--bb--\n"
    ).encode()


@pytest.mark.parametrize(
    ("status", "action", "kind"),
    [
        ("5.1.1", "failed", "bounced"), ("5.0.0 (unknown)", "failed", "bounced"), ("5.7.1", "failed", "failed"),
        ("5.2.2", "failed", "failed"), ("4.4.7", "failed", "failed"), ("4.4.1", "delayed", "deferred"),
        ("2.0.0", "delivered", "delivered"), ("2.0.0", "relayed", "accepted"), ("", "failed", "failed"),
        ("5.1.8", "failed", "failed"), ("5.1.7", "failed", "failed"), ("5.3.4", "failed", "failed"),
        ("5.2.3", "failed", "failed"), ("5.6.0", "failed", "failed"), ("5.4.7", "failed", "failed"),
        ("5.4.316", "failed", "failed"), ("5.5.2", "failed", "failed"), ("5.1.10", "failed", "bounced"),
        ("5.2.1", "failed", "bounced"), ("5.4.1", "failed", "bounced"), ("5.5.0", "failed", "bounced"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("whole", [True, False])
def test_a_bounce_says_what_became_of_our_message(status: str, action: str, kind: str, whole: bool) -> None:
    event = only(bounce(status, action, whole=whole), at=AT)

    assert (event.kind, event.public_id, event.code) == (kind, ID, status.partition(" ")[0])
    assert (event.address, event.recipient, event.at) == ("", "", AT)
    assert "victim" not in repr(event.raw)


def test_a_bounce_of_several_recipients_is_several_facts() -> None:
    two = bounce().replace(
        b"\n\n--bb\nContent-Type: message/rfc822",
        b"\n\nFinal-Recipient: rfc822; b@x.y\nAction: delayed\nStatus: 4.0.0\n\n--bb\nContent-Type: message/rfc822",
    )
    found = mail_in.read(two, OURS)

    assert [one.kind for one in found] == ["bounced", "deferred"]
    assert len({one.event_id for one in found}) == 2


def complaint(kind: str = "abuse") -> bytes:
    return (
        "From: fbl@isp.example\nMessage-ID: <f1@isp.example>\nSubject: complaint\n"
        'Content-Type: multipart/report; report-type=feedback-report; boundary="bb"\n\n'
        "--bb\nContent-Type: text/plain\n\nSpam.\n"
        f"--bb\nContent-Type: message/feedback-report\n\nFeedback-Type: {kind}\nUser-Agent: Isp/1\nVersion: 1\n\n"
        f"--bb\nContent-Type: message/rfc822\n\n{RETURNED}\n--bb--\n"
    ).encode()


@pytest.mark.parametrize(
    ("kind", "expected"), [("abuse", "complained"), ("opt-out", "opted_out"), ("fraud", "complained")]
)
def test_a_complaint_is_about_our_message(kind: str, expected: str) -> None:
    event = only(complaint(kind))

    assert (event.kind, event.public_id, event.code, event.address) == (expected, ID, kind, "")


def test_that_something_is_no_spam_is_no_complaint() -> None:
    assert [one.kind for one in mail_in.read(complaint("not-spam"), OURS) if one.kind != "reply"] == []


# --- hostile bytes --------------------------------------------------------------------------------------------------------

_HEADS = st.sampled_from(
    [b"From: ana@example.com\n", b"From: <\xff@x>\n", b"Content-Type: multipart/report; boundary=b\n", b"\n", b"--b\n", b"--b--\n",
     b"Content-Type: message/delivery-status\n", b"Content-Type: message/rfc822\n", b"Action: failed\nStatus: 5.1.1\n",
     b"Content-Type: message/feedback-report\n", b"Feedback-Type: abuse\n", b"Content-Transfer-Encoding: base64\n",
     b"Content-Transfer-Encoding: x-uuencode\n", b"begin 644 x\n", b"Content-Type: text/html; charset=utf-7\n",
     b"Subject: =?utf-8?b?zzz?= =?x?q?=ff?=\n", b"Content-Disposition: form-data; name*0*=x''%ff; name*1=\"\n",
     b"In-Reply-To: <a@b> <\n", b"<div class=gmail_quote>", b"> x\n", b"El 3 escribio:\n", b"\x00", b"\r", b"\xed\xa0\x80"]
)  # fmt: skip


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(st.binary(max_size=2000), st.lists(st.one_of(_HEADS, st.binary(max_size=20)), max_size=30).map(b"".join))
)
def test_whatever_the_bytes_are_nothing_is_raised_and_all_can_be_kept(raw: bytes) -> None:
    for event in mail_in.read(raw, OURS):
        for text in (event.text, event.address, event.code, repr(event.raw)):
            assert "\x00" not in text
            text.encode()


BOMBS = {
    "lines": b"\n" * 3_000_000,
    "headers": b"a:b\n" * 1_500_000,
    "one header": b"From: ana@example.com\nSubject: " + b"=?utf-8?q?a" * 100_000 + b"\n\nx",
    "comments": b"From: " + b"((" * 20_000 + b"\n\nx",
    "parts in parts": b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(3000)
    ),
    "messages in messages": b"From: a@b.c\nContent-Type: message/rfc822\n\n" * 3000,
    "many parts": b'From: a@b.c\nContent-Type: multipart/mixed; boundary="b"\n\n' + b"--b\n\nx\n" * 20_000,
    "tags that never end": b"From: a@b.c\nContent-Type: text/html\n\n" + b"<div class=" * 100_000,
    "tags in tags": b"From: a@b.c\nContent-Type: text/html\n\n" + b"<blockquote><div>" * 50_000,
    "quotes": b"From: a@b.c\n\n" + (b"2026/1/1 " + b" <@" * 160 + b"\n") * 1000,
    "introductions": b"From: a@b.c\n\n" + (b"El " + b" a1 " * 160 + b"\n") * 1000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_is_made_to_take_for_ever_does_not(name: str) -> None:
    begun = time.process_time()
    mail_in.read(BOMBS[name], OURS)

    assert (
        time.process_time() - begun < 20
    )  # some of these took minutes before they were bounded; now none takes two seconds
