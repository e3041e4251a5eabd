"""Logits are the mean over the mirror images of each patch, as the card says and as nnU-Net averages them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from voxport.domain.cards.model_card import ModelCard
from voxport.domain.errors import ModelError
from voxport.domain.inference.patches import Tiling
from voxport.domain.run import Outputs, RunOptions
from voxport.domain.volume import Volume
from voxport.ports.runtime import NetworkShape
from voxport.services.segmentation.estimate import estimate
from voxport.services.segmentation.inference import Inferer
from voxport.services.segmentation.report import run_report, tiles_mapping
from voxport.testing.affine import Floats
from voxport.testing.fakes import FakeRuntime

from tests.services.conftest import ANY, Bench, calls_of, load, make_card, make_grid, noise

Axes = Literal["XYZ", "ZYX"]


def lopsided(batch: Floats) -> Floats:
    """Logits that differ between the ends of each axis, by other amounts along each."""
    total = 0.1 * np.cumsum(batch, axis=2) + 0.03 * np.cumsum(batch, axis=3) + 0.007 * np.cumsum(batch, axis=4)
    return np.concatenate([batch, total.astype(np.float32)], axis=1)


def mirrored_card(mirror: Sequence[int], axes: Axes = "XYZ", orientation: str | None = "RAS") -> ModelCard:
    return make_card(axes=axes, orientation=orientation, tiling=Tiling((8, 8, 8), mirror=tuple(mirror)))


def averaged(batch: Floats, mirror: Sequence[int], axes: Axes = "XYZ") -> NDArray[np.float64]:
    """The mean by its definition, in float64."""
    images = []
    for count in range(len(mirror) + 1):
        for chosen in itertools.combinations(mirror, count):
            flipped = np.flip(batch, tuple(2 + axis for axis in chosen))
            logits = lopsided(flipped.transpose(0, 1, 4, 3, 2)) if axes == "ZYX" else lopsided(flipped)
            back = logits.transpose(0, 1, 4, 3, 2) if axes == "ZYX" else logits
            images.append(np.flip(back, tuple(2 + axis for axis in chosen)).astype(np.float64))
    mean: NDArray[np.float64] = np.mean(images, axis=0)
    return mean


@given(st.sets(st.integers(0, 2)), st.sampled_from(["XYZ", "ZYX"]), st.integers(1, 3), st.sampled_from([None, 3]))
def test_logits_are_the_mean_over_all_combinations_of_the_cards_axes(
    mirror: set[int], axes: Axes, given_batch: int, fixed: int | None
) -> None:
    batch = noise((given_batch, 1, 4, 5, 6))
    shape: NetworkShape = (fixed, 1, None, None, None)
    runtime = FakeRuntime(lopsided, input_shape=shape)
    with Inferer(runtime, mirrored_card(sorted(mirror), axes)) as inferer:
        logits = inferer(batch)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, averaged(batch, sorted(mirror), axes), rtol=0, atol=1e-6)
        np.testing.assert_array_equal(inferer(batch), logits)
    assert len(runtime.calls) == 2 * 2 ** len(mirror)
    assert {call[0] for call in runtime.calls} == {fixed or given_batch}


@pytest.mark.parametrize("axes", ["XYZ", "ZYX"])
def test_images_are_summed_in_float32_in_the_order_of_nnu_net(axes: Axes) -> None:
    """The batch first, then single axes of the network in order, pairs of them, and all three."""
    batch = noise((1, 1, 4, 5, 6), seed=3)
    network = batch.transpose(0, 1, 4, 3, 2) if axes == "ZYX" else batch
    total = lopsided(network)
    combinations = [c for i in range(3) for c in itertools.combinations((2, 3, 4), i + 1)]
    for chosen in combinations:
        total = total + np.flip(lopsided(np.flip(network, chosen)), chosen)
    total = total / np.float32(len(combinations) + 1)
    with Inferer(FakeRuntime(lopsided), mirrored_card((0, 1, 2), axes)) as inferer:
        logits = inferer(batch)
    np.testing.assert_array_equal(logits, total.transpose(0, 1, 4, 3, 2) if axes == "ZYX" else total)


def test_constant_patches_are_inferred_once_for_all_images_and_reused() -> None:
    batch = np.full((1, 1, 4, 5, 6), 0.25, np.float32)
    runtime = FakeRuntime(lopsided)
    with Inferer(runtime, mirrored_card((0, 1, 2))) as inferer:
        first = inferer(batch)
        np.testing.assert_allclose(first, averaged(batch, (0, 1, 2)), rtol=0, atol=1e-6)
        np.testing.assert_array_equal(inferer(batch), first)
        assert inferer.repeated == 1
    assert len(runtime.calls) == 1


def test_time_in_the_network_is_that_of_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr("voxport.services.segmentation.inference.time.perf_counter", lambda: float(next(seconds)))
    with Inferer(FakeRuntime(lopsided), mirrored_card((0, 2))) as inferer:
        inferer(noise((1, 1, 4, 4, 4)))
        assert inferer.seconds == 4


def test_a_network_of_another_shape_is_still_a_model_error(bench: Bench) -> None:
    bench.put(noise((12, 10, 9)))
    for wrong in (lambda batch: lopsided(batch)[:, :, 1:], lambda batch: lopsided(batch)[..., 0]):
        with pytest.raises(ModelError, match="expected logits of shape"):
            bench.segment(load(wrong, mirrored_card((0, 1))))


@pytest.mark.parametrize("codes", ["LPI", "SAR", "PIR", "ILA"])
def test_the_stored_orientation_makes_no_difference(bench: Bench, codes: str) -> None:
    ras = Volume(noise((13, 9, 10)), make_grid((13, 9, 10)))
    loaded = load(lopsided, mirrored_card((0, 2)))
    found = []
    for name, scan in (("ras", ras), ("turned", ras.reoriented(codes))):
        bench.volumes.put(name, scan)
        bench.segment(loaded, inputs=[name], outputs=Outputs("mask", "probabilities"))
        found.append(bench.volumes.get("probabilities").reoriented("RAS").array)
    np.testing.assert_array_equal(found[0], found[1])


def test_a_plan_and_a_report_say_how_many_images_a_tile_has(bench: Bench) -> None:
    bench.put(noise((12, 10, 9)))
    for mirror, images in (((0, 1, 2), 8), ((), None)):
        loaded = load(lopsided, mirrored_card(mirror))
        planned = estimate(
            ["scan"], loaded, RunOptions(), bench.progress, volumes=bench.volumes, resources=bench.resources
        )
        assert tiles_mapping(planned.prepared).get("images") == images
        done = bench.segment(loaded)
        assert run_report(done, loaded, version="1", command="")["tiles"].get("images") == images
    assert len(calls_of(loaded)) > 0


def test_mirroring_needs_memory_for_an_image_and_the_sum(bench: Bench) -> None:
    bench.put(noise((12, 10, 9)))
    needed = []
    for mirror in ((), (0,)):
        card = mirrored_card(mirror)
        needed.append(bench.segment(load(lopsided, card, input_shape=ANY)).prepared.stitching_bytes)
    assert needed[1] - needed[0] == 8**3 * (1 + 2 * 2) * 4
