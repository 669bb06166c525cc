"""
Quoting: what a person wrote, without the messages that they answer and without their signature.

The library `quotequail` (Close.com's) finds the line with which most programs begin what they quote, in
Spanish, Portuguese and English. Beyond it: that line broken into three or four, Outlook's block of
headers, `>` at the beginning of a line, and signatures.

It looks at no more than 1,000 lines, and at no more than 500 characters of each: whoever quotes so much
has said what they say before.
"""

from __future__ import annotations

import re

import quotequail

from outreach import intents
from outreach.intents import CASES, Certainty, Intent

MOST_LINES, LONGEST_LINE = 1_000, 500

_INTRO = re.compile(r"(El|Em|On|A|Le)\b.{5,450}?\b(escribió|escreveu|wrote|sent)\s*(:|-{2,})", re.IGNORECASE)
_ADDRESSED = re.compile(r".{0,200}\d{4}.{0,200}<[^<>\s]{1,200}@[^<>\s]{1,200}>\s*:")  # a date, and whose address
_INTRO_BEGINS = re.compile(r"(El|Em|On|A|Le)\s\S", re.IGNORECASE)
_DATED = re.compile(r"\d{1,4}|@")  # an intro names a date or an address; a sentence rarely does
_SENDER = re.compile(r"\*?(De|From|Von)\s?:\*?\s*\S", re.IGNORECASE)
_HEADERS = re.compile(
    r"\*?(Enviado( el| em)?|Enviada( em)?|Sent|Date|Fecha|Data|Para|To|Cc|CC|Asunto|Assunto|Subject)\s?:\*?",
    re.IGNORECASE,
)
_DIVIDER = re.compile(
    r"(_{10,}|-{2,}\s*(mensaje original|mensagem original|original message|mensaje reenviado|mensagem encaminhada"
    r"|forwarded message)\s*-{2,})",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(r"--\s*")  # RFC 3676 section 4.3, and those who drop its blank
_DEVICE = re.compile(
    r"(enviado (desde|do|de|pelo|por|con|com|via)|sent (from|with|via|by)|mandado desde"
    r"|(obtener|obtén|obter|baixar|get)( o)?(?= outlook\b))\b"
    r".{0,40}\b(iphone|ipad|android|outlook|gmail|yahoo|samsung|huawei|xiaomi|motorola|galaxy|blackberry|mail|correo"
    r" para windows|celular|tel[eé]fono|telefone|tablet|dispositivo|m[oó]vil|smartphone|k-9|bluemail|proton|ios)\b.{0,60}",
    re.IGNORECASE,
)
# What lawyers and printers have put below: it speaks to whoever reads it, not to us.
_NOTICE = re.compile(
    r"\W*(aviso (legal|de (confidencialidad|privacidad|privacidade))|nota de confidencialidad|confidentiality|disclaimer"
    r"|(este|esta|el presente) (mensaje|correo|e-?mail|mensagem|comunicaci[oó]n|comunica[cç][aã]o)\b.{0,120}"
    r"\b(confidencial|privilegiad|destinatari)|this (e-?mail|message)\b.{0,120}\b(confidential|intended|privileged)"
    r"|antes de imprimir|before printing|please consider the environment"
    r"|(si|se) (usted|ud|voc[eê])? ?(no|n[aã]o) (es|é) (el|o) destinat[aá]ri"
    r"|(si|se) (usted|ud|voc[eê])? ?(recibi[oó]|recebeu|ha recibido) (este|esta) (mensaje|correo|mensagem|e-?mail) por (error|engano))",
    re.IGNORECASE,
)
_AFTERWORD = re.compile(r"(p\.?\s?[ds]|post\s?data|por cierto|ah)\b", re.IGNORECASE)
_CLOSING = re.compile(
    r"(muchos |un |uma? |com |con |meus |mis |kind |best |warm |many )?"
    r"(saludos?|cordialmente|atentamente|atenciosamente|att\.?|atte\.?|abra[cç]os?|abrazos?|cumprimentos|regards|best|cheers)"
    r"( cordiales| cordiais| a todos)?\s*[,.!]*",
    re.IGNORECASE,
)
_SIGNED_LINES, _SIGNED_WIDTH = 4, 60  # how much may follow a closing and still be a signature


def stripped(text: str) -> str:
    """
    What the person wrote themselves; empty where they only quoted.

    Above what they quote, else below it or between its lines, where these are marked as such.
    """
    lines = [line.rstrip() for line in text.split("\n")]
    begins = _quote_begins(lines)
    own = [line for line in lines[:begins] if not _is_quoted(line)]
    if not any(line.strip() for line in own):
        own = _below(lines[begins:])
    own = _without_signature(own)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(own)).strip()


def _is_quoted(line: str) -> bool:
    return line.lstrip().startswith(">")


def _below(lines: list[str]) -> list[str]:
    """The lines after the first quoted one that are not quoted themselves."""
    first = next((number for number, line in enumerate(lines) if _is_quoted(line)), len(lines))
    return [line for line in lines[first:] if not _is_quoted(line)]


def _quote_begins(lines: list[str]) -> int:
    """The number of the line with which the quoted message begins; beyond the last one where none does."""
    short = [_harmless(line[:LONGEST_LINE]) for line in lines[:MOST_LINES]]
    end = len(short) if len(short) == len(lines) else MOST_LINES
    parts = quotequail.quote("\n".join(short), limit=MOST_LINES, quote_intro_line=True)
    if len(parts) > 1:
        end = min(end, parts[0][1].count("\n") + 1 if parts[0][1] else 0)
    for number in range(end):
        if _begins(short, number):
            return number
    return end


def _harmless(line: str) -> str:
    """The line, unless the library's patterns would take long over it: they try every `<` with every `@`."""
    return line if line.count("<") <= 3 and line.count("@") <= 3 else "-"


def _begins(lines: list[str], number: int) -> bool:
    line = lines[number].strip(" \t-–—*_")
    if _DIVIDER.fullmatch(lines[number].strip()) or _ADDRESSED.fullmatch(line):
        return True
    if _SENDER.match(line):
        return sum(_HEADERS.match(one.strip()) is not None for one in lines[number + 1 : number + 7]) >= 2
    if _INTRO_BEGINS.match(line):
        joined = " ".join(one.strip() for one in lines[number : number + 4]).lstrip("-–—*_ ")
        found = _INTRO.match(joined)
        return found is not None and _DATED.search(found[0]) is not None
    return False


def _without_signature(lines: list[str]) -> list[str]:
    """The lines up to the signature, and what is written after it all the same."""
    written = False
    for number, line in enumerate(lines[:MOST_LINES]):
        bare = line.strip()[:LONGEST_LINE]
        if _SIGNATURE.fullmatch(bare) or _NOTICE.match(bare) or (_DEVICE.fullmatch(bare) and not _matters(bare)):
            return lines[:number]
        if written and _CLOSING.fullmatch(bare) and _is_signed(rest := lines[number + 1 :]):
            after = next((at for at, one in enumerate(rest) if _AFTERWORD.match(one.strip())), len(rest))
            return lines[:number] + (rest if _matters("\n".join(rest)) else rest[after:])
        written = written or bool(bare)
    return lines


def _matters(text: str) -> bool:
    """Whether it says what no signature says."""
    said = intents.read(text)
    return said.opt_out is Certainty.FINAL or any(one in said for one in CASES if one is not Intent.QUESTION)


def _is_signed(after: list[str]) -> bool:
    """Whether nothing but a few short lines without a sentence follows."""
    rest = [line.strip() for line in after[: 3 * _SIGNED_LINES] if line.strip()]
    more = any(line.strip() for line in after[3 * _SIGNED_LINES :])
    return not more and len(rest) <= _SIGNED_LINES and all(len(x) <= _SIGNED_WIDTH and x[-1] not in "?!" for x in rest)
