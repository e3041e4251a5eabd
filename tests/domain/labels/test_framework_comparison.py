"""Measures of agreement equal MONAI's on random masks with anisotropic spacing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from voxport.domain.labels.comparison import agreement


@pytest.mark.requirement("R-COMPARE")
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.filterwarnings("ignore")
def test_every_measure_is_that_of_monai(seed: int) -> None:
    metrics: Any = pytest.importorskip("monai.metrics", reason="MONAI is missing")
    torch: Any = pytest.importorskip("torch", reason="torch is missing")
    rng = np.random.default_rng(seed)
    spacing = tuple(float(edge) for edge in rng.uniform(0.3, 4.0, 3))
    shape = tuple(int(edge) for edge in rng.integers(9, 28, 3))
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    truth = (smooth > np.quantile(smooth, 0.8)).astype(np.uint8)
    mask = (np.roll(smooth, 1, seed % 3) + rng.normal(0, 0.05, shape) > np.quantile(smooth, 0.78)).astype(np.uint8)
    tolerance = float(rng.uniform(0.5, 5.0))
    found = agreement(mask, truth, spacing, 1, "x", tolerance=tolerance)
    one, other = (
        torch.tensor(np.stack([part == 0, part == 1])[np.newaxis].astype(np.float32)) for part in (mask, truth)
    )

    def near(value: float | None, expected: Any) -> bool:
        return value == pytest.approx(float(np.asarray(expected).ravel()[-1]), abs=1e-6, rel=1e-6)

    assert near(found.dice, metrics.compute_dice(one, other))
    assert near(found.iou, metrics.compute_iou(one, other))
    assert near(found.hausdorff_95, metrics.compute_hausdorff_distance(one, other, percentile=95, spacing=spacing))
    both = metrics.compute_average_surface_distance(one, other, symmetric=True, spacing=spacing)
    assert near(found.surface_distance, both)
    dice = metrics.compute_surface_dice(one, other, [tolerance], spacing=spacing)
    assert near(found.surface_dice, dice)
