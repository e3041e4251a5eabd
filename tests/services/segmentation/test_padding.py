"""Volumes smaller than the patch are padded to it where the card says so; networks that look at the whole patch tell.

The networks are in closed form: the sum over the patch, which counts voxels, and a shift by one, which sees the edge.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from voxport.domain.inference.patches import Padding, Tiling, plan_tiles

from tests.services.conftest import Bench, calls_of, load, make_card, make_grid

Floats = NDArray[np.float32]
PATCH = (12, 8, 16)


def card_with(to: Literal["patch", "divisor"] | None, value: float = 0.0) -> object:
    return make_card(tiling=Tiling(PATCH, divisor=4, overlap=0.5, padding=Padding("constant", value, to)))


@pytest.mark.parametrize(
    ("shape", "to", "tile"),
    [
        ((5, 5, 5), None, (8, 8, 8)),
        ((5, 5, 5), "divisor", (8, 8, 8)),
        ((5, 5, 5), "patch", PATCH),
        ((40, 5, 40), "patch", PATCH),
        ((40, 40, 40), "patch", PATCH),
        ((40, 40, 40), None, PATCH),
        ((12, 8, 15), "patch", PATCH),
    ],
)
def test_a_tile_is_the_patch_or_the_volume_rounded_up(
    shape: tuple[int, int, int], to: Literal["patch", "divisor"] | None, tile: tuple[int, int, int]
) -> None:
    plan = plan_tiles(shape, Tiling(PATCH, divisor=4, padding=Padding(to=to)))
    assert plan.tile == tile
    assert plan.padded == tuple(map(max, shape, tile))
    assert plan.pad_before == tuple((p - n) // 2 for p, n in zip(plan.padded, shape, strict=True))


def test_a_whole_axis_is_rounded_up_whatever_the_padding() -> None:
    plan = plan_tiles((5, 5, 5), Tiling((None, 8, None), divisor=4, padding=Padding(to="patch")))
    assert plan.tile == (8, 8, 8)


@pytest.mark.parametrize("shape", [(5, 5, 5), (1, 1, 1), (12, 8, 16), (30, 5, 20), (11, 30, 3)])
@pytest.mark.parametrize(("to", "value"), [("patch", 1.0), ("divisor", 1.0), (None, 1.0)])
def test_a_network_that_counts_the_voxels_of_its_patch_counts_those_of_the_plan(
    bench: Bench, shape: tuple[int, int, int], to: Literal["patch", "divisor"] | None, value: float
) -> None:
    """The volume and the padding are 1 everywhere: the mean over the patch times its size is the size."""

    def counts(batch: Floats) -> Floats:
        total = batch.sum(axis=(2, 3, 4), keepdims=True) - np.float32(np.prod(PATCH)) + np.float32(0.5)
        return np.concatenate([np.zeros_like(batch), np.broadcast_to(total, batch.shape)], axis=1)

    bench.put(np.ones(shape, np.float32), make_grid(shape))
    bench.segment(load(counts, card_with(to, value)))  # type: ignore[arg-type]
    full = to == "patch" or all(-(-n // 4) * 4 >= p for n, p in zip(shape, PATCH, strict=True))
    np.testing.assert_array_equal(bench.array(), np.full(shape, int(full)))


@pytest.mark.parametrize("shape", [(5, 5, 5), (4, 30, 7), (30, 20, 40)])
def test_every_voxel_sees_the_neighbour_that_it_has_in_the_padded_volume(
    bench: Bench, shape: tuple[int, int, int]
) -> None:
    """A shift by one along x: beyond the volume comes the padding, 1, as the patch goes on there."""

    def shifted(batch: Floats) -> Floats:
        return np.concatenate([np.full_like(batch, 0.5), np.roll(batch, -1, axis=2)], axis=1)

    values = np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)
    bench.put(values, make_grid(shape))
    tiling = Tiling((40, 40, 40), divisor=4, padding=Padding("constant", 1.0, "patch"))
    bench.segment(load(shifted, make_card(tiling=tiling)))
    right = np.concatenate([values[1:], np.ones((1, *shape[1:]), np.float32)])
    np.testing.assert_array_equal(bench.array(), right > 0.5)


def test_a_runs_own_larger_patch_does_not_pad_a_small_volume_further(bench: Bench) -> None:
    def steady(batch: Floats) -> Floats:
        return np.concatenate([batch, -batch], axis=1)

    loaded = load(steady, card_with("patch"))  # type: ignore[arg-type]
    bench.put(np.ones((5, 20, 5), np.float32), make_grid((5, 20, 5)))
    bench.segment(loaded, patch=(32, 32, 32))
    assert set(calls_of(loaded)) == {(1, 1, 12, 20, 16)}
    bench.segment(loaded, patch=(4, 4, 4))
    assert calls_of(loaded)[-1] == (1, 1, 4, 4, 4)
