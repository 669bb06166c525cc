"""Reading: what the phrases that stand in a text come to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from outreach.intents.normal import BOUNDARIES, PAUSE, SIGNS, STOP, word
from outreach.intents.phrases import Book, Found, book
from outreach.values import NUMBER_WORDS


class Intent(StrEnum):
    """What somebody wants to say; a reply may say several."""

    OPT_OUT = "opt_out"
    OPT_IN = "opt_in"
    HELP = "help"
    SCORE = "score"
    YES = "yes"
    NO = "no"
    COMPLAINT = "complaint"
    CANCELLATION = "cancellation"
    RETURN = "return"
    REFUND = "refund"
    QUESTION = "question"
    THANKS = "thanks"
    OUT_OF_OFFICE = "out_of_office"
    OTHER = "other"


class Certainty(StrEnum):
    """Whether a text is an opt-out."""

    NONE = "none"
    DOUBTFUL = "doubtful"  # a person has to look; until then no marketing
    FINAL = "final"  # no doubt


_CASES_BUT_QUESTIONS = (Intent.COMPLAINT, Intent.CANCELLATION, Intent.RETURN, Intent.REFUND)
CASES = (Intent.COMPLAINT, Intent.CANCELLATION, Intent.RETURN, Intent.REFUND, Intent.QUESTION)  # what opens a case
LONGEST_SCORED, MOST_WORDS_OF_NUMBER = 400, 3  # characters of a text with a score; words of one that is a number's name
LONGEST_SCORE = 8  # words of a text that can be nothing but a score

_MASK = "_"  # stands where words are known to mean something else
_FINAL, _PROBABLE, _POSSIBLE = "opt_out final", "opt_out probable", "opt_out possible"
_SUSPECTED, _HINT = "opt_out suspected", "opt_out hint"
_SURE, _LEVELS = "opt_out sure", (_FINAL, _PROBABLE, _SUSPECTED, _POSSIBLE, _HINT)
_NOT = "not "
_NOT_OPT_OUT, _NOT_DOUBT = "not opt_out", "not opt_out doubt"  # the latter denies what is no more than doubtful
_TOPIC = "topic"  # what is spoken of is a thing: a lone no, or a word such as number, is then no sign
_FIT = "complaint fit"
_UNWANTED = "cancellation unwanted"  # it is not wanted: why it goes back, else a cancellation
_PRAISE = "thanks praise"  # what is praised is hardly sent away in the same breath, unless there is a `but`
_BUT = frozenset({"pero", "mas", "but", "porem", "however", "although", "aunque"})
_PERFECT = frozenset({"perfecto", "perfeito", "otimo", "perfect", "great", "excelente"})
_ORDER = tuple(Intent)


@dataclass(frozen=True)
class Reading:
    """What a text means."""

    intents: tuple[Intent, ...]  # in the order of `Intent`; never empty
    score: int | None = None
    opt_out: Certainty = Certainty.NONE  # doubtful also where a stop word stands in a text about something else
    whole: bool = False  # it is a known message as a whole, such as BAJA: it says one thing

    def __contains__(self, intent: Intent) -> bool:
        return intent in self.intents


def read(text: str) -> Reading:
    """What a text means; the same for the same text, in a time proportional to its length."""
    return _Reader(book(), text).reading()


def explain(text: str) -> list[str]:
    """The phrases found in a text, as the lists have them, with what each means."""
    reader = _Reader(book(), text)
    reader.reading()
    return [f"{found.phrase.meaning}: {found.phrase.source}" for found in reader.found]


class _Reader:
    """One text, while it is read."""

    def __init__(self, lists: Book, text: str) -> None:
        self.lists = lists
        self.text = text
        self.tokens = lists.read(text)
        self.bare = lists.bare(self.tokens) or tuple(one for one in self.tokens if one not in (STOP, PAUSE))
        self.whole = lists.whole.get(self.bare, "")
        self.found = list(lists.find(self.tokens))
        self.denied: dict[str, list[Found]] = {}
        for one in self.found:
            if one.phrase.meaning.startswith(_NOT):
                self.denied.setdefault(one.phrase.meaning.removeprefix(_NOT), []).append(one)

    def reading(self) -> Reading:
        meanings = self._meanings()
        score = self._score()
        certainty, says_so = self._opt_out(explained=bool(meanings - {Intent.NO}) or score is not None)
        intents = {Intent(one) for one in meanings}
        if score is not None:
            intents.add(Intent.SCORE)
        if says_so:
            intents = (intents & self._beside()) | {Intent.OPT_OUT}
        intents = _settled(intents, self.whole)
        listed = tuple(one for one in _ORDER if one in intents) or (Intent.OTHER,)
        return Reading(listed, score, certainty, whole=bool(self.whole) and listed == (self.whole,))

    # --- opt-outs ----------------------------------------------------------------------------------

    def _opt_out(self, *, explained: bool) -> tuple[Certainty, bool]:
        """How certain an opt-out is, and whether the text is taken for one."""
        if self.whole == Intent.OPT_OUT:
            return Certainty.FINAL, True
        level = _level(self.tokens, self.found)
        if level == _HINT and (explained or self.whole or any(x.phrase.meaning == _TOPIC for x in self.found)):
            level = ""
        if level in ("", _POSSIBLE, _SUSPECTED, _HINT) and PAUSE in self.tokens:  # commas are often a slip
            joined = [one for one in self.tokens if one != PAUSE]
            again = _level(joined, list(self.lists.find(joined)))
            level = _PROBABLE if again in (_FINAL, _PROBABLE) else level or (again if again != _HINT else "")
        if level != _FINAL and (plain := self.lists.without_courtesies(self.tokens)) != self.tokens:
            level = _surer(level, _level(plain, list(self.lists.find(plain))))
        if level == _FINAL:
            return Certainty.FINAL, True
        if not level:
            return Certainty.NONE, False
        likely = (level == _PROBABLE and not self.whole and not self._praises()) or (
            level == _SUSPECTED and not explained
        )
        return Certainty.DOUBTFUL, likely

    def _beside(self) -> set[Intent]:
        """What is said in other words than the opt-out's own."""
        own = [one for one in self.found if one.phrase.meaning in (_SURE, _FINAL, _PROBABLE)]
        left = _without(self.tokens, own)
        left = [_MASK if one in SIGNS else one for one in left]  # a cross face alone is no complaint
        others = [one for one in self.found if one.phrase.meaning in _CASES_BUT_QUESTIONS]
        if all(one.end - one.start == 1 for one in others if one.phrase.meaning == Intent.CANCELLATION):
            # a cancellation of nothing in particular is that of the messages
            others = [one for one in others if one.phrase.meaning != Intent.CANCELLATION]
        return {Intent(one.phrase.meaning) for one in self.lists.still(others, left)}

    def _praises(self) -> bool:
        said = any(one.phrase.meaning == _PRAISE for one in self.found) and self._means(_PRAISE)
        return said and _BUT.isdisjoint(self.tokens)

    # --- everything else ---------------------------------------------------------------------------

    def _meanings(self) -> set[str]:
        said = {
            meaning
            for meaning in {one.phrase.meaning for one in self.found}
            if not meaning.startswith((_NOT, _TOPIC, "opt_out")) and self._means(meaning)
        }
        if _FIT in said:  # it does not fit or please: why it goes back, else a complaint
            said = said - {_FIT} | (set() if said & {Intent.RETURN, Intent.REFUND} else {Intent.COMPLAINT})
        if _UNWANTED in said:
            said = said - {_UNWANTED} | (set() if said & {Intent.RETURN, Intent.REFUND} else {Intent.CANCELLATION})
        if _PRAISE in said:
            said = said - {_PRAISE} | {Intent.THANKS}
            if not _PERFECT.isdisjoint(self.tokens):  # which is then no consent
                said -= {Intent.YES}
        if "?" in self.text:
            said.add(Intent.QUESTION)
        if self.whole and self.whole != Intent.OPT_OUT:
            said = {self.whole} | (said & {Intent.THANKS})
        return said

    def _means(self, meaning: str) -> bool:
        """Whether it is said in words that are not known to mean something else."""
        denied = self.denied.get(meaning.partition(" ")[0])
        if not denied:
            return True
        left = _without(self.tokens, denied)
        return any(self.lists.still([one for one in self.found if one.phrase.meaning == meaning], left))

    # --- scores ------------------------------------------------------------------------------------

    def _score(self) -> int | None:
        if self.whole == Intent.YES:  # such as `de una`
            return None
        return score_of(self.text, self.tokens, self.lists.fillers)


def _level(tokens: Sequence[str], found: Sequence[Found]) -> str:
    """The surest sign of an opt-out among the phrases found, in words that are not known to mean something else."""
    meanings = {one.phrase.meaning for one in found}
    if _SURE in meanings:
        return _FINAL
    if meanings.isdisjoint(_LEVELS):
        return ""
    denied = [one for one in found if one.phrase.meaning == _NOT_OPT_OUT]
    if denied:
        left = _without(tokens, denied)
        signs = [one for one in found if one.phrase.meaning in _LEVELS]
        meanings = {one.phrase.meaning for one in book().still(signs, left)}
    level = next((one for one in _LEVELS if one in meanings), "")
    if level not in ("", _FINAL) and (doubted := [one for one in found if one.phrase.meaning == _NOT_DOUBT]):
        left = _without(tokens, [*denied, *doubted])
        signs = [one for one in found if one.phrase.meaning in _LEVELS]
        meanings = {one.phrase.meaning for one in book().still(signs, left)} - {_FINAL}
        level = next((one for one in _LEVELS if one in meanings), "")
    return level


def _surer(one: str, other: str) -> str:
    """The surer of two levels; a hint is none where the text was already read without it."""
    found = [level for level in (one, other) if level and (level != _HINT or level == one)]
    return min(found, key=_LEVELS.index, default="")


def _without(tokens: Sequence[str], found: Iterable[Found]) -> list[str]:
    """The words, less those of these phrases."""
    left = list(tokens)
    for one in found:
        for place in range(one.start, one.end):
            if left[place] not in BOUNDARIES:
                left[place] = _MASK
    return left


# What is said beside something that matters more, and so does not count.
_MATTERS = frozenset(
    {Intent.COMPLAINT, Intent.CANCELLATION, Intent.RETURN, Intent.REFUND, Intent.QUESTION, Intent.HELP}
)


def _settled(intents: set[Intent], whole: str) -> set[Intent]:
    """Less what only comes along: thanks at the end of a request, the yes of a polite sentence."""
    kept = set(intents)
    if Intent.OUT_OF_OFFICE in kept:
        return kept & {Intent.OUT_OF_OFFICE, Intent.OPT_OUT}
    if Intent.OPT_OUT in kept:
        kept -= {Intent.THANKS, Intent.YES, Intent.NO}
    if kept & _MATTERS:
        kept -= {Intent.THANKS, Intent.YES, Intent.NO}
    if Intent.NO in kept:
        kept -= {Intent.YES, Intent.THANKS}
    if Intent.REFUND in kept or Intent.RETURN in kept:
        kept -= {Intent.HELP}
    if Intent.HELP in kept and not whole:
        kept -= {Intent.QUESTION}
    if Intent.CANCELLATION in kept:
        kept -= {Intent.RETURN} if Intent.REFUND not in kept else set()
    return kept


# --- scores --------------------------------------------------------------------------------------------

_NUMBERS = {word(name): number for name, number in NUMBER_WORDS.items()}
_NUMBER_NAMES = tuple(sorted(_NUMBERS, key=len, reverse=True))
_OF = re.compile(r"(?<![\d.,/$])(\d{1,2})(?:[.,]0)?\s{0,3}(?:/|de|sobre|out of|em)\s{0,3}(5|10)(?![\d.,/])")
_REASON = re.compile(  # 1 because …; 2, it came late
    r"\s*(?:(?:le|les|te|me|lhe) )?(?:doy|pongo|dou|dei|give|id say|i'd say|va|nota|my score is)?\s{0,2}"
    r"(?:(?:un|una|um|uma|an?) )?(\d{1,2})(?:[.,]0)?(?: (?:puntos|pontos|points|estrell?as|estrelas|stars))?"
    r"(?:\s{0,2},?\s{1,3}(?:porque|por que|porq|pq|xq|xk|because|cuz|bc|since|pero|mas|but|pois|ya que|por culpa|"
    r"por la|por el|pela|pelo)\b|\s{0,2},\s{1,3}[^\W\d])",
)
_STARS_NAMED = re.compile(
    rf"\b({'|'.join(_NUMBER_NAMES)})\s{{1,3}}(?:estrell?as?|estrelas?|estrelinhas|stars?|puntos|pontos|points)\b"
)
_STARS = re.compile(
    r"(?<![\d.,/$])(\d{1,2})\s{0,3}(?:estrell?as?|estrelas?|estrelinhas|stars?|⭐|🌟|puntos|pontos|points?)"
)
_FIRST = re.compile(r"\s*(\d{1,2})\s{0,2}[,.;:!-]{1,3}\s{1,3}[^\W\d]")
_NUMBER = re.compile(r"(?<![\d.,/$#:+-])(\d{1,2})(?:[.,]0)?(?![\d/:%$]|[.,]\d)")
_STAR_SIGNS = "⭐🌟★"
_SAYS_NUMBER = re.compile(rf"[\d{_STAR_SIGNS}]")
_MARK = re.compile(
    r"(?:nota|score|rating|rate|puntaje|puntuaci[oó]n|calificaci[oó]n|califico|le doy|les doy|doy un|dou|give|calificar[ií]a|pongo un|avalio|va un|merece[n]?)\W{1,3}(?:\w{1,8}\W{1,3}){0,3}?(\d{1,2})(?![\d/:%$.,])",
    re.IGNORECASE,
)
_BESIDE_SCORE = """
    un una le les doy nota de puntos pontos estrellas estrelas stars mi calificacion score rating es e minha the a i
    give you dou um uma muy bien bueno excelente perfecto otimo great gracias obrigado obrigada thanks genial estrella
    sobre y con creo diria
"""
_WITH_SCORE = frozenset(map(word, _BESIDE_SCORE.split()))


def score_of(text: str, tokens: Sequence[str], fillers: frozenset[str]) -> int | None:
    """The score, from 0 to 10, that a text gives: said to be one, or all there is."""
    if len(text) > LONGEST_SCORED:
        return None
    if match := _STARS_NAMED.search(" ".join(tokens)):
        return _NUMBERS[match[1]]
    if not _SAYS_NUMBER.search(text):
        return _named(tokens, fillers)
    lowered = text.casefold()
    for pattern in (_OF, _STARS, _MARK):
        if (match := pattern.search(lowered)) and int(match[1]) <= 10:
            return int(match[1])
    if (match := _REASON.match(lowered)) and int(match[1]) <= 10 and sum(one.isdigit() for one in tokens) == 1:
        return int(match[1])
    stars = sum(lowered.count(sign) for sign in _STAR_SIGNS)
    if 1 <= stars <= 5 and not any(one.isdigit() for one in tokens):
        return stars
    if (match := _FIRST.match(lowered)) and int(match[1]) <= 10 and sum(one.isdigit() for one in tokens) == 1:
        return int(match[1])
    bare = [one for one in tokens if one not in (STOP, PAUSE) and one not in fillers]
    if len(bare) > LONGEST_SCORE:
        return None
    numbers = [int(match[1]) for match in _NUMBER.finditer(lowered)]
    rest = [one for one in bare if not one.isdigit() and one not in _WITH_SCORE]
    if len(numbers) == 1 and numbers[0] <= 10 and not rest:
        return numbers[0]
    return None


def _named(tokens: Sequence[str], fillers: frozenset[str]) -> int | None:
    """The number that is all a text says, in words."""
    bare = [one for one in tokens if one not in BOUNDARIES and one not in fillers]
    if not 0 < len(bare) <= MOST_WORDS_OF_NUMBER or any(x not in _NUMBERS and x not in _WITH_SCORE for x in bare):
        return None
    return next((_NUMBERS[one] for one in reversed(bare) if one in _NUMBERS), None)
