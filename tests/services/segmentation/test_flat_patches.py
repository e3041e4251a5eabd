"""Tiles of one value are scored once, and nobody can tell: masks and scores are the same to the last bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxport.application import Application
from voxport.domain.cards.model_card import Axes
from voxport.domain.geometry.grid import Shape3
from voxport.domain.inference.blending import Logits
from voxport.domain.inference.patches import Padding, TilePlan, Tiling, plan_tiles
from voxport.domain.inference.sliding_window import assemble_planes, stitch
from voxport.domain.run import BLENDINGS, LARGEST_OVERLAP
from voxport.ports.runtime import RuntimeOptions
from voxport.services.segmentation import inference as scoring
from voxport.services.segmentation.inference import Inferer, flat_values
from voxport.testing.affine import Floats
from voxport.testing.fakes import FakeRuntime

from tests.services.conftest import Bench, brighter_than, load, make_card, noise


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    shape = draw(st.tuples(*[st.integers(1, 14)] * 3))
    divisor = draw(st.sampled_from([1, 2, 4]))
    edge = st.integers(1, max(1, 8 // divisor)).map(lambda n: n * divisor)
    padding = draw(st.sampled_from([Padding("constant", 0.25), Padding("edge"), Padding("reflect")]))
    overlap, blending = draw(st.floats(0, LARGEST_OVERLAP)), draw(st.sampled_from(BLENDINGS))
    tiling = Tiling(draw(st.tuples(edge, edge, edge)), divisor, overlap, blending, padding)
    return plan_tiles(shape, tiling, axis=draw(st.integers(0, 2)))


def with_background(shape: Shape3, seed: int, channels: int = 1) -> Logits:
    """Two flat values, and noise in a box somewhere."""
    random = np.random.default_rng(seed)
    volume = np.full((channels, *shape), 0.25, np.float32)
    volume[:, : random.integers(0, shape[0] + 1)] = 0
    box = tuple(slice(*np.sort(random.integers(0, n + 1, 2))) for n in shape)
    volume[:, *box] = random.random(volume[:, *box].shape)
    return volume


def two_scores(batch: Floats) -> Floats:
    """Scores that depend on the voxel, on the whole tile and on where the voxel lies in it."""
    ramp = np.cumsum(np.ones_like(batch), axis=2)
    return np.concatenate([batch + 1, batch.mean(axis=(1, 2, 3, 4), keepdims=True) * ramp], axis=1)


def stitched(plan: TilePlan, volume: Logits, inferer: Inferer, batch: int) -> Logits:
    planes: Iterator[Logits] = iter(np.moveaxis(volume, 1 + plan.axis, 0))
    return np.stack(list(assemble_planes(plan, stitch(plan, planes, inferer.begin, batch=batch))))


@pytest.mark.parametrize("axes", ["XYZ", "ZYX"])
@given(plan=plans(), seed=st.integers(0, 99), batch=st.integers(1, 5), fixed=st.sampled_from([None, 3]))
@settings(max_examples=60)
def test_results_equal_inference_of_every_tile_and_each_is_inferred_or_repeated(
    axes: Axes, plan: TilePlan, seed: int, batch: int, fixed: int | None
) -> None:
    volume, card = with_background(plan.shape, seed), make_card(axes=axes)
    runtime = FakeRuntime(two_scores, input_shape=(fixed, 1, None, None, None))
    with Inferer(runtime, card) as inferer:
        found = stitched(plan, volume, inferer, fixed or batch)
        repeated = inferer.repeated
    with pytest.MonkeyPatch.context() as patch, Inferer(FakeRuntime(two_scores), card) as inferer:
        patch.setattr(scoring, "flat_values", lambda _: None)
        expected = stitched(plan, volume, inferer, batch)
        assert inferer.repeated == 0
    np.testing.assert_array_equal(found, expected)
    if fixed is None and batch == 1:
        assert len(runtime.calls) + repeated == plan.tile_count


def test_an_empty_volume_is_inferred_for_one_tile(bench: Bench) -> None:
    bench.put(np.full((12, 10, 9), 0.5, np.float32))
    card = make_card(tiling=Tiling((4, 4, 4)))
    loaded = load(brighter_than(0.6), card)
    done = bench.segment(loaded)
    assert isinstance(loaded.runtime, FakeRuntime)
    assert len(loaded.runtime.calls) == 1
    assert done.repeated_tiles == done.prepared.plan.tile_count - 1
    assert not bench.array().any()


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_real_network_gives_the_same_bits(runtime: str) -> None:
    application = Application.build()
    model = application.find_model(None)
    opened = application.container.runtimes()[runtime](model, RuntimeOptions())
    volume = np.zeros((1, 48, 48, 16), np.float32)
    volume[:, 20:28, :10] = noise((1, 8, 10, 16))
    plan = plan_tiles((48, 48, 16), Tiling((16, 16, 16), 16), axis=0)
    with Inferer(opened, model.card) as inferer:
        found = stitched(plan, volume, inferer, 1)
        assert inferer.repeated > plan.tile_count // 3
    with pytest.MonkeyPatch.context() as patch, Inferer(opened, model.card) as inferer:
        patch.setattr(scoring, "flat_values", lambda _: None)
        np.testing.assert_array_equal(found, stitched(plan, volume, inferer, 1))
    opened.close()


def test_flat_values_by_worked_numbers() -> None:
    batch = np.zeros((2, 2, 3, 3, 3), np.float32)
    batch[1, 1] = 2
    assert flat_values(batch) == np.array([[0, 0], [0, 2]], np.float32).tobytes()
    for place in ((0, 0, 0, 0, 0), (1, 0, 1, 1, 1), (1, 1, 2, 2, 2)):
        other = batch.copy()
        other[place] = -0.0 if place[0] == 0 else 1
        assert flat_values(other) is None, place


def test_tiles_of_other_values_or_another_batch_are_inferred() -> None:
    runtime = FakeRuntime(two_scores)
    with Inferer(runtime, make_card()) as inferer:
        for value, count in ((0.0, 1), (0.0, 1), (1.0, 1), (1.0, 2), (1.0, 2), (-0.0, 2), (0.0, 2)):
            batch = np.full((count, 1, 3, 3, 3), value, np.float32)
            np.testing.assert_array_equal(inferer(batch), two_scores(batch))
        assert inferer.repeated == 3
    assert len(runtime.calls) == 5
