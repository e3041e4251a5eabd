"""Resampling of streamed planes is the interpolation of the whole array."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from voxport.domain.geometry.grid import Box, Grid, Shape3, shape3
from voxport.domain.geometry.interpolation import AxisSampling, Order, positions
from voxport.domain.geometry.resampling import Resampling
from voxport.testing.strategies import grids

Floats = NDArray[np.float32]
ratios = st.tuples(*[st.sampled_from([0.3, 0.5, 1.0, 1.0, 1.7, 2.0, 4.0])] * 3)


def resampling_of(shape: Shape3, ratio: tuple[float, float, float], **rule: Any) -> Resampling:
    target = [max(1, round(n / r)) for n, r in zip(shape, ratio, strict=True)]
    return Resampling(shape, (target[0], target[1], target[2]), ratio, **rule)


def streamed(resampling: Resampling, volume: Floats, axis: int) -> Floats:
    """The resampled ``(C, x, y, z)``, streamed along an axis and clipped to its limits."""
    source = np.moveaxis(volume, 1 + axis, 0)
    limits = resampling.limits(iter(source), axis) if resampling.clips else None
    return np.stack(list(resampling.planes(iter(source), axis, limits=limits)), axis=1 + axis)


def whole(resampling: Resampling, volume: Floats) -> NDArray[np.float64]:
    """The same by one call of scipy on each whole channel, in float64."""
    centres = [(np.array(shape) - 1) / 2 for shape in (resampling.source, resampling.target)]
    channels = [
        ndimage.affine_transform(
            channel.astype(np.float64),
            np.diag(resampling.ratio),
            offset=centres[0] - np.array(resampling.ratio) * centres[1],
            output_shape=resampling.target,
            order=1,
            mode="nearest",
        )
        for channel in volume
    ]
    return np.stack(channels)


def volume_of(shape: Shape3, seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((2, *shape), np.float32)


@st.composite
def boxes(draw: st.DrawFn, shape: Shape3) -> Box:
    ends = [sorted(draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape]
    return Box(*(shape3(corner) for corner in zip(*ends, strict=True)))


@given(st.data())
def test_a_box_is_resampled_from_the_voxels_that_it_needs(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 40)] * 3), "shape")
    rule = {
        "order": data.draw(st.sampled_from([0, 1, 3]), "order"),
        "align": data.draw(st.sampled_from(["centre", "extent", "first"]), "align"),
        "separate": data.draw(st.sampled_from([None, 0, 1, 2]), "separate"),
    }
    resampling = resampling_of(shape, data.draw(ratios, "ratio"), **rule)
    box, axis = data.draw(boxes(resampling.target), "box"), data.draw(st.integers(0, 2), "axis")
    volume = volume_of(shape, 7)
    source = resampling.source_box(box)
    planes = np.moveaxis(volume[:, *source.slices], 1 + axis, 0)
    limits = resampling.limits(iter(np.moveaxis(volume, 1 + axis, 0)), axis) if resampling.clips else None
    found = np.stack(list(resampling.planes(iter(planes), axis, limits=limits, within=box)), axis=1 + axis)
    np.testing.assert_array_equal(found, streamed(resampling, volume, axis)[:, *box.slices])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Resampling, Floats]:
    shape = draw(st.tuples(*[st.integers(1, 7)] * 3))
    return resampling_of(shape, draw(ratios)), volume_of(shape, draw(st.integers(0, 99)))


@st.composite
def rules(draw: st.DrawFn) -> tuple[Resampling, Floats]:
    """Any order, alignment and separate axis."""
    align = draw(st.sampled_from(["centre", "extent", "first"]))
    rule = {"order": draw(st.sampled_from([0, 1, 3])), "separate": draw(st.sampled_from([None, 0, 1, 2]))}
    shape = draw(st.tuples(*[st.integers(1, 7)] * 3))
    resampling = resampling_of(shape, draw(ratios), align=align, **rule)
    if align == "extent":
        target = draw(st.tuples(*[st.integers(1, 9)] * 3))
        ratio = [s / t for s, t in zip(shape, target, strict=True)]
        resampling = replace(resampling, target=target, ratio=(ratio[0], ratio[1], ratio[2]))
    return resampling, volume_of(shape, draw(st.integers(0, 99)))


@given(cases(), st.integers(0, 2))
def test_streamed_planes_equal_scipy_on_the_whole_array(case: tuple[Resampling, Floats], axis: int) -> None:
    resampling, volume = case
    result = streamed(resampling, volume, axis)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, whole(resampling, volume), rtol=0, atol=1e-5)


@given(rules())
def test_the_streaming_axis_does_not_change_a_bit(case: tuple[Resampling, Floats]) -> None:
    resampling, volume = case
    along = [streamed(resampling, volume, axis) for axis in range(3)]
    np.testing.assert_array_equal(along[1], along[0])
    np.testing.assert_array_equal(along[2], along[0])


@given(rules(), st.integers(0, 2), st.data())
def test_resampling_from_a_plane_on_gives_the_tail_of_the_whole_to_the_last_bit(
    case: tuple[Resampling, Floats], axis: int, data: st.DataObject
) -> None:
    resampling, volume = case
    begin = data.draw(st.integers(0, resampling.target[axis] - 1))
    first = data.draw(st.integers(0, resampling.first_source(axis, begin)))
    source = np.moveaxis(volume, 1 + axis, 0)
    limits = resampling.limits(iter(source), axis) if resampling.clips else None
    tail = list(resampling.planes(iter(source[first:]), axis, begin=begin, first=first, limits=limits))
    whole_planes = np.moveaxis(streamed(resampling, volume, axis), 1 + axis, 0)
    np.testing.assert_array_equal(np.stack(tail), whole_planes[begin:])


def mirrors(resampling: Resampling, axis: int) -> bool:
    """Whether an axis may mirror: the centres coincide, and no nearest voxel is one of two."""
    if resampling.align == "first" and not resampling.keeps(axis):
        return False
    if resampling.order != 0 and axis != resampling.separate:
        return True
    at = positions(resampling.source[axis], resampling.target[axis], resampling.ratio[axis], "centre")
    return bool((np.abs(at % 1 - 0.5) > 1e-6).all())


@given(rules(), st.integers(0, 2), st.integers(0, 2))
def test_flipping_before_or_after_is_the_same_to_the_last_bit(
    case: tuple[Resampling, Floats], axis: int, flipped: int
) -> None:
    resampling, volume = case
    assume(mirrors(resampling, flipped))
    before = streamed(resampling, np.flip(volume, 1 + flipped), axis)
    after = np.flip(streamed(resampling, volume, axis), 1 + flipped)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("order", [1, 3])
@given(cases(), st.integers(0, 2))
def test_constants_stay_constant(order: Order, case: tuple[Resampling, Floats], axis: int) -> None:
    resampling, volume = case
    result = streamed(replace(resampling, order=order), np.full_like(volume, 0.7), axis)
    np.testing.assert_allclose(result, 0.7, rtol=3e-7 * order)


@given(grids(max_edge=9), ratios, st.integers(0, 2))
def test_a_linear_ramp_in_the_world_is_reproduced_where_the_source_has_voxels(
    grid: Grid, ratio: tuple[float, float, float], axis: int
) -> None:
    resampling = resampling_of(grid.shape, ratio)
    first = [(n - 1) / 2 - r * (t - 1) / 2 for n, r, t in zip(grid.shape, ratio, resampling.target, strict=True)]
    new = grid.resampled(resampling.target, ratio, first)
    towards = np.array([0.2, -0.7, 1.1])
    ramps = [
        (g.world(np.moveaxis(np.indices(g.shape).astype(np.float64), 0, -1)) - grid.affine[:3, 3]) @ towards
        for g in (grid, new)
    ]
    result = streamed(resampling, ramps[0].astype(np.float32)[np.newaxis], axis)
    inside = np.ones(new.shape, bool)
    for a in range(3):
        at = (grid.shape[a] - 1) / 2 + ratio[a] * (np.arange(new.shape[a]) - (new.shape[a] - 1) / 2)
        kept = (at >= -1e-9) & (at <= grid.shape[a] - 1 + 1e-9)
        inside &= np.expand_dims(kept, tuple(b for b in range(3) if b != a))
    scale = max(1.0, float(np.abs(ramps[0]).max()))
    np.testing.assert_allclose(result[0][inside], ramps[1][inside], rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("axis", range(3))
def test_the_identity_hands_the_very_planes_on(axis: int) -> None:
    volume = np.random.default_rng(0).standard_normal((1, 3, 4, 5), np.float32)
    planes = list(np.moveaxis(volume, 1 + axis, 0))
    result = list(Resampling((3, 4, 5), (3, 4, 5), (1.0, 1.0, 1.0)).planes(planes, axis))
    assert all(a is b for a, b in zip(result, planes, strict=True))


def test_known_values() -> None:
    line = np.array([0, 10, 20, 30], np.float32).reshape(1, 1, 1, 4)
    finer = streamed(Resampling((1, 1, 4), (1, 1, 8), (1.0, 1.0, 0.5)), line, 2)
    np.testing.assert_allclose(finer[0, 0, 0], [0, 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 30])
    coarser = streamed(Resampling((1, 1, 4), (1, 1, 2), (1.0, 1.0, 2.0)), line, 2)
    np.testing.assert_allclose(coarser[0, 0, 0], [5, 25])


@given(rules(), st.integers(0, 2))
def test_the_inverse_restores_the_shape(case: tuple[Resampling, Floats], axis: int) -> None:
    resampling, volume = case
    back = resampling.inverse()
    assert (back.source, back.target) == (resampling.target, resampling.source)
    np.testing.assert_allclose(np.multiply(back.ratio, resampling.ratio), 1)
    assert streamed(back, streamed(resampling, volume, axis), axis).shape == volume.shape


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.3, 3.0])
def test_no_more_than_one_plane_is_read_ahead(ratio: float) -> None:
    read: list[int] = []
    volume = np.zeros((1, 12, 2, 2), np.float32)

    def source() -> Iterator[Floats]:
        for index in range(12):
            read.append(index)
            yield volume[:, index]

    resampling = resampling_of((12, 2, 2), (ratio, 1.0, 0.5))
    sampling = AxisSampling.at(positions(12, resampling.target[0], ratio, "centre"), 12)
    for below, _ in zip(sampling.below, resampling.planes(source(), 0), strict=False):
        assert len(read) <= below + 2
    assert len(read) <= 12


def test_a_target_that_ends_early_still_reads_the_source_to_its_end() -> None:
    source = iter(np.zeros((20, 1, 2, 2), np.float32))
    resampling = Resampling((20, 2, 2), (2, 2, 2), (10.0, 1.0, 1.0))
    assert len(list(resampling.planes(source, 0))) == 2
    assert next(source, None) is None


def test_yielded_planes_do_not_share_memory() -> None:
    single = np.zeros((1, 1, 2, 2), np.float32)
    planes = list(Resampling((1, 2, 2), (3, 2, 2), (1 / 3, 1.0, 1.0)).planes(single, 0))
    planes[0][...] = 1
    assert not planes[1].any()


@given(st.integers(1, 50), st.integers(1, 50), st.floats(0.1, 10))
def test_samples_are_centred_and_lie_within_the_source(source: int, target: int, ratio: float) -> None:
    sampling = AxisSampling.at(positions(source, target, ratio, "centre"), source)
    at = sampling.below + sampling.fraction.astype(np.float64)
    assert len(at) == target
    assert at.min() >= 0
    assert at.max() <= source - 1
    assert (np.diff(at) >= 0).all()
    np.testing.assert_array_equal(at + at[::-1], source - 1)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(
    ("source", "target"),
    [((60, 70, 80), (120, 130, 150)), ((120, 130, 150), (60, 70, 80)), ((60, 130, 80), (60, 70, 150))],
)
def test_it_takes_no_more_memory_than_it_states(order: Order, axis: int, source: Shape3, target: Shape3) -> None:
    import tracemalloc

    x, y, z = (s / t for s, t in zip(source, target, strict=True))
    resampling = Resampling(source, target, (x, y, z), order, align="extent")
    edges = [edge for number, edge in enumerate(source) if number != axis]
    planes = (np.zeros((2, *edges), np.float32) for _ in range(source[axis]))
    tracemalloc.start()
    try:
        for _ in resampling.planes(planes, axis):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= resampling.held_bytes(axis, 2) + 2**16
    assert resampling.held_bytes(axis, 2) < 10 * peak
