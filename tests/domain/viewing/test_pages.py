"""Outliers by the modified z-score."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.viewing.pages import Distribution, fence

NUMBERS = st.lists(st.integers(-1000, 1000).map(float), min_size=5, max_size=30)


def test_the_fence_is_three_and_a_half_deviations_about_the_median() -> None:
    assert fence([1.0, 2.0, 3.0, 4.0, 100.0]) == pytest.approx((3 - 3.5 * 1.4826, 3 + 3.5 * 1.4826))


def test_most_values_alike_leave_the_mean_deviation() -> None:
    assert fence([5.0] * 9 + [6.0]) == pytest.approx((5 - 3.5 * 1.2533 * 0.1, 5 + 3.5 * 1.2533 * 0.1))
    assert fence([5.0] * 9) == (5.0, 5.0)


@pytest.mark.parametrize("count", range(5))
def test_few_values_have_no_outliers(count: int) -> None:
    values = {str(i): float(i**9) for i in range(count)}
    assert fence(list(values.values())) is None
    assert Distribution("label", "volume", "", values, None).outliers == ()


@given(NUMBERS, st.integers(-50, 50), st.sampled_from([0.25, 1.0, 8.0]), st.randoms())
def test_it_moves_with_the_values_whatever_their_order(
    values: list[float], shift: int, scale: float, random: np.random.Generator
) -> None:
    moved = [scale * value + shift for value in values]
    random.shuffle(moved)
    low, high = fence(values) or (0.0, 0.0)
    assert fence(moved) == pytest.approx((scale * low + shift, scale * high + shift))
    assert low <= np.median(values) <= high


@given(NUMBERS.filter(lambda values: len(set(values)) == len(values)))
def test_a_value_that_is_far_from_the_others_is_an_outlier(values: list[float]) -> None:
    named = {str(i): value for i, value in enumerate([*values, 1e9])}
    found = Distribution("label", "volume", "", named, fence(list(named.values())))
    assert found.outliers[-1] == str(len(values))
    assert found.title == "label: volume"


@given(NUMBERS)
def test_at_least_half_of_the_values_are_inside(values: list[float]) -> None:
    named = {str(i): value for i, value in enumerate(values)}
    assert 2 * len(Distribution("label", "volume", "", named, fence(values)).outliers) <= len(values)
