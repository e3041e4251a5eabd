"""A case that is resampled by a card's rule: the same mask for any axis and orientation, and from any plane on."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from voxport.domain.cards.model_card import ModelCard, ResamplingRule
from voxport.domain.geometry.grid import Reorientation, shape3
from voxport.domain.inference.patches import Tiling
from voxport.domain.run import AXES, Outputs

from tests.services.conftest import Bench, brighter_than, load, make_card, make_grid, noise

from .test_segment import four_classes

SHAPE, SPACING = (13, 12, 7), (1.0, 1.2, 4.0)
NNUNET = ResamplingRule(3, "auto", "after_intensity", "extent")
RULES = (NNUNET, replace(NNUNET, separate_axis=None), ResamplingRule(3, align="first"), ResamplingRule(3))
Resampled = Literal["logits", "probabilities", "labels"]


def card(rule: ResamplingRule, *, order: Literal[0, 1, 3] = 1, resample: Resampled = "logits") -> ModelCard:
    found = make_card(labels=[1, 2, 3], spacing=(0.8, 0.9, 2.5), unit="mm", tiling=Tiling((8, 8, 8)))
    given, output = replace(found.input, resampling=rule), replace(found.output, order=order, resample=resample)
    return replace(found, input=given, output=output)


def segmented(bench: Bench, model: ModelCard, **options: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """The mask and the probabilities."""
    bench.segment(load(four_classes, model), outputs=Outputs("mask", "p"), blending="halo", **options)
    return bench.array(), bench.array("p")


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("rule", RULES)
def test_the_streaming_axis_does_not_change_a_bit(bench: Bench, rule: ResamplingRule, order: Literal[0, 1, 3]) -> None:
    bench.put(noise(SHAPE), make_grid(SHAPE, SPACING))
    found = [segmented(bench, card(rule, order=order), axis=axis) for axis in AXES]
    assert len(np.unique(found[0][0])) == 4
    for mask, probabilities in found[1:]:
        np.testing.assert_array_equal(mask, found[0][0])
        np.testing.assert_array_equal(probabilities, found[0][1])


@pytest.mark.parametrize("rule", RULES)
def test_the_48_orders_of_a_volume_have_one_mask(bench: Bench, rule: ResamplingRule) -> None:
    volume = bench.put(noise(SHAPE), make_grid(SHAPE, SPACING))
    expected, _ = segmented(bench, card(rule))
    for axes, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        change = Reorientation(shape3(axes), (flips[0], flips[1], flips[2]))
        bench.put(change.apply(volume.array[0]), change.apply_grid(volume.grid))
        mask, _ = segmented(bench, card(rule))
        np.testing.assert_array_equal(change.inverse().apply(mask), expected)


def test_labels_that_are_resampled_are_those_of_the_nearest_voxel_of_the_models_grid(bench: Bench) -> None:
    values = np.zeros((8, 4, 4), np.float32)
    values[4:] = 1
    bench.put(values, make_grid((8, 4, 4), (1.0, 1.0, 1.0)))
    model = make_card(spacing=(2.0, 1.0, 1.0), unit="mm", tiling=Tiling((None, None, None)))
    found = {}
    resampled: tuple[Resampled, ...] = ("logits", "labels")
    for resample in resampled:
        output = replace(model.output, resample=resample)
        bench.segment(load(brighter_than(0.2), replace(model, output=output)), outputs=Outputs("mask"))
        found[resample] = bench.array()[:, 0, 0].tolist()
    assert found["labels"] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert found["logits"] == [0, 0, 0, 1, 1, 1, 1, 1]  # a quarter of 6.4 is more than three quarters of 1.6


def test_probabilities_that_are_resampled_are_interpolated_after_the_activation(bench: Bench) -> None:
    bench.put(noise(SHAPE), make_grid(SHAPE, SPACING))
    mask, probabilities = segmented(bench, card(ResamplingRule(align="first"), resample="probabilities"))
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(mask, probabilities.argmax(axis=0))
    _, of_logits = segmented(bench, card(ResamplingRule(align="first")))
    assert np.abs(probabilities - of_logits).max() > 0.01


@pytest.mark.parametrize("resample", ["logits", "probabilities"])
def test_each_label_of_a_sigmoid_is_compared_with_the_threshold_once(bench: Bench, resample: Resampled) -> None:
    values = bench.put(noise((6, 6, 6)), make_grid((6, 6, 6), (1.0, 1.0, 1.0))).array
    model = make_card(labels=[1], activation="sigmoid", spacing=(1.0, 1.0, 3.0), unit="mm")
    model = replace(model, output=replace(model.output, resample=resample, threshold=0.6))
    bench.segment(load(lambda batch: 8 * (batch - 0.5), model), outputs=Outputs("mask", "p"))
    np.testing.assert_array_equal(bench.array(), bench.array("p") >= 0.6)
    assert 0 < bench.array().mean() < values.size
