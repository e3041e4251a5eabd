"""Sums without rounding."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from voxport.domain.exact import Moments, exact_sum

finite = st.floats(allow_nan=False, allow_infinity=False)
singles = st.floats(-(2.0**100), 2.0**100, width=32, allow_nan=False)


@given(st.lists(finite, max_size=50))
def test_a_sum_is_that_of_fractions(values: list[float]) -> None:
    assert exact_sum(np.array(values, np.float64)) == sum(map(Fraction, values), Fraction(0))


@given(st.lists(singles, min_size=1, max_size=30), st.integers(1, 30))
def test_moments_are_those_of_fractions_in_any_parts(values: list[float], cut: int) -> None:
    parts = [Moments(), Moments()]
    for part, chosen in zip(parts, (values[cut:], values[:cut]), strict=True):
        part.add(np.array(chosen, np.float32))
    parts[0].merge(Moments.of_numbers(parts[1].numbers()))
    exact = [Fraction(value) for value in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    variance = sum(((value - mean) ** 2 for value in exact), Fraction(0)) / len(exact)
    assert parts[0].mean == float(mean)
    assert parts[0].std == math.sqrt(variance)
    assert (parts[0].low, parts[0].high) == (min(values), max(values))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float64])
def test_moments_are_those_of_numpy(dtype: type) -> None:
    values: NDArray[Any] = np.random.default_rng(0).integers(0, 100, 1000).astype(dtype)
    found = Moments()
    found.add(values.reshape(10, 10, 10))
    assert found.mean == pytest.approx(values.mean(), rel=1e-14)
    assert found.std == pytest.approx(values.std(), rel=1e-13)


def test_a_large_offset_costs_nothing() -> None:
    found = Moments()
    found.add(np.array([1e9, 1e9 + 1, 1e9 + 2]))
    assert found.std == pytest.approx(math.sqrt(2 / 3), rel=1e-9)


@given(arrays.arrays(np.float64, 20, elements=st.floats(-1e30, 1e30)), st.permutations(range(20)))
def test_the_order_does_not_matter(values: NDArray[np.float64], order: list[int]) -> None:
    one, other = Moments(), Moments()
    one.add(values)
    other.add(values[order])
    assert (one.mean, one.std) == (other.mean, other.std)
