"""Scores become labels by the card's rules, and label maps are values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from voxport.domain.errors import ModelError, UsageError
from voxport.domain.geometry.grid import Grid
from voxport.domain.labels.label_map import ACTIVATIONS, Activation, Label, LabelMap, LabelTable, Logits, Output

GRID = Grid((2, 3, 4), np.eye(4), "um")
TABLE = LabelTable((Label(1, "vessel"), Label(2, "soma", "#00ff7f")))


def table(*values: int) -> LabelTable:
    return LabelTable(tuple(Label(v, f"label {v}") for v in values))


def logits(*channels: Any) -> Logits:
    return np.array(channels, np.float32)


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


random_scores = st.builds(
    lambda seed, k: (np.random.default_rng(seed).standard_normal((k, 4, 3, 2)) * 5).astype(np.float32),
    st.integers(0, 999),
    st.integers(2, 5),
)

# Tables


def test_a_colour_is_read_as_red_green_and_blue() -> None:
    assert Label(1, "vessel", "#e4572e").rgb == (228, 87, 46)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ((), "uint8"),
        ((1,), "uint8"),
        ((255,), "uint8"),
        ((3, 256), "uint16"),
        ((65535,), "uint16"),
        ((65536,), "uint32"),
    ],
)
def test_the_dtype_is_the_smallest_unsigned_type_that_holds_every_value(values: tuple[int, ...], dtype: str) -> None:
    assert table(*values).dtype == np.dtype(dtype)


def test_names_are_found_by_value_and_zero_is_background() -> None:
    assert [TABLE.name_of(value) for value in (0, 1, 2, 3)] == ["background", "vessel", "soma", "unknown"]
    assert TABLE.values == (1, 2)


# Label maps


def test_a_label_map_copies_its_array_in_and_makes_it_read_only() -> None:
    array = np.zeros((2, 3, 4), np.uint8)
    labels = LabelMap(array, GRID, TABLE)
    array[...] = 1
    assert not labels.array.any()
    with pytest.raises(ValueError, match="read-only"):
        labels.array[...] = 1


def test_equal_label_maps_are_equal_and_hash_alike() -> None:
    one, other = (LabelMap(np.ones((2, 3, 4), np.uint8), Grid((2, 3, 4), np.eye(4), "um"), TABLE) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)


def test_label_maps_differ_in_one_voxel_their_grid_or_their_table() -> None:
    zeros = np.zeros((2, 3, 4), np.uint8)
    one_voxel = zeros.copy()
    one_voxel[1, 2, 3] = 1
    labels = LabelMap(zeros, GRID, TABLE)
    assert labels != LabelMap(one_voxel, GRID, TABLE)
    assert labels != LabelMap(zeros, Grid((2, 3, 4), np.eye(4), "mm"), TABLE)
    assert labels != LabelMap(zeros, GRID, table(1, 2))
    assert labels != "labels"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 5), np.uint8), r"expected \(2, 3, 4\), got \(2, 3, 5\)"),
        (np.zeros((1, 2, 3, 4), np.uint8), r"expected \(2, 3, 4\)"),
        (np.zeros((2, 3, 4), np.int16), "expected an unsigned integer type, got int16"),
        (np.zeros((2, 3, 4), np.float32), "expected an unsigned integer type, got float32"),
    ],
)
def test_an_array_that_is_no_label_map_is_refused(array: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelMap(array, GRID, TABLE)


@pytest.mark.parametrize("other", [Label(2, "a", "#000000"), Label(1, "b", "#000000"), Label(1, "a", "#000001")])
def test_labels_differ_in_any_field(other: Label) -> None:
    assert Label(1, "a", "#000000") == Label(1, "a", "#000000")
    assert Label(1, "a", "#000000") != other


@pytest.mark.parametrize("other", [Output("none", TABLE), Output("softmax", table(1)), Output("softmax", TABLE, 0.4)])
def test_outputs_differ_in_any_field(other: Output) -> None:
    assert Output("softmax", TABLE) == Output("softmax", TABLE, 0.5)
    assert Output("softmax", TABLE) != other


# Channels


@pytest.mark.parametrize(
    ("activation", "values", "fitting"),
    [
        ("softmax", (1,), {2}),
        ("softmax", (2, 1), {3}),
        ("softmax", (2,), set()),
        ("softmax", (1, 3), set()),
        ("none", (1, 2, 3), {3, 4}),
        ("none", (4, 2, 1), {3}),
        ("none", (1,), {1, 2}),
        ("softmax", (), set()),
        ("sigmoid", (1,), {1}),
        ("sigmoid", (7, 3), {2}),
    ],
)
def test_only_a_network_whose_channels_fit_the_labels_is_accepted(
    activation: Activation, values: tuple[int, ...], fitting: set[int]
) -> None:
    output = Output(activation, table(*values))
    for channels in range(6):
        if channels in fitting:
            assert output.fitted(channels).channels == channels
        else:
            with pytest.raises(ModelError, match=r"^network output: expected .*, got .*; correct output\.labels"):
                output.fitted(channels)


# Probabilities


@given(random_scores)
def test_softmax_probabilities_are_those_of_the_formula_and_sum_to_one(given_scores: Logits) -> None:
    result = Output("softmax", TABLE).probabilities(given_scores)
    exact = np.exp(given_scores.astype(np.float64))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, exact / exact.sum(axis=0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.sum(axis=0), 1, rtol=1e-6)


@given(random_scores)
def test_sigmoid_probabilities_are_those_of_the_formula(given_scores: Logits) -> None:
    result = Output("sigmoid", TABLE).probabilities(given_scores)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, 1 / (1 + np.exp(-given_scores.astype(np.float64))), rtol=0, atol=1e-6)


def test_without_an_activation_the_network_emits_probabilities() -> None:
    given_scores = logits([0.25], [0.75])
    np.testing.assert_array_equal(Output("none", TABLE).probabilities(given_scores), given_scores)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_very_large_logits_do_not_overflow(activation: Activation) -> None:
    one = table(1)
    output = Output(activation, TABLE if activation == "sigmoid" else one)
    given_scores = logits([250_000.0, -250_000.0], [-250_000.0, 250_000.0])
    result = output.probabilities(given_scores)
    if activation != "none":
        np.testing.assert_array_equal(result, [[1, 0], [0, 1]])
    expected = [1, 2] if activation == "sigmoid" else [0, 1]
    np.testing.assert_array_equal(output.labels(given_scores), expected)


@given(random_scores, st.floats(-50, 50, width=32))
def test_softmax_does_not_mind_a_constant_added_to_all_scores(given_scores: Logits, shift: float) -> None:
    output = Output("softmax", TABLE)
    shifted = given_scores + np.float32(shift)
    np.testing.assert_allclose(output.probabilities(shifted), output.probabilities(given_scores), rtol=0, atol=1e-5)


# Labels


@pytest.mark.parametrize("activation", ["softmax", "none"])
@given(given_scores=random_scores)
def test_the_largest_logit_wins(activation: Activation, given_scores: Logits) -> None:
    output = Output(activation, table(*range(1, len(given_scores))))
    labels = output.labels(given_scores)
    assert labels.dtype == np.uint8
    for index in np.ndindex(labels.shape):
        column = given_scores[(slice(None), *index)].tolist()
        assert labels[index] == column.index(max(column))


@pytest.mark.parametrize("activation", ["softmax", "none"])
def test_the_lower_value_wins_a_tie(activation: Activation) -> None:
    ties = logits([1.0, 0.0, 2.0], [1.0, 3.0, 2.0], [1.0, 3.0, 2.0])
    np.testing.assert_array_equal(Output(activation, TABLE).labels(ties), [0, 1, 0])


def test_labels_above_255_are_decoded_into_a_type_that_holds_them() -> None:
    many = np.zeros((301, 1), np.float32)
    many[300] = 1
    labels = Output("softmax", table(*range(1, 301))).labels(many)
    assert labels.dtype == np.uint16
    assert labels.tolist() == [300]
    nested = Output("sigmoid", table(70_000)).labels(logits([1.0]))
    assert nested.dtype == np.uint32
    assert nested.tolist() == [70_000]


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_sigmoid_labels_begin_at_the_threshold(threshold: float) -> None:
    output = Output("sigmoid", table(5), threshold)
    around = logits([logit(threshold) - 1e-3, logit(threshold) + 1e-3])
    np.testing.assert_array_equal(output.labels(around), [0, 5])


def test_a_logit_of_zero_reaches_a_threshold_of_one_half() -> None:
    np.testing.assert_array_equal(Output("sigmoid", table(1)).labels(logits([0.0, -1e-6])), [1, 0])


def test_the_last_of_nested_labels_wins_for_any_value_and_logit() -> None:
    nested = logits([9.0, 9.0, 9.0, -9.0], [-9.0, 1.0, 1.0, -9.0], [-9.0, -9.0, 0.5, 0.5])
    np.testing.assert_array_equal(Output("sigmoid", table(2, 4, 1)).labels(nested), [2, 4, 1, 1])


def test_voxels_that_reach_the_threshold_for_several_labels_are_counted() -> None:
    nested = logits([9.0, 9.0, 9.0, -9.0], [-9.0, 1.0, 1.0, -9.0], [-9.0, -9.0, 0.5, 0.5])
    assert Output("sigmoid", table(2, 4, 1)).contested(nested) == 2
    assert Output("sigmoid", table(2, 4, 1), 0.9).contested(nested) == 0
    assert Output("sigmoid", table(2)).contested(nested[:1]) == 0
    assert Output("softmax", TABLE).contested(nested) == 0


@given(random_scores)
def test_labels_agree_with_thresholded_probabilities(given_scores: Logits) -> None:
    output = Output("sigmoid", table(*range(1, len(given_scores) + 1)), 0.3)
    expected = np.zeros(given_scores.shape[1:], np.uint8)
    for value, probability in enumerate(output.probabilities(given_scores), start=1):
        expected[probability >= 0.3] = value
    np.testing.assert_array_equal(output.labels(given_scores), expected)


@given(
    st.sampled_from([5e-324, 1e-60, 1e-30, 1e-6, 0.1, 0.3, 0.5, 0.75, 0.999, 1 - 1e-6, 1 - 2**-24, 1 - 2**-53]),
    st.sampled_from([0.0, 1.0, -70.0, 3e4]),
    st.integers(0, 2**32 - 1),
)
def test_labels_are_those_of_the_probabilities_to_the_last_bit(threshold: float, mean: float, seed: int) -> None:
    """Logits at the threshold, a few roundings from it, and anywhere."""
    random = np.random.default_rng(seed)
    scales = np.repeat([1e-8, 1e-7, 1e-6, 1e-5, 1e-3, 1.0, 30.0], 20)
    near = logit(threshold) + random.normal(0, scales)
    sigmoid, one = Output("sigmoid", table(1, 2), threshold), Output("softmax", table(1)).with_threshold(threshold)
    each = logits(near, near[::-1])
    probabilities = sigmoid.of_each_label(each)
    assert probabilities is not None
    reached = np.asarray(probabilities >= threshold)
    np.testing.assert_array_equal(sigmoid.labels(each), np.where(reached[1], 2, reached[0]))
    assert sigmoid.contested(each) == np.count_nonzero(reached.all(axis=0))
    shared = logits(np.full(near.size, mean), mean + near)
    if threshold != 0.5:  # else the larger logit decides
        np.testing.assert_array_equal(one.labels(shared), one.probabilities(shared)[1] >= threshold)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("activation", ["softmax", "none"])
def test_one_label_beside_background_begins_at_the_threshold(activation: Activation, threshold: float) -> None:
    output = Output(activation, table(1)).with_threshold(threshold)
    around = np.array([threshold - 1e-3, threshold + 1e-3], np.float32)
    if activation == "softmax":
        around = np.log(around / (1 - around))
        values = np.stack([np.zeros_like(around), around])
    else:
        values = np.stack([1 - around, around])
    assert output.labels(values).tolist() == [0, 1]
    assert output.labels(values).dtype == np.uint8


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5, float("nan")])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(UsageError, match="more than 0 and less than 1"):
        Output("sigmoid", table(1)).with_threshold(threshold)


def test_labels_that_compete_take_no_threshold() -> None:
    with pytest.raises(UsageError, match="2 labels, decided by the largest logit"):
        Output("softmax", table(1, 2)).with_threshold(0.4)
