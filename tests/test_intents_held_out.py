"""
The held-out set: 300 replies written after the rules were frozen, by somebody who had not read the lists.

100 opt-outs in free wording, 100 replies that hold opt-out words and are none, 100 others. Never tune the
rules by them: whoever changes the rules because of a line of this set has to write a new set.

`intents` must all be found, `may` may be found besides. The confusion table beside it is of exactly these
replies and rules; after a change of the rules look at it, and write it anew with

    python -m tests.test_intents_held_out
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from outreach import intents
from outreach.intents import Certainty, Reading

DATA = Path(__file__).parent / "data"
SET, TABLE = DATA / "replies_held_out.csv", DATA / "replies_confusion.txt"


@dataclass(frozen=True)
class Line:
    """One reply, and what it was written to mean."""

    group: str  # opt_out | opt_out_words | other
    text: str
    intents: frozenset[str]
    may: frozenset[str]
    score: int | None

    @property
    def read(self) -> Reading:
        return intents.read(self.text)

    @property
    def is_right(self) -> bool:
        """Everything meant is found, and nothing that it cannot mean."""
        found = {str(one) for one in self.read.intents}
        return self.intents <= found <= self.intents | self.may and self.score in (None, self.read.score)


def lines() -> list[Line]:
    with SET.open(encoding="utf-8", newline="") as file:
        return [
            Line(
                row["group"],
                row["text"],
                frozenset(row["intents"].split()),
                frozenset(row["may"].split()),
                int(row["score"]) if row["score"] else None,
            )
            for row in csv.DictReader(file)
        ]


def confusion(of: list[Line]) -> str:
    """How often what was meant was read as what; of several meanings the first that was not expected, else the first meant."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in of:
        meant = next(one for one in map(str, intents.Intent) if one in line.intents)
        found = [str(one) for one in line.read.intents]
        strange = [one for one in found if one not in line.intents | line.may]
        counts[meant, strange[0] if strange else meant if meant in found else found[0]] += 1
    names = [str(one) for one in intents.Intent]
    width = max(map(len, names))
    rows = [[name, *(str(counts[name, other] or ".") for other in names)] for name in names]
    head = " " * width + "".join(f" {name[:6]:>6}" for name in names)
    return "\n".join([head, *(row[0].ljust(width) + "".join(f" {cell:>6}" for cell in row[1:]) for row in rows), ""])


def test_it_is_300_replies_in_three_groups() -> None:
    assert Counter(line.group for line in lines()) == {"opt_out": 100, "opt_out_words": 100, "other": 100}
    assert len({line.text for line in lines()}) == 300
    assert {line.group for line in lines() if "opt_out" in line.intents} == {"opt_out"}


def test_no_opt_out_is_missed() -> None:
    missed = [one.text for one in lines() if one.group == "opt_out" and one.read.opt_out is Certainty.NONE]

    assert missed == []


def test_at_most_three_in_a_hundred_of_the_others_are_taken_for_a_final_opt_out() -> None:
    others = [one for one in lines() if one.group != "opt_out"]
    wrong = [one.text for one in others if one.read.opt_out is Certainty.FINAL]

    assert len(wrong) <= 0.03 * len(others), wrong


def test_at_least_85_in_a_hundred_are_read_right() -> None:
    wrong = [one.text for one in lines() if not one.is_right]

    assert len(wrong) <= 0.15 * 300, wrong


def test_the_confusion_table_is_of_this_set_and_these_rules() -> None:
    assert TABLE.read_text(encoding="utf-8") == confusion(lines()), "look at it: python -m tests.test_intents_held_out"


if __name__ == "__main__":
    TABLE.write_text(confusion(lines()), encoding="utf-8")
