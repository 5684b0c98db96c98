"""Grids: where the counts of a numeric column that is too large to keep are taken.

A grid has bins of one width over the range that holds nearly all values, and around it rings of bins that double their
width, so that one value of 1e12 costs no resolution elsewhere. All edges are multiples of powers of two: a value's bin
is found without rounding, and two grids that were chosen apart share the edges of the coarser one.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

#: Bins of one width; about as many again lie in the rings.
BINS = 8192
#: Bins of one ring, each twice as wide as those of the ring inside it.
RING = 64
#: Rings on each side: they reach 2**64 times as far as the bins of one width.
RINGS = 64
#: Shares of a sample that may lie outside the bins of one width, on each side.
OUTSIDE = 0.0005


@dataclass(frozen=True)
class Grid:
    """Half-open bins ``[edge, next edge)``, and one below and one above all edges.

    :param exponent: the bins inside are ``2**exponent`` wide.
    :param first: the first edge of the bins inside, as a multiple of their width.
    :param last: the last edge of them.
    """

    exponent: int
    first: int
    last: int

    @property
    def width(self) -> float:
        """Width of the bins inside."""
        return math.ldexp(1.0, self.exponent)

    def edges(self) -> Array:
        """Return all edges, ascending, ``(bins - 1,)``."""
        return _edges(self)

    @property
    def below(self) -> int:
        """How many edges lie below the first bin inside."""
        return _below(self)

    def counts(self, values: Array) -> Array:
        """Return how many values lie in each bin, ``(edges + 1,)``.

        :param values: float64, finite.
        """
        import numpy as np

        edges = self.edges()
        total = np.zeros(len(edges) + 1, dtype=np.int64)
        low, high = self.first * self.width, self.last * self.width
        if len(values) and not (values.min() >= low and values.max() < high):
            inside = (values >= low) & (values < high)
            places = np.searchsorted(edges, values[~inside], side="right")
            total += np.bincount(places, minlength=len(total))
            values = values[inside]
        if len(values):
            bins = np.floor(values * math.ldexp(1.0, -self.exponent))
            bins -= self.first
            found = np.bincount(bins.astype(np.intp), minlength=self.last - self.first)
            start = self.below + 1
            total[start : start + self.last - self.first] += found
        return total

    def weighted(self, values: Array, weights: Array) -> Array:
        """Return the counts of values that occur several times each."""
        import numpy as np

        places = np.searchsorted(self.edges(), values, side="right")
        return np.bincount(places, weights=weights, minlength=len(self.edges()) + 1).astype(np.int64)


def grid_for(sample: Array) -> Grid:
    """Return a grid whose fine bins hold nearly all of a sample.

    :param sample: float64, finite, not empty.
    """
    import numpy as np

    ordered = np.sort(sample)
    apart = int(len(ordered) * OUTSIDE)
    low, high = float(ordered[apart]), float(ordered[-1 - apart])
    if low == high:
        low, high = float(ordered[0]), float(ordered[-1])
    span = min(high - low, 1e300) or max(abs(low) * 2.0**-20, 2.0**-40)
    # A double has 53 bits: an edge must be a multiple of the width that it can hold.
    largest = max(abs(low), abs(high), span)
    exponent = max(math.ceil(math.log2(span / BINS)), math.frexp(largest)[1] - 50, -1000)
    step = _ring_bits(span, exponent)
    width = math.ldexp(1.0, exponent + step)
    first, last = math.floor(low / width), math.floor(high / width) + 1
    return Grid(exponent, first << step, last << step)


def _ring_bits(span: float, exponent: int) -> int:
    """Return how many times the bins of the first ring are twice as wide as those inside."""
    return max(math.ceil(math.log2(span)) - exponent - int(math.log2(RING)), 0)


@functools.lru_cache(maxsize=256)
def _edges(grid: Grid) -> Array:
    import numpy as np

    inside = np.arange(grid.first, grid.last + 1, dtype=np.float64) * grid.width
    above = _rings(float(grid.last), grid)
    below = [-edge for edge in _rings(-float(grid.first), grid)][::-1]
    edges = np.concatenate([np.array(below), inside, np.array(above)])
    edges.setflags(write=False)
    return edges


@functools.lru_cache(maxsize=256)
def _below(grid: Grid) -> int:
    return len(_rings(-float(grid.first), grid))


def _rings(start: float, grid: Grid) -> list[float]:
    """Return the edges beyond ``start``, a multiple of the grid's width, ascending."""
    step = math.ldexp(1.0, _ring_bits((grid.last - grid.first) * grid.width, grid.exponent))
    place, edges = start, []
    for _ in range(RINGS):
        # On a multiple of the ring's own width, or grids that were chosen apart would share no edges here.
        place = math.floor(place / step) * step
        edges += [place + step * number for number in range(1, RING + 1)]
        place, step = edges[-1], step * 2
    scaled = []
    for edge in edges:
        try:
            scaled.append(math.ldexp(edge, grid.exponent))
        except OverflowError:
            break
    return [edge for edge in scaled if edge > math.ldexp(start, grid.exponent)]
