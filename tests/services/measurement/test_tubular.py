"""Tubes, tori and trees of known size, at even and anisotropic spacing, in any direction."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.skeletons.skimage import SkimageSkeletoniser
from voxport.adapters.tracers.skan import SkanTracer
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.errors import InputError, LimitError, OutputError
from voxport.domain.geometry.grid import Grid
from voxport.domain.tubes.measures import TubeMeasures
from voxport.domain.volume import Volume
from voxport.services.measurement import tubular
from voxport.services.measurement.tubular import TubePorts, TubeReport, measure_tubes, write_tubes
from voxport.testing.progress import RecordingProgress

from tests.services.conftest import make_grid

from .shapes import chain, places, rod, torus

MICROSCOPE = (0.5, 0.5, 2.0)
EVEN = (0.5, 0.5, 0.5)


def measured(
    mask: ArrayLike,
    spacing: Sequence[float] = MICROSCOPE,
    names: Sequence[tuple[int, str]] = (),
    grid: Grid | None = None,
) -> TubeReport:
    array = np.asarray(mask).astype(np.uint8)
    store = MemoryStore()
    x, y, z = array.shape
    store.put("mask", Volume(array, grid or make_grid((x, y, z), spacing, unit="um")))
    ports = TubePorts(store, LocalFiles(), SkimageSkeletoniser(), SkanTracer())
    return measure_tubes("mask", RecordingProgress(), ports=ports, names=names)


def only(report: TubeReport) -> TubeMeasures:
    (found,) = report.measures
    return found


def cube(edge: float, spacing: Sequence[float]) -> tuple[int, int, int]:
    x, y, z = (round(edge / step) for step in spacing)
    return x, y, z


DIRECTIONS = [
    *((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1), (-1, 1, 1)),
    *((10, 0, 1), (20, 3, 1), (5, 0, 1), (1, 0, 5), (3, 2, 1), (-2, 5, 3)),
]


@pytest.mark.requirement("R-TUBES")
@pytest.mark.parametrize(
    ("spacing", "direction"),
    [(MICROSCOPE, d) for d in DIRECTIONS]
    + [(EVEN, d) for d in DIRECTIONS[::5]]
    + [((2, 0.5, 0.5), d) for d in DIRECTIONS[1::5]],
)
def test_a_tube_of_3_um_has_its_length_within_2_and_its_radius_within_5_percent(
    direction: tuple[int, int, int], spacing: Sequence[float]
) -> None:
    unit = np.array(direction) / np.linalg.norm(direction)
    middle = np.array([24.1, 23.8, 24.3])
    at = places(cube(48, spacing), spacing)
    mask = rod(at, middle - 20 * unit, middle + 20 * unit, 3.0, round_ends=False)
    found = only(measured(mask, spacing))
    assert (found.segments, found.branch_points, found.ends, found.loops, found.components) == (1, 0, 2, 0, 1)
    # a mask does not say where between two voxels a flat end is
    assert found.length == pytest.approx(40, abs=max(0.02 * 40, float(np.abs(unit) @ np.array(spacing))))
    assert found.mean_radius == pytest.approx(3, rel=0.05)
    assert found.mean_tortuosity == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("axis", [(0, 0, 1), (1, 1, 1), (1, 0, 0)])
@pytest.mark.parametrize("spacing", [MICROSCOPE, EVEN])
def test_a_torus_is_one_loop_without_ends(axis: tuple[int, int, int], spacing: Sequence[float]) -> None:
    mask = torus(places(cube(40, spacing), spacing), (20.2, 19.9, 20.0), axis, 14.0, 3.0)
    found = only(measured(mask, spacing))
    assert (found.segments, found.branch_points, found.ends, found.loops, found.components) == (1, 0, 0, 1, 1)
    assert found.length == pytest.approx(2 * np.pi * 14, rel=0.02)
    assert found.mean_radius == pytest.approx(3, rel=0.05)
    assert found.mean_tortuosity is None


@pytest.mark.parametrize("spacing", [MICROSCOPE, EVEN])
def test_a_helix_has_its_length_and_tortuosity(spacing: Sequence[float]) -> None:
    turn = np.linspace(0, 2 * np.pi, 60)
    line = np.stack([20 + 12 * np.cos(turn), 20 + 12 * np.sin(turn), 8 + 24 * turn / (2 * np.pi)], axis=1)
    found = only(measured(chain(places(cube(40, spacing), spacing), line, 2.5), spacing))
    true = float(np.hypot(2 * np.pi * 12, 24))
    assert found.length == pytest.approx(true + 2 * 2.5, rel=0.02)  # to the tips of the round ends
    assert (found.segments, found.ends) == (1, 2)
    assert found.mean_tortuosity is not None
    assert found.mean_tortuosity > 2.5


TREE = [
    ((6.0, 30.0, 30.0), (25.0, 30.0, 30.0), 3.0),
    ((25.0, 30.0, 30.0), (42.0, 46.0, 36.0), 2.2),
    ((25.0, 30.0, 30.0), (46.0, 14.0, 24.0), 2.2),
    ((42.0, 46.0, 36.0), (54.0, 54.0, 36.0), 1.8),
    ((42.0, 46.0, 36.0), (52.0, 44.0, 50.0), 1.8),
]


@pytest.mark.requirement("R-TUBES")
@pytest.mark.parametrize(
    ("spacing", "order"), [(EVEN, (0, 1, 2)), *((MICROSCOPE, order) for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)))]
)
def test_a_tree_has_its_branches_each_with_its_length_and_radius(
    spacing: Sequence[float], order: tuple[int, int, int]
) -> None:
    at = places(cube(60, spacing), spacing)
    mask = np.zeros(at.shape[:3], bool)
    for start, end, radius in TREE:
        mask |= rod(at, np.array(start)[[*order]], np.array(end)[[*order]], radius, round_ends=True)
    report = measured(mask, spacing)
    found = only(report)
    assert (found.segments, found.branch_points, found.ends, found.loops) == (5, 2, 4, 0)
    tips = [1, 0, 1, 1, 1]  # ends that are round, and no branch point
    true = sorted(
        (float(np.linalg.norm(np.subtract(end, start))) + tip * radius, radius)
        for (start, end, radius), tip in zip(TREE, tips, strict=True)
    )
    total = sum(length for length, _ in true)
    assert found.length == pytest.approx(total, rel=0.03)
    for (length, radius), segment in zip(true, sorted(report.segments[1], key=lambda s: s.length), strict=True):
        assert segment.length == pytest.approx(length, abs=radius + 1)
        assert segment.radius == pytest.approx(radius, rel=0.2)


def test_a_branch_that_leaves_the_tube_counts_and_a_bump_on_it_does_not() -> None:
    at = places(cube(40, EVEN), EVEN)
    tube = rod(at, (4, 20, 20), (36, 20, 20), 3.0, round_ends=True)
    bump = tube | rod(at, (20, 20, 20), (20, 23.6, 20), 1.2, round_ends=True)
    branch = tube | rod(at, (20, 20, 20), (20, 32, 20), 1.5, round_ends=True)
    assert only(measured(bump, EVEN)).branch_points == 0
    assert only(measured(branch, EVEN)).segments == 3


@pytest.mark.parametrize("length", [7.5, 9.0, 14.0])
def test_a_branch_is_as_long_as_from_the_middle_of_the_tube_to_its_tip(length: float) -> None:
    at = places(cube(40, EVEN), EVEN)
    tube = rod(at, (4, 20, 20), (36, 20, 20), 3.0, round_ends=True)
    report = measured(tube | rod(at, (20, 20, 20), (20, 20 + length - 1.5, 20), 1.5, round_ends=True), EVEN)
    shortest = min(segment.length for segment in report.segments[1])
    assert only(report).segments == 3
    assert shortest == pytest.approx(length, abs=1)


@pytest.mark.parametrize("seed", range(3))
def test_a_rough_surface_makes_no_branches(seed: int) -> None:
    at = places(cube(40, EVEN), EVEN)
    outer, inner = (rod(at, (6, 12, 20), (34, 28, 20), radius, round_ends=True) for radius in (3.5, 3.0))
    kept = np.random.default_rng(seed).random(at.shape[:3]) < 0.8
    found = only(measured(inner | (outer & kept), EVEN))
    assert found.branch_points == 0
    assert found.length == pytest.approx(np.hypot(28, 16) + 2 * 3.5, rel=0.05)


def test_a_ladder_has_a_loop_for_each_hole() -> None:
    at = places(cube(40, EVEN), EVEN)
    mask = rod(at, (4, 12, 20), (36, 12, 20), 2.0, round_ends=True) | rod(
        at, (4, 28, 20), (36, 28, 20), 2.0, round_ends=True
    )
    for x in (10, 20, 30):
        mask |= rod(at, (x, 12, 20), (x, 28, 20), 2.0, round_ends=True)
    found = only(measured(mask, EVEN))
    assert (found.loops, found.ends, found.branch_points, found.segments) == (2, 4, 6, 11)


def test_labels_and_parts_are_measured_apart_and_voxels_alone_have_no_segment() -> None:
    at = places(cube(30, EVEN), EVEN)
    labels = rod(at, (3, 6, 6), (27, 6, 6), 2.0, round_ends=False).astype(np.uint8)
    labels[rod(at, (3, 22, 6), (27, 22, 6), 2.0, round_ends=False)] = 1
    labels[20, 30, 50] = labels[40, 30, 50] = 3
    report = measured(labels, EVEN, names=[(1, "artery"), (2, "vein"), (3, "dust")])
    artery, vein, dust = report.measures
    assert (artery.name, artery.components, artery.segments) == ("artery", 2, 2)
    assert artery.length == pytest.approx(48, rel=0.02)
    assert artery.length_density == pytest.approx(artery.length / 30**3)
    assert {segment.component for segment in report.segments[1]} == {1, 2}
    assert (vein.segments, vein.components, vein.length, vein.mean_radius) == (0, 0, 0.0, None)
    assert (dust.segments, dust.components, dust.length, dust.ends, dust.loops) == (0, 2, 0.0, 0, 0)
    assert dust.mean_radius == pytest.approx(0.5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_row_of_voxels_is_as_long_as_it_is(axis: int, count: int) -> None:
    mask = np.zeros((12, 12, 12), bool)
    np.moveaxis(mask, axis, 0)[1 : 1 + count, 5, 5] = True
    found = only(measured(mask))
    assert found.length == pytest.approx(count * MICROSCOPE[axis], abs=0.1)


@pytest.mark.parametrize("step", [(0, 1, 1), (1, 0, 1), (1, 1, 1)])
def test_voxels_that_touch_at_edges_or_corners_are_one_segment(step: tuple[int, int, int]) -> None:
    mask = np.zeros((12, 12, 12), bool)
    for number in range(8):
        mask[tuple(2 + number * np.array(step))] = True
    found = only(measured(mask))
    assert (found.components, found.segments, found.ends, found.branch_points) == (1, 1, 2, 0)
    long = np.linalg.norm(np.array(step) * MICROSCOPE)
    assert 7 * long <= found.length <= 8 * long + 0.1


@pytest.mark.parametrize("most", [10**6, 6000, 5000, 2000, 1440])
def test_a_tube_is_measured_with_as_few_planes_as_memory_holds(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    spacing = (0.5, 1.0, 2.0)
    mask = rod(places((32, 9, 5), spacing), (3, 4, 4), (13, 4, 4), 3.0, round_ends=False)
    monkeypatch.setattr(tubular, "MOST_VOXELS", most)
    found = only(measured(mask, spacing))
    assert (found.segments, found.ends) == (1, 2)
    assert found.length == pytest.approx(10.5, abs=0.1)  # 21 voxels
    assert found.mean_radius == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("between", list(itertools.product([0, 0.5], repeat=2)))
def test_the_radius_holds_wherever_the_axis_lies_between_voxels(between: tuple[float, float]) -> None:
    """A section of 3 um has 12 to 16 voxels in planes 2 um apart: its area alone is wrong by 8 %."""
    middle = (np.array([30.0, 7.0]) + between) * MICROSCOPE[1:]
    mask = rod(places(cube(30, MICROSCOPE), MICROSCOPE), (4, *middle), (26, *middle), 3.0, round_ends=False)
    assert only(measured(mask)).mean_radius == pytest.approx(3, rel=0.05)


def test_a_flat_tube_has_the_radius_of_its_area_and_that_of_the_circle_inside() -> None:
    at = places(cube(30, EVEN), EVEN) - 15.1
    mask = (np.hypot(at[..., 1] / 6, at[..., 2] / 3) <= 1) & (np.abs(at[..., 0]) <= 12)
    report = measured(mask, EVEN)
    (segment,) = report.segments[1]
    assert segment.radius == pytest.approx(np.sqrt(18), rel=0.03)
    assert segment.inscribed_radius == pytest.approx(3, rel=0.1)


def test_a_tube_through_the_whole_volume_is_as_long_as_that() -> None:
    at = places(cube(30, MICROSCOPE), MICROSCOPE)
    mask = rod(at, (-9, 15, 15), (99, 15, 15), 3.0, round_ends=False)
    found = only(measured(mask))
    assert found.length == pytest.approx(30, rel=0.02)
    assert found.mean_radius == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("shape", [(1, 1, 1), (6, 6, 6), (1, 9, 9), (20, 3, 2)])
def test_a_mask_that_fills_its_volume_is_measured_without_an_error(shape: tuple[int, int, int]) -> None:
    found = only(measured(np.ones(shape, bool)))
    assert found.components == 1
    assert found.length <= np.linalg.norm(np.array(shape) * MICROSCOPE)


def test_a_hollow_tube_is_measured_as_a_full_one() -> None:
    at = places(cube(30, EVEN), EVEN)
    full = rod(at, (4, 15, 15), (26, 15, 15), 3.0, round_ends=True)
    hollow = full & ~rod(at, (8, 15, 15), (22, 15, 15), 1.2, round_ends=True)
    assert only(measured(hollow, EVEN)) == only(measured(full, EVEN))


def test_what_cannot_be_measured_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    with pytest.raises(InputError, match="right angles"):
        measured(np.ones((3, 3, 3)), grid=Grid((3, 3, 3), sheared, "um"))
    with pytest.raises(InputError, match="at most 1000 labels"):
        measured(np.ones((3, 3, 3)), names=[(value, "") for value in range(1, 1002)])
    monkeypatch.setattr(tubular, "MOST_VOXELS", 26)
    with pytest.raises(LimitError, match="at most 26 voxels, got 27"):
        measured(np.ones((3, 3, 3)))


def test_files_are_whole_and_replace_those_before_and_nothing_else(tmp_path: Path) -> None:
    at = places(cube(20, EVEN), EVEN)
    report = measured(rod(at, (3, 10, 10), (17, 10, 10), 2.0, round_ends=False), EVEN, names=[(1, 'a,b"c'), (7, "")])
    folder = tmp_path / "tubes"
    write_tubes(report, folder, LocalFiles())
    assert sorted(p.name for p in folder.iterdir()) == ["1.swc", "labels.csv", "segments.csv"]
    (folder / "9.swc").write_text("of a run before", encoding="utf-8")
    write_tubes(report, folder, LocalFiles())
    assert not (folder / "9.swc").exists()
    rows = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3
    assert '"a,b""c"' in rows[1]
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"holds notes\.txt"):
        write_tubes(report, folder, LocalFiles())
    assert (folder / "1.swc").exists()
    for bad in (tmp_path / "no" / "where", folder / "1.swc"):
        with pytest.raises(OutputError):
            write_tubes(report, bad, LocalFiles())
    assert [p.name for p in tmp_path.iterdir()] == ["tubes"]


def test_a_swc_has_a_tree_in_the_world(tmp_path: Path) -> None:
    at = places(cube(20, EVEN), EVEN)
    mask = rod(at, (3, 10, 6), (17, 10, 6), 2.0, round_ends=False) | rod(
        at, (10, 10, 6), (10, 10, 17), 2.0, round_ends=False
    )
    grid = make_grid((40, 40, 40), EVEN, unit="um", codes="LAS")
    report = measured(mask, grid=grid)
    write_tubes(report, tmp_path / "tubes", LocalFiles())
    lines = (tmp_path / "tubes" / "1.swc").read_text(encoding="utf-8").splitlines()
    points = np.array([[float(word) for word in line.split()] for line in lines if not line.startswith("#")])
    assert (points[:, 0] == np.arange(1, len(points) + 1)).all()
    assert (points[:, 6] < points[:, 0]).all()
    assert (points[:, 6] == -1).sum() == 1
    children = np.bincount(points[1:, 6].astype(int))
    assert (children > 1).sum() == 1  # the branch point
    index = np.rint((points[:, 2:5] - grid.affine[:3, 3]) @ np.linalg.inv(grid.affine[:3, :3]).T).astype(int)
    assert mask[tuple(index.T)].sum() >= len(index) - 3  # tips lie on the surface
    steps = np.linalg.norm(points[1:, 2:5] - points[points[1:, 6].astype(int) - 1, 2:5], axis=1)
    assert steps.sum() == pytest.approx(only(report).length, rel=1e-4)


def test_measures_are_the_same_for_every_order_and_direction_of_the_axes() -> None:
    at = places(cube(24, MICROSCOPE), MICROSCOPE)
    mask = rod(at, (4, 6, 5), (19, 17, 19), 2.5, round_ends=True)
    first = only(measured(mask))
    turned = only(measured(mask.transpose(2, 0, 1)[::-1], (2.0, 0.5, 0.5)))
    assert turned.length == pytest.approx(first.length, rel=0.01)
    assert replace(turned, length=first.length).segments == first.segments
    assert turned.mean_radius == pytest.approx(first.mean_radius, rel=0.01)
