"""Tests of a rate that may be looked at as often as one likes: whenever they speak, they may be believed.

A fixed-size test that is looked at every second until it says "bad" says so of anything in the end. These are bets:
somebody who bets, at fair odds under the hypothesis, on each request as it comes, has a fortune whose expectation never
grows, so the chance that it *ever* reaches ``1 / alpha`` is at most ``alpha`` (Ville 1939). The fortune is a likelihood
ratio, which for one alternative is Wald's sequential probability ratio test (Wald 1945, *Sequential tests of
statistical hypotheses*) and for a mixture of them Robbins' (1970); see Johari, Koomen, Pekelis & Walsh 2022, *Always
valid inference*, and Ramdas, Grünwald, Vovk & Shafer 2023, *Game-theoretic statistics and safe anytime-valid
inference*. It needs no independence: it is enough that the chance of a bad one, given all before it, is within the
hypothesis.
"""

from __future__ import annotations

import math

#: Rates that the mixture bets on, evenly spaced in the logarithm of their odds.
ALTERNATIVES = 16
#: The highest of them.
HIGHEST = 0.98


def evidence_above(bad: int, total: int, limit: float) -> float:
    """Return the logarithm of the evidence that the rate of bad ones is above a limit.

    Where it is not, the chance that this ever reaches ``log(1 / alpha)`` is at most ``alpha``.

    :param bad: how many of ``total`` were bad.
    :param limit: 0: none may be; the first one is proof.
    """
    if limit <= 0:
        return math.inf if bad else 0.0
    lowest, highest = _odds(limit), max(_odds(HIGHEST), _odds(limit) + 1)
    step = (highest - lowest) / ALTERNATIVES
    rates = [1 / (1 + math.exp(-(lowest + step * (n + 1)))) for n in range(ALTERNATIVES)]
    bets = [_ratio(bad, total, rate, limit) for rate in rates]
    best = max(bets)
    return best + math.log(sum(math.exp(one - best) for one in bets) / ALTERNATIVES)


def evidence_below(bad: int, total: int, limit: float, expected: float) -> float:
    """Return the logarithm of the evidence that the rate of bad ones is below a limit.

    :param expected: the rate that is bet on, below the limit; the nearer the true one is to it, the sooner it speaks.
    """
    return _ratio(bad, total, expected, limit)


def enough(limit: float, expected: float, alpha: float) -> int:
    """Return after how many requests, none of them bad, :func:`evidence_below` reaches ``log(1 / alpha)``."""
    return math.ceil(math.log(1 / alpha) / math.log((1 - expected) / (1 - limit)))


def _ratio(bad: int, total: int, rate: float, limit: float) -> float:
    found = (total - bad) * (math.log1p(-rate) - math.log1p(-limit))
    if bad:
        found += bad * math.log(rate / limit) if rate > 0 else -math.inf
    return found


def _odds(rate: float) -> float:
    return math.log(rate / (1 - rate))
