"""Normalising: a text as the words that mean the same however they are typed."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

STOP, PAUSE = ".", ","  # what ends a sentence, and what stands within one: words of their own
BOUNDARIES = frozenset({STOP, PAUSE})
LONGEST_WORD = 30  # letters of a word that count
HEAD, TAIL = 5_000, 1_000  # characters that are read of a longer text: what is meant stands first or last
SIGNS = frozenset("👍👎👌✅❌🛑🚫⛔✋🙏❤♥😡🤬😠💔😢😞👏🎉💯🔕")  # emoji that say something; others do not count

_APOSTROPHES = str.maketrans("", "", "'’‘`´ʼ")
_LEET = str.maketrans("013457@$", "oieastas")
_PIECES = re.compile(r"[^\W_]+|[.!?¿¡;:\n…,|•]|[^\w\s]")
_SENTENCE_ENDS = frozenset(".!?¿¡;:\n…|•")
_REPEATED = re.compile(r"([^\W\d_])\1+")
_ONE_LETTER_EACH = 3  # as many single letters in a row are one word: S T O P


def words(text: str) -> list[str]:
    """
    The words of a text, without case, accents, doubled letters or emoji that say nothing.

    Sentences are parted by `.` and their parts by `,`. Time and result are proportional to the text,
    of which at most HEAD + TAIL characters are read.
    """
    if len(text) > HEAD + TAIL:
        text = f"{text[:HEAD]}\n{text[-TAIL:]}"
    folded = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES).casefold())
    bare = folded if folded.isascii() else "".join(c for c in folded if not unicodedata.combining(c))
    found: list[str] = []
    for piece in _PIECES.findall(bare):
        if piece in _SENTENCE_ENDS:
            if found and found[-1] != STOP:
                found.append(STOP)
        elif piece == PAUSE:
            if found and found[-1] not in BOUNDARIES:
                found.append(PAUSE)
        elif piece[0].isalnum():
            found.append(word(piece))
        elif piece in SIGNS:  # a sentence of its own
            found += [piece, STOP] if not found or found[-1] == STOP else [STOP, piece, STOP]
    while found and found[-1] in BOUNDARIES:
        found.pop()
    return _joined(found)


@lru_cache(maxsize=8192)
def word(piece: str) -> str:
    """One word without doubled letters: `baaasta`, `cancell` and `llamar` are `basta`, `cancel` and `lamar`."""
    short = piece[: LONGEST_WORD * 4]
    return (short if short.isdigit() else _REPEATED.sub(r"\1", short))[:LONGEST_WORD]


def letters(one: str) -> str:
    """A word whose digits stand for letters, as in `st0p`; the word itself where it has none or nothing else."""
    return one if one.isdigit() or one.isalpha() else one.translate(_LEET)


_ALIKE = (
    ("qu", "k"),
    ("ce", "se"),
    ("ci", "si"),
    ("ge", "je"),
    ("gi", "ji"),
    ("c", "k"),
    ("z", "s"),
    ("v", "b"),
    ("h", ""),
    ("y", "l"),
    ("mb", "nb"),
)


def sound(one: str) -> str:
    """A word by its sound in Spanish, as people spell who write by ear: `kitenme`, `resivir`, `yamen`."""
    for written, heard in _ALIKE:
        one = one.replace(written, heard)
    return one


def _joined(found: list[str]) -> list[str]:
    """With the letters of a word that is spelt out put together."""
    if sum(1 for one in found if len(one) == 1) < _ONE_LETTER_EACH:
        return found
    joined: list[str] = []
    run: list[str] = []
    for one in [*found, ""]:
        if len(one) == 1 and one.isalpha():
            run.append(one)
        elif run and one == STOP:
            run.append("")  # s.t.o.p
        else:
            joined += ["".join(run)] if sum(map(bool, run)) >= _ONE_LETTER_EACH else _apart(run)
            run = []
            joined += [one] if one else []
    return joined


def _apart(run: list[str]) -> list[str]:
    return [one or STOP for one in run]
