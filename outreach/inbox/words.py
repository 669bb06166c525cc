"""
What somebody says about being written to: the provider's own verdict goes before the words they used.

An opt-out takes effect where no doubt is left: whole messages such as “BAJA”, and phrases such as “no me
escriban más” (see `intents`). An opt-in takes effect by a whole message only.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from outreach.channels import AUTOMATIC
from outreach.intents import Certainty, Intent, Reading
from outreach.intents import read as read_intents

OPT_OUT, OPT_IN, HELP = "opt_out", "opt_in", "help"
# What the opt-in page writes into the reader's own message, the shop's name after it: the ledger then keeps
# what they agreed to, in the words that they sent. Letters that every SMS has, so that it is one.
JOINING = {
    "es": "ALTA: acepto recibir por este medio ofertas y novedades de",
    "pt": "CADASTRAR: aceito receber por este meio ofertas e novidades de",
    "en": "SUBSCRIBE: I agree to receive on this channel offers and news from",
}
LONGEST_NAME = 200  # characters of a shop's name after it

# What Twilio itself made of a message: www.twilio.com/docs/messaging/tutorials/advanced-opt-out
_CODES = {
    "STOP": Reading((Intent.OPT_OUT,), opt_out=Certainty.FINAL, whole=True),
    "START": Reading((Intent.OPT_IN,), whole=True),
    "HELP": Reading((Intent.HELP,), whole=True),
}


def read(text: str, code: str = "") -> str:
    """What takes effect at once: `opt_out`, `opt_in`, `help`, or nothing."""
    said = reading(text, code)
    if said.opt_out is Certainty.FINAL:
        return OPT_OUT
    return said.intents[0].value if said.whole and said.intents[0] in (OPT_IN, HELP) else ""


@lru_cache(maxsize=1024)
def reading(text: str, code: str = "") -> Reading:
    """
    What a reply means: what the provider's `code` says, else its words.

    A machine that answers in somebody's name opts nobody out by itself: what would be certain is doubtful.
    """
    if known := _CODES.get(code.upper()):
        return known
    if _joins(text):
        return Reading((Intent.OPT_IN,), whole=True)
    said = read_intents(text)
    if code == AUTOMATIC:
        doubt = Certainty.DOUBTFUL if said.opt_out is Certainty.FINAL else Certainty.NONE
        return Reading((Intent.OUT_OF_OFFICE,), opt_out=doubt)
    return said


def _joins(text: str) -> bool:
    return len(text) <= _LONGEST_JOINING and _plain(text).startswith(_JOINING)


def _plain(text: str) -> str:
    """Its letters and digits alone, without accents and case."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in folded if letter.isalnum())


_JOINING = tuple(map(_plain, JOINING.values()))
_LONGEST_JOINING = max(map(len, JOINING.values())) + LONGEST_NAME
