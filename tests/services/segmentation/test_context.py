"""With the context of a network in the card, labels depend on neither patch, overlap, memory nor visiting axis."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxport.contract.card import read_card
from voxport.domain.cards.writing import write_card
from voxport.domain.errors import UsageError, VoxportError
from voxport.domain.geometry.grid import Shape3
from voxport.domain.inference.patches import Padding, Tiling, plan_tiles
from voxport.domain.inference.sliding_window import assemble_planes, stitch
from voxport.services.segmentation.inference import Inferer
from voxport.testing.affine import Floats
from voxport.testing.fakes import FakeRuntime

from tests.services.conftest import make_card

RADIUS, DIVISOR = 2, 4
# A mean over 2 voxels on each side of each voxel of a cell of 4 voxels: at most 3 + 2 away.
CONTEXT = RADIUS + DIVISOR - 1


def of_cells(batch: Floats) -> Floats:
    """Return two logits: zero, and the mean of a voxel's cell, as a network with stride 4 sees it."""
    n, c, x, y, z = batch.shape
    cells = batch.reshape(n, c, x // DIVISOR, DIVISOR, y // DIVISOR, DIVISOR, z).mean(axis=(3, 5))
    fine = cells.repeat(DIVISOR, axis=2).repeat(DIVISOR, axis=3)
    return np.concatenate([np.zeros_like(batch), fine], axis=1)


def inferred(volume: Floats, tiling: Tiling, axis: int) -> Floats:
    plan = plan_tiles(volume.shape[1:], tiling, axis=axis)
    inferer = Inferer(FakeRuntime(of_cells, radius=RADIUS), make_card())
    planes = iter(np.moveaxis(volume, 1 + axis, 0))
    logits = np.stack(list(assemble_planes(plan, stitch(plan, planes, inferer.begin, batch=2))))
    return np.moveaxis(logits, 0, 1 + axis)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 40), st.integers(1, 30)),
    patch=st.tuples(*[st.integers(1, 8).map(lambda n: n * DIVISOR)] * 2, st.integers(1, 30)),
    overlap=st.floats(0, 0.75),
    axis=st.integers(0, 2),
    mode=st.sampled_from(["constant", "edge"]),
)
def test_every_tiling_infers_what_one_tile_does(
    shape: Shape3, patch: Shape3, overlap: float, axis: int, mode: str
) -> None:
    whole = Tiling(
        (None, None, None),
        (DIVISOR, DIVISOR, 1),
        blending="halo",
        padding=Padding(mode, 0.5),  # type: ignore[arg-type]
        context=(CONTEXT, CONTEXT, RADIUS),
    )
    volume = np.random.default_rng(0).random((1, *shape), np.float32)
    found = inferred(volume, replace(whole, patch=patch, overlap=overlap), axis)
    np.testing.assert_array_equal(found, inferred(volume, whole, 2))


def test_a_context_that_is_too_small_is_seen() -> None:
    volume = np.random.default_rng(0).random((1, 60, 40, 30), np.float32)
    tiling = Tiling((16, 16, 8), (DIVISOR, DIVISOR, 1), 0.0, "halo", context=(1, 1, 1))
    whole = replace(tiling, patch=(None, None, None))
    assert (inferred(volume, tiling, 2) != inferred(volume, whole, 2)).any()


@pytest.mark.parametrize(
    ("length", "tile", "starts"), [(512, 320, (0, 96, 192)), (512, 512, (0,)), (1024, 512, (0, 256, 512))]
)
def test_starts_are_multiples_of_the_divisor_with_twice_the_context_between(
    length: int, tile: int, starts: tuple[int, ...]
) -> None:
    plan = plan_tiles((length, 8, 8), Tiling((tile, 8, 8), 8, 0.0, "halo", context=(67, 0, 0)))
    assert plan.starts[0] == starts


def test_a_patch_that_is_too_small_for_the_context_is_enlarged() -> None:
    plan = plan_tiles((512, 512, 32), Tiling((128, 128, 16), (8, 8, 1), 0.0, "halo", context=(67, 67, 6)))
    assert plan.tile == (200, 200, 20)


@pytest.mark.parametrize(("length", "tile"), [(16, 16), (9, 16), (60, 32)])
def test_a_network_of_one_size_is_taken_where_its_context_fits(length: int, tile: int) -> None:
    tiling = Tiling((None, 8, 8), 8, 0.0, "halo", context=(8, 0, 0))
    plan = plan_tiles((length, 8, 8), tiling, fixed=(tile, None, None))
    assert all(b - a <= tile - 2 * 8 for a, b in pairwise(plan.starts[0]))


def test_a_network_of_one_size_that_its_context_fills_is_refused() -> None:
    tiling = Tiling((None, 8, 8), 8, 0.0, "halo", context=(8, 0, 0))
    with pytest.raises(UsageError, match="context"):
        plan_tiles((60, 8, 8), tiling, fixed=(16, None, None))


def test_a_card_keeps_its_context() -> None:
    card = make_card(tiling=Tiling((16, 16, 8), 8, 0.0, "halo", context=(5, 5, 2)))
    written = write_card(card)
    assert (written["schema"], written["inference"]["context"]) == ("voxport/model-card/2", [5, 5, 2])
    assert read_card(written) == card


@pytest.mark.parametrize(
    ("inference", "named"),
    [
        ({"context": [5, 5, 2]}, "blending"),
        ({"blending": "halo"}, "blending"),
        ({"context": [5, 5, 2], "blending": "halo", "windows": "monai"}, "windows"),
        ({"context": [5, 5, 2], "blending": "halo", "padding": {"to": "patch"}}, "padding"),
        ({"context": [5, 5], "blending": "halo"}, "context"),
        ({"context": [5, 5, -1], "blending": "halo"}, "context"),
    ],
)
def test_a_context_that_cannot_hold_is_refused(inference: dict[str, object], named: str) -> None:
    written = write_card(make_card(tiling=Tiling((16, 16, 8), 8, 0.0, "halo", context=(5, 5, 2))))
    written["inference"] = {"patch": [16, 16, 8], "divisor": 8, **inference}
    with pytest.raises(VoxportError, match=named):
        read_card(written)
