"""
Statistics: against published figures, and against independent brute force.
"""

from __future__ import annotations

from fractions import Fraction
from math import exp, log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outreach.reports.statistics import kaplan_meier, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0000),
    ],
)
def test_wilsons_interval_is_that_of_newcombes_table(successes: int, trials: int, low: float, high: float) -> None:
    found = wilson(successes, trials)
    assert found is not None
    assert list(found) == pytest.approx([low, high], abs=5e-5)


def test_no_trials_give_no_interval() -> None:
    assert wilson(0, 0) is None


@given(st.integers(1, 5000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_wilsons_ends_are_the_shares_whose_score_test_just_rejects(given: tuple[int, int]) -> None:
    successes, trials = given
    found = wilson(successes, trials)
    assert found is not None
    assert 0 <= found[0] <= successes / trials <= found[1] <= 1
    for end in found:
        if 0 < end < 1:
            score = (successes / trials - end) / sqrt(end * (1 - end) / trials)
            assert abs(score) == pytest.approx(1.959963984540054, rel=1e-6)


# The remission times in weeks of 42 leukaemia patients: Freireich et al., Blood 21 (1963), given with
# these estimates in Kleinbaum and Klein, "Survival Analysis", chapter 2.
TREATED = [(6, True, 3), (6, False, 1), (7, True, 1), (9, False, 1), (10, True, 1), (10, False, 1), (11, False, 1), (13, True, 1), (16, True, 1), (17, False, 1), (19, False, 1), (20, False, 1), (22, True, 1), (23, True, 1), (25, False, 1), (32, False, 2), (34, False, 1), (35, False, 1)]  # fmt: skip
PLACEBO = [(1, True, 2), (2, True, 2), (3, True, 1), (4, True, 2), (5, True, 2), (8, True, 4), (11, True, 2), (12, True, 2), (15, True, 1), (17, True, 1), (22, True, 1), (23, True, 1)]  # fmt: skip


@pytest.mark.parametrize(
    ("week", "at_risk", "survival"),
    [(6, 21, 0.857), (7, 17, 0.807), (10, 15, 0.753), (13, 12, 0.690), (16, 11, 0.627), (22, 7, 0.538), (23, 6, 0.448)],
)
def test_kaplan_meier_gives_the_published_curve(week: int, at_risk: int, survival: float) -> None:
    (found,) = kaplan_meier(TREATED, [week])
    assert found.at_risk == at_risk
    assert found.survival == pytest.approx(survival, abs=5e-4)


def test_greenwoods_standard_error_is_the_published_one() -> None:
    """Cox and Oakes (1984) give 0.0764 at 6 weeks for the treated; here read back from the interval."""
    (found,) = kaplan_meier(TREATED, [6])
    assert found.survival is not None
    assert found.low is not None
    width = log(-log(found.low)) - log(-log(found.survival))
    error = width / 1.959963984540054 * found.survival * -log(found.survival)
    assert error == pytest.approx(0.0764, abs=5e-5)


def test_a_curve_that_ends_at_nobody_left_is_zero_from_then_on() -> None:
    last, later = kaplan_meier(PLACEBO, [23, 99])
    assert (last.survival, last.at_risk, later.survival, later.at_risk) == (0, 1, 0, 0)
    assert last.low == 0
    assert last.high is not None
    assert 0 < last.high < 1


def test_past_the_longest_observation_there_is_no_estimate() -> None:
    at, past = kaplan_meier(TREATED, [35, 36])
    assert at.at_risk == 1
    assert at.survival == pytest.approx(0.448, abs=5e-4)
    assert (past.at_risk, past.survival, past.low, past.high) == (0, None, None, None)


def test_nobody_observed_gives_no_estimate() -> None:
    assert [(one.at_risk, one.survival) for one in kaplan_meier([], [30])] == [(0, None)]


def test_before_any_event_the_interval_is_that_of_those_at_risk() -> None:
    (found,) = kaplan_meier([(50, False, 100)], [30])
    assert (found.survival, found.high) == (1, 1)
    assert found.low == pytest.approx(1 - 0.0370, abs=5e-5)  # Wilson for 0 of 100


OBSERVED = st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(1, 4)), max_size=12)


@given(observed=OBSERVED, time=st.integers(0, 14))
def test_the_curve_equals_a_person_by_person_product(observed: list[tuple[int, bool, int]], time: int) -> None:
    people = [(at, event) for at, event, count in observed for _ in range(count)]
    survival, greenwood = Fraction(1), Fraction(0)
    for moment in sorted({at for at, event in people if event and at <= time}):
        exposed = sum(at >= moment for at, _ in people)
        hit = sum(at == moment and event for at, event in people)
        survival *= Fraction(exposed - hit, exposed)
        greenwood += Fraction(hit, exposed * (exposed - hit)) if exposed > hit else 0
    (found,) = kaplan_meier(observed, [time])

    assert found.at_risk == sum(at >= time for at, _ in people)
    if found.at_risk == 0 and survival > 0:
        assert found.survival is None
        return
    assert found.survival == pytest.approx(float(survival))
    if 0 < survival < 1:
        middle, spread = log(-log(survival)), 1.959963984540054 * sqrt(greenwood) / log(survival)
        assert found.low == pytest.approx(exp(-exp(middle - spread)))
        assert found.high == pytest.approx(exp(-exp(middle + spread)))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.integers(0, 20))
def test_without_censoring_it_is_the_plain_share(times: list[int], time: int) -> None:
    (found,) = kaplan_meier([(at, True, 1) for at in times], [time])
    assert found.survival == pytest.approx(sum(at > time for at in times) / len(times))
