"""Tiles cover a volume, and stitching gives every voxel once, whatever the order it was scored in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray
from voxport.domain.errors import LimitError, ModelError
from voxport.domain.geometry.grid import Box, Shape3
from voxport.domain.inference.blending import LARGEST_LOGIT, Block, Logits
from voxport.domain.inference.buffers import Buffer, Buffers, MemoryBuffer
from voxport.domain.inference.patches import Padding, TilePlan, Tiling, Windows, plan_tiles
from voxport.domain.inference.sliding_window import (
    InferFunction,
    assemble_planes,
    slab_bytes,
    stitch,
)
from voxport.domain.run import BLENDINGS, LARGEST_OVERLAP, Blending

Patch = tuple[int | None, int | None, int | None]
WINDOWS: tuple[Windows, ...] = ("even", "monai", "nnunet")
PADDINGS = (Padding("constant", -3.0), Padding("edge"), Padding("reflect"))


@st.composite
def tilings(draw: st.DrawFn, max_edge: int = 12) -> Tiling:
    divisor = draw(st.sampled_from([1, 2, 4]))
    edge = st.none() | st.integers(1, max(1, max_edge // divisor)).map(lambda n: n * divisor)
    return Tiling(
        draw(st.tuples(edge, edge, edge)),
        divisor,
        draw(st.floats(0, LARGEST_OVERLAP)),
        draw(st.sampled_from(BLENDINGS)),
        draw(st.sampled_from(PADDINGS)),
        windows=draw(st.sampled_from(WINDOWS)),
    )


class Recorded(MemoryBuffer):
    """A buffer that returns copies, as a file does, and records the bytes of the largest."""

    largest_bytes = 0

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        piece = super().read(rows, columns).copy()
        self.largest_bytes = max(self.largest_bytes, piece.nbytes)
        return piece


class Recorder:
    """Buffers in memory, recorded in ``made``."""

    def __init__(self) -> None:
        self.made: list[Recorded] = []

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        self.made.append(Recorded(shape, dtype))
        return self.made[-1]

    @property
    def largest_bytes(self) -> int:
        return max(buffer.largest_bytes for buffer in self.made)


shapes = st.tuples(*[st.integers(1, 17)] * 3)
axes = st.integers(0, 2)


def image(shape: Shape3, channels: int = 1, seed: int = 0) -> Logits:
    return np.random.default_rng(seed).standard_normal((channels, *shape), np.float32)


def planes_of(volume: Logits, plan: TilePlan) -> Iterator[Logits]:
    return iter(np.moveaxis(volume, 1 + plan.axis, 0))


def stitched(plan: TilePlan, volume: Logits, infer: InferFunction, batch: int = 1) -> Logits:
    """All blocks put together, after checking that each voxel came once and in order."""
    result: Logits | None = None
    seen = np.zeros(plan.shape, np.int64)
    reached = 0
    for block in stitch(plan, planes_of(volume, plan), infer, batch=batch):
        if result is None:
            result = np.zeros((block.logits.shape[0], *plan.shape), np.float32)
        assert block.logits.shape[1:] == block.box.shape
        assert block.logits.dtype == np.float32
        assert block.box.start[plan.axis] >= reached
        reached = block.box.start[plan.axis]
        seen[block.box.slices] += 1
        result[:, *block.box.slices] = block.logits
    assert (seen == 1).all()
    assert result is not None
    return result


def rounding(plan: TilePlan) -> float:
    """Error of blended logits of at most 5: multiples of 2**-36, over weights of at least 2**-20 as in nnU-Net."""
    return 1e-6 if plan.floor is None else max(1e-6, 5 * 2.0**-36 / plan.floor)


def identity(tiles: Logits) -> Logits:
    return tiles


def local(tiles: Logits) -> Logits:
    """Three classes from each voxel alone."""
    return np.concatenate([tiles[:, :1] * 2, 1 - tiles[:, :1], tiles[:, :1] ** 2], axis=1)


def box_filter(radius: int) -> InferFunction:
    """Mean of the (2 radius + 1)^3 neighbourhood, zeros beyond the tile; each voxel summed in the same order."""
    width = 2 * radius + 1

    def infer(tiles: Logits) -> Logits:
        padded = np.pad(tiles, [(0, 0), (0, 0), *[(radius, radius)] * 3])
        total = np.zeros(tiles.shape, np.float64)
        x, y, z = tiles.shape[2:]
        for i, j, k in np.ndindex(width, width, width):
            total += padded[:, :, i : i + x, j : j + y, k : k + z]
        return (total / width**3).astype(np.float32)

    return infer


def patchy(tiles: Logits) -> Logits:
    """Scores that depend on the whole tile, so that neighbours disagree."""
    result: Logits = tiles + tiles.mean(axis=(2, 3, 4), keepdims=True) * np.float32(5)
    return result


# The plan


@pytest.mark.requirement("R-COVER")
@given(shapes, tilings(), axes)
def test_starts_are_sorted_in_range_and_cover_every_voxel(shape: Shape3, tiling: Tiling, axis: int) -> None:
    plan = plan_tiles(shape, tiling, axis=axis)
    for a in range(3):
        starts, edge = plan.starts[a], plan.tile[a]
        assert starts[0] == 0
        assert starts[-1] == plan.padded[a] - edge
        assert all(0 < following - start <= edge for start, following in pairwise(starts))
        assert (plan.summed_weights(a) > 0).all()


@given(shapes, tilings())
def test_tiles_are_multiples_of_the_divisor_no_larger_than_the_patch_or_the_rounded_axis(
    shape: Shape3, tiling: Tiling
) -> None:
    plan = plan_tiles(shape, tiling)
    for a in range(3):
        patch = tiling.patch[a]
        divisor = tiling.divisors[a]
        rounded = -(-shape[a] // divisor) * divisor
        assert plan.tile[a] % divisor == 0
        assert plan.tile[a] == (rounded if patch is None else min(patch, rounded))


@given(shapes, tilings())
def test_only_an_axis_shorter_than_a_tile_is_padded_evenly_on_both_sides(shape: Shape3, tiling: Tiling) -> None:
    plan = plan_tiles(shape, tiling)
    for a in range(3):
        after = plan.padded[a] - shape[a] - plan.pad_before[a]
        assert plan.padded[a] == max(shape[a], plan.tile[a])
        assert 0 <= after - plan.pad_before[a] <= 1


fixed_sizes = st.tuples(*[st.none() | st.integers(1, 24)] * 3)


@given(shapes, tilings(), fixed_sizes)
def test_no_tile_is_all_padding(shape: Shape3, tiling: Tiling, fixed: Patch) -> None:
    plan = plan_tiles(shape, tiling, fixed=fixed)
    for a in range(3):
        for start in plan.starts[a]:
            begin, end = plan.pad_before[a], plan.pad_before[a] + shape[a]
            assert min(start + plan.tile[a], end) - max(start, begin) == min(shape[a], plan.tile[a])
        if fixed[a] is None:
            assert plan.padded[a] < shape[a] + tiling.divisors[a]


@given(shapes, tilings(), fixed_sizes, axes, st.integers(1, 4))
def test_padding_is_no_more_than_the_network_needs(
    shape: Shape3, tiling: Tiling, fixed: Patch, axis: int, batch: int
) -> None:
    plan = plan_tiles(shape, replace(tiling, padding=Padding("constant", -3.0)), fixed=fixed, axis=axis)

    def count(tiles: Logits) -> Logits:
        real = np.prod(np.minimum(shape, plan.tile))
        assert (np.count_nonzero(tiles != -3, axis=(1, 2, 3, 4)) == real).all()
        return tiles

    stitched(plan, np.ones((1, *shape), np.float32), count, batch)


@given(shapes, tilings())
def test_neighbouring_tiles_overlap_by_at_least_the_fraction_asked_for(shape: Shape3, tiling: Tiling) -> None:
    plan = plan_tiles(shape, tiling)
    for a in range(3):
        step = round(plan.tile[a] * (1 - tiling.overlap), 6)
        largest_step = math.ceil(step) if tiling.windows == "nnunet" else max(1, int(step))
        assert all(b - a <= largest_step for a, b in pairwise(plan.starts[a]))


@given(shapes, tilings())
def test_the_tile_count_is_the_number_of_inferred_tiles(shape: Shape3, tiling: Tiling) -> None:
    plan = plan_tiles(shape, tiling)
    counted: list[int] = []
    volume = image(shape)
    for _ in stitch(plan, planes_of(volume, plan), identity, batch=3, on_tiles=counted.append):
        pass
    assert sum(counted) == plan.tile_count
    assert max(counted) <= 3


@pytest.mark.parametrize(
    ("length", "patch", "overlap", "starts"),
    [
        (110, 64, 0.5, (0, 23, 46)),
        (64, 64, 0.5, (0,)),
        (65, 64, 0.5, (0, 1)),
        (100, 10, 0.0, tuple(range(0, 100, 10))),
        (100, 10, 0.1, (0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90)),
        (10, 4, 0.75, (0, 1, 2, 3, 4, 5, 6)),
        (3, 1, 0.5, (0, 1, 2)),
        (58, 25, 0.56, (0, 11, 22, 33)),  # 25 * (1 - 0.56) is a little less than 11 in binary
    ],
)
def test_starts_by_worked_numbers(length: int, patch: int, overlap: float, starts: tuple[int, ...]) -> None:
    assert plan_tiles((length, 1, 1), Tiling((patch, 1, 1), overlap=overlap)).starts[0] == starts


@pytest.mark.parametrize(
    ("windows", "length", "patch", "overlap", "starts"),
    [
        ("monai", 110, 64, 0.5, (0, 32, 46)),
        ("monai", 64, 64, 0.5, (0,)),
        ("monai", 96, 64, 0.5, (0, 32)),
        ("monai", 97, 64, 0.5, (0, 32, 33)),
        ("monai", 100, 48, 0.25, (0, 36, 52)),
        ("monai", 58, 25, 0.56, (0, 11, 22, 33)),
        ("nnunet", 110, 64, 0.5, (0, 23, 46)),
        ("nnunet", 67, 64, 0.5, (0, 3)),
        ("nnunet", 105, 64, 0.5, (0, 20, 41)),  # 20.5 to the even number, where even starts have 21
        ("nnunet", 20, 9, 0.5, (0, 4, 7, 11)),  # three strides of 4.5
    ],
)
def test_starts_of_the_frameworks_by_worked_numbers(
    windows: Windows, length: int, patch: int, overlap: float, starts: tuple[int, ...]
) -> None:
    tiling = Tiling((patch, 1, 1), overlap=overlap, windows=windows)
    assert plan_tiles((length, 1, 1), tiling).starts[0] == starts


@pytest.mark.parametrize(
    ("shape", "patch", "divisor", "tile", "padded"),
    [
        ((100, 100, 10), (96, 96, 16), 8, (96, 96, 16), (100, 100, 16)),
        ((100, 100, 7), (96, 96, 16), 8, (96, 96, 8), (100, 100, 8)),
        ((50, 60, 1), (None, None, None), 16, (64, 64, 16), (64, 64, 16)),
        ((50, 60, 70), (None, 32, None), 1, (50, 32, 70), (50, 60, 70)),
        ((1, 1, 1), (4, 4, 4), 1, (1, 1, 1), (1, 1, 1)),
    ],
)
def test_small_volumes_and_whole_axes_by_worked_numbers(
    shape: Shape3, patch: Patch, divisor: int, tile: Shape3, padded: Shape3
) -> None:
    plan = plan_tiles(shape, Tiling(patch, divisor))
    assert (plan.tile, plan.padded) == (tile, padded)


def test_a_network_of_one_size_gets_tiles_of_that_size() -> None:
    plan = plan_tiles((10, 100, 40), Tiling((None, 32, 32), 8), fixed=(64, 48, None))
    assert plan.tile == (64, 48, 32)
    assert plan.padded == (64, 100, 40)
    assert plan.pad_before == (27, 0, 0)


@pytest.mark.parametrize(("axis", "across"), [(0, (1, 2)), (1, (0, 2)), (2, (0, 1))])
def test_a_plane_lies_across_the_visiting_axis(axis: int, across: tuple[int, int]) -> None:
    assert plan_tiles((4, 5, 6), Tiling((2, 2, 2)), axis=axis).across == across


# Weights


def weights_of(edge: int, blending: Blending) -> NDArray[np.float64]:
    """Weights along a tile of this edge."""
    return plan_tiles((edge, 1, 1), Tiling((edge, 1, 1), blending=blending)).weights(0)


@pytest.mark.parametrize("blending", BLENDINGS)
@given(edge=st.integers(1, 200))
def test_weights_are_symmetric_never_zero_and_at_most_one(blending: Blending, edge: int) -> None:
    weights = weights_of(edge, blending)
    assert weights.shape == (edge,)
    assert (weights > 0).all()
    assert (weights <= 1).all()
    np.testing.assert_array_equal(weights, weights[::-1])
    assert (np.diff(weights[: (edge + 1) // 2]) >= 0).all()


@given(st.integers(1, 200))
def test_gaussian_weights_have_an_eighth_of_the_edge_as_their_deviation(edge: int) -> None:
    at = np.arange(edge) - (edge - 1) / 2
    expected = np.maximum(np.exp(-0.5 * (at / (edge / 8)) ** 2), 0.03)
    np.testing.assert_allclose(weights_of(edge, "gaussian"), expected, rtol=0, atol=2.0**-15)


@given(st.integers(1, 200))
def test_weights_are_multiples_of_2_to_the_minus_14_so_that_products_of_three_are_exact(edge: int) -> None:
    steps = weights_of(edge, "gaussian") * 2**14
    np.testing.assert_array_equal(steps, np.rint(steps))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("windows", "centre", "floor"), [("monai", 3.5, 0.001), ("nnunet", 4, 2.0**-27)])
def test_a_floor_holds_for_the_product_of_the_weights_along_the_axes(
    windows: Windows, centre: float, floor: float, axis: int
) -> None:
    """Compared with sums over the whole volume."""
    shape, tiling = (21, 18, 15), Tiling((8, 8, 8), overlap=0.4, windows=windows)
    volume, plan = image(shape), plan_tiles(shape, tiling, axis=axis)
    # An eighth of the edge is one voxel.
    along = np.rint(np.exp(-0.5 * (np.arange(8) - centre) ** 2) * 2**17) / 2**17
    weights = np.maximum(np.einsum("i,j,k->ijk", along, along, along), floor)
    total, norm = np.zeros(shape), np.zeros(shape)
    for corner in product(*plan.starts):
        box = tuple(slice(start, start + 8) for start in corner)
        total[box] += patchy(volume[np.newaxis, :, *box])[0, 0] * weights
        norm[box] += weights
    np.testing.assert_allclose(stitched(plan, volume, patchy)[0], total / norm, atol=max(1e-4, 2.0**-36 / floor))


def test_constant_weights_are_one() -> None:
    np.testing.assert_array_equal(weights_of(5, "constant"), np.ones(5))


@pytest.mark.requirement("R-COVER")
@given(shapes, tilings())
def test_normalised_weights_are_a_partition_of_unity(shape: Shape3, tiling: Tiling) -> None:
    plan = plan_tiles(shape, tiling)
    norm = [plan.summed_weights(a) for a in range(3)]
    share = np.zeros(plan.padded)
    weights = np.einsum("i,j,k->ijk", *(plan.weights(a) for a in range(3)))
    for i in plan.starts[0]:
        for j in plan.starts[1]:
            for k in plan.starts[2]:
                inside = tuple(slice(s, s + t) for s, t in zip((i, j, k), plan.tile, strict=True))
                share[inside] += weights / np.einsum("i,j,k->ijk", *(norm[a][inside[a]] for a in range(3)))
    np.testing.assert_allclose(share, 1, rtol=1e-12)


@given(shapes, tilings())
def test_cores_partition_each_axis_and_lie_within_their_tiles(shape: Shape3, tiling: Tiling) -> None:
    plan = plan_tiles(shape, tiling)
    for a in range(3):
        cores = plan.cores(a)
        assert [start for start, _ in cores] == [0, *(stop for _, stop in cores[:-1])]
        assert cores[-1][1] == plan.padded[a]
        for (low, high), start in zip(cores, plan.starts[a], strict=True):
            assert start <= low < high <= start + plan.tile[a]


# Stitching


@given(shapes, tilings(), axes, st.integers(1, 5))
def test_an_identity_network_gives_the_volume_back(shape: Shape3, tiling: Tiling, axis: int, batch: int) -> None:
    volume = image(shape, channels=2)
    plan = plan_tiles(shape, tiling, axis=axis)
    np.testing.assert_allclose(stitched(plan, volume, identity, batch), volume, rtol=1e-6, atol=rounding(plan))


@given(shapes, tilings(), axes)
def test_a_plus_one_network_gives_the_volume_plus_one(shape: Shape3, tiling: Tiling, axis: int) -> None:
    volume = image(shape)
    plan = plan_tiles(shape, tiling, axis=axis)
    result = stitched(plan, volume, lambda tiles: tiles + 1)
    np.testing.assert_allclose(result, volume + 1, rtol=1e-6, atol=rounding(plan))


@given(shapes, tilings(), axes)
def test_halo_blending_copies_logits_exactly(shape: Shape3, tiling: Tiling, axis: int) -> None:
    volume = image(shape)
    plan = plan_tiles(shape, replace(tiling, blending="halo"), axis=axis)
    np.testing.assert_array_equal(stitched(plan, volume, local), local(volume[np.newaxis])[0])


@pytest.mark.requirement("R-SAME")
@pytest.mark.parametrize("blending", BLENDINGS)
@given(shape=shapes, tiling=tilings())
@settings(max_examples=30)
def test_the_visiting_axis_and_the_batch_never_change_a_bit(blending: Blending, shape: Shape3, tiling: Tiling) -> None:
    volume, chosen = image(shape, channels=2), replace(tiling, blending=blending)
    expected = stitched(plan_tiles(shape, chosen, axis=0), volume, _per_tile(patchy))
    for axis, batch in ((0, 4), (1, 1), (1, 3), (2, 1), (2, 1000)):
        result = stitched(plan_tiles(shape, chosen, axis=axis), volume, _per_tile(patchy), batch)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("blending", BLENDINGS)
@given(shape=shapes, tiling=tilings(), axis=axes, batch=st.integers(1, 5), data=st.data())
def test_stitching_from_a_plane_on_gives_the_tail_of_the_whole_to_the_last_bit(
    blending: Blending, shape: Shape3, tiling: Tiling, axis: int, batch: int, data: st.DataObject
) -> None:
    plan = plan_tiles(shape, replace(tiling, blending=blending), axis=axis)
    begin = data.draw(st.integers(0, shape[axis] - 1))
    volume, tiles = image(shape, channels=2), list[int]()
    infer = _per_tile(patchy)
    blocks = stitch(plan, planes_of(volume, plan), infer, batch=batch, on_tiles=tiles.append, begin=begin)
    tail = list(assemble_planes(plan, blocks))
    whole = np.moveaxis(stitched(plan, volume, infer, batch), 1 + axis, 0)
    np.testing.assert_array_equal(np.stack(tail), whole[begin:])
    assert sum(tiles) == plan.tile_count - plan.tiles_before(begin)


def test_the_first_row_by_worked_numbers() -> None:
    plan = plan_tiles((1, 1, 10), Tiling((1, 1, 4), overlap=0.5))  # tiles begin at 0, 2, 4 and 6
    assert [plan.first_row(begin) for begin in range(10)] == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    halo = replace(plan, blending="halo")  # cores end at 3, 5, 7 and 10
    assert [halo.first_row(begin) for begin in range(10)] == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]


def _per_tile(infer: InferFunction) -> InferFunction:
    """The same, one contiguous tile at a time, as numpy's own sums depend on the memory layout."""
    return lambda tiles: np.concatenate([infer(np.ascontiguousarray(tile[np.newaxis])) for tile in tiles])


@pytest.mark.parametrize("shape", [(20, 14, 9), (9, 30, 1), (3, 3, 40)])
@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("axis", range(3))
def test_with_a_halo_as_wide_as_the_networks_context_tiles_equal_the_whole_exactly(
    shape: Shape3, radius: int, axis: int
) -> None:
    volume, infer = image(shape), box_filter(radius)
    # tile 8 at overlap 0.5: the least overlap is 4, so each core keeps a halo of at least 2
    plan = plan_tiles(shape, Tiling((8, 8, 8), overlap=0.5, blending="halo"), axis=axis)
    assert plan.tile_count > 1
    np.testing.assert_array_equal(stitched(plan, volume, infer), infer(volume[np.newaxis])[0])


def test_tiles_with_too_narrow_a_halo_differ_from_the_whole() -> None:
    volume, infer = image((20, 14, 9)), box_filter(3)
    plan = plan_tiles((20, 14, 9), Tiling((8, 8, 8), overlap=0.5, blending="halo"))
    assert np.abs(stitched(plan, volume, infer) - infer(volume[np.newaxis])[0]).max() > 1e-3


def test_gaussian_blending_of_a_network_with_context_comes_close_to_the_whole() -> None:
    shape = (30, 26, 20)
    volume, infer = image(shape), box_filter(1)
    whole = infer(volume[np.newaxis])[0]
    errors = {}
    chosen: tuple[Blending, ...] = ("gaussian", "constant")
    for blending in chosen:
        plan = plan_tiles(shape, Tiling((16, 16, 16), overlap=0.5, blending=blending))
        errors[blending] = np.abs(stitched(plan, volume, infer) - whole)
    # Values are standard normal, and a tile's outermost voxels, at 0.03 of the weight, lack a third of their context.
    assert errors["gaussian"].max() < 0.05
    assert errors["gaussian"].mean() < 0.0025
    assert errors["constant"].mean() > 5 * errors["gaussian"].mean()


@given(shapes, st.sampled_from(BLENDINGS), axes)
def test_a_null_patch_infers_the_whole_volume_in_one_tile(shape: Shape3, blending: Blending, axis: int) -> None:
    plan = plan_tiles(shape, Tiling((None, None, None), blending=blending), axis=axis)
    volume, infer = image(shape), box_filter(1)
    assert plan.tile_count == 1
    np.testing.assert_allclose(stitched(plan, volume, infer), infer(volume[np.newaxis])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", [(3, 5, 1), (1, 1, 1), (7, 2, 20), (20, 7, 3)])
@pytest.mark.parametrize("axis", range(3))
def test_volumes_smaller_than_a_tile_are_padded_as_the_card_says(shape: Shape3, padding: Padding, axis: int) -> None:
    volume = image(shape)
    plan = plan_tiles(shape, Tiling((8, 8, 8), 8, overlap=0.0, padding=padding), axis=axis)
    seen: list[Logits] = []

    def infer(tiles: Logits) -> Logits:
        seen.append(tiles.copy())
        return tiles

    np.testing.assert_allclose(stitched(plan, volume, infer), volume, rtol=1e-6, atol=1e-6)
    widths = [(0, 0)] + [(b, p - n - b) for n, p, b in zip(shape, plan.padded, plan.pad_before, strict=True)]
    options: dict[str, Any] = {"constant_values": padding.value} if padding.mode == "constant" else {}
    expected = np.pad(volume, widths, mode=padding.mode, **options)
    np.testing.assert_array_equal(seen[0][0], expected[:, :8, :8, :8])


def test_fixed_sizes_reach_the_network_unchanged() -> None:
    shapes_seen = set()

    def infer(tiles: Logits) -> Logits:
        shapes_seen.add(tiles.shape)
        return tiles

    volume = image((5, 30, 12))
    plan = plan_tiles((5, 30, 12), Tiling((None, None, None)), fixed=(16, 16, 8))
    np.testing.assert_allclose(stitched(plan, volume, infer), volume, rtol=1e-6, atol=1e-6)
    assert shapes_seen == {(1, 1, 16, 16, 8)}


@pytest.mark.parametrize("blending", BLENDINGS)
@pytest.mark.parametrize("axis", range(3))
def test_stitching_reads_no_more_planes_than_the_next_row_of_tiles_needs(blending: Blending, axis: int) -> None:
    shape: list[int] = [6, 6, 6]
    shape[axis] = 60
    plan = plan_tiles((shape[0], shape[1], shape[2]), Tiling((4, 4, 4), overlap=0.5, blending=blending), axis=axis)
    volume = image(plan.shape)
    consumed = 0

    def source() -> Iterator[Logits]:
        nonlocal consumed
        for plane in planes_of(volume, plan):
            consumed += 1
            yield plane

    for block in stitch(plan, source(), identity):
        assert consumed - block.box.start[axis] <= plan.tile[axis]
    assert consumed == 60


class Later:
    """Scores that are computed when they are asked for; counts how many were begun and not asked for."""

    waiting = most = 0

    def __init__(self, tiles: Logits) -> None:
        self._tiles = tiles
        Later.waiting += 1
        Later.most = max(Later.most, Later.waiting)

    def result(self) -> Logits:
        Later.waiting -= 1
        return cubed(self._tiles)


def cubed(tiles: Logits) -> Logits:
    """Two classes, no voxel of which is another's."""
    return np.concatenate([tiles, tiles**3 - 1], axis=1)


@pytest.mark.parametrize("blending", BLENDINGS)
@pytest.mark.parametrize(("axis", "batch", "begin"), [(0, 1, 0), (1, 2, 5), (2, 3, 0), (2, 100, 7)])
def test_pending_logits_give_the_same_bits_with_at_most_two_calls_at_a_time(
    blending: Blending, axis: int, batch: int, begin: int
) -> None:
    plan = plan_tiles((13, 11, 12), Tiling((4, 6, 4), overlap=0.5, blending=blending), axis=axis)
    volume = image(plan.shape)
    Later.waiting = Later.most = 0
    told: list[int] = []
    planes = planes_of(volume, plan)
    at_once = list(stitch(plan, planes_of(volume, plan), cubed, batch=batch, begin=begin))
    later = list(stitch(plan, planes, Later, batch=batch, begin=begin, on_tiles=told.append))
    assert [block.box for block in later] == [block.box for block in at_once]
    for one, other in zip(later, at_once, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)
    assert Later.most == 2
    assert Later.waiting == 0
    assert sum(told) == plan.tile_count - plan.tiles_before(begin)


def test_pending_logits_raise_when_waited_for() -> None:
    class Failing(Later):
        def result(self) -> Logits:
            raise ModelError("net", expected="scores", got="none", do="nothing")

    plan = plan_tiles((8, 8, 8), Tiling((4, 4, 4)), axis=2)
    with pytest.raises(ModelError, match="got none"):
        list(stitch(plan, planes_of(image(plan.shape), plan), Failing))


def test_nothing_is_read_or_inferred_before_the_first_block() -> None:
    def never() -> Iterator[Logits]:
        raise AssertionError("read")
        yield

    plan = plan_tiles((4, 4, 4), Tiling((2, 2, 2)))
    iterator = stitch(plan, never(), identity)
    with pytest.raises(AssertionError, match="read"):
        next(iterator)


def test_tiles_come_in_batches_of_at_most_the_size_asked_for() -> None:
    sizes: list[int] = []

    def infer(tiles: Logits) -> Logits:
        sizes.append(len(tiles))
        return tiles

    plan = plan_tiles((6, 6, 2), Tiling((2, 2, 2), overlap=0))
    stitched(plan, image((6, 6, 2)), infer, batch=4)
    assert sizes == [4, 4, 1]


@pytest.mark.parametrize("blending", ["gaussian", "constant"])
def test_a_volume_that_ends_too_early_is_not_taken_for_a_whole_one(blending: Blending) -> None:
    plan = plan_tiles((4, 4, 9), Tiling((2, 2, 2), blending=blending))
    with pytest.raises(ValueError, match="planes: expected 9 or more, padding included, got 8"):
        list(stitch(plan, iter(np.zeros((8, 1, 4, 4), np.float32)), identity))


# Scores that cannot be used


def cut_short(tiles: Logits) -> Logits:
    return tiles[..., :-1]


def no_class(tiles: Logits) -> Logits:
    return tiles[:, :0]


def one_case_missing(tiles: Logits) -> Logits:
    return tiles[:-1]


def no_batch_axis(tiles: Logits) -> Logits:
    only: Logits = tiles[0]
    return only


@pytest.mark.parametrize("blending", BLENDINGS)
@pytest.mark.parametrize("infer", [cut_short, no_class, one_case_missing, no_batch_axis])
def test_logits_of_another_shape_are_a_model_error(blending: Blending, infer: InferFunction) -> None:
    plan = plan_tiles((4, 4, 4), Tiling((2, 2, 2), blending=blending))
    with pytest.raises(ModelError, match=r"network output: expected logits of shape \(2, 'K', 2, 2, 2\), got \("):
        stitched(plan, image((4, 4, 4)), infer, batch=2)


@pytest.mark.parametrize("blending", BLENDINGS)
@pytest.mark.parametrize(
    ("bad", "dtype"),
    [
        *((bad, "float32") for bad in (np.nan, np.inf, -np.inf, 1.001 * LARGEST_LOGIT, -1.001 * LARGEST_LOGIT)),
        *((bad, "float16") for bad in (np.nan, np.inf, -np.inf)),
    ],
)
def test_a_logit_that_is_not_finite_or_too_large_is_a_model_error(blending: Blending, bad: float, dtype: str) -> None:
    def infer(tiles: Logits) -> Any:
        result = tiles.astype(dtype)
        result[0, 0, 1, 0, 1] = bad
        return result

    plan = plan_tiles((4, 4, 4), Tiling((2, 2, 2), blending=blending))
    with pytest.raises(ModelError, match=r"network output: expected finite logits within \+-262144"):
        stitched(plan, image((4, 4, 4)), infer)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("edge", [1, 2, 3, 4, 5, 6, 7, 11, 15])
def test_the_largest_accepted_logit_does_not_overflow_the_sums(edge: int, sign: int) -> None:
    shape = (3 * edge, 3 * edge, edge + 8)
    plan = plan_tiles(shape, Tiling((edge, edge, edge), overlap=LARGEST_OVERLAP, blending="constant"))
    volume = np.full((1, *shape), sign * LARGEST_LOGIT, np.float32)
    np.testing.assert_array_equal(stitched(plan, volume, identity, batch=500), volume)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_logits_of_other_number_types_become_float32(dtype: str) -> None:
    plan = plan_tiles((4, 4, 4), Tiling((2, 2, 2)))
    infer: Callable[[Any], Any] = lambda tiles: np.rint(tiles).astype(dtype)  # noqa: E731
    volume = image((4, 4, 4))
    np.testing.assert_allclose(stitched(plan, volume, infer), np.rint(volume), atol=1e-6)


# Planes from blocks


@given(shapes, tilings(), axes)
def test_blocks_are_assembled_into_finished_planes_in_order(shape: Shape3, tiling: Tiling, axis: int) -> None:
    volume = image(shape, channels=2)
    plan = plan_tiles(shape, tiling, axis=axis)
    planes = list(assemble_planes(plan, stitch(plan, planes_of(volume, plan), identity)))
    assert len(planes) == shape[axis]
    np.testing.assert_allclose(np.stack(planes, axis=1 + axis), volume, rtol=1e-6, atol=rounding(plan))


def test_planes_are_yielded_when_the_next_row_begins() -> None:
    plan = plan_tiles((2, 2, 6), Tiling((2, 2, 2), overlap=0, blending="halo"))
    taken = 0

    def blocks() -> Iterator[Block]:
        nonlocal taken
        for start in (0, 2, 4):
            taken += 1
            yield Block(Box((0, 0, start), (2, 2, start + 2)), np.zeros((1, 2, 2, 2), np.float32))

    planes = assemble_planes(plan, blocks())
    next(planes)
    assert taken == 2
    assert len(list(planes)) == 5


# Memory


@pytest.mark.parametrize("blending", BLENDINGS)
@given(shape=shapes, tiling=tilings(), axis=axes, channels=st.integers(1, 4), classes=st.integers(1, 20))
def test_the_memory_of_a_slab_grows_with_channels_and_classes(
    blending: Blending, shape: Shape3, tiling: Tiling, axis: int, channels: int, classes: int
) -> None:
    plan = plan_tiles(shape, replace(tiling, blending=blending), axis=axis)
    size = slab_bytes(plan, channels, classes)
    assert 0 < size < slab_bytes(plan, channels + 1, classes)
    assert size < slab_bytes(plan, channels, classes + 1)


@given(shapes, tilings(), axes)
def test_it_grows_with_the_patch_and_the_plane_but_not_along_the_visiting_axis(
    shape: Shape3, tiling: Tiling, axis: int
) -> None:
    def size(shape: Shape3, patch: int) -> int:
        return slab_bytes(plan_tiles(shape, replace(tiling, patch=(patch,) * 3, divisor=1), axis=axis), 1, 2)

    longer, wider = list(shape), list(shape)
    longer[axis] += 50
    wider[(axis + 1) % 3] += 50
    patch = min(shape)
    assert size((longer[0], longer[1], longer[2]), patch) == size(shape, patch)
    assert size((wider[0], wider[1], wider[2]), patch) > size(shape, patch)
    assert patch == 1 or size(shape, patch - 1) < size(shape, patch)


def test_halo_blending_needs_no_accumulator() -> None:
    tiling = Tiling((8, 8, 8))
    blended, halo = (plan_tiles((64, 64, 64), replace(tiling, blending=b)) for b in ("gaussian", "halo"))
    accumulator = 64 * 64 * 8 * 100 * 8
    assert slab_bytes(blended, 1, 100) - slab_bytes(halo, 1, 100) >= accumulator


@pytest.mark.parametrize("blending", BLENDINGS)
def test_the_stitchers_own_arrays_fit_into_the_memory_that_is_stated(blending: Blending) -> None:
    import tracemalloc

    plan = plan_tiles((64, 64, 200), Tiling((32, 32, 16), blending=blending))
    plane: NDArray[np.float32] = np.ones((1, 64, 64), np.float32)

    def infer(tiles: Logits) -> Logits:
        return np.concatenate([tiles] * 4, axis=1)

    tracemalloc.start()
    try:
        for _ in stitch(plan, (plane.copy() for _ in range(200)), infer):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 1.1 * slab_bytes(plan, 1, 4)


# Room for what grows with a plane


@pytest.fixture
def all_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxport.domain.inference.buffers.LARGEST_IN_MEMORY", 0)


@pytest.mark.usefixtures("all_is_large")
@given(shapes, tilings(), axes, st.integers(1, 3), st.integers(1, 2), st.integers(1, 3), st.booleans(), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_blocks_and_planes_with_buffers_on_disk_are_bit_identical(
    shape: Shape3,
    tiling: Tiling,
    axis: int,
    batch: int,
    channels: int,
    classes: int,
    assembled: bool,
    data: st.DataObject,
) -> None:
    plan = plan_tiles(shape, tiling, axis=axis)
    begin = data.draw(st.integers(0, shape[axis] - 1))
    volume = image(shape, channels)

    def infer(tiles: Logits) -> Logits:
        return np.concatenate([tiles[:, :1] ** (1 + number) for number in range(classes)], axis=1)

    def found(buffers: Buffers | None) -> list[tuple[Box | None, bytes]]:
        blocks = stitch(plan, planes_of(volume, plan), infer, batch=batch, begin=begin, buffers=buffers)
        if assembled:
            return [(None, plane.tobytes()) for plane in assemble_planes(plan, blocks, buffers)]
        return [(block.box, block.logits.tobytes()) for block in blocks]

    scratch = Recorder()
    assert found(scratch) == found(None)
    # the window, sums where tiles are blended, and a row of planes
    assert len(scratch.made) == 1 + (plan.blending != "halo") + assembled


def test_small_buffers_stay_in_memory() -> None:
    scratch = Recorder()
    plan = plan_tiles((9, 9, 9), Tiling((4, 4, 4)))
    list(assemble_planes(plan, stitch(plan, planes_of(image((9, 9, 9)), plan), identity, buffers=scratch), scratch))
    assert scratch.made == []


@pytest.mark.usefixtures("all_is_large")
@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("blending", BLENDINGS)
def test_memory_with_buffers_on_disk_is_a_row_of_tiles_for_any_plane(blending: Blending, axis: int) -> None:
    """64 times the plane: a row of tiles is 8 times as long."""
    tiling = Tiling((8, 8, 8), overlap=0.25, blending=blending)
    sizes, pieces = [], []
    for edge in (32, 256):
        shape = [edge] * 3
        shape[axis] = 16
        plan = plan_tiles((shape[0], shape[1], shape[2]), tiling, axis=axis)
        scratch = Recorder()
        for _ in stitch(plan, planes_of(np.zeros((1, *plan.shape), np.float32), plan), identity, buffers=scratch):
            pass
        sizes.append(slab_bytes(plan, 1, 1, has_buffers=True))
        pieces.append(scratch.largest_bytes)
        assert scratch.largest_bytes <= sizes[-1] < slab_bytes(plan, 1, 1)
        assert len(scratch.made) == 1 + (blending != "halo")
    assert blending != "halo" or pieces[1] == 8 * pieces[0]
    # a strip of sums counts up to its bound
    assert pieces[1] <= max(8 * pieces[0], 2**21)


@pytest.mark.parametrize("blending", BLENDINGS)
def test_memory_with_buffers_on_disk_is_bounded_for_a_plane_of_4096(blending: Blending) -> None:
    """A slab of 4.8 GB; what is held is 17 MB of window and less than as much for everything else."""
    plan = plan_tiles((4096, 4096, 512), Tiling((64, 64, 16), overlap=0.25, blending=blending))
    assert slab_bytes(plan, 1, 2, assembled=True) > (2e9 if blending == "halo" else 4e9)
    assert slab_bytes(plan, 1, 2, has_buffers=True) < 17e6 + 2**24 * 4 + 2**22 * 12


def test_a_buffer_without_space_ends_the_run_before_inference(all_is_large: None) -> None:  # noqa: ARG001
    class Full(Recorder):
        def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
            raise LimitError("scratch", expected=f"room for {shape} of {dtype}", got="none", do="name another")

    plan = plan_tiles((9, 9, 9), Tiling((4, 4, 4)))
    with pytest.raises(LimitError, match="expected room for"):
        next(stitch(plan, planes_of(image((9, 9, 9)), plan), identity, buffers=Full()))


def test_buffers_are_closed_when_stitching_is_abandoned(all_is_large: None) -> None:  # noqa: ARG001
    closed: list[str] = []

    class Closings(Recorder):
        def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
            class Closing(MemoryBuffer):
                def __exit__(self, *_: object) -> None:
                    closed.append("closed")

            return Closing(shape, dtype)

    plan = plan_tiles((9, 9, 9), Tiling((4, 4, 4)))
    blocks = stitch(plan, planes_of(image((9, 9, 9)), plan), identity, buffers=Closings())
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert closed == ["closed"] * 2
