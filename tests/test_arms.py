"""Arms: sticky, uniform, independent."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outreach import arms

SECRET = b"a secret for tests"
CUSTOMERS = [f"customer-{number}" for number in range(20_000)]

names = st.text(st.characters(codec="utf-8", exclude_characters="\x1f"), max_size=20)


def chi_square(counts: list[int], expected: list[float]) -> float:
    return sum((seen - wanted) ** 2 / wanted for seen, wanted in zip(counts, expected, strict=True))


@given(st.binary(max_size=40), names, names, names)
def test_a_draw_is_the_first_53_bits_of_the_keyed_hash(secret: bytes, experiment: str, purpose: str, who: str) -> None:
    digest = hmac.new(secret, f"{experiment}\x1f{purpose}\x1f{who}".encode(), hashlib.sha256).hexdigest()
    drawn = arms.unit(secret, experiment, purpose, who)
    assert drawn == int(bin(int(digest, 16))[2:].zfill(256)[:53], 2) / 2**53
    assert 0 <= drawn < 1
    assert drawn == arms.unit(secret, experiment, purpose, who)


def test_draws_never_change_from_one_version_to_the_next() -> None:
    assert arms.unit(b"salt", "win_back", "holdout", "C-1") == 0.48942892613739974


@given(names, names, st.floats(0, 1), st.floats(0, 1))
def test_raising_a_share_never_releases_anyone_already_held(
    experiment: str, who: str, one: float, other: float
) -> None:
    smaller, larger = sorted((one, other))
    assert arms.is_held(SECRET, experiment, larger, who) >= arms.is_held(SECRET, experiment, smaller, who)
    assert arms.is_held_globally(SECRET, larger, who) >= arms.is_held_globally(SECRET, smaller, who)


@given(names, names)
def test_a_share_of_none_holds_nobody_and_a_share_of_all_everybody(experiment: str, who: str) -> None:
    assert not arms.is_held(SECRET, experiment, 0.0, who)
    assert arms.is_held(SECRET, experiment, 1.0, who)


@pytest.mark.parametrize("experiment", ["win_back", "post_sale", ""])
def test_draws_are_uniform(experiment: str) -> None:
    counts = Counter(int(arms.unit(SECRET, experiment, "holdout", who) * 20) for who in CUSTOMERS)
    assert chi_square([counts[bucket] for bucket in range(20)], [1000.0] * 20) < 43.82  # 99.9 % at 19 degrees


DRAWS = {
    "win_back": lambda who: arms.is_held(SECRET, "win_back", 0.3, who),
    "post_sale": lambda who: arms.is_held(SECRET, "post_sale", 0.3, who),
    "global": lambda who: arms.is_held_globally(SECRET, 0.3, who),
    "variant": lambda who: arms.variant(SECRET, "win_back", "miss", [("a", 0.3), ("b", 0.7)], who) == "a",
    "a step called holdout": lambda who: (
        arms.variant(SECRET, "win_back", "holdout", [("a", 0.3), ("b", 0.7)], who) == "a"
    ),
    "another secret": lambda who: arms.is_held(b"another", "win_back", 0.3, who),
}


@pytest.mark.parametrize(("one", "other"), list(combinations(DRAWS, 2)))
def test_draws_for_different_purposes_are_independent(one: str, other: str) -> None:
    counts = Counter((DRAWS[one](who), DRAWS[other](who)) for who in CUSTOMERS)
    cells = [(a, b) for a in (True, False) for b in (True, False)]
    share = {True: 0.3, False: 0.7}
    expected = [len(CUSTOMERS) * share[a] * share[b] for a, b in cells]
    assert chi_square([counts[cell] for cell in cells], expected) < 16.27  # 99.9 % at 3 degrees


@pytest.mark.parametrize("step", ["miss", "holdout", "global"])
def test_variants_keep_their_shares_among_those_who_are_contacted(step: str) -> None:
    variants = [("plain", 0.5), ("warm", 0.3), ("bold", 0.2)]
    contacted = [who for who in CUSTOMERS if not arms.is_held(SECRET, "win_back", 0.4, who)]
    counts = Counter(arms.variant(SECRET, "win_back", step, variants, who) for who in contacted)
    expected = [len(contacted) * share for _, share in variants]
    assert chi_square([counts[name] for name, _ in variants], expected) < 13.82  # 99.9 % at 2 degrees


def test_a_step_without_variants_is_plain_contact() -> None:
    assert arms.variant(SECRET, "win_back", "miss", [], "C-1") == "contact"


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8).filter(any), names)
def test_some_variant_with_a_share_is_always_drawn(weights: list[int], who: str) -> None:
    variants = [(f"v{index}", weight / sum(weights)) for index, weight in enumerate(weights)]
    drawn = arms.variant(SECRET, "experiment", "step", variants, who)
    assert dict(variants)[drawn] > 0


def test_shares_that_do_not_quite_add_up_still_give_a_variant() -> None:
    drawn = {arms.variant(SECRET, "e", "s", [("a", 1e-12), ("none", 0.0)], who) for who in CUSTOMERS[:100]}
    assert drawn == {"a"}
