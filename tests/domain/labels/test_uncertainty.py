"""Entropy and margin are those of the textbooks, for every voxel, however logits lie in memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.labels.label_map import Activation, Label, LabelTable, Logits, Output
from voxport.domain.labels.uncertainty import UncertaintyScale

ONE = LabelTable((Label(1, "vessel"),))
TWO = LabelTable((Label(1, "vessel"), Label(2, "soma")))
THREE = LabelTable((Label(1, "a"), Label(2, "b"), Label(3, "c")))


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def binary(probability: float) -> float:
    return -sum(p * math.log2(p) for p in (probability, 1 - probability) if p)


def levels(output: Output, *voxels: tuple[float, ...]) -> list[tuple[int, int]]:
    """Entropy and margin of voxels, each a value a channel."""
    found = UncertaintyScale(output).of(np.array(voxels, np.float32).T[:, :, np.newaxis, np.newaxis])
    assert found.shape == (3, len(voxels), 1, 1)
    return [(int(entropy), int(margin)) for entropy, margin, _ in found[:, :, 0, 0].T]


def noise(channels: int, shape: tuple[int, int, int] = (13, 9, 7)) -> Logits:
    return np.random.default_rng(channels).normal(0, 3, (channels, *shape)).astype(np.float32)


@given(st.floats(1e-6, 1 - 1e-6), st.sampled_from([0.2, 0.5, 0.6]), st.floats(-5, 5), st.sampled_from(["two", "one"]))
def test_one_label_has_the_entropy_of_a_coin_and_a_margin_from_its_threshold(
    probability: float, threshold: float, shift: float, channels: str
) -> None:
    """Of softmax over two channels, sigmoid, and probabilities."""
    margin = (probability - threshold) / ((1 - threshold) if probability >= threshold else -threshold)
    expected = 100 * binary(probability), 100 * margin
    voxel = (logit(probability),) if channels == "one" else (shift, shift + logit(probability))
    given_logits = levels(Output("softmax" if channels == "two" else "sigmoid", ONE, threshold), voxel)[0]
    shares = (probability,) if channels == "one" else (1 - probability, probability)
    given_shares = levels(Output("none", ONE, threshold, background=channels == "two"), shares)[0]
    np.testing.assert_allclose(given_logits, expected, rtol=0, atol=0.6)
    np.testing.assert_allclose(given_shares, expected, rtol=0, atol=0.6)


def test_the_ends_of_the_scale() -> None:
    assert levels(Output("softmax", ONE), (0, 0), (-40, 40), (40, -40), (-1e5, 1e5)) == [(100, 0), *[(0, 100)] * 3]
    assert levels(Output("softmax", ONE, 0.6), (0, logit(0.6)))[0][1] == 0
    assert levels(Output("softmax", THREE), (1, 1, 1, 1), (50, 0, 0, 0), (9, 9, -90, -90)) == [
        (100, 0),
        (0, 100),
        (50, 0),
    ]
    assert levels(Output("none", TWO, background=True), (0, 0, 0), (-0.1, 1.2, 0)) == [(0, 0), (0, 100)]


@pytest.mark.parametrize("activation", ["softmax", "none"])
def test_several_classes_have_the_textbook_entropy_and_the_difference_of_the_best_two(activation: Activation) -> None:
    values = noise(4)
    shares = np.exp(values.astype(np.float64))
    shares /= shares.sum(axis=0)
    entropy = -(shares * np.log(shares)).sum(axis=0) / np.log(4)
    margin = np.diff(np.sort(shares, axis=0)[-2:], axis=0)[0]
    given_values = values if activation == "softmax" else shares.astype(np.float32)
    found = UncertaintyScale(Output(activation, THREE, background=True)).of(given_values)[:2]
    np.testing.assert_allclose(found, 100 * np.stack([entropy, margin]), rtol=0, atol=0.51)


def test_of_labels_with_channels_of_their_own_the_most_uncertain_counts() -> None:
    each = [levels(Output("sigmoid", ONE, 0.3), (value,))[0] for value in (0.4, -2.0)]
    both = levels(Output("sigmoid", TWO, 0.3), (0.4, -2.0), (-2.0, 0.4))
    expected = max(entropy for entropy, _ in each), min(margin for _, margin in each)
    assert both == [expected, expected]


def test_the_channel_that_a_label_names_counts() -> None:
    swapped = LabelTable((Label(1, "vessel", channel=0),))
    output = Output("softmax", swapped, 0.8).fitted(2)
    assert levels(output, (2.0, 0.0)) == levels(Output("softmax", ONE, 0.8), (0.0, 2.0))


@pytest.mark.parametrize(
    "output", [Output("softmax", ONE, 0.6), Output("softmax", TWO), Output("sigmoid", TWO), Output("none", TWO)]
)
def test_a_voxel_has_the_same_levels_in_any_block_and_any_memory_order(output: Output) -> None:
    values = noise(2 if len(output.table.labels) == 1 or output.activation != "softmax" else 3, (300, 5, 40))
    scale = UncertaintyScale(output)
    whole = scale.of(values)
    fortran = np.asfortranarray(values)
    np.testing.assert_array_equal(scale.of(fortran), whole)
    np.testing.assert_array_equal(scale.of(values[:, ::-1, :, ::-1]), whole[:, ::-1, :, ::-1])
    for box in ((slice(3, 4),) * 3, (slice(250, 290), slice(0, 5), slice(17, 40)), (slice(0, 300), slice(2), slice(1))):
        np.testing.assert_array_equal(scale.of(values[:, *box]), whole[:, *box])
    assert len(np.unique(whole[0])) > 50
