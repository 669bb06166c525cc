"""
Statistics on the standard library: intervals for shares, and survival with censored observations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """
    Wilson's score interval of a share, within [0, 1]; None when there were no trials.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927), without continuity correction; method 3 in R. G. Newcombe, "Two-sided
    confidence intervals for the single proportion", Statistics in Medicine 17 (1998).
    """
    if trials == 0:
        return None
    z = _quantile(confidence)
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == trials else min(1.0, middle + half)
    return low, high


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


@dataclass(frozen=True)
class Survival:
    """The share for whom nothing had happened up to and including `time`, with its interval."""

    time: float
    at_risk: int  # observed at least that long, without the event before it
    survival: float | None  # None: nobody was observed that long
    low: float | None
    high: float | None


@dataclass(frozen=True)
class _Curve:
    """The estimate after the latest event: its value, Greenwood's sum, and who was at risk then."""

    survival: float = 1.0
    greenwood: float = 0.0
    at_risk: int = 0

    def after(self, events: int, at_risk: int) -> _Curve:
        """The curve after so many events among those at risk."""
        left = at_risk - events
        more = events / (at_risk * left) if left else 0.0
        return _Curve(self.survival * left / at_risk, self.greenwood + more, at_risk)


def kaplan_meier(
    observations: Iterable[tuple[float, bool, int]], times: Sequence[float], confidence: float = 0.95
) -> list[Survival]:
    """
    The Kaplan-Meier estimate at the given times, from (time, whether the event happened, how many).

    Who is censored at the time of an event counts as still at risk then. The interval is
    Greenwood's variance on the log(-log) scale, so that it stays within [0, 1]; where that is not
    defined (no event yet, or everybody had it), Wilson's interval on those at risk last. Past the
    longest observation there is no estimate, unless everybody had the event.

    Sources: E. L. Kaplan and P. Meier, "Nonparametric estimation from incomplete observations",
    JASA 53 (1958); M. Greenwood (1926); J. D. Kalbfleisch and R. L. Prentice, "The Statistical
    Analysis of Failure Time Data" (1980), section 1.4.
    """
    counts: dict[float, list[int]] = {}
    for time, happened, count in observations:
        counts.setdefault(time, [0, 0])[not happened] += count
    left = sorted(counts.items(), reverse=True)
    at_risk = sum(sum(both) for both in counts.values())
    curve, found = _Curve(), {}
    for time in sorted(set(times)):
        while left and left[-1][0] < time:
            curve, at_risk = _pass(curve, at_risk, *left.pop()[1])
        now = curve.after(left[-1][1][0], at_risk) if left and left[-1][0] == time and left[-1][1][0] else curve
        found[time] = _estimate(time, at_risk, now, confidence)
    return [found[time] for time in times]


def _pass(curve: _Curve, at_risk: int, events: int, censored: int) -> tuple[_Curve, int]:
    return curve.after(events, at_risk) if events else curve, at_risk - events - censored


def _estimate(time: float, at_risk: int, curve: _Curve, confidence: float) -> Survival:
    survival = curve.survival
    if at_risk == 0 and survival > 0:
        return Survival(time, at_risk, None, None, None)
    if 0 < survival < 1:
        width = exp(_quantile(confidence) * sqrt(curve.greenwood) / -log(survival))
        return Survival(time, at_risk, survival, survival**width, survival ** (1 / width))
    trials = at_risk if survival == 1 else curve.at_risk
    low, high = wilson(round(survival * trials), trials, confidence) or (None, None)
    return Survival(time, at_risk, survival, low, high)
