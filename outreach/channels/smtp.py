"""
E-mail over SMTP, to any mail server or relay.

Up to `connections` are open at once and stay open for the next batch; one thread drives them all.
A message is drawn when a connection can take it, and is known by its Message-ID, which is its
`provider_id`, too.

What a broken connection means (RFC 5321 section 4.2.5: the server answers for a message from its
250 after the final dot on): before the dot was written nothing was accepted, and the message is
tried once more at once, on a new connection; after it, the message is in doubt.

A message that waits, for a connection or for the server, is not begun to be written later than
HAND_OVER_SECONDS after it was drawn, whatever is tried again: then it was certainly not accepted, and
is for later. Only a process that is stopped in the midst of writing one writes the rest when it wakes.
"""

from __future__ import annotations

import smtplib
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress

from outreach import clocks
from outreach.channels import Blame, Finding, Outcome, Outgoing, Receipt, Silent, mime
from outreach.channels.smtp_connection import End, How, Job, Server, fine
from outreach.channels.smtp_pool import NotOpened, Pool
from outreach.channels.smtp_replies import Reply, Stage, Standing, meaning, reply_of
from outreach.errors import ChannelError
from outreach.setting_keys import DEFAULT_SMTP_PORTS
from outreach.settings import Settings

CONNECTIONS = 10
TRIES = 2  # at once, of what certainly was not accepted


class Smtp(Silent):
    """Hands e-mail over to the server that the settings name."""

    def __init__(self, settings: Settings, name: str) -> None:
        """
        Nothing is connected yet.

        Raises:
            ChannelError: `from` is no address, or `host` is missing.
        """
        channel = settings.channels[name]
        self._reply_to = settings.mailbox.reply_to if settings.mailbox else ""
        security = channel.options.get("security", "starttls")
        self._server = Server(
            host=channel.options.get("host", ""),
            port=channel.options.get("port", DEFAULT_SMTP_PORTS[security]),
            security=security,
            user=channel.options.get("user", ""),
            password=settings.secrets.get("SMTP_PASSWORD", ""),
            timeout=channel.timeout,
        )
        self._senders = channel.senders
        self._most = channel.options.get("connections", CONNECTIONS)
        self._standing = Standing()
        self._pool: Pool | None = None
        if not self._server.host:
            raise ChannelError(f"channels.{name}: smtp needs `host`")
        try:
            for sender in self._senders:
                mime.read_sender(sender)
        except ValueError as error:
            raise ChannelError(f"channels.{name}.from is not an address such as `Shop <hello@shop.example>`") from error

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        """
        Hand the batch over, on many connections at once; receipts come in the order of the answers.

        A message that could not be handed over within HAND_OVER_SECONDS after it was drawn is for later.
        When the server cannot be reached at all, the whole batch is for later.

        Raises:
            ChannelError: login, certificate, sender or standing with the server is wrong; see Channel.send.
        """
        if self._pool is None:
            self._pool = Pool(self._server, self._most)
        sending = _Sending(batch, self._pool, self._senders[0], self._standing, self._most, self._reply_to)
        self._pool.look()
        try:
            while sending.go_on():
                yield from sending.take_receipts()
        finally:
            self._pool.abandon()
        yield from sending.take_receipts()
        if sending.wrong is not None:
            raise sending.wrong

    def check(self) -> Iterator[Finding]:
        """Connect, log in, and ask whether the senders may send, each to itself; no message is handed over."""
        place = f"{self._server.host}:{self._server.port}"
        smtp: smtplib.SMTP | None = None
        try:
            smtp = self._server.open()
            yield from _findings(smtp, self._server, place, self._senders)
        except ChannelError as error:
            yield Finding(ok=False, text=str(error), hint="mend `host`, `port`, `security`, `user` or SMTP_PASSWORD")
        except OSError as error:
            yield Finding(ok=False, text=f"{place}: {_why(error)}", hint="is `host` right, and the server up?")
        finally:
            if smtp is not None:
                with suppress(OSError):
                    smtp.quit()
                smtp.close()

    def close(self) -> None:
        """Say good-bye on every connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


class _Sending:
    """One batch on its way: what is drawn, what comes again, what is known."""

    def __init__(
        self, batch: Iterable[Outgoing], pool: Pool, sender: str, standing: Standing, most: int, reply_to: str
    ) -> None:
        self.wrong: ChannelError | None = None
        self._source = iter(batch)
        self._pool = pool
        self._sender = sender
        self._reply_to = reply_to
        self._standing = standing
        self._most = most
        self._again: deque[Job] = deque()
        self._down = ""  # why no connection can be had
        self._receipts: list[Receipt] = []

    def take_receipts(self) -> list[Receipt]:
        """Those that came since the last time."""
        receipts, self._receipts = self._receipts, []
        return receipts

    def go_on(self) -> bool:
        """Hand out what can be handed out, and wait for one answer; False when all is done."""
        if self._down and self.wrong is None and not self._pool.connected and not self._pool.opening:
            self._put_off()
        while self._may_draw() and (job := self._next()) is not None:
            self._settle_all(self._pool.hand_over(job))
        if not self._pool.waiting:
            return bool(self._again)
        self._settle_all(self._pool.wait(begin=self.wrong is None))
        return True

    def _may_draw(self) -> bool:
        if self.wrong is not None or (self._down and not self._pool.connected):
            return False
        return self._pool.has_room(self._most)

    def _next(self) -> Job | None:
        """What comes again first; those that cannot stand on the wire are refused in passing."""
        if self._again:
            return self._again.popleft()
        drawn = clocks.read()  # before, not after: what the caller asked when he gave it may be long ago by then
        for outgoing in self._source:
            try:
                return _job(outgoing, drawn, outgoing.sender or self._sender, self._reply_to)
            except ValueError:
                self._refuse(outgoing, Blame.ADDRESS, "the address cannot stand in a message")
        return None

    def _put_off(self) -> None:
        """The server is not there: this is said of every message at once, and none waits for a time-out of its own."""
        while self._again:
            self._later(self._again.popleft(), self._down, Blame.ROUTE)
        for outgoing in self._source:
            self._receipts.append(Receipt(outgoing.public_id, Outcome.LATER, detail=self._down, blame=Blame.ROUTE))

    # --- receipts -------------------------------------------------------------------------------------------------

    def _settle_all(self, happened: Iterable[End | NotOpened]) -> None:
        for one in happened:
            if isinstance(one, NotOpened):
                self._not_opened(one)
            else:
                self._settle(one)
        while self._again and self.wrong is not None:
            self._later(self._again.popleft(), STOPPED)

    def _settle(self, end: End) -> None:
        job = end.job
        if end.how is How.ACCEPTED:
            self._standing.accepted()
            self._down = ""
            self._receipts.append(Receipt(job.outgoing.public_id, Outcome.ACCEPTED, job.provider_id))
        elif end.how is How.ANSWERED:
            self._answered(job, end.stage, end.reply)
        elif end.how is How.DOUBT:
            detail = "the server did not confirm the message"
            self._receipts.append(Receipt(job.outgoing.public_id, Outcome.DOUBT, detail=detail))
        elif end.how is How.CLOSED:
            self._again_or_later(job, "the server closed the connection", _unheard(end.stage), fresh=True)
        elif end.how is How.SILENT:
            self._later(job, "the server did not answer in time", _unheard(end.stage))
        elif end.how is How.LATE:
            self._later(job, "its time to be handed over ran out")
        elif end.how is How.TOO_LARGE:
            self._refuse(job.outgoing, Blame.MESSAGE, "the message is too large for the server")
        else:
            self._refuse(job.outgoing, Blame.ADDRESS, "the server takes addresses in ASCII only")

    def _answered(self, job: Job, stage: Stage, reply: Reply) -> None:
        row = self._standing.judge(meaning(reply, stage))
        detail = f"{row.says} ({reply})"
        if row.stops and self.wrong is None:
            self.wrong = ChannelError(f"channels.email: {detail}")
        self._receipts.append(
            Receipt(job.outgoing.public_id, row.outcome, detail=detail, blame=row.blame, code=str(reply))
        )

    def _not_opened(self, happened: NotOpened) -> None:
        """A server that takes fewer connections than we may open is used with those it takes."""
        job, error = happened
        if isinstance(error, ChannelError):
            self.wrong = self.wrong or error
            self._later(job, STOPPED)
        elif not isinstance(error, OSError | ValueError):
            raise error
        elif self._pool.connected:
            self._most = max(1, self._most - 1)
            self._again_or_later(job, _why(error), Blame.ROUTE, fresh=False)
        else:
            self._down = _why(error)
            self._later(job, self._down, _blame(error))

    def _again_or_later(self, job: Job, why: str, blame: Blame, *, fresh: bool) -> None:
        job.tries, job.fresh = job.tries + 1, fresh
        if job.tries < TRIES and self.wrong is None:
            self._again.append(job)
        else:
            self._later(job, why, blame)

    def _later(self, job: Job, why: str, blame: Blame = Blame.NOBODY) -> None:
        self._receipts.append(Receipt(job.outgoing.public_id, Outcome.LATER, detail=why, blame=blame))

    def _refuse(self, outgoing: Outgoing, blame: Blame, why: str) -> None:
        self._receipts.append(Receipt(outgoing.public_id, Outcome.REFUSED, detail=why, blame=blame))


STOPPED = "the channel is stopped: its settings are wrong"


def _job(outgoing: Outgoing, drawn: tuple[float, float], sender: str, reply_to: str) -> Job:
    """A message as it goes over the wire; ValueError if its address cannot."""
    from_, recipient = mime.read_sender(sender), mime.address(outgoing.address)
    return Job(
        outgoing=outgoing,
        provider_id=mime.message_id(outgoing.public_id, from_.domain),
        sender=from_.address,
        recipient=recipient,
        data=mime.message(outgoing, sender, reply_to) + b".\r\n",
        utf8=not (recipient.isascii() and from_.address.isascii()),
        drawn=drawn,
    )


def _unheard(awaited: Stage) -> Blame:
    """A server that says nothing before it has heard of a recipient says nothing about the message."""
    return Blame.ROUTE if awaited in (Stage.NOOP, Stage.RSET, Stage.MAIL) else Blame.NOBODY


def _blame(error: Exception) -> Blame:
    """A server that is reached, and says 421 with 4.7.x, finds us too fast."""
    if not isinstance(error, smtplib.SMTPResponseException):
        return Blame.ROUTE
    said = error.smtp_error if isinstance(error.smtp_error, bytes) else error.smtp_error.encode()
    return Blame.SENDER if error.smtp_code == 421 and said.startswith(b"4.7.") else Blame.ROUTE


def _why(error: Exception) -> str:
    """Our words, or the system's; never the server's."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the server cannot take it now ({error.smtp_code})"
    if isinstance(error, smtplib.SMTPException):
        return "the server closed the connection"
    if isinstance(error, TimeoutError):
        return "the server did not answer in time"
    if isinstance(error, socket.gaierror):
        return "the server's name cannot be looked up"
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


# --- check ---------------------------------------------------------------------------------------------------------


def _findings(smtp: smtplib.SMTP, server: Server, place: str, senders: Iterable[str]) -> Iterator[Finding]:
    yield _protection(server, place)
    if server.user:
        yield Finding(ok=True, text="the server accepts the login")
    for sender in senders:
        yield from _may_send(smtp, mime.read_sender(sender).address)
    size = smtp.esmtp_features.get("size", "")
    if size.isdigit() and int(size):
        yield Finding(ok=True, text=f"it takes messages of up to {int(size) // 1000:,} kB")
    yield Finding(
        ok=True,
        text="signing with DKIM is the server's work: send yourself a message and look for `dkim=pass` in its "
        "Authentication-Results header, and for List-Unsubscribe among what the signature covers",
    )


def _protection(server: Server, place: str) -> Finding:
    if server.security != "none":
        return Finding(ok=True, text=f"{place} is reached over TLS, and its certificate is good")
    return Finding(
        ok=False,
        warning=True,
        text=f"{place} is reached without TLS: messages and password can be read on the way",
        hint="leave `security: none` only for a server on your own machine or network",
    )


def _may_send(smtp: smtplib.SMTP, sender: str) -> Iterator[Finding]:
    """Up to the recipient, who is the sender: whom else may one ask about? Many servers speak of login only there."""
    utf8 = " BODY=8BITMIME SMTPUTF8" if not sender.isascii() else ""
    smtp.command_encoding = "utf-8" if utf8 else "ascii"
    reply = reply_of(*smtp.docmd("MAIL", f"FROM:<{sender}>{utf8}"))
    if fine(Stage.MAIL, reply):
        yield Finding(ok=True, text="the server accepts the sender of `from`")
        yield from _takes_mail(reply_of(*smtp.docmd("RCPT", f"TO:<{sender}>")))
    else:
        said_what = f"the server answers the sender of `from` with {reply}: {meaning(reply, Stage.MAIL).says}"
        hint = "is the sender verified with the provider?"
        yield Finding(ok=False, text=said_what, warning=reply.code < 500, hint=hint)
    smtp.docmd("RSET")


def _takes_mail(reply: Reply) -> Iterator[Finding]:
    """What its answer to the recipient tells; nothing if that is yes."""
    if fine(Stage.RCPT, reply):
        return
    row = Standing().judge(meaning(reply, Stage.RCPT))
    if reply.code < 500:
        hint = "ask again in a few minutes"
    elif row.blame is Blame.ADDRESS:
        hint = "answers and returned mail go to that address: it should exist"
    else:
        hint = "it may take no mail from us without a login (`user`, SMTP_PASSWORD), or not relay for this machine"
    said_what = f"the server answers mail to the address of `from` with {reply}: {row.says}"
    yield Finding(ok=False, text=said_what, warning=not row.stops, hint=hint)
