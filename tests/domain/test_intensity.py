"""Intensity steps are fitted exactly, however the values are cut, counted or ordered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxport.domain.intensity import (
    Chunk,
    Chunks,
    ClipPercentiles,
    Pointwise,
    Rescale,
    ShiftScale,
    Step,
    Values,
    Window,
    ZScore,
    apply,
    extremes,
    fit,
    percentiles,
)

# Squares of deviations are held in single precision, so values stay where those neither overflow nor vanish.
LARGEST, TINIEST = 2.0**50, 2.0**-50

magnitudes = st.floats(TINIEST, LARGEST, width=32)
numbers = st.one_of(st.just(0.0), magnitudes, magnitudes.map(lambda x: -x), st.integers(-5, 5).map(float))
arrays = st.lists(numbers, min_size=1, max_size=40).map(lambda v: np.array(v, np.float32))
any_float32 = st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.0]),
    min_size=1,
    max_size=40,
).map(lambda v: np.array(v, np.float32))
STEPS: tuple[Step, ...] = (
    ClipPercentiles(1, 99.5),
    Rescale(0, 1),
    Window(-2, 100),
    ZScore(),
    ZScore("nonzero"),
    ShiftScale(-3, 0.25),
)
steps = st.lists(st.sampled_from(STEPS), max_size=3)


def chunks_of(*parts: Values) -> Chunks:
    return lambda: [(part, None) for part in parts]


def table_of(values: Values) -> Chunks:
    distinct, counts = np.unique(values, return_counts=True)
    chunk: Chunk = (distinct, counts.astype(np.int64))
    return lambda: [chunk]


def naive(step: Step, values: Values) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The step in plain float64 numpy."""
    v = values.astype(np.float64)
    match step:
        case ClipPercentiles(low, high):
            return np.clip(v, *np.percentile(v, (low, high)))
        case Rescale(low, high):
            span = v.max() - v.min()
            return (v - v.min()) / span * (high - low) + low if span > 0 else np.full_like(v, low)
        case Window(low, high):
            return np.clip(v, low, high)
        case ShiftScale(shift, scale):
            return (v + shift) * scale
        case ZScore(within):
            nonzero = within == "nonzero"
            kept = v[v != 0] if nonzero else v
            if not kept.size:
                return v
            z = (v - kept.mean()) / (kept.std() or 1.0)
            return np.where(v == 0, 0.0, z) if nonzero else z
    raise NotImplementedError(step)


# Percentiles


@given(any_float32, st.lists(st.floats(0, 100), min_size=1, max_size=4))
def test_percentiles_equal_numpys(values: Values, wanted: list[float]) -> None:
    expected = np.percentile(values.astype(np.float64), wanted)
    np.testing.assert_allclose(percentiles(chunks_of(values), wanted), expected, rtol=1e-12, atol=1e-45)


@given(arrays, st.integers(1, 5), st.floats(0, 100))
@settings(max_examples=50)
def test_percentiles_do_not_depend_on_chunks_order_or_counting(values: Values, cuts: int, wanted: float) -> None:
    expected = percentiles(chunks_of(values), [wanted])
    shuffled = np.random.default_rng(0).permutation(values)
    assert percentiles(chunks_of(*np.array_split(shuffled, cuts)), [wanted]) == expected
    assert percentiles(table_of(values), [wanted]) == expected


@pytest.mark.parametrize("q", [0, 1, 50, 99.5, 100])
@pytest.mark.parametrize("value", [0.0, -7.0, 1e-42, -3e38])
def test_every_percentile_of_one_value_is_that_value(value: float, q: float) -> None:
    assert percentiles(chunks_of(np.array([value], np.float32)), [q]) == (float(np.float32(value)),)
    assert percentiles(chunks_of(np.full(9, value, np.float32)), [q]) == (float(np.float32(value)),)


def test_counts_weigh_values() -> None:
    chunk: Chunk = (np.array([[-1.0, 5.0]], np.float32), np.array([[99, 1]], np.int64))
    assert percentiles(lambda: [chunk], (0, 98, 100)) == (-1.0, -1.0, 5.0)


def test_values_that_differ_in_the_last_bit_are_distinguished() -> None:
    one = np.float32(1.0)
    values = np.array([np.nextafter(one, np.float32(2)), one, np.nextafter(one, np.float32(0))], np.float32)
    assert percentiles(chunks_of(values), (0, 50, 100)) == tuple(float(v) for v in np.sort(values))


def test_percentiles_are_given_in_the_order_asked_for() -> None:
    values = np.arange(101, dtype=np.float32)
    assert percentiles(chunks_of(values), (90, 10, 50, 10)) == (90.0, 10.0, 50.0, 10.0)


# Extremes


@given(any_float32, st.integers(1, 50))
def test_extremes_are_the_smallest_and_largest_value_and_empty_chunks_are_allowed(values: Values, cuts: int) -> None:
    expected = (float(values.min()), float(values.max()))
    assert extremes(chunks_of(*np.array_split(values, cuts))) == expected
    assert extremes(table_of(values)) == expected


# Steps


@pytest.mark.parametrize("step", STEPS)
@given(values=st.lists(st.integers(-1000, 1000), min_size=1, max_size=60).map(lambda v: np.array(v, np.float32)))
def test_each_step_does_what_plain_numpy_does(step: Step, values: Values) -> None:
    result = step.fit(chunks_of(values))(values)
    assert result.dtype == np.float32
    assert result.shape == values.shape
    np.testing.assert_allclose(result, naive(step, values), rtol=1e-5, atol=2e-5)


@given(arrays, steps)
def test_a_fit_on_a_table_of_distinct_values_equals_a_fit_on_the_voxels(values: Values, chosen: list[Step]) -> None:
    by_voxel, by_table = fit(chosen, chunks_of(values)), fit(chosen, table_of(values))
    np.testing.assert_array_equal(apply(by_voxel, values), apply(by_table, values))


@given(arrays, steps, st.randoms(use_true_random=False), st.integers(1, 5))
def test_the_order_and_cutting_of_voxels_never_change_a_bit(
    values: Values, chosen: list[Step], random: object, cuts: int
) -> None:
    order = list(range(values.size))
    random.shuffle(order)  # type: ignore[attr-defined]
    parts = np.array_split(values[order], cuts)
    assert fit(chosen, chunks_of(*parts)) == fit(chosen, chunks_of(values))


@pytest.mark.parametrize("nonzero", [False, True])
@given(arrays)
@settings(max_examples=40)
def test_zscore_is_the_same_to_the_last_bit_in_any_order(nonzero: bool, values: Values) -> None:
    step = ZScore("nonzero" if nonzero else "all")
    expected = step.fit(chunks_of(values))
    for seed in range(3):
        assert step.fit(chunks_of(np.random.default_rng(seed).permutation(values))) == expected


def test_zscore_holds_where_naive_sums_depend_on_the_order() -> None:
    values = np.array([1e15, 1.0, -1e15, 1.0, 3e-15], np.float32)
    orders = [values, values[::-1].copy(), values[[0, 2, 1, 4, 3]]]
    assert len({float(np.cumsum(v)[-1]) for v in orders}) > 1
    assert len({ZScore().fit(chunks_of(v)) for v in orders}) == 1


def test_zscore_keeps_its_precision_far_from_zero() -> None:
    values = (1_000_000 + np.arange(1000) % 7).astype(np.float32)
    z = ZScore().fit(chunks_of(values))(values)
    np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=1e-2)
    expected = (values - 1_000_000.0).std()
    fitted = ZScore().fit(chunks_of(values))
    assert isinstance(fitted, ShiftScale)
    assert 1 / fitted.scale == pytest.approx(expected, rel=1e-6)


def test_the_mean_counts_values_below_the_normal_range() -> None:
    fitted = ZScore().fit(chunks_of(np.array([2e-40, 4e-40, 6e-40], np.float32)))
    assert isinstance(fitted, ShiftScale)
    assert fitted.shift == pytest.approx(-4e-40, rel=1e-4, abs=0)


def test_zscore_of_a_constant_channel_is_zero() -> None:
    values = np.full(5, 0.1, np.float32)
    np.testing.assert_array_equal(ZScore().fit(chunks_of(values))(values), np.zeros(5, np.float32))


def test_zscore_nonzero_of_an_empty_channel_changes_nothing() -> None:
    values = np.zeros(5, np.float32)
    np.testing.assert_array_equal(ZScore("nonzero").fit(chunks_of(values))(values), values)


def test_zscore_nonzero_leaves_zeros_out_and_leaves_them_zero() -> None:
    values = np.array([0, 0, 2, 4, 0], np.float32)
    np.testing.assert_array_equal(ZScore("nonzero").fit(chunks_of(values))(values), [0, 0, -1, 1, 0])
    assert ZScore().fit(chunks_of(values))(values)[0] != 0


def test_zscore_within_the_crop_leaves_the_other_voxels_out_and_as_they_are() -> None:
    values, inside = np.array([0, 7, 2, 4, 9], np.float32), np.array([False, False, True, True, False])
    fitted = fit([ZScore("crop")], chunks_of(values), lambda: [inside])
    np.testing.assert_array_equal(apply(fitted, values, inside), [0, 7, -1, 1, 9])


def test_other_steps_around_a_zscore_within_the_crop_see_every_voxel() -> None:
    values, inside = np.array([0, 7, 2, 4, 9], np.float32), np.array([False, False, True, True, False])
    chosen: list[Step] = [ShiftScale(1, 2), ZScore("crop"), Rescale(0, 1)]  # 2, 16, 6, 10, 20, then 2, 16, -1, 1, 20
    parts = np.array([0, 7], np.float32), np.array([2, 4, 9], np.float32)
    fitted = fit(chosen, chunks_of(*parts), lambda: np.split(inside, [2]))
    np.testing.assert_allclose(apply(fitted, values, inside), np.array([3, 17, 0, 2, 21]) / 21, atol=1e-6)


@given(arrays, st.data())
def test_zscore_within_the_crop_is_zscore_of_what_is_in_it(values: Values, data: st.DataObject) -> None:
    inside = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    found = apply(fit([ZScore("crop")], chunks_of(values), lambda: [inside]), values, inside)
    expected = values.copy()
    if inside.any():
        expected[inside] = ZScore().fit(chunks_of(values[inside]))(values[inside])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("within", ["all", "nonzero", "crop"])
def test_a_given_mean_and_deviation_are_taken_without_a_pass(within: Literal["all", "nonzero", "crop"]) -> None:
    values, inside = np.array([0, 0, 7, 11], np.float32), np.array([False, True, True, True])
    fitted = fit([ZScore(within, mean=3, std=4)], lambda: pytest.fail("the values are read"), lambda: [inside])
    expected = {"all": [-0.75, -0.75, 1, 2], "nonzero": [0, 0, 1, 2], "crop": [0, -0.75, 1, 2]}[within]
    np.testing.assert_array_equal(apply(fitted, values, inside), expected)


def test_a_given_deviation_of_zero_does_not_divide_by_it() -> None:
    found = apply(fit([ZScore(mean=2, std=0)], chunks_of()), np.array([2, 3], np.float32))
    np.testing.assert_allclose(found, [0, 1e8])


@given(st.lists(st.integers(-(2**24), 2**24), min_size=1, max_size=30), st.tuples(st.floats(-9, 0), st.floats(1, 9)))
def test_rescale_never_leaves_its_range(numbers: list[int], limits: tuple[float, float]) -> None:
    values = np.array(numbers, np.float32)
    low, high = (np.float32(x) for x in limits)
    result = Rescale(*limits).fit(chunks_of(values))(values)
    assert result.min() >= low
    assert result.max() <= high


def test_rescale_maps_the_extremes_to_its_limits_and_a_constant_channel_to_the_lower() -> None:
    values = np.array([-5, 0, 15], np.float32)
    np.testing.assert_array_equal(Rescale(-1, 1).fit(chunks_of(values))(values), [-1, -0.5, 1])
    constant = np.full(4, 7, np.float32)
    np.testing.assert_array_equal(Rescale(-1, 1).fit(chunks_of(constant))(constant), np.full(4, -1))


def test_steps_are_fitted_in_order_each_on_what_the_ones_before_it_give() -> None:
    values = np.append(np.arange(100), 1e6).astype(np.float32)
    clipped_first = apply(fit([ClipPercentiles(0, 99), Rescale(0, 1)], chunks_of(values)), values)
    rescaled_first = apply(fit([Rescale(0, 1), ClipPercentiles(0, 99)], chunks_of(values)), values)
    assert clipped_first[50] == pytest.approx(50 / 99)
    assert rescaled_first[50] == pytest.approx(50e-6)


def test_no_steps_change_nothing() -> None:
    values = np.array([1, 2], np.float32)
    assert fit([], chunks_of(values)) == ()
    np.testing.assert_array_equal(apply((), values), values)


@given(arrays, steps)
def test_fitted_steps_are_pointwise(values: Values, chosen: list[Step]) -> None:
    fitted: Sequence[Pointwise] = fit(chosen, chunks_of(values))
    whole = apply(fitted, values)
    one_by_one = np.concatenate([apply(fitted, values[i : i + 1]) for i in range(values.size)])
    np.testing.assert_array_equal(whole, one_by_one)


@given(arrays, steps)
def test_fitted_steps_leave_their_input_as_it_was(values: Values, chosen: list[Step]) -> None:
    before = values.copy()
    apply(fit(chosen, chunks_of(values)), values)
    np.testing.assert_array_equal(values, before)
