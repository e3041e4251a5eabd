"""Segmenting an array gives what segmenting the same volume gives, and keeps its shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.errors import InputError
from voxport.domain.run import RunOptions
from voxport.services.segmentation.predict import Prediction, array_volume, predict
from voxport.services.segmentation.segment import SegmentPorts
from voxport.testing.artifacts import MemoryArtifacts
from voxport.testing.progress import RecordingProgress
from voxport.testing.resources import FixedResources

from tests.services.conftest import brighter_than, load, make_card


def run(array: NDArray[Any], *, probabilities: bool = False, unit: str = "um", **options: Any) -> Prediction:
    card = make_card(array.shape[0] if array.ndim == 4 else 1)
    return predict(
        [array_volume(array, spacing=options.pop("spacing", (1.0, 1.0, 5.0)), unit=unit)],
        load(brighter_than(0.5), card),
        RunOptions(**options),
        RecordingProgress(),
        probabilities=probabilities,
        ports=SegmentPorts(MemoryStore(), MemoryArtifacts(), PngPictures(), FixedResources()),
        new_store=MemoryStore,
    )


@given(
    arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=3, max_dims=3, max_side=12), elements=st.floats(0, 1, width=32)
    )
)
def test_labels_lie_on_the_array(array: NDArray[np.float32]) -> None:
    found = run(array)
    np.testing.assert_array_equal(found.labels.array, array > 0.5)
    assert found.labels.grid.spacing == (1.0, 1.0, 5.0)
    assert found.probabilities is None


def test_channels_come_first_and_probabilities_on_request() -> None:
    array = np.random.default_rng(0).random((2, 6, 5, 4))
    found = run(array, probabilities=True)
    np.testing.assert_array_equal(found.labels.array, array[0].astype(np.float32) > 0.5)
    assert found.probabilities is not None
    assert found.probabilities.shape == (2, 6, 5, 4)
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1.0, atol=1e-6)


def test_true_and_false_are_one_and_zero() -> None:
    array = np.random.default_rng(1).random((5, 4, 3)) > 0.5
    np.testing.assert_array_equal(run(array).labels.array, array)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4)), "shape (4, 4)"),
        (np.zeros((1, 1, 4, 4, 4)), "shape (1, 1, 4, 4, 4)"),
        (np.zeros((0, 4, 4)), "shape (0, 4, 4)"),
        (np.zeros((4, 4, 4), np.complex64), "complex64"),
        (np.full((4, 4, 4), "a"), "<U1"),
    ],
)
def test_an_array_that_is_no_volume_is_refused(array: NDArray[Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        run(array)
    assert words in str(refused.value)


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, float("nan"), 1.0), (float("inf"),) * 3])
def test_a_spacing_that_is_no_length_is_refused(spacing: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="spacing: expected three positive lengths"):
        run(np.zeros((4, 4, 4)), spacing=spacing)


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(InputError, match="unit: expected one of mm, um, unknown, got inch"):
        run(np.zeros((4, 4, 4)), unit="inch")
