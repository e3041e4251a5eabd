"""The bundled model's labels depend on neither patch, overlap nor memory: its card states how far a label sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import voxport as package

SAMPLE = Path(package.__file__).parent / "bundled" / "sample.nii.gz"


@pytest.fixture(scope="module")
def volume() -> Any:
    """The sample and a part of its mirror image, 400 x 256 x 24: of several tiles in plane and along z."""
    sample = np.asarray(nib.load(SAMPLE).dataobj)
    return np.concatenate([sample, sample[::-1]])[:400, :, :24]


@pytest.fixture(scope="module")
def predict() -> Any:
    return package.load(runtime="onnx", precision="fp32")


def segmented(predict: Any, volume: Any, **options: Any) -> Any:
    return predict(volume, spacing=(1.0, 1.0, 4.0), unit="um", **options)


@pytest.fixture(scope="module")
def whole(predict: Any, volume: Any) -> Any:
    """Labels and probabilities of one tile."""
    found = segmented(predict, volume, probabilities=True)
    assert found.done.prepared.plan.tile_count == 1
    return found


@pytest.mark.parametrize(
    ("options", "fewest"),
    [
        ({"patch": (256, 256, 16)}, 4),
        ({"patch": (256, 256, 24), "overlap": 0.5}, 2),
        ({"patch": (128, 512, 13), "overlap": 0.25}, 4),
        ({"axis": "x", "patch": (256, 512, 32)}, 2),
    ],
)
def test_any_tiling_gives_the_labels_of_one_tile(
    predict: Any, volume: Any, whole: Any, options: dict[str, Any], fewest: int
) -> None:
    found = segmented(predict, volume, probabilities=True, **options)
    assert found.done.prepared.plan.tile_count >= fewest
    # its sums are sums of integers, which do not depend on their order
    np.testing.assert_array_equal(found.probabilities, whole.probabilities)
    np.testing.assert_array_equal(found.labels.array, whole.labels.array)


def test_openvino_gives_the_bits_of_onnx_runtime(volume: Any, whole: Any) -> None:
    with package.load(runtime="openvino", precision="fp32") as other:
        found = segmented(other, volume, probabilities=True, patch=(256, 256, 16))
    np.testing.assert_array_equal(found.probabilities, whole.probabilities)
    np.testing.assert_array_equal(found.labels.array, whole.labels.array)
