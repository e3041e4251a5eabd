"""Statistics collected slab by slab are those of the whole volume."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from voxport.domain.geometry.grid import Box, Grid, Shape3
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.labels.statistics import ChannelStatistics, LabelStatistics, StatisticsAccumulator
from voxport.testing.strategies import grids

TABLE = LabelTable((Label(3, "vessel"), Label(1, "soma"), Label(7, "absent")))


def measured(
    labels: NDArray[np.uint8], image: NDArray[Any], grid: Grid, axis: int, thickness: int = 1
) -> tuple[LabelStatistics, ...]:
    """Streamed along ``axis`` in slabs of ``thickness``; image is ``(C, x, y, z)``."""
    accumulator = StatisticsAccumulator(grid, TABLE, len(image), axis)
    for start in range(0, grid.shape[axis], thickness):
        box = Box.whole(grid.shape).with_range(axis, start, min(start + thickness, grid.shape[axis]))
        accumulator.add(box, labels[box.slices], [channel[box.slices] for channel in image])
    return accumulator.result()


def assert_reference(found: LabelStatistics, labels: NDArray[np.uint8], image: NDArray[Any], grid: Grid) -> None:
    """Against numpy and scipy on the whole volume."""
    inside = labels == found.value
    at = np.argwhere(inside)
    assert found.voxels == len(at)
    assert found.volume == pytest.approx(len(at) * abs(np.linalg.det(grid.affine[:3, :3])))
    assert found.components == ndimage.label(inside, np.ones((3, 3, 3)))[1]
    if not len(at):
        assert (found.bounding_box, found.centroid_voxel, found.centroid_world) == (None, None, None)
        assert not found.touches_border
        assert set(found.channels) == {ChannelStatistics(None, None, None, None)}
        return
    assert found.bounding_box is not None
    assert found.bounding_box.start == tuple(at.min(axis=0))
    assert found.bounding_box.stop == tuple(at.max(axis=0) + 1)
    np.testing.assert_allclose(np.array(found.centroid_voxel), at.mean(axis=0))
    np.testing.assert_allclose(np.array(found.centroid_world), (grid.affine @ [*at.mean(axis=0), 1])[:3], atol=1e-9)
    assert found.touches_border == bool(((at == 0) | (at == np.array(grid.shape) - 1)).any())
    for channel, values in zip(found.channels, image, strict=True):
        chosen = values[inside].astype(np.float64)
        found_numbers = (channel.mean, channel.std, channel.min, channel.max)
        expected = (chosen.mean(), chosen.std(), chosen.min(), chosen.max())
        np.testing.assert_allclose(np.array(found_numbers, np.float64), expected, rtol=1e-9, atol=1e-9)


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[Any], Grid]:
    grid = draw(grids(max_edge=9, sheared=True))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.03, 0.15, 0.5]))
    labels = random.choice([0, 1, 3], grid.shape, p=[1 - density, density / 2, density / 2]).astype(np.uint8)
    image = random.integers(-1000, 1000, (2, *grid.shape)).astype(draw(st.sampled_from(["int16", "float32"])))
    return labels, image, grid


@given(cases(), st.integers(0, 2), st.integers(1, 4))
def test_streamed_statistics_equal_those_of_the_whole_volume(
    case: tuple[NDArray[np.uint8], NDArray[Any], Grid], axis: int, thickness: int
) -> None:
    labels, image, grid = case
    result = measured(labels, image, grid, axis, thickness)
    assert [(r.value, r.name) for r in result] == [(3, "vessel"), (1, "soma"), (7, "absent")]
    for found in result:
        assert_reference(found, labels, image, grid)


@given(cases())
@settings(max_examples=40)
def test_axis_and_thickness_do_not_change_statistics(
    case: tuple[NDArray[np.uint8], NDArray[Any], Grid],
) -> None:
    labels, image, grid = case
    exact = [
        [replace(r, channels=()) for r in measured(labels, image, grid, axis, thickness)]
        for axis in range(3)
        for thickness in (1, 3, 100)
    ]
    assert all(result == exact[0] for result in exact[1:])


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(
    ("voxels", "components"),
    [
        ([(2, 2, 2), (3, 3, 3)], 1),  # a corner
        ([(2, 2, 2), (1, 3, 1)], 1),
        ([(2, 2, 2), (2, 3, 3)], 1),  # an edge
        ([(2, 2, 2), (2, 2, 4)], 2),
        ([(2, 2, 2), (4, 2, 2)], 2),
        ([(2, 2, 2), (2, 4, 2)], 2),
        ([], 0),
    ],
)
def test_pieces_are_connected_through_faces_edges_and_corners(voxels: list[Shape3], components: int, axis: int) -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    for voxel in voxels:
        labels[voxel] = 3
    result = measured(labels, np.zeros((1, 6, 6, 6)), Grid((6, 6, 6), np.eye(4)), axis)
    assert result[0].components == components


@pytest.mark.parametrize("axis", range(3))
def test_arms_that_join_only_in_the_last_plane_are_one_component(axis: int) -> None:
    labels = np.zeros((7, 7, 7), np.uint8)
    combs = np.moveaxis(labels, axis, 0)
    combs[:, 0, ::2] = 3
    combs[-1, 0, :] = 3
    result = measured(labels, np.zeros((1, 7, 7, 7)), Grid((7, 7, 7), np.eye(4)), axis)
    assert result[0].components == 1


def test_labels_that_touch_each_other_are_counted_apart() -> None:
    labels = np.array([[[1, 3, 1]]], np.uint8)
    vessel, soma, _ = measured(labels, np.zeros((1, 1, 1, 3)), Grid((1, 1, 3), np.eye(4)), 2)
    assert (vessel.components, soma.components) == (1, 2)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [0, 4])
@pytest.mark.parametrize("along", range(3))
def test_a_label_touches_the_border_at_each_of_the_six_faces(along: int, side: int, axis: int) -> None:
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[1:4, 1:4, 1:4] = 1
    at = [2, 2, 2]
    at[along] = side
    labels[tuple(at)] = 3
    vessel, soma, _ = measured(labels, np.zeros((1, 5, 5, 5)), Grid((5, 5, 5), np.eye(4)), axis)
    assert vessel.touches_border
    assert not soma.touches_border


@pytest.mark.requirement("R-UNITS")
def test_volume_is_in_the_grids_unit_cubed_and_the_centroid_in_the_world() -> None:
    grid = Grid((4, 4, 4), np.array([[0, 0.5, 0, 10], [-2, 0, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1.0]]), "um")
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 2, 0:3] = 3
    (vessel, _, _) = measured(labels, np.zeros((1, 4, 4, 4)), grid, 2)
    assert vessel.volume == pytest.approx(9.0)
    assert vessel.centroid_voxel == (1.0, 2.0, 1.0)
    assert vessel.centroid_world == (11.0, 18.0, 33.0)
    assert vessel.bounding_box == Box((1, 2, 0), (2, 3, 3))


def test_deviations_survive_a_large_offset() -> None:
    values = (1e9 + np.arange(60) % 5).reshape(1, 3, 4, 5)
    labels = np.full((3, 4, 5), 3, np.uint8)
    vessel, _, _ = measured(labels, values, Grid((3, 4, 5), np.eye(4)), 0)
    assert vessel.channels[0].std == pytest.approx(np.sqrt(2), rel=1e-9)


def test_without_an_image_there_are_no_channel_statistics() -> None:
    labels = np.full((2, 2, 2), 3, np.uint8)
    vessel, _, _ = measured(labels, np.zeros((0, 2, 2, 2)), Grid((2, 2, 2), np.eye(4)), 1)
    assert vessel.channels == ()
    assert vessel.voxels == 8


def test_a_mask_of_noise_is_counted_in_the_memory_of_a_slab() -> None:
    """Thousands of small components end within a few planes; only those that reach the last plane are kept."""
    grid = Grid((64, 64, 96), np.eye(4))
    noise = (np.random.default_rng(0).random(grid.shape) < 0.05).astype(np.uint8)
    found = StatisticsAccumulator(grid, LabelTable((Label(1, "noise"),)), 0, 2)
    tracemalloc.start()
    peaks = []
    for z in range(0, 96, 4):
        box = Box.whole(grid.shape).with_range(2, z, z + 4)
        tracemalloc.reset_peak()
        found.add(box, noise[..., z : z + 4], [])
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert found.result()[0].components == ndimage.label(noise, structure=np.ones((3, 3, 3)))[1]
    assert max(peaks[12:]) < 1.2 * max(peaks[:12])
