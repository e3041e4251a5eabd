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
    # sums of float32 differ in their last bits with the size of a tile
    np.testing.assert_allclose(found.probabilities, whole.probabilities, rtol=0, atol=1e-4)
    differing = found.labels.array != whole.labels.array
    assert np.count_nonzero(differing) <= 1
