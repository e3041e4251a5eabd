"""Planted differences are measured exactly, and a certificate says only what was proved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.labels.label_map import ACTIVATIONS, Activation, Label, LabelTable, Logits, Output
from voxport.domain.parity import (
    LARGEST_PROBABILITY_DIFFERENCE,
    LEAST_LABEL_AGREEMENT,
    Certificate,
    Parity,
    ProbeInput,
    RuntimeParity,
    compare,
)

TABLE = LabelTable((Label(1, "a"), Label(2, "b")))
PROBABILITIES = Output("none", TABLE)
SOFTMAX = Output("softmax", TABLE)
SIGMOID = Output("sigmoid", TABLE)
HELD = Parity(1.0, (1.0,), 1e-6)
ONNX = RuntimeParity("onnx", "fp32", "1.22", HELD)
TORCH = RuntimeParity("torch", "fp32", "2.13", HELD)
CERTIFICATE = Certificate("ab" * 32, "2026-11-20", (ProbeInput((1, 1, 2, 2, 2), 0),), (ONNX, TORCH))


def one_hot(labels: list[int]) -> Logits:
    """Scores ``(1, 3, n, 1, 1)`` whose largest is each label's."""
    logits = np.zeros((1, 3, len(labels), 1, 1), np.float32)
    logits[0, labels, range(len(labels))] = 1
    return logits


def random_scores(seed: int, cases: int = 1) -> Logits:
    return np.random.default_rng(seed).standard_normal((cases, 3, 4, 3, 2), np.float32)


# Comparing


@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(st.lists(st.integers(0, 99), min_size=1, max_size=3))
def test_equal_logits_have_parity(activation: Activation, seeds: list[int]) -> None:
    logits = [random_scores(seed, cases=2)[:, :2] for seed in seeds]
    output = Output(activation, TABLE if activation == "sigmoid" else LabelTable(TABLE.labels[:1]))
    parity = compare(logits, [s.copy() for s in logits], output)
    assert parity == Parity(1.0, (1.0,) * len(output.table.labels), 0.0)
    assert parity.holds


def test_planted_label_differences_are_measured_exactly() -> None:
    reference, candidate = one_hot([0, 1, 1, 1, 2, 2, 0, 0]), one_hot([0, 1, 1, 2, 2, 0, 0, 0])
    parity = compare([reference], [candidate], PROBABILITIES)
    assert parity.label_agreement == 6 / 8
    assert parity.dice == (2 * 2 / (3 + 2), 2 * 1 / (2 + 2))
    assert parity.max_probability_difference == 1.0
    assert not parity.holds


def test_a_planted_probability_difference_is_measured_wherever_it_is() -> None:
    for index in np.ndindex(2, 3, 2, 1, 2):
        reference = np.full((2, 3, 2, 1, 2), 0.25, np.float32)
        candidate = reference.copy()
        candidate[index] += 0.0625
        assert compare([reference], [candidate], PROBABILITIES).max_probability_difference == 0.0625
        assert compare([candidate], [reference], PROBABILITIES).max_probability_difference == 0.0625


def test_differences_are_of_probabilities_and_not_of_logits() -> None:
    reference = random_scores(0)
    assert compare([reference], [reference + np.float32(7)], SOFTMAX).max_probability_difference < 1e-6
    assert compare([reference], [reference + np.float32(7)], PROBABILITIES).max_probability_difference > 6.9


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize(("apart", "agreement"), [(4e-7, 1.0), (1e-4, 0.5)])
def test_labels_that_differ_in_the_last_bits_of_a_probability_agree(
    activation: Activation, apart: float, agreement: float
) -> None:
    """Of two voxels one is a tie but for rounding: as networks give that are trained little, or of noise."""
    middle = 0.5 if activation == "none" else 0.0
    scores = np.array([[middle, 1.0], [middle, -1.0]], np.float32).reshape(1, 2, 2, 1, 1)
    shift = np.array([[apart, 0], [-apart, 0]], np.float32).reshape(scores.shape)
    output = Output(activation, LabelTable((Label(1, "a"), Label(2, "b"))[: 1 + (activation == "sigmoid")]))
    for one, other in ((scores - shift, scores + shift), (scores + shift, scores - shift)):
        assert not np.array_equal(output.labels(one[0]), output.labels(other[0]))
        assert compare([one], [other], output).label_agreement == agreement


def test_labels_on_both_sides_of_a_small_threshold_differ() -> None:
    """Probabilities of 5e-8 and 5e-7 differ by less than 1e-6, and tenfold."""
    output = Output("sigmoid", LabelTable((Label(1, "a"),)), threshold=1e-7)
    one, other = (np.full((1, 1, 2, 1, 1), logit, np.float32) for logit in (-16.8, -14.5))
    assert compare([one], [other], output).label_agreement == 0


def test_volumes_of_several_shapes_are_pooled_by_voxel() -> None:
    references, candidates = [one_hot([1, 1, 1]), one_hot([0])], [one_hot([1, 1, 1]), one_hot([2])]
    parity = compare(references, candidates, PROBABILITIES)
    assert parity.label_agreement == 3 / 4
    assert parity.dice == (1.0, 0.0)


def test_dice_of_a_label_that_neither_holds_is_one() -> None:
    assert compare([one_hot([0, 1])], [one_hot([0, 1])], PROBABILITIES).dice == (1.0, 1.0)


@given(st.integers(0, 99), st.integers(0, 99))
def test_parity_is_symmetric(one: int, other: int) -> None:
    a, b = [random_scores(one, 2)], [random_scores(other, 2)]
    assert compare(a, b, SOFTMAX) == compare(b, a, SOFTMAX)


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
def test_a_candidate_that_gives_nan_never_holds(activation: Activation) -> None:
    reference = np.full((1, 2, 2, 2, 2), -5, np.float32)
    output = Output(activation, TABLE if activation == "sigmoid" else LabelTable(TABLE.labels[:1]))
    for index in ((0, 0, 0, 0, 0), (0, 0, 1, 1, 1)):
        candidate = reference.copy()
        candidate[index] = np.nan
        assert not compare([reference, reference], [candidate, reference], output).holds


def test_logits_of_other_shapes_or_counts_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="logits: expected the same shape"):
        compare([one_hot([0])], [one_hot([0, 1])], PROBABILITIES)
    with pytest.raises(ValueError, match="shorter"):
        compare([one_hot([0]), one_hot([0])], [one_hot([0])], PROBABILITIES)


# Holding


@pytest.mark.parametrize(
    ("agreement", "difference", "holds"),
    [
        (1.0, 0.0, True),
        (LEAST_LABEL_AGREEMENT, LARGEST_PROBABILITY_DIFFERENCE, True),
        (float(np.nextafter(LEAST_LABEL_AGREEMENT, 0)), 0.0, False),
        (1.0, float(np.nextafter(LARGEST_PROBABILITY_DIFFERENCE, 1)), False),
        (1.0, np.nan, False),
        (np.nan, 0.0, False),
    ],
)
def test_parity_holds_up_to_both_of_its_limits(agreement: float, difference: float, holds: bool) -> None:
    assert Parity(agreement, (0.0,), difference).holds is holds


def test_the_limits_are_those_of_the_design() -> None:
    assert (LEAST_LABEL_AGREEMENT, LARGEST_PROBABILITY_DIFFERENCE) == (0.99999, 1e-4)


# Probes


def test_a_probe_is_the_same_array_everywhere_and_forever() -> None:
    array = ProbeInput((1, 2, 3, 4, 5), 7).array()
    assert array.shape == (1, 2, 3, 4, 5)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(
        array.ravel()[[0, 1, 2, 119]], np.array([0.07630829, 0.7799188, 0.43840924, 0.13247399], np.float32)
    )
    np.testing.assert_array_equal(array, ProbeInput((1, 2, 3, 4, 5), 7, (0.5,)).array())


def test_probes_of_other_seeds_differ_and_lie_from_zero_to_one() -> None:
    one, other = ProbeInput((1, 1, 8, 8, 8), 1).array(), ProbeInput((1, 1, 8, 8, 8), 2).array()
    assert not np.array_equal(one, other)
    assert 0 <= one.min() < 0.1
    assert 0.9 < one.max() <= 1


def test_samples_are_taken_at_the_same_places_each_time() -> None:
    numbered = np.arange(2 * 3 * 4 * 3 * 2, dtype=np.float32).reshape(2, 3, 4, 3, 2)
    sampled = ProbeInput((2, 1, 4, 3, 2), 7).sampled(numbered, PROBABILITIES)
    assert len(sampled) == 32
    assert sampled[:6] == (84.0, 105.0, 133.0, 136.0, 83.0, 104.0)
    assert sampled != ProbeInput((2, 1, 4, 3, 2), 8).sampled(numbered, PROBABILITIES)


def test_samples_are_probabilities() -> None:
    logits = random_scores(0, cases=2)
    sampled = ProbeInput((2, 1, 4, 3, 2), 7).sampled(logits, SOFTMAX)
    possible = {float(p) for case in logits for p in SOFTMAX.probabilities(case).ravel()}
    assert set(sampled) <= possible


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_samples_of_equal_logits_are_equal(activation: Activation) -> None:
    probe, logits = ProbeInput((1, 1, 4, 3, 2), 3), random_scores(1)
    output = Output(activation, TABLE)
    assert probe.sampled(logits, output) == probe.sampled(logits.copy(), output)


# Certificates


@pytest.mark.parametrize(
    ("runtime", "precision", "certified"),
    [("onnx", "fp32", True), ("torch", "fp32", True), ("onnx", "bf16", False), ("openvino", "fp32", False)],
)
def test_a_runtime_and_precision_are_certified_as_a_pair(runtime: str, precision: str, certified: bool) -> None:
    assert CERTIFICATE.certifies(runtime, precision) is certified


def test_a_runtime_that_was_compared_but_did_not_hold_is_not_certified() -> None:
    failed = replace(ONNX, parity=Parity(0.9, (0.9,), 0.1))
    assert not replace(CERTIFICATE, runtimes=(failed,)).certifies("onnx", "fp32")


@pytest.mark.parametrize(
    "other",
    [
        replace(CERTIFICATE, weights_sha256="cd" * 32),
        replace(CERTIFICATE, date="2026-11-21"),
        replace(CERTIFICATE, probes=()),
        replace(CERTIFICATE, runtimes=(ONNX,)),
        replace(CERTIFICATE, probes=(ProbeInput((1, 1, 2, 2, 2), 1),)),
        replace(CERTIFICATE, probes=(ProbeInput((1, 1, 2, 2, 2), 0, (0.5,)),)),
        replace(CERTIFICATE, runtimes=(replace(ONNX, version="1"), TORCH)),
    ],
)
def test_certificates_differ_in_any_single_field(other: Certificate) -> None:
    assert replace(CERTIFICATE) == CERTIFICATE
    assert other != CERTIFICATE


@pytest.mark.parametrize(
    ("spread", "difference", "wrong", "holds"),
    [
        (0.0, 1e-4, 0.0, True),
        (0.0, 1.03e-4, 0.0, False),
        (5.0, 1.03e-4, 0.0, True),
        (5.0, 1.3e-4, 0.0, False),
        (5.0, 1e-4, 1.2e-5, True),
        (5.0, 1e-4, 1.3e-5, False),
        (1e6, 0.99e-3, 0.99e-4, True),
        (1e6, 1.1e-3, 0.0, False),
        (1e6, 0.0, 1.1e-4, False),
    ],
)
def test_the_bounds_widen_with_the_spread_of_the_logits_up_to_tenfold(
    spread: float, difference: float, wrong: float, holds: bool
) -> None:
    assert Parity(1 - wrong, (1.0,), difference, spread).holds == holds


def test_the_spread_is_that_of_the_references_logits() -> None:
    reference = [np.array([[[[[-3.0, 4.0]]], [[[0.0, 0.0]]]]], np.float32)]
    assert compare(reference, [10 * reference[0]], SOFTMAX).logit_spread == 7


def test_labels_that_a_network_emits_are_compared_as_labels_alone() -> None:
    emitted = Output("labels", TABLE)
    reference, candidate = one_hot([0, 1, 1, 1]), one_hot([0, 1, 1, 2])
    parity = compare([reference], [candidate], emitted)
    assert parity.label_agreement == 3 / 4
    assert parity.max_probability_difference == 0
