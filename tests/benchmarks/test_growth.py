"""How the growth benchmark judges memory and time."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.growth import line, summary


def size(millions: float, seconds: float, peak: int) -> dict[str, Any]:
    return {"voxels": millions * 1e6, "seconds": seconds, "peak_bytes": peak}


def test_points_on_a_line_give_that_line() -> None:
    assert line([(1, 2.5), (10, 7.0), (100, 52.0)]) == pytest.approx((2.0, 0.5))


def test_a_small_volume_counts_as_much_as_a_large_one() -> None:
    begin, slope = line([(1, 2.0), (2, 3.0), (1000, 1200.0)])
    assert abs(begin + slope - 2.0) / 2.0 < 0.1


def test_equal_peaks_are_flat_and_proportional_times_linear() -> None:
    told = summary([size(1, 1.0, 100), size(2, 2.0, 105), size(8, 8.0, 110)])
    assert told["flat"]
    assert told["linear"]
    assert told["peak_spread"] == pytest.approx(0.1)
    assert told["seconds_a_megavoxel"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("sizes", "flat", "linear"),
    [
        ([size(1, 1.0, 100), size(2, 2.0, 111), size(8, 8.0, 100)], False, True),
        ([size(1, 1.0, 100), size(2, 4.0, 100), size(8, 64.0, 100)], True, False),
    ],
)
def test_peaks_and_times_are_judged_apart(sizes: list[dict[str, Any]], flat: bool, linear: bool) -> None:
    told = summary(sizes)
    assert (told["flat"], told["linear"]) == (flat, linear)
