"""Intensity steps of a model card, fitted exactly on a streamed volume.

A step is fitted on a channel's values and becomes a pointwise function. Values come in chunks ``(values, counts)``:
float32 values, and how often each occurs (None: once each), so an 8- or 16-bit channel is fitted on its histogram.
Percentiles are exact order statistics with linear interpolation, equal to ``numpy.percentile``; they take two passes
and 512 KB for any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import repeat
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Mask = NDArray[np.bool_]
Chunk = tuple[Values, NDArray[np.int64] | None]
Chunks = Callable[[], Iterable[Chunk]]
# A given standard deviation below it counts as this, as in nnU-Net.
_LEAST_DEVIATION = 1e-8


@dataclass(frozen=True)
class ChannelSurvey:
    """Findings of one pass over a channel.

    Args:
        low: the smallest value in single precision, after replacements.
        high: the largest.
        chunks: streams the values again, as float32, without NaN and Inf.
        stored: the smallest and the largest value as stored.
        rounding: the largest difference between a stored value and the same in single precision.
    """

    low: float
    high: float
    chunks: Chunks
    stored: tuple[float, float] = (0.0, 0.0)
    rounding: float = 0.0


class Pointwise(Protocol):
    """A fitted step, applied to each value."""

    def __call__(self, values: Values) -> Values:
        """Return new float32 values of the same shape."""


class Step(Protocol):
    """An intensity step of a card."""

    def fit(self, chunks: Chunks) -> Pointwise:
        """Return the pointwise function for a channel with these values."""


@dataclass(frozen=True)
class ShiftScale:
    """Add ``shift``, then multiply by ``scale``; a card's step (``shift_scale: [shift, scale]``) and fitted."""

    shift: float
    scale: float
    nonzero: bool = False

    def __call__(self, values: Values) -> Values:
        """Return shifted and scaled values; with ``nonzero``, zeros stay zero. What overflows becomes Inf."""
        wide = np.float32 if _is_mild(self.shift, self.scale) else np.float64
        with np.errstate(over="ignore"):
            result = ((values + wide(self.shift)) * wide(self.scale)).astype(np.float32, copy=False)
        return np.where(values != 0, result, np.float32(0)) if self.nonzero else result

    def fit(self, chunks: Chunks) -> Pointwise:  # noqa: ARG002 - nothing to learn from the values
        """Return the step itself."""
        return self


@dataclass(frozen=True)
class Window:
    """Clip to ``[low, high]``; a card's step (``window: [low, high]``) and fitted."""

    low: float
    high: float

    def __call__(self, values: Values) -> Values:
        """Return clipped values."""
        clipped: Values = np.clip(values, np.float32(self.low), np.float32(self.high))
        return clipped

    def fit(self, chunks: Chunks) -> Pointwise:  # noqa: ARG002 - nothing to learn from the values
        """Return the step itself."""
        return self


@dataclass(frozen=True)
class ClipPercentiles:
    """Clip to two percentiles of the channel (``clip_percentiles: [low, high]``)."""

    low: float
    high: float

    def fit(self, chunks: Chunks) -> Pointwise:
        """Return a clip to the channel's own percentiles."""
        return Window(*percentiles(chunks, (self.low, self.high)))


@dataclass(frozen=True)
class Rescale:
    """Map the channel's minimum and maximum to ``[low, high]``; a constant channel becomes ``low``."""

    low: float
    high: float

    def fit(self, chunks: Chunks) -> Pointwise:
        """Return shift and scale from the channel's range, clipped to ``[low, high]`` after rounding."""
        smallest, largest = extremes(chunks)
        span = largest - smallest
        scale = (self.high - self.low) / span if span > 0 else 0.0
        return _Rescaled(smallest, scale, self.low, self.high)


@dataclass(frozen=True)
class _Rescaled:
    smallest: float
    scale: float
    low: float
    high: float

    def __call__(self, values: Values) -> Values:
        wide = np.float32 if _is_mild(self.smallest, self.scale) else np.float64
        moved = (values - wide(self.smallest)) * wide(self.scale) + wide(self.low)
        return Window(self.low, self.high)(moved.astype(np.float32, copy=False))


@dataclass(frozen=True)
class ZScore:
    """Subtract the mean and divide by the standard deviation, of the channel unless they are given.

    ``within``: over all voxels; the nonzero ones, and zeros stay zero; or those of the crop's region with its holes
    filled, and the others stay as they are.
    """

    within: Literal["all", "nonzero", "crop"] = "all"
    mean: float | None = None
    std: float | None = None

    def fit(self, chunks: Chunks) -> Pointwise:
        """Return shift and scale from the mean and the population standard deviation."""
        nonzero = self.within == "nonzero"
        fitted = self.given
        if fitted is None:
            count, mean, deviation = _moments(chunks, nonzero)
            scale = 1.0 / deviation if deviation > 0 else 1.0
            fitted = ShiftScale(-mean, scale, nonzero) if count else ShiftScale(0.0, 1.0)
        return WithinCrop(fitted) if self.within == "crop" else fitted

    @property
    def given(self) -> ShiftScale | None:
        """Shift and scale where the mean and the deviation are given."""
        if self.mean is None or self.std is None:
            return None
        return ShiftScale(-self.mean, 1.0 / max(self.std, _LEAST_DEVIATION), self.within == "nonzero")


@dataclass(frozen=True)
class WithinCrop:
    """A fitted step for the voxels of the crop's region."""

    step: Pointwise

    def __call__(self, values: Values) -> Values:
        """Return the step's values."""
        return self.step(values)


def fit(
    steps: Sequence[Step], chunks: Chunks, region: Callable[[], Iterable[Mask]] | None = None
) -> tuple[Pointwise, ...]:
    """Fit steps in order, each on the result of the previous ones.

    ``region`` streams, for each chunk, which of its values lie in the crop's region; None: all of them.
    """
    fitted: list[Pointwise] = []
    for step in steps:
        only = region is not None and is_within_crop(step)

        def transformed(before: Sequence[Pointwise] = tuple(fitted), only: bool = only) -> Iterator[Chunk]:
            for (values, counts), inside in zip(chunks(), repeat(None) if region is None else region(), strict=False):
                changed = apply(before, values, inside)
                yield (changed[inside], None) if only else (changed, counts)

        fitted.append(step.fit(transformed))
    return tuple(fitted)


def is_within_crop(step: Step) -> bool:
    """Return whether a step is of the voxels of the crop's region alone."""
    return isinstance(step, ZScore) and step.within == "crop"


def apply(fitted: Sequence[Pointwise], values: Values, inside: Mask | None = None) -> Values:
    """Apply all fitted steps. ``inside``: which values lie in the crop's region; None: all of them."""
    for function in fitted:
        changed = function(values)
        if inside is not None and isinstance(function, WithinCrop):
            changed = np.where(inside, changed, values)
        values = changed
    return values


def extremes(chunks: Chunks) -> tuple[float, float]:
    """Return the smallest and largest value."""
    lows, highs = zip(*((float(v.min()), float(v.max())) for v, _ in chunks() if v.size), strict=True)
    return min(lows), max(highs)


def percentiles(chunks: Chunks, wanted: Sequence[float]) -> tuple[float, ...]:
    """Return exact percentiles (0 to 100) by radix selection on the order-preserving bits of float32.

    The first pass counts the upper 16 bits of every value, the second the lower 16 bits of those values that share
    their upper bits with a wanted order statistic.
    """
    upper = sum((_count(_ordered_bits(v) >> np.uint32(16), c) for v, c in chunks()), np.zeros(65536, np.int64))
    total = int(upper.sum())
    positions = [(total - 1) * q / 100 for q in wanted]
    ranks = sorted({min(int(p) + extra, total - 1) for p in positions for extra in (0, 1)})
    cumulative = np.cumsum(upper)
    bin_of = {rank: int(np.searchsorted(cumulative, rank, side="right")) for rank in ranks}
    lower = {b: np.zeros(65536, np.int64) for b in set(bin_of.values())}
    for values, counts in chunks():
        bits = _ordered_bits(values).ravel()
        high = bits >> np.uint32(16)
        for b, histogram in lower.items():
            inside = high == b
            histogram += _count(bits[inside] & 0xFFFF, None if counts is None else counts.ravel()[inside])
    value_at = {}
    for rank, b in bin_of.items():
        within = rank - (int(cumulative[b - 1]) if b else 0)
        low_bits = int(np.searchsorted(np.cumsum(lower[b]), within, side="right"))
        value_at[rank] = _value_of((b << 16) | low_bits)
    return tuple(_interpolated(value_at, p, total) for p in positions)


def _interpolated(value_at: dict[int, float], position: float, total: int) -> float:
    low = int(position)
    a, b = value_at[low], value_at[min(low + 1, total - 1)]
    return a + (b - a) * (position - low)


def _ordered_bits(values: Values) -> NDArray[np.uint32]:
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    flip = np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    ordered: NDArray[np.uint32] = bits ^ flip
    return ordered


def _value_of(ordered: int) -> float:
    bits = ordered ^ (0x80000000 if ordered >> 31 else 0xFFFFFFFF)
    return float(np.array([bits], np.uint32).view(np.float32)[0])


def _count(bins: NDArray[np.unsignedinteger[Any]], counts: NDArray[np.int64] | None) -> NDArray[np.int64]:
    if counts is None:
        return np.bincount(bins.ravel(), minlength=65536).astype(np.int64)
    # float64 weights are exact here: counts stay far below 2**53
    return np.bincount(bins.ravel(), weights=counts.ravel(), minlength=65536).astype(np.int64)


def _moments(chunks: Chunks, nonzero: bool) -> tuple[int, float, float]:
    """Return count, mean and population standard deviation, in two passes for precision at large offsets."""
    low, high = math.inf, -math.inf

    def kept() -> Iterator[tuple[Values, NDArray[np.int64] | None]]:
        nonlocal low, high
        for values, counts in chunks():
            chosen = values != 0 if nonzero else np.ones(values.shape, bool)
            if (inside := values[chosen]).size:
                low, high = min(low, float(inside.min())), max(high, float(inside.max()))
            yield inside, None if counts is None else counts[chosen]

    count = sum(values.size if counts is None else int(counts.sum()) for values, counts in kept())
    if count == 0:
        return 0, 0.0, 0.0
    mean = _exact_sum(kept()) / count
    # Squares are summed in single precision: a power of two brings those beyond its range into it, e.g. (1e-20)**2.
    largest = max(high - mean, mean - low)
    shift = 0 if _is_mild(largest**2) else -math.frexp(largest)[1]
    squares = ((np.ldexp(values.astype(np.float64) - mean, shift) ** 2, counts) for values, counts in kept())
    variance = _exact_sum((square.astype(np.float32), counts) for square, counts in squares) / count
    return count, mean, math.ldexp(math.sqrt(variance), -shift)


def _is_mild(*numbers: float) -> bool:
    """Return whether single precision takes these numbers, and sums and products of a few, at full precision."""
    return all(number == 0 or 2.0**-60 <= abs(number) <= 2.0**60 for number in numbers)


def _exact_sum(chunks: Iterable[Chunk]) -> float:
    """Return the exact sum of float32 values, rounded once.

    Integer significands are summed per exponent, so the result does not depend on the order of values, and thus on the
    stored orientation.
    """
    by_exponent = [0] * 256
    for values, counts in chunks:
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).ravel()
        exponent = (bits >> 23) & 0xFF
        significand = np.where(exponent > 0, (bits & 0x7FFFFF) | 0x800000, (bits & 0x7FFFFF) << 1).astype(np.float64)
        significand[bits >> 31 == 1] *= -1
        weights = significand if counts is None else significand * counts.ravel()
        # exact in float64: 2**24 a value and at most 2**29 values a chunk
        sums = np.bincount(exponent, weights=weights, minlength=256)
        by_exponent = [total + int(added) for total, added in zip(by_exponent, sums, strict=True)]
    return float(sum(Fraction(total) * Fraction(2) ** (e - 150) for e, total in enumerate(by_exponent)))
