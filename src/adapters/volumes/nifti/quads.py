"""Floating-point numbers of 128 bits, which few machines have: IEEE 754's binary128 as float64."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_BIAS = 16383
_LEAST_SAMPLE = 16


def quad_dtype(order: Literal["<", ">"]) -> np.dtype[Any]:
    """Return the type of a stored number: its halves of 64 bits."""
    names = ("low", "high") if order == "<" else ("high", "low")
    return np.dtype([(name, f"{order}u8") for name in names])


def doubles(stored: NDArray[Any]) -> NDArray[np.float64]:
    """Return stored numbers as float64, in the same memory order; those beyond its range are infinite or 0."""
    high, low = stored["high"].astype(np.uint64), stored["low"].astype(np.uint64)
    exponent = ((high >> np.uint64(48)) & np.uint64(0x7FFF)).astype(np.int32)
    leading = (high & np.uint64(2**48 - 1)).astype(np.float64)
    fraction = np.ldexp(leading, -48) + np.ldexp(low.astype(np.float64), -112)
    with np.errstate(over="ignore", under="ignore"):
        values = np.ldexp(1.0 + fraction, exponent - _BIAS)
    values[exponent == 0] = 0.0
    values[exponent == 0x7FFF] = np.where(fraction[exponent == 0x7FFF] == 0, np.inf, np.nan)
    return np.asarray(np.where(high >> np.uint64(63), -values, values))


def is_extended(sample: NDArray[Any]) -> bool:
    """Return whether stored numbers are of Intel's 80-bit type, which sets the leading bit of each fraction."""
    low = sample["low"].astype(np.uint64)
    low = low[(low != 0) | (sample["high"] != 0)]
    return len(low) >= _LEAST_SAMPLE and bool(np.all(low >> np.uint64(63)))
