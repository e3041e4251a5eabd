"""Sums without rounding, which do not depend on the order of what is summed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A significand of 53 bits is summed in two halves: 2**27 a value and 2**26 values keep below 2**53.
_LOW_BITS = 26
_AT_ONCE = 2**22


def exact_sum(values: NDArray[np.float64]) -> Fraction:
    """Return the sum of finite values: significands are summed as integers, by their exponents."""
    total = Fraction(0)
    flat = values.ravel()
    for start in range(0, flat.size, _AT_ONCE):
        significand, exponent = np.frexp(flat[start : start + _AT_ONCE])
        whole = np.ldexp(significand, 53).astype(np.int64)
        least = int(exponent.min())
        place = exponent - least
        high = np.bincount(place, weights=whole >> _LOW_BITS)
        low = np.bincount(place, weights=whole & (2**_LOW_BITS - 1))
        for at, (upper, lower) in enumerate(zip(high, low, strict=True)):
            if upper or lower:
                integer = (int(upper) << _LOW_BITS) + int(lower)
                total += Fraction(integer) * Fraction(2) ** (least + at - 53)
    return total


@dataclass
class Moments:
    """Count, sum, sum of squares and extremes of values, without rounding: the same for any order and any parts.

    Values of more than 48 significant bits are rounded to as many.
    """

    count: int = 0
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: NDArray[Any]) -> None:
        """Add finite values."""
        if not values.size:
            return
        self.count += values.size
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        if values.dtype.kind in "iub" and values.dtype.itemsize <= 2:
            integers = values.astype(np.int64)
            self.total += int(integers.sum())
            self.squares += int((integers * integers).sum())
            return
        # Two parts of 24 bits each: their products are exact in 53 bits.
        doubles = values.astype(np.float64)
        upper = doubles.astype(np.float32).astype(np.float64)
        lower = (doubles - upper).astype(np.float32).astype(np.float64)
        self.total += exact_sum(upper)
        self.squares += exact_sum(upper * upper)
        if lower.any():
            self.total += exact_sum(lower)
            self.squares += 2 * exact_sum(upper * lower) + exact_sum(lower * lower)

    def merge(self, other: Moments) -> None:
        """Add the values of another."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    @property
    def mean(self) -> float:
        """Mean, rounded once."""
        return float(self.total / self.count)

    @property
    def std(self) -> float:
        """Population standard deviation."""
        variance = self.squares / self.count - (self.total / self.count) ** 2
        return math.sqrt(variance)

    def numbers(self) -> list[str]:
        """Return what `of_numbers` makes it again of."""
        return [str(self.count), str(self.total), str(self.squares), self.low.hex(), self.high.hex()]

    @classmethod
    def of_numbers(cls, numbers: Sequence[str]) -> Moments:
        """Return the moments that gave these numbers."""
        count, total, squares, low, high = numbers
        return cls(int(count), Fraction(total), Fraction(squares), float.fromhex(low), float.fromhex(high))
