"""
Which whole messages are an opt-out, an opt-in or a cry for help, in Spanish, Portuguese and English.

Only the whole message counts, however it is spelt: a word inside a sentence (“cancelar mi pedido”)
is for whoever reads replies to weigh. Sources of the words: CTIA's Messaging Principles 5.1.3,
www.twilio.com/docs/messaging/tutorials/advanced-opt-out, 47 CFR 64.1200 (a)(10), and common usage
for Spanish and Portuguese, of which there is no authoritative list.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

OPT_OUT, OPT_IN, HELP = "opt_out", "opt_in", "help"
LONGEST = 80  # characters of a message that can be one of these words

_WORDS = {
    OPT_OUT: (
        *("STOP", "STOPALL", "STOP ALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT", "OPT OUT"),
        *("BAJA", "DAR DE BAJA", "DARME DE BAJA", "DAME DE BAJA", "ALTO", "PARAR", "PARE", "CANCELAR", "DETENER"),
        *("SALIR", "BASTA", "ELIMINAR", "DESUSCRIBIR", "DESUSCRIBIRME", "NO MÁS", "NO ENVIAR MÁS", "NO ENVÍEN MÁS"),
        *("NO ME ESCRIBAN", "NO ME ESCRIBAN MÁS", "NO MÁS MENSAJES", "CANCELAR SUSCRIPCIÓN"),
        *("SAIR", "REMOVER", "DESCADASTRAR", "NÃO QUERO", "NÃO QUERO MAIS", "PARAR DE RECEBER"),
    ),
    OPT_IN: (
        *("START", "UNSTOP", "SUBSCRIBE", "OPTIN", "OPT IN"),
        *("ALTA", "DAR DE ALTA", "DARME DE ALTA", "SUSCRIBIR", "SUSCRIBIRME", "REANUDAR"),
        *("VOLTAR", "INSCREVER", "CADASTRAR", "RETOMAR"),
    ),
    HELP: ("HELP", "INFO", "AYUDA", "AJUDA"),
}
_POLITE = ("por favor", "porfavor", "porfa", "please", "gracias", "thanks", "thank you", "obrigado", "obrigada")
# What Twilio itself made of a message: www.twilio.com/docs/messaging/tutorials/advanced-opt-out
_CODES = {"STOP": OPT_OUT, "START": OPT_IN, "HELP": HELP}


def read(text: str, code: str = "") -> str:
    """`opt_out`, `opt_in`, `help` or nothing: what the provider's own `code` says, else the whole message."""
    known = _CODES.get(code.upper())
    return known or (_MEANINGS.get(_plain(text), "") if text and len(text) <= LONGEST else "")


@lru_cache(maxsize=4096)
def _plain(text: str) -> str:
    """Its letters and digits alone, without accents, case, and what politeness adds at either end."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(letter for letter in folded if not unicodedata.combining(letter))
    words = " ".join("".join(letter if letter.isalnum() else " " for letter in bare).split())
    for polite in _POLITE:
        words = words.removesuffix(f" {polite}").removeprefix(f"{polite} ")
    return words.replace(" ", "")


_MEANINGS = {_plain(word): meaning for meaning, words in _WORDS.items() for word in words}
