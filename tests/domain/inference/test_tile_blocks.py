"""Tiles that are inferred block by block give the bits of a run without blocks."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from voxport.domain.geometry.grid import Box, Shape3
from voxport.domain.inference.blending import Block, Logits, mean_logits
from voxport.domain.inference.patches import TilePlan, Tiling, plan_tiles
from voxport.domain.inference.sliding_window import InferFunction
from voxport.domain.inference.tile_blocks import CellSums, TileBlocks, infer_block

from .test_patches import axes, image, patchy, planes_of, shapes, stitched, tilings

blocks_of = st.tuples(*[st.integers(1, 4)] * 3)


@st.composite
def contexts(draw: st.DrawFn) -> Tiling:
    """Tiles that start at multiples of a divisor, over a volume that is padded to one, in halo blending."""
    context = draw(st.tuples(*[st.integers(1, 3)] * 3))
    patch = draw(st.tuples(*[st.sampled_from([8, 12, 16])] * 3))
    tiling = draw(tilings())
    return replace(tiling, patch=patch, divisor=4, context=context, blending="halo", windows="even")


def by_blocks(blocks: TileBlocks, volume: Logits, infer: InferFunction) -> Logits:
    """Infer each block from its own voxels alone, then add up the sums of the blocks that meet."""
    plan, result = blocks.plan, np.full((volume.shape[0], *blocks.plan.shape), np.nan, np.float32)
    given: dict[Box, list[tuple[int, CellSums]]] = {}
    for number in range(blocks.count):
        part, region = blocks.part(number)
        for found in infer_block(blocks, number, planes_of(volume[:, *region.slices], part), infer):
            if isinstance(found, Block):
                assert found.box.common(blocks.own(number)) == found.box
                assert np.isnan(result[:, *found.box.slices]).all()
                result[:, *found.box.slices] = found.logits
            else:
                given.setdefault(found.cell.box, []).append((number, found))
    for box, cells in given.items():
        assert tuple(number for number, _ in cells) == cells[0][1].cell.blocks
        assert box.common(blocks.own(cells[0][1].cell.owner)) == box
        assert np.isnan(result[:, *box.slices]).all()
        total: NDArray[np.int64] = sum((cell.sums for _, cell in cells), np.zeros_like(cells[0][1].sums))
        result[:, *box.slices] = mean_logits(plan, box, total)
    return result


@given(shapes, tilings(max_edge=8) | contexts(), axes, blocks_of)
def test_blocks_give_the_bits_of_a_run_without_blocks(shape: Shape3, tiling: Tiling, axis: int, tiles: Shape3) -> None:
    plan = plan_tiles(shape, tiling, axis=axis)
    volume = image(shape, channels=2)
    whole = stitched(plan, volume, patchy)
    np.testing.assert_array_equal(by_blocks(TileBlocks(plan, tiles), volume, patchy), whole)


@given(shapes, tilings(), blocks_of)
def test_every_tile_and_every_voxel_belongs_to_one_block(shape: Shape3, tiling: Tiling, tiles: Shape3) -> None:
    plan = plan_tiles(shape, tiling)
    blocks = TileBlocks(plan, tiles)
    owners, seen = np.full(shape, -1), []
    for number in range(blocks.count):
        own = blocks.own(number)
        assert (owners[own.slices] == -1).all()
        owners[own.slices] = number
        part, region = blocks.part(number)
        origin = [start - pad for start, pad in zip(region.start, part.pad_before, strict=True)]
        seen += [tuple(a + b for a, b in zip(origin, place, strict=True)) for place in product(*part.starts)]
    assert (owners >= 0).all()
    first = [-pad for pad in plan.pad_before]
    assert sorted(seen) == sorted(tuple(a + b for a, b in zip(first, p, strict=True)) for p in product(*plan.starts))
    box = Box((0, 0, 0), tuple(-(-edge // 2) for edge in shape))  # type: ignore[arg-type]
    assert sorted(blocks.meeting(box)) == np.unique(owners[box.slices]).tolist()


def test_blocks_have_about_the_edge_that_is_asked_for() -> None:
    plan: TilePlan = plan_tiles((1024, 1024, 64), Tiling((128, 128, 64), overlap=0.5))
    assert TileBlocks.of_edge(plan, 512).tiles == (8, 8, 1)
    assert TileBlocks.of_edge(plan, 512).shape == (2, 2, 1)
    assert TileBlocks.of_edge(plan, 1).tiles == (1, 1, 1)
    assert TileBlocks.of_edge(plan, 10**6).count == 1
