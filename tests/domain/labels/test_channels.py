"""Labels that name their channels, and networks that emit label maps, get the labels that their authors' rule gives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from voxport.domain.errors import ModelError
from voxport.domain.labels.label_map import Activation, Label, LabelTable, Output

# Whole tumour, tumour core, enhancing tumour: channels TC, WT, ET; a later one in the list has priority.
BRATS = LabelTable((Label(2, "whole", channel=1), Label(1, "core", channel=0), Label(4, "enhancing", channel=2)))


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32)


def brats_labels(probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    core, whole, enhancing = probabilities >= 0.5
    return np.where(enhancing, 4, np.where(core, 1, np.where(whole, 2, 0)))


def test_regions_have_channels_and_priority_of_their_own() -> None:
    logits = noise(3, 6, 7, 8)
    output = Output("sigmoid", BRATS).fitted(3)
    np.testing.assert_array_equal(output.labels(logits), brats_labels(1 / (1 + np.exp(-logits))))
    assert output.channel_names == ("core", "whole", "enhancing")
    none = Output("none", BRATS).fitted(3)
    np.testing.assert_array_equal(none.labels(output.probabilities(logits)), output.labels(logits))
    assert output.contested(logits) == np.count_nonzero((logits >= 0).sum(axis=0) > 1)


def test_values_need_not_be_those_of_the_channels() -> None:
    table = LabelTable((Label(4, "c", channel=3), Label(1, "a", channel=1), Label(2, "b", channel=2)))
    logits = noise(4, 6, 7, 8)
    for activation in ("softmax", "none"):
        output = Output(activation, table).fitted(4)
        np.testing.assert_array_equal(output.labels(logits), np.array([0, 1, 2, 4])[logits.argmax(axis=0)])
        assert output.channel_names == ("background", "a", "b", "c")


def test_a_channel_of_no_label_is_background_where_the_largest_decides() -> None:
    table = LabelTable((Label(7, "last", channel=3),))
    logits = noise(5, 6, 7, 8)
    output = Output("softmax", table).fitted(5)
    np.testing.assert_array_equal(output.labels(logits), 7 * (logits.argmax(axis=0) == 3))
    assert output.channels == 5
    assert output.channel_names == ("background", "channel 1", "channel 2", "last", "channel 4")


def test_a_channel_of_no_label_is_ignored_where_each_has_its_own() -> None:
    logits = noise(4, 6, 7, 8)
    output = Output("sigmoid", LabelTable((Label(1, "a", channel=2),))).fitted(4)
    np.testing.assert_array_equal(output.labels(logits), logits[2] >= 0)


def test_the_threshold_of_a_single_label_is_of_its_channel() -> None:
    logits = noise(3, 6, 7, 8)
    output = Output("softmax", LabelTable((Label(1, "a", channel=2),)), threshold=0.7).fitted(3)
    shares = np.exp(logits) / np.exp(logits).sum(axis=0)
    np.testing.assert_array_equal(output.labels(logits), shares[2] >= 0.7)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("channels", [(1, 1), (1, 5)])
def test_channels_that_are_shared_or_beyond_the_networks_are_refused(
    activation: Activation, channels: tuple[int, int]
) -> None:
    table = LabelTable(tuple(Label(i, str(i), channel=channel) for i, channel in enumerate(channels, 1)))
    with pytest.raises(ModelError, match="a channel of its own, below 3"):
        Output(activation, table).fitted(3)


def test_a_label_map_keeps_its_labels_and_other_numbers_are_background() -> None:
    table = LabelTable((Label(4, "a"), Label(1, "b", channel=2)))
    emitted = np.random.default_rng(0).integers(0, 6, (2, 1, 4, 5, 6)).astype(np.float32)
    output = Output("labels", table)
    logits = output.channelled(emitted)
    assert logits.shape == (2, 3, 4, 5, 6)
    np.testing.assert_array_equal(logits.sum(axis=1), 1)
    fitted = output.fitted(3)
    assert fitted.channel_names == ("background", "a", "b")
    for one, expected in zip(logits, emitted[:, 0], strict=True):
        np.testing.assert_array_equal(fitted.labels(one), np.where(expected == 4, 4, np.where(expected == 2, 1, 0)))


@pytest.mark.parametrize("emitted", [noise(1, 1, 3, 3, 3), np.zeros((1, 2, 3, 3, 3), np.float32)])
def test_what_is_no_label_map_is_refused(emitted: NDArray[np.float32]) -> None:
    with pytest.raises(ModelError, match="a label map"):
        Output("labels", LabelTable((Label(1, "a"),))).channelled(emitted)


def test_other_outputs_are_passed_on_as_they_are() -> None:
    emitted = noise(1, 2, 3, 3, 3)
    assert Output("softmax", LabelTable((Label(1, "a"),))).channelled(emitted) is emitted


@pytest.mark.parametrize("activation", ["none", "labels"])
def test_an_output_of_probabilities_or_labels_is_activated_already(activation: Activation) -> None:
    output = Output(activation, LabelTable((Label(1, "a"),)))
    assert output.activated is output
