"""A fitted temperature is the one that labels were drawn at, and the calibration error is that of its definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.calibration import CalibrationSample, check_can_be_calibrated, fit_temperature
from voxport.domain.errors import UsageError
from voxport.domain.labels.label_map import Activation, Label, LabelTable, Logits, Output
from voxport.domain.labels.uncertainty import UncertaintyScale

ONE = LabelTable((Label(7, "vessel"),))
TWO = LabelTable((Label(1, "vessel"), Label(2, "soma")))


def drawn(output: Output, channels: int, temperature: float, seed: int = 0) -> CalibrationSample:
    """A case whose labels are drawn from the probabilities of its logits at a temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (channels, 60, 50, 40)).astype(np.float32)
    shares = replace(output, temperature=temperature).calibrated(logits)
    if channels == 1:
        shares = np.concatenate([1 - shares, shares])
    classes = (random.random(shares.shape[1:]) > np.cumsum(shares, axis=0)[:-1]).sum(axis=0)
    truth = np.array([0, *output.table.values])[classes]
    return CalibrationSample.of(output.probabilities(logits), truth, output)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize(
    ("output", "channels"),
    [
        (Output("softmax", LabelTable((Label(1, "vessel"),))), 2),
        (Output("softmax", TWO), 3),
        (Output("sigmoid", ONE), 1),
    ],
)
def test_the_temperature_that_labels_were_drawn_at_is_found(output: Output, channels: int, temperature: float) -> None:
    found = fit_temperature([drawn(output, channels, temperature, seed) for seed in range(2)])
    assert found.temperature == pytest.approx(temperature, rel=0.02)
    assert found.ece_after < 0.006
    assert found.ece_held_out == pytest.approx(found.ece_after, abs=0.002)
    if temperature == 1:
        assert found.ece_before == pytest.approx(found.ece_after, abs=1e-3)
    else:
        assert found.ece_before > 5 * found.ece_after
    assert (found.cases, found.voxels) == (2, 2 * 60 * 50 * 40)


def test_the_error_is_the_mean_distance_of_tenths_from_the_truth() -> None:
    shares = np.array([0.05, 0.05, 0.05, 0.05, 0.75, 0.75], np.float32).reshape(1, 6, 1, 1)
    truth = np.array([0, 0, 0, 7, 7, 0]).reshape(6, 1, 1)
    sample = CalibrationSample.of(shares, truth, Output("sigmoid", ONE))
    assert sample.error(1.0) == pytest.approx((4 * 0.2 + 2 * 0.25) / 6, abs=1e-6)
    assert fit_temperature([sample]).ece_held_out is None


@given(st.floats(0.2, 5), st.sampled_from(["softmax", "sigmoid"]), st.integers(1, 3))
def test_resampled_probabilities_are_calibrated_as_their_logits(
    temperature: float, activation: Activation, labels: int
) -> None:
    table = LabelTable(tuple(Label(value, str(value)) for value in range(1, labels + 1)))
    output = Output(activation, table, temperature=temperature)
    logits = (
        np.random.default_rng(labels).normal(0, 2, (labels + (activation == "softmax"), 5, 4, 3)).astype(np.float32)
    )
    found = output.activated.calibrated(output.probabilities(logits))
    np.testing.assert_allclose(found, output.calibrated(logits), rtol=0, atol=1e-5)


def numbers(channels: int) -> Logits:
    return np.random.default_rng(1).normal(0, 3, (channels, 9, 8, 7)).astype(np.float32)


@pytest.mark.parametrize(
    ("output", "channels"),
    [
        (Output("softmax", LabelTable((Label(1, "vessel"),)), 0.6), 2),
        (Output("softmax", TWO), 3),
        (Output("sigmoid", TWO, 0.3), 2),
    ],
)
def test_labels_do_not_depend_on_the_temperature_and_the_margin_ends_where_they_change(
    output: Output, channels: int
) -> None:
    warm, logits = replace(output, temperature=2.0), numbers(channels)
    np.testing.assert_array_equal(warm.labels(logits), output.labels(logits))
    assert warm.contested(logits) == output.contested(logits)
    cold_levels, warm_levels = (UncertaintyScale(one).of(logits).astype(int) for one in (output, warm))
    certain = cold_levels[1] > 20
    assert (warm_levels[1][certain] > 0).all()
    assert (warm_levels[0] >= cold_levels[0] - 1).all()
    assert (warm_levels[0] > cold_levels[0]).mean() > 0.3


@pytest.mark.parametrize("output", [Output("none", ONE), Output("labels", TWO), Output("sigmoid", TWO)])
def test_a_network_without_exclusive_classes_of_logits_is_refused(output: Output) -> None:
    with pytest.raises(UsageError, match="softmax over its classes"):
        check_can_be_calibrated(output)
