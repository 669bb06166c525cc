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

YES, NO = 1, 0  # how a yes or a no is stored
LONGEST = 1_000  # characters of a text that is looked at

_NUMBERS = {
    word: number
    for number, words in enumerate(
        (
            "cero zero",
            "uno um one",
            "dos dois duas two",
            "tres three",
            "cuatro quatro four",
            "cinco five",
            "seis six",
            "siete sete seven",
            "ocho oito eight",
            "nueve nove nine",
            "diez dez ten",
        )
    )
    for word in words.split()
}
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
    r"seria|de|con|un|una|um|uma|a|it|you|opcion|opcao|option|numero|number)[ ,!.:]+)*"
)
_UNIT = r"(?: ?(?:puntos?|pontos?|points?|estrellas?|estrelas?|stars?))?"
_AFTER = re.compile(
    r"\s+(?:muy|muito|very|bien|bem|good|bueno|buena|buenisim[oa]|bom|boa|excelente|excellent|perfect[oa]?|perfeit[oa]|"
    r"otim[oa]|great|genial|mal|mala|malo|ruim|bad|pesim[oa]|regular|ok|content[oa]|encantad[oa]|feliz|happy|"
    r"satisfech[oa]|satisfeit[oa]|satisfied|todo|tudo|gracias|muchas gracias|obrigad[oa]|thanks|thank you|"
    r"por favor|please|sin duda)\b"
)
_HEAD = re.compile(
    rf"{_BEFORE}(?P<number>\d{{1,2}}|[a-z]+)(?: ?/ ?(?P<of>\d{{1,3}})| (?:de|sobre|out of|of) (?P<out_of>\d{{1,3}}))?"
    rf"{_UNIT}(?P<rest>.*)",
    re.DOTALL,
)
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
    words = plain(text)
    if (coded := _coded(survey, words)) is not None:
        return coded
    first = _first_line(text)
    if (coded := _coded(survey, plain(first))) is not None:
        return coded
    if survey.scale == "yes_no":
        return _yes_or_no(words)
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
    return _NUMBERS.get(word)


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


def _yes_or_no(words: str) -> int | None:
    """The first word, where it is a yes or a no; without codes, 1 and 0 stand for them."""
    first, _, rest = words.partition(" ")
    if first in _YES:
        return YES
    if first in _NO:
        return None if rest.startswith(("se", "sei", "estoy seguro", "entiendo", "entendi")) else NO
    return {"1": YES, "0": NO}.get(words)


def _headed(survey: Survey, spelt: str) -> int | None:
    found = _HEAD.fullmatch(spelt)
    if found is None:
        return None
    number, highest = _number(found["number"]), found["of"] or found["out_of"]
    if number is None or (highest is not None and int(highest) != ends(survey.scale)[1]):
        return None
    rest = found["rest"]
    if rest[:1].isalnum() or (rest[:1] in ".,:/%" and rest[1:2].isdigit()) or rest.lstrip().startswith("%"):
        return None
    if rest.strip() and highest is None and not _BREAK.match(rest) and not _AFTER.match(rest):
        return None
    return _on_scale(survey, number)
