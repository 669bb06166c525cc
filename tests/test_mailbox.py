"""The mailbox: a real IMAP server is read from where the last look ended, and nothing is lost or taken twice."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from outreach import inbox, mailbox, store
from outreach import settings as settings_module
from outreach.channels import AUTOMATIC, imap
from outreach.channels.sendgrid.requests import Prepared, body_of, read_sender
from outreach.cli import here
from outreach.daemon import Daemon, tick
from outreach.errors import ChannelError, DatabaseError, SettingsError
from outreach.inbox import accepting
from outreach.models import Consent, Contact, Inbox, Mailbox, MessageEvent, Reply, Suppression, Tick
from outreach.settings import MailboxSettings, Settings
from outreach.store import Database
from tests import imap_server, test_cli, test_inbox
from tests.conftest import NOW, SECRET
from tests.copies import Original
from tests.imap_server import PASSWORD, Folder, Server
from tests.shop import rows_of, shop_settings
from tests.test_inbox import EMAIL, LATER, blocked, message
from tests.test_mail_in import bounce, complaint, mail

run, cli_shop = test_cli.run, test_cli.shop
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DOMAIN = "tiendaluna.example"


WRITTEN_TO = Original()


@pytest.fixture
def database_url(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A database that knows three customers and what was written to them, where a test is about that shop."""
    if "shop" in request.fixturenames:
        WRITTEN_TO.copy(request, tmp_path, write_to_three, database_url)
    return database_url


def write_to_three(folder: Path, url: str) -> None:
    db = store.open_database(url, secret=SECRET)
    test_inbox.built(db, folder)
    db.engine.dispose()


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    return shop_settings(tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with imap_server.running() as found:
        yield found


@pytest.fixture
def folder(server: Server) -> Folder:
    return server.folder()


@pytest.fixture
def settings(shop: Settings, folder: Folder) -> Settings:
    """The shop that has written to three customers, with a mailbox."""
    return replace(shop, mailbox=folder.settings(), secrets={"IMAP_PASSWORD": PASSWORD})


def reply(db: Database, text: str, number: int = 1, sender: str = "", **headers: str) -> bytes:
    """A mail with which somebody answers the one that customer c`number` got."""
    of = message(db, number, "email").public_id
    named = {"Message_ID": f"<{abs(hash((text, number, sender)))}@example.com>", **headers}
    return mail(text, From=sender or f"c{number}@example.com", In_Reply_To=f"<{of}@{DOMAIN}>", **named)


def fetched(db: Database, settings: Settings, now: datetime = LATER, **how: Any) -> tuple[int, int, int, int]:
    counts = mailbox.fetch(db, settings, now, **how)
    return counts.read, counts.new, counts.repeated, counts.passed_over


def texts(db: Database) -> list[str]:
    return [row.text for row in rows_of(db, Inbox)]


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_reply_is_read_matched_and_left_where_it_was(db: Database, settings: Settings, folder: Folder) -> None:
    quoted = "Me llegó roto\n\nEl lun, 15 jun 2026, Tienda Luna <hola@tiendaluna.example> escribió:\n> Hola"
    folder.put(reply(db, quoted), LATER - HOUR)

    assert fetched(db, settings) == (1, 1, 0, 0)
    (kept,) = rows_of(db, Inbox)
    assert (kept.provider, kept.channel, kept.at, kept.text) == ("imap", "email", LATER - HOUR, "Me llegó roto")
    assert kept.raw["text"].endswith("> Hola")
    inbox.receive(db, settings, LATER)
    (made,) = rows_of(db, Reply)
    sent = message(db, 1, "email")
    assert (made.text, made.message_id, made.customer_id, made.order_id) == (
        "Me llegó roto", sent.id, sent.customer_id, sent.record_id,
    )  # fmt: skip
    assert [row.customer_id for row in rows_of(db, MessageEvent, kind="replied")] == [sent.customer_id]
    assert folder.flags() == [()]


def test_the_next_look_goes_on_where_the_last_one_ended(db: Database, settings: Settings, folder: Folder) -> None:
    folder.put(reply(db, "uno"), NOW)
    assert fetched(db, settings) == (1, 1, 0, 0)
    assert fetched(db, settings) == (0, 0, 0, 0)
    folder.put(reply(db, "dos"), NOW)
    folder.put(reply(db, "tres"), NOW)

    assert fetched(db, settings) == (2, 2, 0, 0)
    assert texts(db) == ["uno", "dos", "tres"]


def test_what_came_long_before_the_first_look_is_never_read(db: Database, settings: Settings, folder: Folder) -> None:
    folder.put(reply(db, "viejo"), LATER - 30 * DAY)
    assert fetched(db, settings) == (0, 0, 0, 0)
    assert fetched(db, settings) == (0, 0, 0, 0)
    folder.put(reply(db, "nuevo"), LATER)
    folder.put(reply(db, "de otra carpeta"), LATER - 30 * DAY)  # it is new here, however old it is

    assert fetched(db, settings) == (2, 2, 0, 0)


def test_a_mailbox_made_anew_is_read_again_and_nothing_is_taken_twice(
    db: Database, settings: Settings, folder: Folder
) -> None:
    folder.put(reply(db, "uno"), NOW)
    folder.put(reply(db, "dos"), NOW)
    fetched(db, settings)
    folder.made_anew()
    folder.put(reply(db, "tres"), NOW)

    assert fetched(db, settings) == (3, 1, 2, 0)
    assert fetched(db, settings) == (0, 0, 0, 0)
    assert texts(db) == ["uno", "dos", "tres"]


def test_a_look_reads_so_many_and_the_next_one_the_others(db: Database, settings: Settings, folder: Folder) -> None:
    for text in ("uno", "dos", "tres"):
        folder.put(reply(db, text), NOW)

    assert fetched(db, settings, limit=2) == (2, 2, 0, 0)
    assert fetched(db, settings, limit=2) == (1, 1, 0, 0)
    assert fetched(db, settings, limit=2) == (0, 0, 0, 0)


def test_one_that_is_asked_to_stop_stops_and_forgets_nothing(db: Database, settings: Settings, folder: Folder) -> None:
    folder.put(reply(db, "uno"), NOW)
    folder.put(reply(db, "dos"), NOW)
    answers = iter((False, True))
    fetched(db, settings, stop=lambda: next(answers))
    fetched(db, settings)

    assert texts(db) == ["uno", "dos"]


def test_what_could_not_be_kept_is_read_again(
    db: Database, settings: Settings, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("uno", "dos", "tres"):
        folder.put(reply(db, text), NOW)
    calls = iter((False, True, True, True))
    real = accepting._keep

    def keep(*given: Any) -> int:
        if next(calls):
            raise DatabaseError("away")
        return real(*given)

    with monkeypatch.context() as broken:
        broken.setattr(accepting, "_keep", keep)
        broken.setattr(accepting, "AGAIN", (0.0, 0.0))
        with pytest.raises(DatabaseError):
            fetched(db, settings)

    assert fetched(db, settings) == (2, 2, 0, 0)
    assert texts(db) == ["uno", "dos", "tres"]


def test_mass_mail_and_strangers(db: Database, settings: Settings, folder: Folder) -> None:
    folder.put(mail("ofertas", List_Id="<news.example>", From="news@example.org"), NOW)
    folder.put(mail("¿Venden café?", From="nadie@example.org"), NOW)

    assert fetched(db, settings) == (2, 1, 0, 1)
    inbox.receive(db, settings, LATER)
    assert [(row.text, row.customer_id) for row in rows_of(db, Reply)] == [("¿Venden café?", None)]


def test_mails_are_marked_as_seen_where_the_settings_want_it(db: Database, settings: Settings, folder: Folder) -> None:
    folder.put(reply(db, "uno"), NOW)
    fetched(db, replace(settings, mailbox=folder.settings(mark_seen=True)))

    assert folder.flags() == [(b"\\Seen",)]


def test_without_a_mailbox_nothing_is_read(db: Database, settings: Settings) -> None:
    for box in (None, MailboxSettings(reply_to="r@shop.example")):
        assert fetched(db, replace(settings, mailbox=box)) == (0, 0, 0, 0)


# --- what it comes to -------------------------------------------------------------------------------------------------


def test_an_opt_out_by_mail_is_in_force_when_it_has_been_read(db: Database, settings: Settings, folder: Folder) -> None:
    folder.put(reply(db, "Baja, por favor\n\nEnviado desde mi iPhone"), LATER)
    fetched(db, settings)

    assert {row.status for row in rows_of(db, Consent, by="recipient")} == {"revoked"}
    assert blocked(db, settings, "marketing", "sms")
    assert not blocked(db, settings, "marketing", "email", number=3)


@pytest.mark.parametrize("subject", ["BAJA", "Unsubscribe"])
def test_an_opt_out_in_the_subject_of_a_new_mail_counts(
    db: Database, settings: Settings, folder: Folder, subject: str
) -> None:
    folder.put(mail("Por favor, ya no quiero más correos de ustedes.", From=EMAIL, Subject=subject), LATER)
    fetched(db, settings)

    assert blocked(db, settings, "marketing", "email")


def test_a_subject_is_not_an_opt_out_where_the_text_is_about_an_order(
    db: Database, settings: Settings, folder: Folder
) -> None:
    folder.put(mail("Quiero cancelar mi pedido 1042, por favor.", From=EMAIL, Subject="Cancelar"), LATER)
    fetched(db, settings)

    assert rows_of(db, Consent, by="recipient") == []


def test_who_answers_from_another_address_opts_out_where_we_wrote(
    db: Database, settings: Settings, folder: Folder
) -> None:
    folder.put(reply(db, "BAJA", sender="ana.otra@example.org"), LATER)
    fetched(db, settings)
    inbox.receive(db, settings, LATER)

    assert blocked(db, settings, "marketing", "email")
    assert [row.customer_id for row in rows_of(db, Reply)] == [message(db, 1, "email").customer_id]


def test_a_forged_sender_signs_nobody_up(db: Database, settings: Settings, folder: Folder) -> None:
    before = len(rows_of(db, Consent))
    folder.put(mail("ALTA", From=EMAIL), LATER)
    fetched(db, settings)

    assert len(rows_of(db, Consent)) == before


def test_an_automatic_answer_is_kept_and_is_no_reply_to_our_message(
    db: Database, settings: Settings, folder: Folder
) -> None:
    folder.put(reply(db, "Estoy fuera", Auto_Submitted="auto-replied"), LATER)
    fetched(db, settings)
    inbox.receive(db, settings, LATER)

    assert [row.code for row in rows_of(db, Inbox)] == [AUTOMATIC]
    assert rows_of(db, MessageEvent, kind="replied") == []
    assert [row.text for row in rows_of(db, Reply)] == ["Estoy fuera"]


def returned(db: Database, number: int = 1) -> str:
    of = message(db, number, "email").public_id
    return f"Message-ID: <{of}@{DOMAIN}>\nSubject: Hola\n\nHola\n"


def test_a_bounce_closes_the_address_that_we_wrote_to_and_no_other(
    db: Database, settings: Settings, folder: Folder
) -> None:
    forged = bounce(returned=returned(db)).replace(b"victim@example.com", b"c3@example.com")
    folder.put(forged, LATER)
    fetched(db, settings)
    inbox.receive(db, settings, LATER)

    (entry,) = rows_of(db, Suppression)
    (contact,) = rows_of(db, Contact, address=EMAIL)
    assert (entry.address_hash, entry.scope, entry.channel) == (contact.address_hash, "address", "email")
    assert [row.message_id for row in rows_of(db, MessageEvent, kind="bounced")] == [message(db, 1, "email").id]


def test_a_bounce_of_a_message_that_is_not_ours_closes_nothing(
    db: Database, settings: Settings, folder: Folder
) -> None:
    folder.put(bounce().replace(b"victim@example.com", EMAIL.encode()), LATER)
    fetched(db, settings)
    inbox.receive(db, settings, LATER)

    assert rows_of(db, Suppression) == []
    assert [row.kind for row in rows_of(db, Inbox)] == ["failed"]


def test_a_refusal_that_is_our_own_fault_closes_nothing(db: Database, settings: Settings, folder: Folder) -> None:
    folder.put(bounce("5.7.1", returned=returned(db)), LATER)
    fetched(db, settings)
    inbox.receive(db, settings, LATER)

    assert rows_of(db, Suppression) == []
    assert [row.message_id for row in rows_of(db, MessageEvent, kind="failed")] == [message(db, 1, "email").id]


def test_a_complaint_is_an_opt_out_of_whom_we_wrote_to(db: Database, settings: Settings, folder: Folder) -> None:
    of = message(db, 1, "email").public_id.encode()
    folder.put(complaint().replace(b"0123456789abcdef" * 2, of), LATER)
    fetched(db, settings)
    inbox.receive(db, settings, LATER)

    assert blocked(db, settings, "service", "sms")
    assert [row.message_id for row in rows_of(db, MessageEvent, kind="complained")] == [message(db, 1, "email").id]


# --- what goes wrong --------------------------------------------------------------------------------------------------


@contextmanager
def answering(greeting: bytes, answers: dict[bytes, bytes | None]) -> Iterator[int]:
    """A server that answers commands so: OK to others, nothing at all to None, and by hanging up to an empty one."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(4)
        listening.settimeout(20)
        ended = threading.Event()

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listening.accept()
                with connection, connection.makefile("rwb") as talk:
                    connection.settimeout(20)
                    talk.write(greeting)
                    talk.flush()
                    for line in talk:
                        tag, command = line.split()[:2]
                        answer = answers.get(command, b"OK done")
                        if answer == b"":
                            return
                        if answer is None:
                            break
                        told = b"* CAPABILITY IMAP4rev1\r\n" if command == b"CAPABILITY" else b""
                        talk.write(told + tag + b" " + answer + b"\r\n")
                        talk.flush()
                    ended.wait(20)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            ended.set()
            thread.join()


HELLO = b"* OK ready\r\n"


@pytest.mark.parametrize(
    ("greeting", "answers", "said"),
    [
        (HELLO, {b"LOGIN": b"NO [AUTHENTICATIONFAILED] s3cret"}, "does not accept `user`"),
        (HELLO, {b"LOGIN": b""}, "broke off"),
        (HELLO, {b"LOGIN": None}, "did not answer in time"),
        (b"220 smtp.example ESMTP\r\n", {}, "broke off, or answered"),
        (HELLO, {b"EXAMINE": b"NO s3cret"}, "no folder"),
        (HELLO, {b"UID": b"BAD s3cret"}, "broke off"),
        (HELLO, {b"UID": b""}, "broke off"),
    ],
)
def test_a_server_that_fails_is_said_in_our_words(
    db: Database,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    greeting: bytes,
    answers: dict[bytes, bytes | None],
    said: str,
) -> None:
    monkeypatch.setattr(imap, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(imap, "ANSWER_SECONDS", 0.5)
    assert settings.mailbox is not None
    with answering(greeting, answers) as port, pytest.raises(ChannelError, match=said) as raised:
        fetched(db, replace(settings, mailbox=replace(settings.mailbox, port=port)))

    for secret in (PASSWORD, "s3cret"):
        assert secret not in str(raised.value)
    assert rows_of(db, Mailbox) == []


def test_a_server_that_is_not_there_or_speaks_no_tls(db: Database, settings: Settings, server: Server) -> None:
    assert settings.mailbox is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = replace(settings.mailbox, port=free.getsockname()[1])
        with pytest.raises(ChannelError, match="cannot be reached"):
            fetched(db, replace(settings, mailbox=nowhere))
    with pytest.raises(ChannelError, match=r"over TLS|broke off"):
        fetched(db, replace(settings, mailbox=replace(settings.mailbox, security="tls")))
    with pytest.raises(ChannelError, match="IMAP_PASSWORD is not set"):
        fetched(db, replace(settings, secrets={}))


def test_the_daemon_reads_it_and_says_when_it_cannot(
    db: Database,
    settings: Settings,
    folder: Folder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("outreach.daemon._now", lambda: LATER)
    caplog.set_level(logging.INFO, "outreach")
    folder.put(reply(db, "hola"), LATER)
    tick(Daemon(settings, db), "mail")
    tick(Daemon(replace(settings, secrets={"IMAP_PASSWORD": "wrong"}), db), "mail")

    read, failed = [vars(record) for record in caplog.records]
    assert (read["action"], read["fields"]["counts"]["new"]) == ("fetched", 1)
    assert (failed["action"], failed["fields"]["stage"]) == ("failed", "mail")
    assert "does not accept" in rows_of(db, Tick, stage="mail")[0].error


# --- around it --------------------------------------------------------------------------------------------------------

YAML = """\
business: {{name: Luna, timezone: America/Mexico_City, currency: MXN}}
mailbox: {{host: 127.0.0.1, port: {port}, security: none, user: shop, folder: {folder}}}
"""


def test_doctor_and_a_look_by_hand(
    cli_shop: test_cli.Run, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outreach.yaml").write_text(YAML.format(port=folder.server.port, folder=folder.name))
    assert "! mailbox: `mailbox`: the environment variable IMAP_PASSWORD is not set" in cli_shop("doctor").out.replace(
        "✗", "!"
    )
    monkeypatch.setenv("IMAP_PASSWORD", PASSWORD)
    assert f"✓ mailbox: replies are read from {folder.name}" in cli_shop("doctor").out
    folder.put(mail("hola"), here.at(None, "UTC"))
    assert cli_shop("tick", "mail", "--json").json == {"read": 1, "new": 1, "repeated": 0, "passed_over": 0}
    assert "Passed over" in cli_shop("tick", "mail").out
    monkeypatch.setenv("IMAP_PASSWORD", "wrong")
    assert "✗ mailbox: 127.0.0.1 does not accept `user` with IMAP_PASSWORD" in cli_shop("doctor").out
    assert cli_shop("tick", "mail").code == 1


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("mailbox: {host: imap.shop.example}", "`mailbox` needs `user`"),
        ("mailbox: {user: a}", "`mailbox` needs `host`"),
        ("mailbox: {host: h, user: a, password: x}", "is a secret"),
        ("mailbox: {reply_to: a+b@shop.example}", "is not an address"),
        ("mailbox: {reply_to: replies@shop.example}", ""),
    ],
)
def test_the_settings_of_a_mailbox(tmp_path: Path, written: str, said: str) -> None:
    text = f"business: {{name: Luna, timezone: America/Mexico_City, currency: MXN}}\n{written}\n"
    (tmp_path / "outreach.yaml").write_text(text)
    try:
        found = [str(one) for one in settings_module.problems(settings_module.load(tmp_path, {}))]
    except SettingsError as error:
        found = [str(one) for one in error.problems]

    assert [said in one for one in found] == ([True] if said else [])


def test_answers_go_to_the_address_with_a_token_only_where_the_settings_say_so(
    db: Database, shop: Settings, tmp_path: Path
) -> None:
    from outreach.channels.outbox import Outbox
    from tests.test_mime import an_email

    plain, token = (
        Outbox(replace(shop, mailbox=box, workspace=tmp_path / name), "email")
        for name, box in (("plain", None), ("token", MailboxSettings(reply_to="respuestas@tiendaluna.example")))
    )
    one = an_email()
    mails = []
    for channel in (plain, token):
        list(channel.send([one]))
        (file,) = channel.folder.glob("*.eml")
        mails.append(message_from_bytes(file.read_bytes()))
    assert mails[0]["Reply-To"] is None
    assert mails[1]["Reply-To"] == f"respuestas+{one.public_id}@tiendaluna.example"


def test_sendgrid_s_requests_have_the_token_of_a_message_that_goes_alone() -> None:
    one = Prepared("f" * 32, "a@b.c", "ana@example.com", "Hola", "Hola", "", 4, None)
    two = one._replace(public_id="e" * 32, address="eva@example.com")
    sender = read_sender("Luna <a@b.c>")

    assert "reply_to" not in body_of([one], sender, sandbox=False)
    alone = body_of([one], sender, sandbox=False, reply_to="r@b.c")["reply_to"]
    together = body_of([one, two], sender, sandbox=False, reply_to="r@b.c")["reply_to"]
    assert (alone, together) == ({"email": f"r+{'f' * 32}@b.c"}, {"email": "r@b.c"})
