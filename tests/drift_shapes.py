"""Columns of every shape that data has, each as a pair of reference and current values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Pair = tuple[Any, Any]
NUMERIC: dict[str, Callable[[np.random.Generator], Pair]] = {}
CATEGORICAL: dict[str, Callable[[np.random.Generator], Pair]] = {}


def numeric(name: str) -> Any:
    def add(make: Any) -> Any:
        NUMERIC[name] = make
        return make

    return add


def _normal(n: int, m: int, shift: float = 0.0, scale: float = 1.0) -> Callable[[np.random.Generator], Pair]:
    return lambda r: (r.normal(size=n), r.normal(shift, scale, size=m))


for n, m in (
    (2, 2),
    (5, 40),
    (40, 5),
    (300, 200),
    (1000, 1000),
    (1001, 1001),
    (3000, 400),
    (400, 3000),
    (20_000, 9000),
):
    NUMERIC[f"normal {n} {m}"] = _normal(n, m)
    NUMERIC[f"shifted {n} {m}"] = _normal(n, m, 0.3)
NUMERIC |= {
    "scaled": _normal(5000, 5000, 0, 2),
    "barely drifted": _normal(5000, 5000, 0.1),
    "tiny scale": lambda r: (r.normal(5, 2e-5, 4000), r.normal(5 + 1e-4, 2e-5, 4000)),
    "far from zero": lambda r: (r.normal(1.7e9, 1e5, 4000), r.normal(1.7e9 + 2e4, 1e5, 4000)),
    "constant": lambda r: (np.full(2000, 3.0), np.full(1500, 3.0)),
    "constant few": lambda r: (np.full(200, 3.0), np.full(150, 3.0)),
    "two constants": lambda r: (np.full(2000, 3.0), np.full(1500, 4.0)),
    "two constants few": lambda r: (np.full(200, 3.0), np.full(150, 4.0)),
    "binary": lambda r: (r.integers(0, 2, 3000), r.binomial(1, 0.6, 2000)),
    "binary few": lambda r: (r.integers(0, 2, 300), r.binomial(1, 0.6, 200)),
    "three values": lambda r: (r.integers(0, 3, 3000), r.integers(0, 3, 2000)),
    "three values few": lambda r: (r.integers(0, 3, 300), r.integers(0, 3, 200)),
    "five values few": lambda r: (r.integers(0, 5, 300), r.integers(0, 5, 200)),
    "six values": lambda r: (r.integers(0, 6, 3000), r.integers(0, 6, 2000)),
    "six values few": lambda r: (r.integers(0, 6, 300), r.integers(0, 6, 200)),
    "a value is new": lambda r: (r.integers(0, 3, 900), r.integers(0, 4, 900)),
    "twenty values": lambda r: (r.integers(0, 20, 3000), r.integers(0, 20, 2000)),
    "many integers": lambda r: (r.integers(0, 500, 3000), r.integers(0, 550, 2000)),
    "large integers": lambda r: (r.integers(0, 2**52, 3000), r.integers(0, 2**52, 2000)),
    "unsigned bytes": lambda r: (r.integers(0, 200, 3000, np.uint8), r.integers(20, 220, 2000, np.uint8)),
    "heavy tails": lambda r: (r.standard_cauchy(4000), r.standard_cauchy(4000) + 0.2),
    "log-normal": lambda r: (r.lognormal(0, 2, 4000), r.lognormal(0.2, 2, 4000)),
    "outliers of 1e12": lambda r: (np.r_[r.normal(size=3000), 1e12], np.r_[r.normal(size=3000), -1e12]),
    "mostly zero": lambda r: (r.binomial(1, 0.02, 4000) * r.normal(size=4000), np.zeros(3000)),
    "infinities": lambda r: (np.r_[r.normal(size=2000), np.inf, -np.inf], np.r_[r.normal(size=2000), [np.inf] * 9]),
    "nulls": lambda r: (np.where(r.random(4000) < 0.3, np.nan, r.normal(size=4000)), r.normal(size=3000)),
    "integers with nulls": lambda r: (
        np.where(r.random(4000) < 0.3, np.nan, r.integers(0, 90, 4000)),
        r.integers(0, 100, 3000),
    ),
    "few left by nulls": lambda r: (np.where(r.random(1300) < 0.5, np.nan, r.normal(size=1300)), r.normal(size=900)),
    "bimodal": lambda r: (
        np.r_[r.normal(-5, 1, 2000), r.normal(5, 1, 2000)],
        np.r_[r.normal(-5, 1, 2600), r.normal(5, 1, 1400)],
    ),
    "sorted": lambda r: (np.sort(r.random(4000)), np.sort(r.random(4000))[::-1]),
    "counter": lambda r: (np.arange(4000), np.arange(3000, 6000)),
    "sentinel": lambda r: (
        np.where(r.random(4000) < 0.01, 1e6, r.normal(size=4000)),
        np.where(r.random(4000) < 0.01, 1e6, r.normal(1, 1, size=4000)),
    ),
    "subnormal": lambda r: (r.normal(size=3000) * 1e-310, r.normal(size=3000) * 1e-310),
    "huge": lambda r: (r.normal(size=3000) * 1e150, r.normal(size=3000) * 1e150),
}


def _text(values: Any, prefix: str = "c") -> list[str | None]:
    return [f"{prefix}{value}" for value in np.asarray(values).tolist()]


def _zipf(r: np.random.Generator, n: int, k: int, a: float) -> Any:
    shares = 1.0 / np.arange(1, k + 1) ** a
    return r.choice(k, n, p=shares / shares.sum())


CATEGORICAL |= {
    "one": lambda r: (["a"] * 2000, ["a"] * 1000),
    "one few": lambda r: (["a"] * 200, ["a"] * 100),
    "another": lambda r: (["a"] * 2000, ["b"] * 1000),
    "another few": lambda r: (["a"] * 200, ["b"] * 100),
    "two": lambda r: (_text(r.integers(0, 2, 3000)), _text(r.binomial(1, 0.6, 2000))),
    "two few": lambda r: (_text(r.integers(0, 2, 300)), _text(r.binomial(1, 0.6, 200))),
    "ten": lambda r: (_text(r.integers(0, 10, 3000)), _text(r.integers(0, 10, 2000))),
    "ten few": lambda r: (_text(r.integers(0, 10, 800)), _text(r.integers(0, 10, 500))),
    "skewed": lambda r: (_text(_zipf(r, 5000, 50, 2)), _text(_zipf(r, 4000, 50, 1.7))),
    "skewed few": lambda r: (_text(_zipf(r, 900, 50, 2)), _text(_zipf(r, 800, 50, 2))),
    "10,000 categories": lambda r: (_text(r.integers(0, 10_000, 30_000)), _text(r.integers(0, 10_000, 20_000))),
    "new ones": lambda r: (_text(r.integers(0, 5, 3000)), _text(r.integers(0, 8, 2000))),
    "vanished ones": lambda r: (_text(r.integers(0, 8, 3000)), _text(r.integers(0, 5, 2000))),
    "vanished ones few": lambda r: (_text(r.integers(0, 8, 300)), _text(r.integers(0, 5, 200))),
    "nulls": lambda r: (
        [None if x < 0.3 else v for x, v in zip(r.random(3000), _text(r.integers(0, 5, 3000)), strict=True)],
        _text(r.integers(0, 5, 2000)),
    ),
    "booleans": lambda r: ((r.random(3000) < 0.5).tolist(), (r.random(2000) < 0.6).tolist()),
    "booleans few": lambda r: ((r.random(300) < 0.5).tolist(), (r.random(200) < 0.6).tolist()),
    "unicode": lambda r: (
        r.choice(["é", "ß", "日本", ""], 3000).tolist(),
        r.choice(["é", "ß", "日本", ""], 3000).tolist(),
    ),
}
