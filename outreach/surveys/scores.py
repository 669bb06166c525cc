"""
Scores: which numbers a survey takes, and which one a few words give, in Spanish, Portuguese and English.

Only what can be nothing but an answer is read as one: a number that stands alone or at the head of a
comment ("4, muy bien"), a number out of its scale's own highest ("9/10"), a number word, stars, or a
yes or no. "2 productos llegaron rotos" gives no score.
"""

from __future__ import annotations

import re
import unicodedata

from outreach.settings import Survey
from outreach.values import NUMBER_WORDS

YES, NO = 1, 0  # how a yes or a no is stored
LONGEST = 1_000  # characters of a text that is looked at

_YES = frozenset(
    [
        "si",
        "sii",
        "siii",
        "sip",
        "s",
        "claro",
        "correcto",
        "afirmativo",
        "sim",
        "ss",
        "isso",
        "yes",
        "y",
        "yep",
        "yeah",
        "sure",
    ]
)
_NO = frozenset(["no", "noo", "nop", "nope", "n", "nel", "negativo", "nao", "naoo", "nah"])
# What people say before a score, and right after it, without changing it.
_BEFORE = (
    r"(?:(?:hola|ola|oi|hi|hello|buenas|bueno|bom|pues|mi|minha|la|my|le|les|te|os|doy|daria|diria|dou|yo|eu|i|d|would|"
    r"give|rate|pongo|coloco|calificacion|nota|puntuacion|puntaje|respuesta|resposta|rating|score|answer|es|e|is|"
    r"seria|de|con|excelente|excelent|perfecto|perfeito|gracias|muchas|obrigad[oa]|thanks|perdon|digo|corrijo|quise|decir|desculpa|quis|dizer|sorry|un|una|um|uma|a|it|you|opcion|opcao|option|numero|number)[ ,!.:]+)*"
)
_UNIT = r"(?: ?(?:puntos?|pontos?|points?|estrellas?|estrelas?|stars?))?"
_AFTER = re.compile(
    r"\s+(?:muy|muito|very|bien|bem|good|bueno|buena|buenisim[oa]|bom|boa|excelente|excellent|perfect[oa]?|perfeit[oa]|"
    r"otim[oa]|great|genial|mal|mala|malo|ruim|bad|pesim[oa]|regular|ok|content[oa]|encantad[oa]|feliz|happy|"
    r"satisfech[oa]|satisfeit[oa]|satisfied|me encant[oa]|me encantaron|adorei|amei|gostei|me gust[oa]|loved|todo|tudo|gracias|muchas gracias|obrigad[oa]|thanks|thank you|"
    r"por favor|please|sin duda)\b"
)
_HEAD = re.compile(
    rf"{_BEFORE}(?P<number>\d{{1,2}}|[a-z]+)(?: ?/ ?(?P<of>\d{{1,3}})| (?:de|sobre|out of|of) (?P<out_of>\d{{1,3}}))?"
    rf"{_UNIT}(?P<rest>.*)",
    re.DOTALL,
)
_COUNTS = re.compile(r"[^.;:!,\n]*(?:\d|\b(?:otr[oa]s?|outr[oa]s?|other)\b)")  # `1 bien y otro roto`, `2 bien 1 mal`
_BREAK = re.compile(r"\s*(?:[.;:!)\n](?!\d)|[,-](?!\s*\d))")  # what ends a score and begins a comment


def ends(scale: str) -> tuple[int, int]:
    """The lowest and the highest score of a scale; of yes and no, how they are stored."""
    if scale == "yes_no":
        return NO, YES
    low, _, high = scale.partition("-")
    return int(low), int(high)


def scores(survey: Survey) -> tuple[int, ...]:
    """Every score that the survey takes, as a page shows them: from the lowest up, yes before no."""
    low, high = ends(survey.scale)
    return (YES, NO) if survey.scale == "yes_no" else tuple(range(low, high + 1))


def score_of(survey: Survey, written: str) -> int | None:
    """The score that a link names: a number of the scale, or one of the survey's codes; None for what is neither."""
    coded = _coded(survey, plain(written))
    return coded if coded is not None else _on_scale(survey, _number(written.strip()))


def read_score(survey: Survey, text: str) -> int | None:
    """The score that somebody's words give to this survey; None where they give none."""
    if not text or len(text) > LONGEST:
        return None
    if (stars := _stars(text)) is not None:
        return _on_scale(survey, stars)
    text = _without_pictures(text)
    words = plain(text)
    if (coded := _coded(survey, words)) is not None:
        return coded
    first = _first_line(text)
    if (coded := _coded(survey, plain(first))) is not None:
        return coded
    if survey.scale == "yes_no":
        return _yes_or_no(survey, _spelt(text))
    return _headed(survey, _spelt(text))


def plain(text: str) -> str:
    """Its letters, digits and single spaces, without accents and case."""
    return " ".join("".join(letter if letter.isalnum() else " " for letter in _spelt(text)).split())


def _spelt(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text.casefold())
    return "".join(
        letter for letter in folded if not unicodedata.combining(letter) and letter not in "\ufe0f\u20e3¿¡\"'*"
    ).strip()


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


def _number(word: str) -> int | None:
    if word.isascii() and word.isdigit() and len(word) <= 2:
        return int(word)
    return NUMBER_WORDS.get(word)


def _on_scale(survey: Survey, number: int | None) -> int | None:
    low, high = ends(survey.scale)
    return number if number is not None and low <= number <= high else None


def _coded(survey: Survey, words: str) -> int | None:
    """What one of the survey's codes means: `codes: {1: yes, 2: no}`."""
    for code, meaning in survey.codes.items():
        if words and plain(code) == words:
            said = plain(meaning)
            if survey.scale == "yes_no" and (said in _YES or said in _NO):
                return YES if said in _YES else NO
            return _on_scale(survey, _number(said))
    return None


def _stars(text: str) -> int | None:
    """So many stars and nothing else."""
    bare = "".join(text.replace("\ufe0f", "").split())
    return len(bare) if bare and len(bare) <= 10 and set(bare) <= {"⭐", "★", "🌟"} else None


def _without_pictures(text: str) -> str:
    """Without emoji, which go with a score and change nothing about it."""
    return "".join(letter for letter in text if unicodedata.category(letter) not in ("So", "Sk", "Cf")).strip()


# Whole beginnings that say the other thing than their first word, or neither.
_SAYS_NO = re.compile(
    r"(claro|por supuesto|desde luego|obvio|e claro) que (no|nao)\b|para nada\b|de jeito nenhum\b|of course not\b"
)
_SAYS_NEITHER = re.compile(
    r"si (no|nao)\b(?! (hubo|tuve|tengo|hay))"  # if not …
    r"|si (me )?hubier"
    r"|(si|sim) (y|e|pero|mas|so que) (no|nao)\b"
    r"|(no|nao) (se|sei|estoy segur[oa]|entiendo|entendi|aplica|todavia|aun|ainda|puedo quejarme)\b"
    r"|(todavia|aun|ainda) (no|nao)\b"
    r"|(no|nao) (lo |la |los |las |me |nos )*(he |ha |han |hemos )?(recib|receb|lleg|cheg)"
    r"|(no|nao|sin|sem) (tengo|tuve|hay|hubo|tenho|tive|ha|houve)? ?(ningun|ninguna|nenhum|nenhuma|do que|de que)? ?"
    r"(problemas?|quejas?|quejarme|reclamos?|inconvenientes?|queixas?|reclamar|reclamac(ion|iones|ao|oes))\b"
)


_SET_APART = re.compile(r"\w+\s*[,.;:!\n]")  # “no, llegó roto” is a no, whatever follows


def _yes_or_no(survey: Survey, spelt: str) -> int | None:
    """The first word, where it is a yes or a no, also behind its code; without codes, 1 and 0 stand for them."""
    words = plain(spelt)
    if _SAYS_NO.match(words):
        return NO
    if "so que nao" in words or (_SAYS_NEITHER.match(words) and not _SET_APART.match(spelt)):
        return None
    first, _, rest = words.partition(" ")
    if first in _YES or first in _NO:
        return YES if first in _YES else NO
    code = _coded(survey, first) if survey.codes else {"1": YES, "0": NO}.get(first)
    if not rest or code is None:
        return code
    return code if code == _yes_or_no(survey, rest) else None


def _headed(survey: Survey, spelt: str) -> int | None:
    found = _HEAD.fullmatch(spelt)
    if found is None:
        return None
    number, highest = _number(found["number"]), found["of"] or found["out_of"]
    if number is None or (highest is not None and int(highest) != ends(survey.scale)[1]):
        return None
    rest = found["rest"]
    if _COUNTS.match(rest) or (found["out_of"] and rest.strip() and not _BREAK.match(rest) and not _AFTER.match(rest)):
        return None
    if rest[:1].isalnum() or (rest[:1] in ".,:/%" and rest[1:2].isdigit()) or rest.lstrip().startswith("%"):
        return None
    if rest.strip() and highest is None and not _BREAK.match(rest) and not _AFTER.match(rest):
        return None
    return _on_scale(survey, number)
