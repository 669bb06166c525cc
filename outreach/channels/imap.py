"""
IMAP: a mailbox in which replies, bounces and complaints arrive (RFC 3501), read by the library IMAPClient.

Nothing is ever deleted or moved. Mails are read without being marked as seen, unless the settings want
that. The password comes from IMAP_PASSWORD.
"""

from __future__ import annotations

import imaplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from imapclient import IMAPClient, SocketTimeout
from imapclient.exceptions import IMAPClientError, LoginError

from outreach.channels import Finding
from outreach.channels.mail_in.parts import MOST_BYTES
from outreach.errors import ChannelError
from outreach.settings import MailboxSettings, Settings

PORTS = {"tls": 993, "starttls": 143, "none": 143}
PASSWORD = "IMAP_PASSWORD"  # noqa: S105  the variable's name
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 30.0
_WHOLE = f"BODY.PEEK[]<0.{MOST_BYTES}>"


@dataclass(frozen=True)
class Mail:
    """One mail as the server keeps it; the largest are cut at 25 MB."""

    uid: int
    raw: bytes
    at: datetime | None  # when it arrived at the server


class Opened:
    """A folder that is open for reading."""

    def __init__(self, client: Any, validity: int, last: int) -> None:
        self._client = client
        self.last = last  # no mail in it has a greater UID so far
        self.validity = validity  # UIDs mean something only together with it (RFC 3501, 2.3.1.1)

    def after(self, uid: int) -> list[int]:
        """UIDs of the mails that came later, the earliest first. `*` is the last one there is, however old."""
        return sorted(found for found in self._client.search(["UID", f"{uid + 1}:*"]) if found > uid)

    def since(self, day: date) -> list[int]:
        """UIDs of the mails that arrived on that day or later."""
        return sorted(self._client.search(["SINCE", day]))

    def get(self, uid: int) -> Mail | None:
        """The mail; None when somebody has removed it meanwhile."""
        found = self._client.fetch([uid], [_WHOLE, "INTERNALDATE"]).get(uid)
        raw = next((value for name, value in (found or {}).items() if bytes(name).startswith(b"BODY[]")), None)
        if not isinstance(raw, bytes):
            return None
        at = (found or {}).get(b"INTERNALDATE")
        return Mail(uid, raw, at.astimezone(UTC) if isinstance(at, datetime) and at.tzinfo else None)

    def mark_seen(self, uid: int) -> None:
        """As a mail program marks what somebody has read."""
        self._client.add_flags([uid], [rb"\Seen"], silent=True)


@contextmanager
def opened(settings: Settings, box: MailboxSettings) -> Iterator[Opened]:
    """
    Log in and open the folder while this lasts.

    Raises:
        ChannelError: the server cannot be reached, does not answer in time, or refuses login or folder; also
            where it breaks off within.
    """
    client = None
    try:
        client = _connect(box)
        _log_in(client, box, settings.secrets.get(PASSWORD, ""))
        yield _select(client, box)
    except (OSError, imaplib.IMAP4.error, IMAPClientError, ValueError) as error:
        raise ChannelError(f"mailbox: {_why(error, box)}") from None  # its own text may hold anything
    finally:
        if client is not None:
            with suppress(OSError, imaplib.IMAP4.error, IMAPClientError, ValueError):
                client.logout()


def check(settings: Settings, box: MailboxSettings) -> Iterator[Finding]:
    """Log in and open the folder; nothing is read."""
    try:
        with opened(settings, box) as folder:
            unprotected = box.security == "none" and box.host not in ("localhost", "127.0.0.1", "::1")
            text = f"replies are read from {box.folder} at {box.host}"
            if unprotected:
                hint = "set `security: tls`"
                yield Finding(ok=False, warning=True, text=f"{text}, without TLS: the password can be read", hint=hint)
            else:
                yield Finding(ok=True, text=f"{text} (its UIDs are of {folder.validity})")
    except ChannelError as error:
        hint = f"mend `mailbox` in outreach.yaml, or {PASSWORD}"
        yield Finding(ok=False, text=str(error).removeprefix("mailbox: "), hint=hint)


def _connect(box: MailboxSettings) -> Any:
    context = ssl.create_default_context()
    client = IMAPClient(
        box.host,
        port=box.port or PORTS[box.security],
        ssl=box.security == "tls",
        ssl_context=context if box.security == "tls" else None,
        use_uid=True,
        timeout=SocketTimeout(CONNECT_SECONDS, ANSWER_SECONDS),
    )
    client.normalise_times = False  # else times would be told on this machine's clock, without a zone
    if box.security == "starttls":
        client.starttls(context)
    return client


def _log_in(client: Any, box: MailboxSettings, password: str) -> None:
    if not password:
        raise ChannelError(f"mailbox: the environment variable {PASSWORD} is not set, and the mailbox needs it")
    try:
        client.login(box.user, password)
    except LoginError as error:
        if isinstance(error.__context__, imaplib.IMAP4.abort):
            raise error.__context__ from None  # the connection broke: nothing was said about the login
        raise ChannelError(f"mailbox: {box.host} does not accept `user` with {PASSWORD}") from None


def _select(client: Any, box: MailboxSettings) -> Opened:
    try:
        about = client.select_folder(box.folder, readonly=not box.mark_seen)
    except IMAPClientError:
        raise ChannelError(f"mailbox: there is no folder `{box.folder}` that can be opened") from None
    last = int(about[b"UIDNEXT"]) - 1 if b"UIDNEXT" in about else max(client.search(), default=0)
    return Opened(client, int(about.get(b"UIDVALIDITY", 0)), last)


def _why(error: Exception, box: MailboxSettings) -> str:
    """Our words, or the system's; never the server's."""
    if isinstance(error, TimeoutError):
        return f"{box.host} did not answer in time"
    if isinstance(error, socket.gaierror):
        return f"the name {box.host} cannot be looked up"
    if isinstance(error, ssl.SSLError):
        return f"{box.host} cannot be reached over TLS ({error.reason or 'its certificate is not good'})"
    if isinstance(error, OSError) and error.strerror:
        return f"{box.host} cannot be reached: {error.strerror}"
    return f"{box.host} broke off, or answered what no IMAP server answers"
