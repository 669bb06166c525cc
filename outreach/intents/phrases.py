"""
Phrases: the lists in `data/`, one file a language, and what of them is found in a text.

    [word NAME]            words that can stand for each other; `_` joins the words of an expression,
                           `{mand,envi}{e,en}` writes out every combination, `desuscri*` is every word so begun
    [spelling]             `xfa = por favor`: how else something is written
    [filler]               words that change nothing about what a whole message means
    [courtesy]             such words that change nothing about a sentence either, at its ends
    [whole MEANING]        whole messages, parted by `;`
    [MEANING]              one phrase a line, to be found anywhere in a text

A phrase is made of `words`, `<NAMES>` of such lists, choices `this|that`, what may be missing `maybe?`,
`.` for the end of a sentence, `!this|that` for one word that is none of these,
`~3` for up to three words whatever they are, `^` or `$` where a sentence or a part of one begins or ends,
`^^` or `$$` where a sentence does; what stands after ` / ` has to come next, and is no part of the phrase. It begins with a word that may not be missing, and never reaches from one sentence into another.

Matching keeps the set of places that a phrase can have come to, so its time is proportional to the text.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from importlib.resources import files

from outreach.intents.normal import BOUNDARIES, STOP, letters, sound, words

LANGUAGES = ("es", "pt", "en")
SHORTEST_MISSPELT = 5  # letters of a word that is recognised with one letter missing, added, wrong or moved
SHORTEST_BEGINNING = 3
MOST_PARTS, LONG = 5, 12  # words that are run together; letters of a word that may be several
END, FULL_END = "$", "$$"

_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, eq=False)  # compared by identity, as phrases are: there are thousands of comparisons a text
class Element:
    """One part of a phrase: words, beginnings of words with their `*`, or expressions; or a gap; or an end."""

    single: frozenset[str] = frozenset()
    expressions: tuple[tuple[str, ...], ...] = ()
    optional: bool = False
    gap: int = 0
    unlike: frozenset[str] = frozenset()  # it is one word that is none of these
    at_end: bool = False
    at_full_end: bool = False

    @cached_property
    def plain(self) -> bool:
        """Whether it is one word, whichever, that may not be missing."""
        return not (self.expressions or self.optional or self.gap or self.unlike or self.at_end or self.at_full_end)


@dataclass(frozen=True, eq=False)
class Phrase:
    meaning: str
    elements: tuple[Element, ...]
    before: tuple[Element, ...]  # what has to come next, and is no part of it
    at_start: str  # "^": where a part of a sentence begins; "^^": where a sentence does
    source: str  # as the file has it
    needed: tuple[frozenset[str], ...] = ()  # it does not stand where none of the words of any of these does
    second: frozenset[str] = frozenset()  # nor where the next word is none of these


@dataclass(frozen=True, slots=True)
class Found:
    """Where a phrase stands in a text."""

    phrase: Phrase
    start: int
    end: int


@dataclass
class Book:
    """All languages' lists together: people mix them."""

    whole: dict[tuple[str, ...], str] = field(default_factory=dict)
    fillers: frozenset[str] = frozenset()
    courtesies: frozenset[str] = frozenset()
    spellings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    by_word: Mapping[str, tuple[Phrase, ...]] = field(default_factory=dict)
    misspelt: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # a word less one letter → the words
    beginnings: frozenset[str] = frozenset()
    strong: frozenset[str] = frozenset()  # words of opt-outs that are long enough to be recognised when misspelt
    sounds: Mapping[str, str] = field(default_factory=dict)  # how a word sounds → the word

    def __post_init__(self) -> None:
        self.spelt = lru_cache(maxsize=16384)(self._spelt)
        self.starting = lru_cache(maxsize=16384)(self._starting)
        self.names = lru_cache(maxsize=16384)(self._names)

    def read(self, text: str) -> list[str]:
        """The words of a text, each as it is spelt in the lists."""
        return [one for given in words(text) for one in self.spelt(given)]

    def bare(self, tokens: Iterable[str]) -> tuple[str, ...]:
        """What a whole message says: without fillers, commas and the same word again."""
        kept = (one for one in tokens if one not in BOUNDARIES and one not in self.fillers)
        return tuple(one for one, _ in itertools.groupby(kept))

    def without_courtesies(self, tokens: Sequence[str]) -> list[str]:
        """Each part of a sentence without the courtesies at its ends: a `por favor` hides no end of a phrase."""
        kept: list[str] = []
        for is_boundary, part in itertools.groupby(tokens, BOUNDARIES.__contains__):
            said = list(part)
            while not is_boundary and said and said[-1] in self.courtesies:
                said.pop()
            while not is_boundary and said and said[0] in self.courtesies:
                said.pop(0)
            if is_boundary and (not kept or kept[-1] in BOUNDARIES):
                kept[-1:] = [STOP] if kept and STOP in (kept[-1], *said) else kept[-1:]
            else:
                kept += said
        while kept and kept[-1] in BOUNDARIES:
            kept.pop()
        return kept

    def _spelt(self, given: str) -> tuple[str, ...]:
        if given in self.spellings:
            return self.spellings[given]
        if given in self.known or given in BOUNDARIES or given.isdigit():
            return (given,)
        plain = letters(given)
        if plain != given and (plain in self.known or plain in self.spellings):
            return self.spellings.get(plain, (plain,))
        if len(given) < SHORTEST_BEGINNING or not given.isalpha():
            return (given,)
        if len(self.names(given)) > 1:  # its beginning is known
            return self._parted(given) if len(given) >= LONG else (given,)
        if heard := self.sounds.get(sound(given)):
            return self.spellings.get(heard, (heard,))
        if len(given) < SHORTEST_MISSPELT:
            return (given,)
        meant = self._meant(given)
        return (meant,) if meant else self._parted(given)

    def _parted(self, given: str) -> tuple[str, ...]:
        """The words of several that are run together, such as `nomolesten`, if one of them is a strong one."""
        best: dict[int, tuple[str, ...]] = {0: ()}
        for end in range(2, len(given) + 1):
            parts = [
                (*best[start], given[start:end]) for start in best if start < end and given[start:end] in self.known
            ]
            if parts:
                best[end] = min(parts, key=len)
        parted = best.get(len(given), ())
        return parted if 1 < len(parted) <= MOST_PARTS and self.strong & set(parted) else (given,)

    def _meant(self, given: str) -> str:
        """The one strong word that this one is a slip of; nothing where there is none."""
        candidates = {word for part in (given, *_less_one(given)) for word in self.misspelt.get(part, ())}
        near = sorted(word for word in candidates if abs(len(word) - len(given)) <= 1 and word[0] == given[0])
        return near[0] if near else ""

    def _starting(self, token: str) -> tuple[tuple[Phrase, ...], dict[str, tuple[Phrase, ...]]]:
        """The phrases that begin with this word: those that any word may follow, and by the name of the next word."""
        found = dict.fromkeys(phrase for name in sorted(self.names(token)) for phrase in self.by_word.get(name, ()))
        by_next: dict[str, list[Phrase]] = defaultdict(list)
        for phrase in found:
            for name in phrase.second:
                by_next[name].append(phrase)
        return tuple(x for x in found if not x.second), {name: tuple(some) for name, some in by_next.items()}

    def _names(self, token: str) -> frozenset[str]:
        """The word itself, and its beginnings that the lists know, as `mensaj*`."""
        begun = (token[:end] for end in range(SHORTEST_BEGINNING, len(token) + 1))
        return frozenset({token, *(f"{one}*" for one in begun if one in self.beginnings)})

    def find(self, tokens: Sequence[str]) -> Iterator[Found]:
        """Every place where a phrase begins, with its shortest end."""
        names = [self.names(token) for token in tokens]
        there = frozenset().union(*names)
        for start, token in enumerate(tokens):
            whatever, by_next = self.starting(token)
            phrases: Iterable[Phrase] = whatever
            if by_next and start + 1 < len(tokens):
                told = [by_next[name] for name in names[start + 1] if name in by_next]
                if told:
                    phrases = dict.fromkeys(itertools.chain(whatever, *told))
            for phrase in phrases:
                if any(map(there.isdisjoint, phrase.needed)):
                    continue
                if phrase.at_start and start and tokens[start - 1] not in _STARTS[phrase.at_start]:
                    continue
                end = _end(phrase, tokens, names, start)
                if end > start:
                    yield Found(phrase, start, end)

    def still(self, found: Iterable[Found], tokens: Sequence[str]) -> Iterator[Found]:
        """Those that stand there in these words, too."""
        names = [self.names(token) for token in tokens]
        return (one for one in found if _end(one.phrase, tokens, names, one.start) > one.start)


_STARTS = {"^": BOUNDARIES, "^^": frozenset({STOP})}


def _end(phrase: Phrase, tokens: Sequence[str], names: Sequence[frozenset[str]], start: int) -> int:
    """Where the phrase that begins here ends at the earliest; -1 if it does not stand here."""
    ends = _after(phrase.elements, tokens, names, start)
    if phrase.before:
        ends = {end for end in ends if _after(phrase.before, tokens, names, end)}
    return min(ends, default=-1)


def _after(elements: Sequence[Element], tokens: Sequence[str], names: Sequence[frozenset[str]], start: int) -> set[int]:
    """All places that these elements can have come to from here."""
    places = {start}
    size = len(tokens)
    for element in elements:
        if element.plain:
            places = {place + 1 for place in places if place < size and not element.single.isdisjoint(names[place])}
            if not places:
                return places
            continue
        if element.unlike:
            places = {place + 1 for place in places if place < size and _other(element, tokens[place], names[place])}
            continue
        after: set[int] = set()
        for place in places:
            if element.gap:
                after.update(_gap(tokens, place, element.gap))
                continue
            if element.optional or _ends(element, tokens, place):
                after.add(place)
            if place < size:
                if not element.single.isdisjoint(names[place]):
                    after.add(place + 1)
                for expression in element.expressions:
                    if tokens[place] == expression[0] and tuple(tokens[place : place + len(expression)]) == expression:
                        after.add(place + len(expression))
        if not after:
            return after
        places = after
    return places


def _ends(element: Element, tokens: Sequence[str], place: int) -> bool:
    if element.at_end:
        return place >= len(tokens) or tokens[place] in BOUNDARIES
    return element.at_full_end and (place >= len(tokens) or tokens[place] == STOP)


def _other(element: Element, token: str, names: frozenset[str]) -> bool:
    return token not in BOUNDARIES and element.unlike.isdisjoint(names)


def _needed(elements: Iterable[Element]) -> tuple[frozenset[str], ...]:
    """The words of each of the elements that cannot be missing, the fewest first."""
    certain = [
        one.single | {expression[0] for expression in one.expressions}
        for one in elements
        if not (one.optional or one.gap or one.unlike or one.at_end or one.at_full_end)
    ]
    return tuple(sorted(certain, key=len))


def _second(elements: Sequence[Element]) -> frozenset[str]:
    """The words of which one follows the phrase's first, where that can be told."""
    if len(elements) < 2 or elements[0].expressions:
        return frozenset()
    return next(iter(_needed(elements[1:2])), frozenset())


def _gap(tokens: Sequence[str], place: int, most: int) -> Iterator[int]:
    yield place
    for step in range(place, min(place + most, len(tokens))):
        if tokens[step] in BOUNDARIES:
            return
        yield step + 1


def _less_one(word: str) -> Iterator[str]:
    return (word[:i] + word[i + 1 :] for i in range(len(word)))


# --- the files -----------------------------------------------------------------------------------------


@cache
def book() -> Book:
    """The lists of all languages, read once."""
    return make({name: (files("outreach.intents") / "data" / f"{name}.txt").read_text("utf-8") for name in LANGUAGES})


def make(texts: Mapping[str, str]) -> Book:
    """The lists in these files; ValueError names the file and line of what cannot be understood."""
    made = _Made()
    for name, text in texts.items():
        made.language(name, text)
    return made.book()


class _Made:
    """What the files come to."""

    def __init__(self) -> None:
        self.whole: dict[tuple[str, ...], str] = {}
        self.wholes: list[tuple[str, str]] = []
        self.fillers: set[str] = set()
        self.courtesies: set[str] = set()
        self.spellings: dict[str, tuple[str, ...]] = {}
        self.known: set[str] = set()
        self.beginnings: set[str] = set()
        self.strong: set[str] = set()
        self.phrases: list[Phrase] = []
        self.classes: dict[str, list[str]] = {}

    def language(self, name: str, text: str) -> None:
        self.classes = {}
        section = ""
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.partition("#")[0].strip()
            if not line:
                continue
            if line.startswith("["):
                section = line.strip("[]")
                continue
            try:
                self._line(section, line)
            except ValueError as error:
                raise ValueError(f"{name}.txt:{number}: {error}") from None

    def _line(self, section: str, line: str) -> None:
        kind, _, rest = section.partition(" ")
        if kind == "word":
            self.classes.setdefault(rest, []).extend(self._expanded(line))
        elif kind == "spelling":
            for pair in line.split(";"):
                written, _, meant = pair.partition("=")
                self.spellings["".join(words(written))] = tuple(words(meant))
        elif kind == "filler":
            self.fillers.update(words(line))
        elif kind == "courtesy":
            self.courtesies |= {*words(line)} - BOUNDARIES
        elif kind == "known":
            self.known.update(words(line))
        elif kind == "whole":
            self.wholes += [(one.strip(), rest) for one in line.split(";") if one.strip()]
        elif section:
            self.phrases.append(self._phrase(section, line))
        else:
            raise ValueError("it stands in no section")

    def _expanded(self, line: str) -> list[str]:
        found: list[str] = []
        for part in line.split():
            reference = part[1:-1] if part.startswith("<") and part.endswith(">") else ""
            found += self._class(reference) if reference else _written_out(part)
        return found

    def _class(self, name: str) -> list[str]:
        if name not in self.classes:
            raise ValueError(f"there is no list of words called {name}")
        return self.classes[name]

    def _phrase(self, meaning: str, line: str) -> Phrase:
        parts = line.split()
        at_start = parts[0][: len(parts[0]) - len(parts[0].lstrip("^"))]
        parts[0] = parts[0].lstrip("^")
        split = parts.index("/") if "/" in parts else len(parts)
        elements = tuple(self._element(part) for part in parts[:split])
        before = tuple(self._element(part) for part in parts[split + 1 :])
        if (
            not elements
            or elements[0].optional
            or elements[0].gap
            or elements[0].unlike
            or elements[0].at_end
            or elements[0].at_full_end
        ):
            raise ValueError("a phrase begins with a word that may not be missing")
        if meaning.startswith("opt_out "):
            for element in elements:
                self.strong |= {one for one in element.single if len(one) > SHORTEST_MISSPELT and one.isalpha()}
        return Phrase(meaning, elements, before, at_start, line, _needed(elements[1:]), _second(elements))

    def _element(self, part: str) -> Element:
        if part.startswith("~"):
            return Element(gap=int(part[1:]))
        unlike, part = part.startswith("!"), part.removeprefix("!")
        optional, part = part.endswith("?"), part.removesuffix("?")
        choices: list[str] = []
        for one in part.split("|"):
            if one.startswith("<") and one.endswith(">"):
                choices += self._class(one[1:-1])
            else:
                choices += _written_out(one)
        single: set[str] = set()
        expressions: set[tuple[str, ...]] = set()
        beginnings: set[str] = set()
        at_end, at_full_end = END in choices, FULL_END in choices
        for choice in choices:
            if choice in (END, FULL_END):
                continue
            if choice == STOP:
                single.add(STOP)
                continue
            if choice.endswith("*"):
                beginnings.add(_only(choice[:-1]))
            elif "_" in choice:
                expressions.add(tuple(words(choice.replace("_", " "))))
            else:
                single.add(_only(choice))
        self.known |= single | {one for expression in expressions for one in expression}
        self.beginnings |= beginnings
        if any(len(one) < SHORTEST_BEGINNING for one in beginnings):
            raise ValueError(f"the beginning of a word has at least {SHORTEST_BEGINNING} letters")
        single |= {f"{one}*" for one in beginnings}
        if unlike:
            return Element(unlike=frozenset(single))
        return Element(frozenset(single), tuple(sorted(expressions)), optional, at_end=at_end, at_full_end=at_full_end)

    def book(self) -> Book:
        by_word: dict[str, list[Phrase]] = defaultdict(list)
        for phrase in self.phrases:
            first = phrase.elements[0]
            for one in first.single | {expression[0] for expression in first.expressions}:
                by_word[one].append(phrase)
        misspelt: dict[str, set[str]] = defaultdict(set)
        told = [(words(line), meaning) for line, meaning in self.wholes]
        strong = self.strong | {one for line, meaning in told if meaning == "opt_out" for one in line}
        known = self.known | self.fillers | self.courtesies | {one for line, _ in told for one in line}
        for word in strong:
            if len(word) >= SHORTEST_MISSPELT:
                for part in (word, *_less_one(word)):
                    misspelt[part].add(word)
        made = Book(
            fillers=frozenset(self.fillers | self.courtesies),
            courtesies=frozenset(self.courtesies),
            spellings=self.spellings,
            known=frozenset(known),
            by_word={one: tuple(phrases) for one, phrases in by_word.items()},
            misspelt={part: tuple(sorted(meant)) for part, meant in misspelt.items()},
            beginnings=frozenset(self.beginnings),
            strong=frozenset(one for one in strong if len(one) >= SHORTEST_MISSPELT),
            sounds={sound(one): one for one in sorted(strong) if len(one) > SHORTEST_BEGINNING},
        )
        for line, meaning in self.wholes:
            spoken = made.bare(made.read(line)) or tuple(made.read(line))
            made.whole.setdefault(spoken, meaning)
        return made


def _written_out(part: str) -> list[str]:
    """`{a,b}{c,d}` as `ac ad bc bd`."""
    pieces = _BRACES.split(part)
    choices = [piece.split(",") if i % 2 else [piece] for i, piece in enumerate(pieces)]
    return ["".join(one) for one in itertools.product(*choices)]


def _only(text: str) -> str:
    found = words(text)
    if len(found) != 1:
        raise ValueError(f"`{text}` is not one word: join the words of an expression by _")
    return found[0]
