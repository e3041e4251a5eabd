"""The places, pieces and slices to look at are the most uncertain ones, wherever and however a volume is stored."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from voxport.domain.geometry.grid import Box, Grid, Shape3, shape3
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.labels.ranking import Uncertainty, UncertaintyRanking
from voxport.domain.labels.statistics import StatisticsAccumulator
from voxport.testing.strategies import grids

TABLE = LabelTable((Label(3, "vessel"), Label(1, "soma")))
Bytes = NDArray[np.uint8]


def ranked(
    entropy: Bytes, labels: Bytes, grid: Grid, axis: int = 2, thick: int = 3
) -> tuple[UncertaintyRanking, Uncertainty]:
    """The lists of a volume that is read in slabs."""
    ranking = UncertaintyRanking(grid)
    statistics = StatisticsAccumulator(grid, TABLE, 0, axis, with_pieces=True)
    for start in range(0, grid.shape[axis], thick):
        box = Box.whole(grid.shape).with_range(axis, start, min(start + thick, grid.shape[axis]))
        ranking.add(box, levels_of(entropy)[:, *box.slices])
        statistics.add(box, labels[box.slices], [], levels_of(entropy)[:, *box.slices])
    found = ranking.result(
        statistics.pieces(), TABLE, lambda box: (levels_of(entropy)[:, *box.slices], labels[box.slices])
    )
    return ranking, found


def levels_of(entropy: Bytes) -> Bytes:
    """Levels whose margin is what the entropy lacks, and whose disagreement is half of it."""
    return np.stack([entropy, 100 - entropy, entropy // 2])


def plain_grid(shape: Shape3, spacing: tuple[float, float, float] = (1, 1, 4)) -> Grid:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (10, -20, 30)
    return Grid(shape, affine, "um")


def scene(shape: Shape3, seed: int, density: float = 0.1) -> tuple[Bytes, Bytes]:
    random = np.random.default_rng(seed)
    labels = random.choice([0, 1, 3], shape, p=[1 - density, density / 2, density / 2]).astype(np.uint8)
    return random.integers(0, 101, shape, dtype=np.uint8), labels


@given(grids(max_edge=40), st.integers(0, 2), st.integers(1, 20), st.integers(0, 9))
@settings(max_examples=40)
def test_places_cover_the_volume_once_by_falling_mean_whatever_the_slabs(
    grid: Grid, axis: int, thick: int, seed: int
) -> None:
    entropy, labels = scene(grid.shape, seed)
    ranking, found = ranked(entropy, labels, grid, axis, thick)
    seen, means = np.zeros(grid.shape, int), []
    for box, mean in ranking.places():
        seen[box.slices] += 1
        means.append(mean)
        assert mean == pytest.approx(entropy[box.slices].mean() / 100)
    assert seen.min() == seen.max() == 1
    assert all(one >= other for one, other in pairwise(means))
    assert found.entropy == pytest.approx(entropy.mean() / 100)
    assert found.disagreement == pytest.approx((entropy // 2).mean() / 100)
    assert found.margin == pytest.approx(1 - found.entropy)
    for spot in (*found.places, *found.pieces, *found.slices):
        assert spot.margin == pytest.approx(1 - spot.entropy)
        assert -1e-9 <= spot.entropy / 2 - spot.disagreement < 0.0051
    assert found == ranked(entropy, labels, grid, (axis + 1) % 3, 7)[1]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIR", "IRP", "ALI"])
def test_the_lists_do_not_depend_on_how_the_volume_is_stored(codes: str) -> None:
    grid = plain_grid((37, 35, 11))
    entropy, labels = scene(grid.shape, 4, density=0.02)
    turn = grid.reorientation_to(codes)
    first, second = (
        ranked(entropy, labels, grid)[1],
        ranked(turn.apply(entropy), turn.apply(labels), turn.apply_grid(grid))[1],
    )
    for kind in ("places", "pieces", "slices"):
        one, other = (getattr(found, kind) for found in (first, second))
        assert len(one) > 4
        assert [(s.reason, s.label, s.voxels, s.entropy, s.why) for s in one] == [
            (s.reason, s.label, s.voxels, s.entropy, s.why) for s in other
        ]
        np.testing.assert_allclose([s.world for s in one], [s.world for s in other], rtol=0, atol=1e-9)
    assert first.slice_axis == "z"
    assert second.slice_axis == "xyz"[[letter in "SI" for letter in codes].index(True)]


def test_a_planted_doubt_is_found_with_its_place_in_the_world() -> None:
    grid = plain_grid((40, 40, 12))
    entropy, labels = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    entropy[17:20, 33:36, 6] = 60
    entropy[18, 34, 6] = 100
    entropy[2:4, 2, 1] = 70
    labels[2:9, 2, 1] = 3
    found = ranked(entropy, labels, grid)[1]
    first, second = found.places
    assert (first.reason, first.label, first.voxel, first.slice) == ("missed", "", (18, 34, 6), 6)
    assert first.world == (28.0, 14.0, 54.0)
    assert first.why == "9 of 512 voxels are uncertain, none has a label"  # 16 x 8 x 4, at the volume's end
    assert (second.reason, second.label, second.voxel, second.slice) == ("border", "vessel", (2, 2, 1), 1)
    assert second.why == "2 of 1024 voxels are uncertain, 7 are vessel"
    assert [spot.slice for spot in found.slices] == [6, 1]
    assert found.pieces == ()


def test_pieces_are_those_of_scipy_that_are_uncertain_on_the_whole() -> None:
    grid = plain_grid((30, 20, 9))
    entropy, labels = scene(grid.shape, 3, density=0.12)
    entropy[labels == 1] //= 4
    expected: list[tuple[Any, ...]] = []
    for label in TABLE.labels:
        numbered, count = ndimage.label(labels == label.value, np.ones((3, 3, 3)))
        for piece in range(1, count + 1):
            at = np.argwhere(numbered == piece)
            mean = entropy[tuple(at.T)].mean()
            if mean >= 50:
                world = tuple(grid.world(at.mean(axis=0)).round(6).tolist())
                expected.append((-len(at), -round(mean / 100, 9), world, label.name))
    found = ranked(entropy, labels, grid)[1].pieces
    told = [(-s.voxels, -round(s.entropy, 9), tuple(np.round(s.world, 6).tolist()), s.label) for s in found]
    assert told == sorted(expected)[:20]
    assert len(found) == 20
    assert {s.label for s in found} == {"vessel"}
    assert found[0].why == f"a piece of vessel of {found[0].voxels} voxels, uncertain on the whole"


def test_listed_places_do_not_touch_and_are_at_most_twenty() -> None:
    grid = plain_grid((200, 180, 40))
    entropy, labels = scene(grid.shape, 1)
    found = ranked(entropy, labels, grid, thick=16)[1]
    assert len(found.places) == len(found.slices) == 20
    corners = np.array([spot.voxel for spot in found.places]) // (16, 16, 4)
    apart = np.abs(corners[:, None] - corners[None]).max(axis=-1)
    assert apart[~np.eye(20, dtype=bool)].min() >= 2


def test_a_certain_volume_has_nothing_to_look_at() -> None:
    grid = plain_grid((20, 20, 20))
    empty = np.zeros(grid.shape, np.uint8)
    found = ranked(empty, np.full(grid.shape, 3, np.uint8), grid)[1]
    assert (found.places, found.pieces, found.slices, found.entropy) == ((), (), (), 0)


@pytest.mark.parametrize(
    ("shape", "spacing", "edges"),
    [
        ((64, 64, 64), (0.5, 0.5, 2.0), (16, 16, 4)),
        ((64, 64, 64), (3.0, 1.0, 40.0), (5, 16, 1)),
        ((5, 5, 5), (1.0, 1.0, 1.0), (5, 5, 5)),
        ((4096, 4096, 1024), (1.0, 1.0, 1.0), (32, 32, 32)),
    ],
)
def test_a_place_has_the_same_length_along_each_axis_and_places_are_bounded(
    shape: Shape3, spacing: tuple[float, float, float], edges: Shape3
) -> None:
    first = next(iter(UncertaintyRanking(Grid(shape, np.diag([*spacing, 1.0]))).places()))[0]
    assert first == Box((0, 0, 0), shape3(edges))
