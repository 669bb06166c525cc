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
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from outreach.channels import (
    Blame,
    Doubtful,
    Finding,
    Kept,
    Outcome,
    Outgoing,
    Receipt,
    Record,
    Silent,
    mime,
)
from outreach.errors import ChannelError
from outreach.settings import Settings
from outreach.values import CHANNELS

FOLDER = "outbox"
# The folder itself is wrong: waiting does not mend it.
_MISCONFIGURED = frozenset({errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EROFS, errno.ELOOP})


class Outbox(Silent):
    """Writes each message to `outbox/` in the workspace."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.folder = settings.workspace / FOLDER
        self.sender = settings.channels[name].sender or mime.written("outbox@localhost", settings.business.name)
        self._reply_to = settings.mailbox.reply_to if settings.mailbox else ""
        if name == "email":
            try:
                for sender in settings.channels[name].pool or (self.sender,):
                    mime.read_sender(sender)
            except ValueError as error:
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

    def look_up(self, doubtful: Sequence[Doubtful]) -> Iterator[Kept]:
        """
        The files of these messages: exact and complete, since a file is there whole or not at all.

        A file on any day and channel counts, as it does when the message is written again.
        """
        try:
            files = self._files({one.public_id for one in doubtful})
        except OSError as error:
            for one in doubtful:
                yield Kept(one.public_id, detail=f"the folder {FOLDER} cannot be read: {_why(error)}")
            return
        for one in doubtful:
            yield Kept(one.public_id, tuple(files.get(one.public_id, ())), complete=True)

    def check(self) -> Iterator[Finding]:
        """Whether the folder can be written to."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_whole(self.folder / ".doctor", b"")
            (self.folder / ".doctor").unlink()
        except OSError as error:
            yield Finding(
                ok=False, text=f"the folder {FOLDER} cannot be written to: {_why(error)}", hint="mend its permissions"
            )
        else:
            yield Finding(ok=True, text=f"messages are written to the folder {FOLDER}; nothing leaves")

    def _one(self, message: Outgoing) -> Receipt:
        if not self._is_there(message):
            sender = message.sender or self.sender
            try:
                content = self._content(message, sender)
            except ValueError:
                detail = "the address cannot stand in a message"
                return Receipt(message.public_id, Outcome.REFUSED, detail=detail, blame=Blame.ADDRESS)
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_whole(self.folder / _name(message, message.channel), content)
        return Receipt(message.public_id, Outcome.ACCEPTED, provider_id=f"outbox:{message.public_id}")

    def _files(self, wanted: set[str]) -> dict[str, list[Record]]:
        """The files of these messages by their id, read in one go; a folder that is not there yet is empty."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return {}
        found: dict[str, list[Record]] = {}
        for match in filter(None, map(_NAME.fullmatch, names)):
            if match["id"] in wanted:
                at = datetime.fromtimestamp((self.folder / match[0]).stat().st_mtime, UTC)
                found.setdefault(match["id"], []).append(Record(f"outbox:{match['id']}", at, match["id"]))
        return found

    def _content(self, message: Outgoing, sender: str) -> bytes:
        """The file's; ValueError if an address cannot stand in it."""
        if message.channel == "email":
            return mime.message(message, sender, self._reply_to)
        return _json(message, sender)

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


_NAME = re.compile(  # what `_name` makes, and never an unfinished file's
    rf"(\d{{4}}-\d\d-\d\d|undated)-(?P<id>.+)-({'|'.join(CHANNELS)})\.(eml|json)"
)


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


def _text(body: str) -> str:
    """A lone surrogate has no form in any file."""
    return body.encode("utf-8", "replace").decode()


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
