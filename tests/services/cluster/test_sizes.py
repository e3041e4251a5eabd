"""What blocks pass on, counted by hand for two tiles that overlap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
from voxport.domain.inference.patches import Tiling
from voxport.domain.inference.tile_blocks import TileBlocks
from voxport.domain.run import RunOptions
from voxport.domain.volume import Volume
from voxport.services.cluster.sizes import BlockSizes
from voxport.services.segmentation.case import Case
from voxport.services.segmentation.inference import Inferer
from voxport.services.segmentation.preparation.prepare import Prepared, prepare

from tests.services.conftest import brighter_than, load, make_card, make_grid, noise

SHAPE = (12, 8, 8)  # of which two tiles share the four planes in the middle
SHARED, ALL = 4 * 8 * 8, 12 * 8 * 8
HALVES = Tiling((8, 8, 8), overlap=0.5)


@pytest.fixture
def prepared(opened: Callable[..., Case]) -> Callable[..., Prepared]:
    """Prepares a case for two classes."""

    def run(tiling: Tiling = HALVES, label: int = 1) -> Prepared:
        card = make_card(labels=(label,), tiling=tiling)
        case = opened(Volume(noise(SHAPE), make_grid(SHAPE)))
        inferer = Inferer(load(brighter_than(0.5), card).runtime, card)
        return prepare(case, card, inferer, RunOptions(), resources=None)

    return run


def moved(prepared: Prepared, *, keeps_logits: bool = False, more_channels: int = 0, edge: int = 1) -> tuple[int, int]:
    assert prepared.plan.starts[0] == (0, 4)
    sizes = BlockSizes(prepared, keeps_logits, more_channels)
    return sizes.moved_bytes(TileBlocks.of_edge(prepared.plan, edge))


def test_both_blocks_pass_on_the_sums_of_the_voxels_that_they_share(prepared: Callable[..., Prepared]) -> None:
    sums, _ = moved(prepared())
    assert sums == 2 * SHARED * 2 * 8  # of two blocks and two classes, as 64-bit integers


def test_one_block_passes_no_sums_on(prepared: Callable[..., Prepared]) -> None:
    sums, _ = moved(prepared(), edge=100)
    assert sums == 0


def test_without_blending_no_sums_are_passed_on(prepared: Callable[..., Prepared]) -> None:
    sums, _ = moved(prepared(replace(HALVES, blending="halo")))
    assert sums == 0


@pytest.mark.parametrize(("windows", "more", "classes"), [("even", 1, 3), ("nnunet", 0, 3), ("nnunet", 1, 4)])
def test_more_channels_and_summed_weights_are_passed_on_as_classes_are(
    prepared: Callable[..., Prepared], windows: Literal["even", "nnunet"], more: int, classes: int
) -> None:
    sums, _ = moved(prepared(replace(HALVES, windows=windows)), more_channels=more)
    assert sums == 2 * SHARED * classes * 8


@pytest.mark.parametrize(("label", "bits"), [(1, 1), (5, 3), (255, 8), (256, 9)])
def test_labels_take_the_bits_of_the_largest(prepared: Callable[..., Prepared], label: int, bits: int) -> None:
    _, results = moved(prepared(label=label))
    assert results == ALL * bits // 8


def test_logits_take_four_bytes_a_class(prepared: Callable[..., Prepared]) -> None:
    assert moved(prepared(), keeps_logits=True)[1] == ALL * 2 * 4
    assert moved(prepared(), keeps_logits=True, more_channels=1)[1] == ALL * 3 * 4
