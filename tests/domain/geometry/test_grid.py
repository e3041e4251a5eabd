"""Grids keep every voxel's place in the world, however it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from voxport.domain.geometry.grid import (
    Box,
    FloatArray,
    Grid,
    Reorientation,
    Shape3,
    check_codes,
    unit_factor,
)
from voxport.testing.strategies import boxes, grids, orientation_codes, shapes

ALL_CODES = tuple("".join(letters) for order in permutations(("RL", "AP", "SI")) for letters in product(*order))
ALL_CHANGES = tuple(
    Reorientation((order[0], order[1], order[2]), (flips[0], flips[1], flips[2]))
    for order in permutations(range(3))
    for flips in product((False, True), repeat=3)
)


def numbered(shape: Shape3) -> NDArray[np.int64]:
    return np.arange(np.prod(shape), dtype=np.int64).reshape(shape)


def indices(shape: Shape3) -> FloatArray:
    """Voxel indices ``(X, Y, Z, 3)``."""
    return np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"), axis=-1)


def turn(axis: int, degrees: float) -> FloatArray:
    i, j = (a for a in range(3) if a != axis)
    matrix = np.eye(3)
    angle = np.deg2rad(degrees)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


def grid_of(directions: FloatArray, shape: Shape3 = (2, 3, 4), spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing)
    affine[:3, 3] = (-20.0, 7.5, 3.25)
    return Grid(shape, affine, "mm")


def stored_orders(grid: Grid) -> Iterator[tuple[NDArray[np.int64], Grid]]:
    """One numbered volume in its 48 storage orders."""
    for change in ALL_CHANGES:
        yield change.apply(numbered(grid.shape)), change.apply_grid(grid)


# Reading a grid


@pytest.mark.parametrize("codes", ALL_CODES)
def test_axis_codes_name_the_direction_in_which_each_index_grows(codes: str) -> None:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, letter in enumerate(codes):
        affine["RLAPSI".index(letter) // 2, axis] = 2.5 if letter in "RAS" else -2.5
    assert Grid((1, 1, 1), affine).axis_codes == codes


@given(grids(sheared=True))
def test_spacing_is_the_distance_between_neighbours_in_the_world(grid: Grid) -> None:
    for axis in range(3):
        step = grid.world(np.eye(3)[axis]) - grid.world((0, 0, 0))
        assert grid.spacing[axis] == pytest.approx(np.linalg.norm(step))


def test_the_volume_of_a_voxel_is_that_of_its_parallelepiped() -> None:
    sheared = grid_of(np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 0.5]]))
    assert sheared.voxel_volume == pytest.approx(3.0)
    assert np.prod(sheared.spacing) > 3.2  # the product of spacings would be wrong here


def test_voxel_count_is_the_product_of_the_edges() -> None:
    assert grid_of(np.eye(3), (5, 7, 11)).voxel_count == 385


@given(grids())
def test_an_oblique_grid_is_not_sheared(grid: Grid) -> None:
    assert not grid.is_sheared


@pytest.mark.parametrize(("skew", "sheared"), [(0.0, False), (1e-5, False), (1e-3, True), (0.3, True)])
def test_a_grid_is_sheared_when_its_axes_are_not_at_right_angles(skew: float, sheared: bool) -> None:
    directions = np.eye(3)
    directions[0, 1] = skew
    assert grid_of(directions, spacing=(0.2, 1.0, 5.0)).is_sheared is sheared


@given(grids(sheared=True), st.data())
def test_world_agrees_with_the_affine_one_voxel_at_a_time(grid: Grid, data: st.DataObject) -> None:
    index = data.draw(st.tuples(*[st.floats(-50, 50)] * 3))
    expected = grid.affine @ [*index, 1.0]
    np.testing.assert_allclose(grid.world(index), expected[:3], rtol=0, atol=1e-9)


# Value semantics


def test_a_grid_copies_its_affine_in_and_makes_it_read_only() -> None:
    affine = np.eye(4)
    grid = Grid((2, 3, 4), affine)
    affine[0, 0] = 9
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 9


def test_equal_grids_are_equal_and_hash_alike() -> None:
    one, other = (Grid((2, 3, 4), np.eye(4), "um") for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize("entry", list(product(range(3), range(4))))
def test_grids_differ_in_any_single_entry_of_the_affine(entry: tuple[int, int]) -> None:
    affine = np.eye(4)
    affine[entry] = np.nextafter(affine[entry], 2)
    assert Grid((2, 3, 4), affine) != Grid((2, 3, 4), np.eye(4))


@pytest.mark.parametrize("shape", [(1, 3, 4), (2, 4, 4), (2, 3, 5), (3, 2, 4)])
def test_grids_differ_in_any_single_edge(shape: Shape3) -> None:
    assert Grid(shape, np.eye(4)) != Grid((2, 3, 4), np.eye(4))


def test_grids_differ_in_their_unit() -> None:
    assert len({Grid((2, 3, 4), np.eye(4), unit) for unit in ("mm", "um", "unknown")}) == 3


def test_a_grid_is_not_equal_to_something_else() -> None:
    assert Grid((2, 3, 4), np.eye(4)) != (2, 3, 4)


def test_minus_zero_and_zero_are_equal_and_hash_alike() -> None:
    affine = np.eye(4)
    affine[0, 1] = -0.0
    one, other = Grid((2, 3, 4), affine), Grid((2, 3, 4), np.eye(4))
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    ("shape", "affine", "unit", "message"),
    [
        ((2, 3, 4), np.eye(3), "mm", r"affine: expected a finite \(4, 4\) matrix, got shape \(3, 3\)"),
        ((2, 3, 4), np.full((4, 4), np.nan), "mm", "affine: expected a finite"),
        ((2, 3, 4), np.diag([1, np.inf, 1, 1]), "mm", "affine: expected a finite"),
        ((2, 3, 4), np.diag([1.0, 0, 1, 1]), "mm", "affine: expected an invertible matrix, got a singular one"),
        ((2, 0, 4), np.eye(4), "mm", "shape: expected three positive edges"),
        ((2, -3, 4), np.eye(4), "mm", "shape: expected three positive edges"),
        ((2, 3), np.eye(4), "mm", "shape: expected three positive edges"),
        ((2, 3, 4), np.eye(4), "m", "unit: expected one of mm, um, unknown, got m"),
    ],
)
def test_an_invalid_grid_is_refused(shape: Shape3, affine: FloatArray, unit: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(shape, affine, unit)


def test_edges_become_plain_integers() -> None:
    shape = Grid(tuple(np.array([2, 3, 4])), np.eye(4)).shape
    assert shape == (2, 3, 4)
    assert {type(edge) for edge in shape} == {int}


# The same space


@given(grids(sheared=True))
def test_a_grid_is_in_the_same_space_as_itself(grid: Grid) -> None:
    assert grid.same_space(Grid(grid.shape, grid.affine, grid.unit))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("voxels", "same"), [(0.0009, True), (0.0011, False)])
def test_grids_share_a_space_up_to_a_thousandth_of_the_finest_voxel(axis: int, voxels: float, same: bool) -> None:
    grid = grid_of(np.eye(3), spacing=(4.0, 0.5, 2.0))
    moved = grid.affine.copy()
    moved[axis, 3] += voxels * 0.5
    assert grid.same_space(Grid(grid.shape, moved, grid.unit)) is same


def test_grids_of_other_shapes_are_not_in_the_same_space() -> None:
    assert not grid_of(np.eye(3), (2, 3, 4)).same_space(grid_of(np.eye(3), (2, 3, 5)))


def test_a_small_turn_shows_at_the_far_corner() -> None:
    long = grid_of(np.eye(3), (1000, 2, 2))
    assert not long.same_space(grid_of(turn(2, 0.001), (1000, 2, 2)))


# Reorientation


@given(grids(sheared=True), st.sampled_from(ALL_CHANGES))
def test_every_voxel_keeps_its_place_in_the_world(grid: Grid, change: Reorientation) -> None:
    moved = change.apply_grid(grid)
    positions = np.moveaxis(grid.world(indices(grid.shape)), -1, 0)
    expected = np.moveaxis(change.apply(positions), 0, -1)
    assert moved.shape == change.apply_shape(grid.shape) == expected.shape[:3]
    np.testing.assert_allclose(moved.world(indices(moved.shape)), expected, rtol=0, atol=1e-9)
    assert moved.unit == grid.unit


@given(grids(sheared=True), orientation_codes())
def test_reorienting_gives_the_codes_asked_for(grid: Grid, codes: str) -> None:
    assert grid.reorientation_to(codes).apply_grid(grid).axis_codes == codes


@given(grids(sheared=True))
def test_reorienting_to_the_codes_that_a_grid_has_changes_nothing(grid: Grid) -> None:
    assert grid.reorientation_to(grid.axis_codes) == Reorientation.identity()
    assert Reorientation.identity().apply_grid(grid) == grid


@given(grids(sheared=True), st.sampled_from(ALL_CHANGES))
def test_the_inverse_undoes_a_reorientation(grid: Grid, change: Reorientation) -> None:
    values = numbered(grid.shape)
    back = change.inverse()
    assert back.inverse() == change
    assert back.apply_shape(change.apply_shape(grid.shape)) == grid.shape
    np.testing.assert_array_equal(back.apply(change.apply(values)), values)
    np.testing.assert_allclose(back.apply_grid(change.apply_grid(grid)).affine, grid.affine, rtol=0, atol=1e-9)


@pytest.mark.parametrize("change", ALL_CHANGES)
def test_a_new_axis_is_the_named_old_one_reversed_where_flipped(change: Reorientation) -> None:
    values = numbered((2, 3, 4))
    moved = change.apply(values)
    for index in np.ndindex(moved.shape):
        old = [0, 0, 0]
        for new, (axis, flip) in enumerate(zip(change.axes, change.flips, strict=True)):
            old[axis] = values.shape[axis] - 1 - index[new] if flip else index[new]
        assert moved[index] == values[tuple(old)]


def test_leading_axes_are_left_alone() -> None:
    values = np.stack([numbered((2, 3, 4)), numbered((2, 3, 4)) + 100])[np.newaxis]
    change = Reorientation((2, 0, 1), (True, False, True))
    moved = change.apply(values)
    assert moved.shape == (1, 2, 4, 2, 3)
    np.testing.assert_array_equal(moved[0, 1], change.apply(values[0, 1]))


def test_reorienting_an_array_copies_nothing() -> None:
    values = numbered((2, 3, 4))
    assert np.shares_memory(Reorientation((2, 0, 1), (True, False, True)).apply(values), values)


@given(st.sampled_from(ALL_CHANGES), st.data())
def test_source_box_reads_what_applying_to_the_whole_would_give(change: Reorientation, data: st.DataObject) -> None:
    shape = data.draw(shapes())
    box = data.draw(boxes(change.apply_shape(shape)))
    values = numbered(shape)
    source = change.source_box(box, shape)
    np.testing.assert_array_equal(change.apply(values[source.slices]), change.apply(values)[box.slices])


@given(shapes(), st.data())
def test_a_box_and_those_around_it_cover_each_voxel_once(shape: Shape3, data: st.DataObject) -> None:
    box = data.draw(boxes(shape))
    covered = np.zeros(shape, int)
    for part in (box, *box.around(shape)):
        covered[part.slices] += 1
    assert (covered == 1).all()


@given(shapes(), st.integers(0, 9), st.data())
def test_a_grown_box_has_every_voxel_within_the_margin(shape: Shape3, margin: int, data: st.DataObject) -> None:
    box = data.draw(boxes(shape))
    near, found = np.ones(shape, bool), np.zeros(shape, bool)
    for axis, at in enumerate(np.indices(shape)):
        near &= (at >= box.start[axis] - margin) & (at < box.stop[axis] + margin)
    found[box.grown(margin, shape).slices] = True
    np.testing.assert_array_equal(found, near)


def test_a_moved_box_keeps_its_shape() -> None:
    assert Box((1, 2, 3), (4, 6, 8)).moved((-1, 0, 10)) == Box((0, 2, 13), (3, 6, 18))


@given(grids(max_edge=4, sheared=True))
@settings(max_examples=50)
def test_all_48_storage_orders_of_a_volume_reorient_to_the_same_array(grid: Grid) -> None:
    results = [
        (g.reorientation_to("RAS").apply(v), g.reorientation_to("RAS").apply_grid(g)) for v, g in stored_orders(grid)
    ]
    first, first_grid = results[0]
    for array, moved in results[1:]:
        np.testing.assert_array_equal(array, first)
        assert moved.same_space(first_grid)


@pytest.mark.parametrize("codes", ["RAS", "LIA", "PSR"])
@pytest.mark.parametrize("degrees", [45.0, 135.0, -45.0])
@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.3, 0.3, 5.0), (0.5, 2.0, 3.0)])
def test_storage_orders_agree_when_rotated_by_exactly_45_degrees(
    axis: int, degrees: float, spacing: tuple[float, ...], codes: str
) -> None:
    grid = grid_of(turn(axis, degrees), spacing=spacing)
    arrays = [g.reorientation_to(codes).apply(v) for v, g in stored_orders(grid)]
    for array in arrays[1:]:
        np.testing.assert_array_equal(array, arrays[0])


@pytest.mark.parametrize("first", [45.0, 35.26438968275466])
def test_storage_orders_agree_when_rotated_about_two_axes_so_that_every_assignment_is_close(first: float) -> None:
    grid = grid_of(turn(0, first) @ turn(2, 45.0))
    arrays = [g.reorientation_to("RAS").apply(v) for v, g in stored_orders(grid)]
    for array in arrays[1:]:
        np.testing.assert_array_equal(array, arrays[0])


def test_storage_orders_agree_when_single_precision_rounds_the_header() -> None:
    rounded = Grid((2, 3, 4), grid_of(turn(1, 45.0)).affine.astype(np.float32), "mm")
    arrays = [g.reorientation_to("RAS").apply(v) for v, g in stored_orders(rounded)]
    for array in arrays[1:]:
        np.testing.assert_array_equal(array, arrays[0])


def test_the_assignment_maximises_the_sum_of_cosines_and_not_each_axis_on_its_own() -> None:
    # Both the first and the second axis lie closest to x; the best assignment gives the first to y.
    columns = np.array([[0.8, 0.98, 0.0], [0.6, -0.2, 0.0], [0.0, 0.0, 1.0]])
    assert grid_of(columns).axis_codes == "ARS"


@pytest.mark.parametrize("codes", ALL_CODES)
def test_codes_that_name_each_axis_once_are_accepted(codes: str) -> None:
    assert check_codes(codes) == codes


@pytest.mark.parametrize("codes", ["", "RA", "RASL", "RRS", "RLS", "ras", "XYZ", "RAX", "RAS "])
def test_other_codes_are_refused(codes: str) -> None:
    with pytest.raises(ValueError, match="expected axis codes such as RAS or LIA"):
        check_codes(codes)


# Resampling grids


@given(grids(max_edge=40, sheared=True), st.tuples(*[st.floats(0.2, 6.0)] * 3), st.tuples(*[st.floats(-1, 1)] * 3))
def test_a_resampled_grid_keeps_directions_and_unit_and_begins_where_it_should(
    grid: Grid, ratio: tuple[float, float, float], first: tuple[float, float, float]
) -> None:
    new = grid.resampled((4, 5, 6), ratio, first)
    assert new.shape == (4, 5, 6)
    assert new.unit == grid.unit
    np.testing.assert_allclose(new.spacing, np.multiply(grid.spacing, ratio), rtol=1e-12)
    np.testing.assert_allclose(new.world((0, 0, 0)), grid.world(first), rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        new.world((3, 0, 2)), grid.world(np.array(first) + np.array((3, 0, 2)) * ratio), atol=1e-9
    )


# Boxes and units


@given(st.data())
def test_a_box_indexes_the_voxels_between_start_and_stop(data: st.DataObject) -> None:
    shape = data.draw(shapes())
    box = data.draw(boxes(shape))
    chosen = {
        index
        for index in np.ndindex(shape)
        if all(a <= i < b for a, i, b in zip(box.start, index, box.stop, strict=True))
    }
    marked = np.zeros((2, *shape), bool)
    marked[(Ellipsis, *box.slices)] = True
    assert {tuple(index) for index in np.argwhere(marked[1]).tolist()} == chosen
    assert marked[0, *box.slices].shape == box.shape


def test_the_whole_box_holds_every_voxel() -> None:
    assert Box.whole((2, 3, 4)) == Box((0, 0, 0), (2, 3, 4))
    assert Box.whole((2, 3, 4)).shape == (2, 3, 4)


@pytest.mark.parametrize("axis", range(3))
def test_with_range_changes_one_axis_only(axis: int) -> None:
    box = Box((1, 2, 3), (10, 20, 30)).with_range(axis, 5, 7)
    for other in range(3):
        expected = (5, 7) if other == axis else ((1, 2, 3)[other], (10, 20, 30)[other])
        assert (box.start[other], box.stop[other]) == expected


@pytest.mark.parametrize(
    ("source", "target", "factor"),
    [("mm", "um", 1000), ("um", "mm", 0.001), ("mm", "mm", 1), ("unknown", "um", 1), ("mm", "unknown", 1)],
)
def test_lengths_are_converted_between_units_that_are_known(source: str, target: str, factor: float) -> None:
    assert unit_factor(source, target) == pytest.approx(factor)
