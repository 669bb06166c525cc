"""
Who told us to stop, read again from the messages that people wrote to our senders.

Twilio blocks a number that writes a stop word, and has no list of those that it blocks: none is in its OpenAPI
descriptions, and its Consent API only takes. What people wrote, it keeps.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from requests.exceptions import RequestException
from twilio.base.exceptions import TwilioException
from twilio.http.response import Response
from twilio.rest import Client

from outreach.channels import OptOut
from outreach.channels.twilio import lookup
from outreach.channels.twilio.webhooks import split_address
from outreach.errors import ChannelError
from outreach.values import CONTACT_KIND

MOST_PAGES = 2000  # of one sender's list
# www.twilio.com/docs/messaging/tutorials/advanced-opt-out
OF_TWILIO = ("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT")
OF_SPANISH = (
    "BAJA", "DAR DE BAJA", "ALTO", "PARAR", "PARE", "CANCELAR", "DETENER", "SALIR", "BASTA", "ELIMINAR",
    "DESUSCRIBIR", "NO MÁS", "NO ENVIAR MÁS", "NO ME ESCRIBAN",
)  # fmt: skip
OF_PORTUGUESE = ("SAIR", "PARAR", "PARE", "CANCELAR", "REMOVER", "DESCADASTRAR", "NÃO QUERO")


def is_stop(text: str) -> bool:
    """Whether a whole message is a stop word, whatever its case, accents, spaces, punctuation and emoji."""
    return _plain(text) in _WORDS


def since(client: Client, account: str, channel: str, inboxes: Sequence[str], begin: datetime) -> Iterator[OptOut]:
    """
    Who wrote a stop word to one of these addresses since then; each list is read to its end.

    A person who opted in again later is among them, too: that is for whoever keeps consents to weigh.

    Raises:
        ChannelError: a list could not be read to its end; what came before is true.
    """
    kind = CONTACT_KIND[channel]

    def opt_out_of(row: Mapping[str, Any]) -> OptOut | None:
        if row["direction"] != "inbound" or not is_stop(str(row.get("body") or "")):
            return None
        at = lookup.made_at(row)
        if at is not None and at < begin:
            return None
        return OptOut(split_address(str(row["from"]))[1], kind, at or begin, "opted_out")

    for inbox in inboxes:
        listing = lookup.read(client, account, {"To": inbox}, opt_out_of, MOST_PAGES)
        yield from listing.found
        if listing.wrong:
            raise ChannelError(listing.wrong)
        if listing.why:
            raise ChannelError(f"not all that people wrote could be read: {listing.why}; try again later")


def senders_of(client: Client, service: str, prefix: str) -> list[str]:
    """
    The addresses of a messaging service that people of one channel write to.

    Raises:
        ChannelError: they could not be read.
    """
    found = client.messaging.v1.services(service)
    try:
        if prefix:
            return [one.sender for one in found.channel_senders.list() if str(one.sender).startswith(prefix)]
        numbers = [one.phone_number for one in found.phone_numbers.list()]
        return numbers + [one.short_code for one in found.short_codes.list()]
    except (TwilioException, RequestException, ValueError, TypeError, KeyError) as error:
        status = next((one.status_code for one in error.args if isinstance(one, Response)), 0)
        if status in (401, 403):
            raise ChannelError(lookup.refusal(status, "")) from None
        text = f"the senders of the messaging service could not be read ({type(error).__name__}); try again later"
        raise ChannelError(text) from None


def _plain(text: str) -> str:
    """Its letters and digits alone."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text).casefold() if letter.isalnum())


_WORDS = frozenset(_plain(word) for word in (*OF_TWILIO, *OF_SPANISH, *OF_PORTUGUESE))
