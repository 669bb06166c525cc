"""
One connection to a mail server: opened by `smtplib`, then driven without ever waiting.

RFC 5321 with pipelining (RFC 2920) where the server announces it: sender, recipient and `DATA` in
one write. Nothing is ever written behind a message's final dot before its answer is here.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from outreach import clocks
from outreach.channels import Outgoing
from outreach.channels.smtp_replies import Reply, Stage, take_replies
from outreach.errors import ChannelError

HAND_OVER_SECONDS = 20.0  # a message begins to be written no later than this after it was drawn, or not at all
DOT_TIMEOUTS = 6
"""
The answer to a whole message may take so many times `timeout`: RFC 5321 section 4.5.3.2.6 asks for
ten minutes, as a server may look for viruses first, and to give up earlier puts the message in doubt.
"""
LONGEST_DOT = 240.0  # seconds: with 30 until it is drawn and the 20 from then on, within the five minutes of a claim


@dataclass(frozen=True)
class Server:
    """Where messages are handed over, and how to get in."""

    host: str
    port: int
    security: str  # starttls | tls | none
    user: str = ""
    password: str = ""
    timeout: float = 20.0

    def open(self) -> smtplib.SMTP:
        """
        Connect, secure the connection, log in; never in clear where `security` says otherwise.

        Raises:
            ChannelError: the settings are wrong.
            OSError: anything else, smtplib's exceptions among it: it may be well in a minute.
        """
        smtp: smtplib.SMTP | None = None
        try:
            smtp = self._connect()
            self._log_in(smtp)
        except BaseException as error:
            if smtp is not None:
                smtp.close()
            if isinstance(error, Exception) and (reason := self._misconfigured(error)):
                raise ChannelError(f"channels.email: {reason}") from error
            raise
        return smtp

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Whom the system trusts; reading that takes longer than a handshake."""
        return ssl.create_default_context()

    def _connect(self) -> smtplib.SMTP:
        if self.security == "tls":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout, context=self._tls)
        return smtplib.SMTP(self.host, self.port, timeout=self.timeout)

    def _log_in(self, smtp: smtplib.SMTP) -> None:
        smtp.ehlo_or_helo_if_needed()
        if self.security == "starttls":
            smtp.starttls(context=self._tls)
            smtp.ehlo_or_helo_if_needed()
        if self.user:
            offered = smtp.esmtp_features.get("auth", "").upper().split()
            name = next((name for name in self._mechanisms() if name in offered), "")
            if not name:
                raise smtplib.SMTPNotSupportedError(LOGIN)
            smtp.user, smtp.password = self.user, self.password
            smtp.auth(name, getattr(smtp, f"auth_{name.lower().replace('-', '_')}"))

    def _mechanisms(self) -> tuple[str, ...]:
        """The best first; only one is tried, for some servers lock an account after a few refusals."""
        return ("CRAM-MD5", "PLAIN", "LOGIN") if self.security == "none" else ("PLAIN", "LOGIN", "CRAM-MD5")

    def _misconfigured(self, error: Exception) -> str:
        """What is wrong with the settings, if that is it; never what the server said."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the certificate of the server cannot be trusted ({error.verify_message})"
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return f"no TLS with the server on port {self.port}: `security` or `port` is wrong"
        if isinstance(error, smtplib.SMTPNotSupportedError):
            return f"the server offers no {LOGIN if str(error) == LOGIN else 'STARTTLS'} on port {self.port}"
        if isinstance(error, UnicodeError):
            return "`user` or SMTP_PASSWORD, or `host`, has characters that SMTP cannot carry"
        if isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= 500:
            refused = "the login" if isinstance(error, smtplib.SMTPAuthenticationError) else "us"
            return f"the server refuses {refused} ({error.smtp_code})"
        return ""


LOGIN = "login of a known kind"


@dataclass(slots=True)
class Job:
    """A message drawn, ready for the wire."""

    outgoing: Outgoing
    provider_id: str
    sender: str
    recipient: str
    data: bytes  # dots doubled, the final one included
    utf8: bool  # needs SMTPUTF8
    drawn: tuple[float, float]  # when, by `clocks`
    tries: int = 0
    fresh: bool = False  # only on a connection that nothing was handed over on

    @property
    def late(self) -> bool:
        """Whether it may leave no more: whoever claimed it may be believed dead by now, and it be sent by another."""
        return clocks.elapsed(self.drawn) > HAND_OVER_SECONDS


class How(StrEnum):
    """How a message's turn on a connection ended."""

    ACCEPTED = "accepted"
    ANSWERED = "answered"  # with anything else
    CLOSED = "closed"  # by the server, before the final dot was written, with no word about this message
    SILENT = "silent"  # no answer in time, before the final dot was written
    DOUBT = "doubt"  # closed or silent after it, or a yes before it
    LATE = "late"  # its time was over before any of it was written
    TOO_LARGE = "too large"  # for what the server announces
    NOT_ASCII = "not ascii"  # an address, and the server does not announce SMTPUTF8


@dataclass(slots=True)
class End:
    """What became of a job here; `reply` is that of `stage`, which was awaited, where the server gave one."""

    job: Job
    how: How
    stage: Stage = Stage.DOT
    reply: Reply = Reply(0)  # noqa: RUF009  immutable


_STAGES: tuple[Stage, ...] = (Stage.MAIL, Stage.RCPT, Stage.DATA)


class Connection:
    """An open connection, idle or with one message on it."""

    def __init__(self, smtp: smtplib.SMTP, timeout: float) -> None:
        assert smtp.sock is not None  # noqa: S101  it was just opened
        self._smtp = smtp
        self._timeout = timeout
        self._dot_timeout = max(timeout, min(DOT_TIMEOUTS * timeout, LONGEST_DOT))
        self.sock: socket.socket = smtp.sock
        self.sock.setblocking(False)
        with contextlib.suppress(OSError):  # it is gone already, which reading will show
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls = isinstance(self.sock, ssl.SSLSocket)
        self._pipelining = smtp.has_extn("pipelining")
        self._sizes = smtp.has_extn("size")
        size = smtp.esmtp_features.get("size", "")
        self._limit = int(size) if size.isascii() and size.isdigit() else 0  # 0: none is announced
        self._utf8 = smtp.has_extn("smtputf8")
        self.used = False  # for a message before
        self.watched = False  # the owner's note: it waits to go on writing
        self.open = True
        self.since = 0.0  # when it fell idle
        self.deadline = 0.0  # when the answer awaited is too late
        self._job: Job | None = None
        self._failed: tuple[Stage, Reply] | None = None
        self._awaited: deque[Stage] = deque()
        self._todo: deque[tuple[Stage, bytes]] = deque()
        self._unsent = memoryview(b"")
        self._dotted = False  # the final dot is with the kernel
        self._reset = False  # a transaction was begun and not ended
        self._received = bytearray()

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self._awaited)

    @property
    def writing(self) -> bool:
        """Whether there is more to write than the kernel took."""
        return bool(self._unsent)

    def ask(self, now: float) -> None:
        """See whether the server is still there."""
        self.deadline = now + min(self._timeout, 5.0)
        self._awaited.append(Stage.NOOP)
        self._write(b"NOOP\r\n")

    def begin(self, job: Job, now: float) -> End | None:
        """
        Hand over a message: as much of it as can be said before the server answers.

        No byte of the message itself is written later than HAND_OVER_SECONDS after it was drawn, but
        for the rest of what was begun in time.
        """
        if job.utf8 and not self._utf8:
            return End(job, How.NOT_ASCII)
        if 0 < self._limit < len(job.data):
            return End(job, How.TOO_LARGE)
        if job.late:
            return End(job, How.LATE)
        self._job, self._failed, self._dotted = job, None, False
        self._wait(now)
        size = f" SIZE={len(job.data)}" if self._sizes else ""
        utf8 = " BODY=8BITMIME SMTPUTF8" if job.utf8 else ""
        mail, rcpt = f"MAIL FROM:<{job.sender}>{size}{utf8}\r\n", f"RCPT TO:<{job.recipient}>\r\n"
        stages = _STAGES
        commands: tuple[str, ...] = (mail, rcpt, "DATA\r\n")
        if self._reset:
            stages, commands = (Stage.RSET, *stages), ("RSET\r\n", *commands)
        self._reset = True
        if self._pipelining:
            self._awaited.extend(stages)
            self._write("".join(commands).encode())
        else:
            self._todo.extend((stage, command.encode()) for stage, command in zip(stages, commands, strict=True))
            self._next()
        return None

    def react(self, now: float) -> End | None:
        """Write and read what the network allows just now."""
        over = self._receive()
        try:
            replies = take_replies(self._received)
        except ValueError:
            return self._lost()
        end: End | None = None
        for reply in replies:
            end = self._heard(reply) or end
            if not self.open:
                return end
        if over:
            return self._lost() or end
        if self._unsent:
            self._flush()
            self._wait(now)
        elif replies:
            self._wait(now)
        return end

    def give_up(self) -> End | None:
        """The answer is too late."""
        end = self._lost()
        if end is not None and end.how is How.CLOSED:
            end.how = How.SILENT
        return end

    def _wait(self, now: float) -> None:
        """From now on, for as long as what is awaited may take."""
        self.deadline = now + (self._dot_timeout if self._dotted else self._timeout)

    def _write(self, data: bytes) -> None:
        self._unsent = memoryview(data)
        self._flush()

    def _next(self) -> None:
        stage, command = self._todo.popleft()
        self._awaited.append(stage)
        self._write(command)

    def _flush(self) -> None:
        """Write what the kernel takes; a connection that is gone is seen when it is read, after its last words."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return
        except OSError:
            self._unsent = memoryview(b"")
            return
        if self._awaited and self._awaited[-1] is Stage.DOT:
            self._dotted = True

    def _receive(self) -> bool:
        """Take what is there, in TLS to the last record: what is buffered would wake nobody. True at the end."""
        try:
            while True:
                data = self.sock.recv(65_536)
                if not data:
                    return True
                self._received += data
                if not self._tls:
                    return False
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True

    def _heard(self, reply: Reply) -> End | None:
        if not self._awaited:
            return self._lost()  # it spoke first: it is closing
        stage = self._awaited.popleft()
        if reply.code == 421:  # whatever it answers (RFC 5321 section 3.8)
            return self._closing(stage, reply)
        if stage is Stage.DATA and reply.code == 354:
            return self._transfer()
        if stage is Stage.DOT and not self._dotted:  # it did not want to hear the rest
            self.close()
            return self._ended(How.ANSWERED if reply.code >= 400 else How.DOUBT, stage, reply)
        if stage is Stage.DOT:
            return self._ended(How.ACCEPTED if reply.code == 250 else How.ANSWERED, stage, reply)
        if stage is Stage.EMPTY:
            return self._refused()
        if not fine(stage, reply):
            if stage in (Stage.RSET, Stage.NOOP):
                return self._lost()
            self._failed = self._failed or (stage, reply)
        if self._todo and self._failed is None:
            self._next()
        return self._refused() if self._failed and not self._awaited else None

    def _transfer(self) -> End | None:
        """The server waits for the message; for one that it has refused itself, it gets a lone dot (RFC 2920)."""
        if self._failed or self._job is None:
            self._awaited.append(Stage.EMPTY)
            self._write(b".\r\n")
            return None
        if self._job.late:
            self.close()  # with no dot, nothing is accepted: there is no other way back (RFC 5321 section 4.1.1.4)
            return self._ended(How.LATE, Stage.DATA, Reply(354))
        self._awaited.append(Stage.DOT)
        self._unsent = memoryview(self._job.data)  # `react` writes it: a reply that is here already is not about it
        return None

    def _refused(self) -> End | None:
        assert self._failed is not None  # noqa: S101
        return self._ended(How.ANSWERED, *self._failed)

    def _ended(self, how: How, stage: Stage, reply: Reply) -> End | None:
        job, self._job = self._job, None
        self._todo.clear()
        if stage is Stage.DOT:
            self._reset = False
        elif stage is Stage.DATA and reply.code < 400:
            self.close()  # neither yes nor no: who knows what it waits for
        self.used = True
        return End(job, how, stage, reply) if job is not None else None

    def _closing(self, stage: Stage, reply: Reply) -> End | None:
        """It says good-bye: about this message, or because the connection was idle too long (RFC 5321 section 3.8)."""
        known = self._failed or (stage, reply)
        idle = self.used and stage in (Stage.RSET, Stage.MAIL) and not reply.status.startswith("4.7.")
        self.close()
        return self._ended(How.CLOSED if idle else How.ANSWERED, *known)

    def _lost(self) -> End | None:
        awaited = self._awaited[0] if self._awaited else Stage.DOT
        self.close()
        job, self._job = self._job, None
        if job is None:
            return None
        if self._failed is not None:
            return End(job, How.ANSWERED, *self._failed)
        return End(job, How.DOUBT if self._dotted else How.CLOSED, awaited)

    def close(self) -> None:
        """At once, without a word."""
        self.open = False
        self._awaited.clear()
        self._todo.clear()
        self._unsent = memoryview(b"")
        self._smtp.close()

    def say_good_bye(self) -> None:
        """Politely; `hear_good_bye` closes it."""
        with contextlib.suppress(OSError):
            self.sock.settimeout(1.0)
            self.sock.sendall(b"QUIT\r\n")

    def hear_good_bye(self, timeout: float) -> None:
        """Wait so many seconds for the server's, then close the connection."""
        with contextlib.suppress(OSError):
            self.sock.settimeout(timeout)
            while self.sock.recv(4096):  # its good-bye, then the end
                pass
        self.close()


def fine(stage: Stage, reply: Reply) -> bool:
    """RFC 5321 section 4.3.2; 251 is a recipient that is forwarded, 252 one that cannot be checked."""
    return reply.code == 250 or (stage is Stage.RCPT and reply.code in (251, 252))
