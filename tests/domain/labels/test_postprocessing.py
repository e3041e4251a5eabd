"""Postprocessing changes a streamed label map as the definition changes the whole."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from voxport.domain.geometry.grid import Box, Grid, Reorientation
from voxport.domain.labels.label_map import Labels
from voxport.domain.labels.postprocessing import (
    Changed,
    FillHoles,
    KeepLargest,
    Postprocessing,
    RemoveSmall,
    postprocess,
)

_ALL_26_NEIGHBOURS = np.ones((3, 3, 3), bool)
STEPS: tuple[Postprocessing, ...] = (
    KeepLargest((1, 2)),
    KeepLargest((3,)),
    RemoveSmall((2, 1), 3.0, "mm"),
    RemoveSmall((3,), 1.0, "mm"),
    FillHoles((1, 3)),
    FillHoles((2,)),
)


@st.composite
def label_maps(draw: st.DrawFn) -> Labels:
    shape = draw(st.tuples(*[st.integers(1, 8)] * 3))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    share = draw(st.sampled_from([0.0, 0.1, 0.4, 0.8, 1.0]))
    labels = random.integers(1, 4, shape) * (random.random(shape) < share)
    return np.asarray(labels, np.uint8, order="F" if draw(st.booleans()) else "C")


def grid_of(labels: Labels, spacing: Sequence[float] = (1, 1, 1), unit: str = "mm") -> Grid:
    x, y, z = labels.shape
    return Grid((x, y, z), np.diag([*spacing, 1]), unit)


def run(
    labels: Labels, *steps: Postprocessing, axis: int = 0, thickness: int = 3, grid: Grid | None = None
) -> tuple[Labels, tuple[Changed, ...]]:
    """Postprocess a copy, slab by slab."""
    result, grid = labels.copy(), grid or grid_of(labels)
    edge = labels.shape[axis]
    cuts = [
        Box.whole(grid.shape).with_range(axis, start, min(start + thickness, edge))
        for start in range(0, edge, thickness)
    ]

    def write(box: Box, values: Labels) -> None:
        result[box.slices] = values

    found = postprocess(steps, grid, cuts, axis=axis, read=lambda box: result[box.slices].copy(), write=write)
    return result, found


def defined(labels: Labels, step: Postprocessing) -> Labels:
    """The step by its definition on the whole map, for voxels of 1 mm."""
    result = labels.copy()
    if isinstance(step, FillHoles):
        for value in step.labels:
            result[ndimage.binary_fill_holes(labels == value) & (result == 0)] = value
        return result
    together = isinstance(step, KeepLargest)
    for mask in [np.isin(labels, step.labels)] if together else [labels == value for value in step.labels]:
        components, _ = ndimage.label(mask, _ALL_26_NEIGHBOURS)
        sizes = np.bincount(components.ravel())
        sizes[0] = 0
        least = sizes.max() if isinstance(step, KeepLargest) else step.volume
        result[mask & (sizes < least)[components]] = 0
    return result


@given(label_maps(), st.sampled_from(STEPS), st.integers(0, 2), st.integers(1, 9))
def test_every_step_changes_the_map_by_its_definition_whatever_the_slabs(
    labels: Labels, step: Postprocessing, axis: int, thickness: int
) -> None:
    result, (changed,) = run(labels, step, axis=axis, thickness=thickness)
    np.testing.assert_array_equal(result, defined(labels, step))
    assert result.dtype == labels.dtype
    assert changed.voxels == (result != labels).sum()
    assert (changed.step, changed.labels) == (step.name, step.labels)


@given(label_maps(), st.lists(st.sampled_from(STEPS), max_size=4))
def test_steps_follow_one_another_in_the_cards_order(labels: Labels, steps: list[Postprocessing]) -> None:
    expected = labels
    for step in steps:
        expected = defined(expected, step)
    result, changed = run(labels, *steps)
    np.testing.assert_array_equal(result, expected)
    assert len(changed) == len(steps)


@given(label_maps(), st.sampled_from(STEPS), st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
def test_the_order_and_direction_of_the_axes_make_no_difference(
    labels: Labels, step: Postprocessing, axes: list[int], flips: tuple[bool, bool, bool]
) -> None:
    change = Reorientation((axes[0], axes[1], axes[2]), flips)
    turned, _ = run(np.ascontiguousarray(change.apply(labels)), step, axis=1)
    straight, _ = run(labels, step)
    np.testing.assert_array_equal(change.inverse().apply(turned), straight)


def test_the_largest_component_of_several_labels_together_stays_whole() -> None:
    labels = np.zeros((9, 3, 3), np.uint8)
    labels[0:2, 0, 0] = 1
    labels[2:4, 1, 1] = 2  # joined to the first by a corner
    labels[6:9, 0, 0] = 1
    labels[5, 2, 2] = 3
    result, changed = run(labels, KeepLargest((1, 2)))
    assert result[0:4].any(axis=(1, 2)).all()
    assert not result[6:].any()
    assert result[5, 2, 2] == 3
    assert changed == (Changed("keep_largest", (1, 2), components=1, voxels=3),)


def test_components_of_equal_size_are_all_kept() -> None:
    labels = np.zeros((7, 1, 1), np.uint8)
    labels[[0, 1, 3, 5, 6]] = 1
    assert run(labels, KeepLargest((1,)))[0].ravel().tolist() == [1, 1, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("spacing", "unit", "volume", "stated", "kept"),
    [
        ((0.5, 0.5, 2.0), "mm", 1.0, "mm", True),  # two voxels of half a cubic millimetre
        ((0.5, 0.5, 2.0), "mm", 1.01, "mm", False),
        ((500.0, 500.0, 2000.0), "um", 1.0, "mm", True),
        ((0.5, 0.5, 2.0), "mm", 1e9, "um", True),
        ((0.5, 0.5, 2.0), "mm", 1.01e9, "um", False),
        ((0.5, 0.5, 2.0), "unknown", 1.0, "mm", True),
    ],
)
def test_small_is_a_volume_in_the_cards_unit_and_that_volume_is_kept(
    spacing: tuple[float, ...], unit: str, volume: float, stated: str, kept: bool
) -> None:
    labels = np.zeros((5, 4, 3), np.uint8)
    labels[1, 1, 0:2] = 1
    step = RemoveSmall((1,), volume, "mm" if stated == "mm" else "um")
    assert run(labels, step, grid=grid_of(labels, spacing, unit))[0].any() == kept


def test_a_component_of_just_the_least_volume_is_kept_in_every_axis_order() -> None:
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[0, 0] = 1
    lengths = (0.1, 0.7, 1.3)
    for spacing in itertools.permutations(lengths):
        result, _ = run(labels, RemoveSmall((1,), 3 * 0.1 * 0.7 * 1.3, "mm"), grid=grid_of(labels, spacing))
        np.testing.assert_array_equal(result, labels)


def test_an_enclosed_label_keeps_its_voxels_and_the_background_around_it_is_filled() -> None:
    labels = np.ones((7, 7, 7), np.uint8)
    labels[0] = 0
    labels[2:5, 2:5, 2:5] = 0
    labels[3, 3, 3] = 2
    result, changed = run(labels, FillHoles((1, 2)))
    assert (result[1:] == 1).sum() == 6 * 49 - 1
    assert result[3, 3, 3] == 2
    assert not result[0].any()
    assert changed == (Changed("fill_holes", (1, 2), components=1, voxels=26),)


def test_nothing_to_change_writes_nothing() -> None:
    labels = np.ones((4, 4, 4), np.uint8)

    def refuse(box: Box, _: Labels) -> None:
        raise AssertionError(box)

    whole = [Box.whole((4, 4, 4))]
    found = postprocess(STEPS[:1], grid_of(labels), whole, axis=0, read=lambda _: labels.copy(), write=refuse)
    assert found == (Changed("keep_largest", (1, 2), 0, 0),)


def test_memory_is_that_of_slabs_and_not_of_the_map() -> None:
    """The map is made from its planes' numbers, so that none of it is held."""
    edge, planes = 96, 128
    grid = Grid((planes, edge, edge), np.eye(4), "mm")
    index = np.arange(edge, dtype=np.int32)

    def read(box: Box) -> Labels:
        x = np.arange(box.start[0], box.stop[0], dtype=np.int32)[:, None, None]
        inside = (x - 64) ** 2 + (index[:, None] - 48) ** 2 + (index - 48) ** 2
        labels = ((inside < 40**2) & ~((inside > 20**2) & (inside < 25**2))).astype(np.uint8)
        labels[x[:, 0, 0] % 8 == 0, 0, ::8] = 1  # specks
        return labels

    changed = {"voxels": 0}

    def write(box: Box, labels: Labels) -> None:
        changed["voxels"] += int((labels != read(box)).sum())

    slabs = [Box.whole(grid.shape).with_range(0, start, start + 2) for start in range(0, planes, 2)]
    tracemalloc.start()
    found = postprocess(
        (KeepLargest((1,)), RemoveSmall((1,), 2.0, "mm"), FillHoles((1,))), grid, slabs, axis=0, read=read, write=write
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [c.components for c in found] == [16 * 12 + 1, 16 * 12, 1]
    assert changed["voxels"] == sum(c.voxels for c in found)
    assert peak < planes * edge * edge / 2
