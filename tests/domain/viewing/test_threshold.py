"""Otsu's threshold lies between dark and bright."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.filters import threshold_otsu
from voxport.domain.viewing.display import otsu


@pytest.mark.parametrize("seed", range(4))
def test_it_is_where_scikit_image_has_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = np.concatenate([random.normal(50, 10, 5000), random.normal(160, 20, 1500)]).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    level = otsu(lambda: [(values[:3000], None), (values[3000:], None)], low, high)
    assert level == pytest.approx(threshold_otsu(values), abs=(high - low) / 200)  # type: ignore[no-untyped-call]


def test_counts_weigh_as_repeated_values_do() -> None:
    values, counts = np.array([0, 10, 200], np.float32), np.array([5, 100, 30])
    repeated = np.repeat(values, counts)
    assert otsu(lambda: [(values, counts)], 0, 200) == otsu(lambda: [(repeated, None)], 0, 200)


def test_one_value_everywhere_is_not_above_the_threshold() -> None:
    assert otsu(lambda: [(np.full(9, 4, np.float32), None)], 4, 4) == 4
