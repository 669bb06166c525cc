"""
The outbox: a folder that stands in for every provider, one file a message.

E-mails are `.eml` files that any mail program opens, the rest JSON. A file appears whole or not at
all, under a name made from the message's day and id alone, so that a second attempt finds the
first one's file and nothing is ever there twice.
"""

from __future__ import annotations

import errno
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator
from email.charset import QP, Charset
from email.errors import MessageError
from email.header import Header
from email.headerregistry import Address
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.policy import compat32
from email.utils import format_datetime, parseaddr
from pathlib import Path

from outreach.channels import Outcome, Outgoing, Receipt
from outreach.errors import ChannelError
from outreach.settings import Settings
from outreach.values import CHANNELS

FOLDER = "outbox"
# The folder itself is wrong: waiting does not mend it.
_MISCONFIGURED = frozenset({errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EROFS, errno.ELOOP})


class Outbox:
    """Writes each message to `outbox/` in the workspace."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.folder = settings.workspace / FOLDER
        self.sender = settings.channels[name].sender or f'"{_clean(settings.business.name)}" <outbox@localhost>'
        if name == "email":
            try:
                _sender(self.sender)
            except (ValueError, MessageError) as error:
                raise ChannelError(
                    "channels.email.from is not an address such as `Shop <hello@shop.example>`"
                ) from error

    def send(self, batch: Iterable[Outgoing]) -> Iterator[Receipt]:
        """
        Write the batch, one file a message; a message already there is accepted and left as it is.

        A full disk is a reason to try again later: the file is then certainly not there, or it is
        found, whole, by the next attempt.

        Raises:
            ChannelError: the folder cannot be written to.
        """
        receipts, wrong = [], None
        for message in batch:
            try:
                receipts.append(self._one(message))
            except OSError as error:
                receipts.append(_later(message.public_id, error))
                if error.errno in _MISCONFIGURED:
                    wrong = error
                    break
        yield from self._durable(receipts)
        if wrong is not None:
            raise ChannelError(f"the folder {FOLDER} of the workspace cannot be written to: {_why(wrong)}") from wrong

    def _one(self, message: Outgoing) -> Receipt:
        if not self._is_there(message):
            try:
                content = _eml(message, self.sender) if message.channel == "email" else _json(message, self.sender)
            except (ValueError, MessageError):
                return Receipt(message.public_id, Outcome.REFUSED, detail="the address cannot stand in a message")
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_whole(self.folder / _name(message, message.channel), content)
        return Receipt(message.public_id, Outcome.ACCEPTED, provider_id=f"outbox:{message.public_id}")

    def _is_there(self, message: Outgoing) -> bool:
        """Also under another channel, which an earlier attempt may have chosen."""
        return any((self.folder / _name(message, channel)).exists() for channel in CHANNELS)

    def _durable(self, receipts: list[Receipt]) -> list[Receipt]:
        """The receipts, once the new names would survive a power cut."""
        accepted = any(receipt.outcome is Outcome.ACCEPTED for receipt in receipts)
        if not accepted or os.name != "posix":  # elsewhere a folder cannot be synced, and needs not be
            return receipts
        try:
            _sync_folder(self.folder)
        except OSError as error:
            return [
                _later(receipt.public_id, error) if receipt.outcome is Outcome.ACCEPTED else receipt
                for receipt in receipts
            ]
        return receipts


def _later(public_id: str, error: OSError) -> Receipt:
    return Receipt(public_id, Outcome.LATER, detail=f"outbox: {_why(error)}")


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _name(message: Outgoing, channel: str) -> str:
    day = message.day or (message.at.date() if message.at else None)
    return f"{day or 'undated'}-{message.public_id}-{channel}{'.eml' if channel == 'email' else '.json'}"


def _write_whole(path: Path, content: bytes) -> None:
    """The file is there with all of its content, or not at all, also after a power cut."""
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _clean(text: str) -> str:
    """One line: control characters, line breaks of every script included, become spaces."""
    plain = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") else c for c in text)
    return " ".join(plain.split())


def _text(body: str) -> str:
    """A lone surrogate has no form in any file."""
    return body.encode("utf-8", "replace").decode()


# --- e-mail: RFC 5322 and MIME, put together from the older, faster half of `email` ----------------


def _eml(message: Outgoing, sender: str) -> bytes:
    """
    A plain-text and, where there is one, an HTML part; on marketing the two headers of RFC 8058.

    Raises ValueError when an address cannot stand in a header.
    """
    content, from_ = message.content, _sender(sender)
    head = {
        "From": _mailbox(from_),
        "To": _address(message.address).addr_spec,
        "Subject": _unstructured(_clean(content.subject), "Subject"),
        "Message-ID": f"<{message.public_id}@{from_.domain}>",
    }
    if message.at:
        head["Date"] = format_datetime(message.at)
    if message.unsubscribe_url and message.purpose == "marketing":
        head["List-Unsubscribe"] = f"<{_clean(message.unsubscribe_url)}>"
        head["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    whole = _part(content.text, "plain")
    if content.html:
        parts = [whole, _part(content.html, "html")]
        whole = MIMEMultipart("alternative", f"=_{message.public_id}", parts, policy=_POLICY)
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return lines.encode() + whole.as_bytes(policy=_POLICY)


def _part(body: str, subtype: str) -> MIMEBase:
    part = MIMENonMultipart("text", subtype, policy=_POLICY, charset="utf-8")
    part.set_payload(_text(body), _QUOTED)
    return part


_QUOTED = Charset("utf-8")
_QUOTED.body_encoding = QP
_POLICY = compat32.clone(linesep="\r\n")
LONGEST_WORD = 70  # of a header, unencoded: the line stays within the 78 characters of RFC 5322


def _sender(text: str) -> Address:
    """`Shop <hello@shop.example>` as a header wants it; ValueError if it is not that."""
    name, address = parseaddr(text)
    return _address(address, _clean(name))


def _address(address: str, name: str = "") -> Address:
    local, _, domain = address.rpartition("@")
    if not local or not domain or _clean(address) != address or " " in address:
        raise ValueError("not an e-mail address")
    return Address(name, local, domain if domain.isascii() else domain.encode("idna").decode())


def _mailbox(address: Address) -> str:
    """Name and address; an address beyond ASCII stands as it is (RFC 6532)."""
    if address.display_name.isascii():
        return str(address)
    return f"{_unstructured(address.display_name, 'From')} <{address.addr_spec}>"


def _unstructured(text: str, name: str) -> str:
    """Folded, and encoded (RFC 2047) where it must be: beyond ASCII, very long, or looking as if it were."""
    plain = text.isascii() and "=?" not in text and all(len(word) < LONGEST_WORD for word in text.split(" "))
    return Header(text, None if plain else "utf-8", header_name=name).encode(linesep="\r\n")


# --- everything else: JSON -------------------------------------------------------------------------


def _json(message: Outgoing, sender: str) -> bytes:
    content = message.content
    fields: dict[str, object] = {
        "id": message.public_id,
        "channel": message.channel,
        "purpose": message.purpose,
        "at": message.at.isoformat() if message.at else None,
        "from": sender,
        "to": message.address,
        "text": _text(content.text),
    }
    if content.segments:
        fields |= {"segments": content.segments, "encoding": content.encoding}
    if content.content_sid:
        fields |= {"content_sid": content.content_sid, "variables": dict(content.variables)}
    return (json.dumps(fields, ensure_ascii=False, indent=2) + "\n").encode()
