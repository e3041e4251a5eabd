"""Each thing that looks wrong about a case gives one warning, and nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from voxport.domain.cards.model_card import ModelCard
from voxport.domain.cards.preflight import preflight_warnings
from voxport.domain.geometry.grid import Grid
from voxport.domain.inference.patches import Tiling, plan_tiles
from voxport.domain.intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore

from tests.services.conftest import make_card, make_grid


def channel(low: float, high: float) -> tuple[float, float]:
    return low, high


def warnings(
    card: ModelCard, grid: Grid | None = None, channels: Sequence[tuple[float, float]] = (channel(0, 255),)
) -> tuple[str, ...]:
    grid = grid or make_grid((32, 32, 32))
    return preflight_warnings(grid, channels, card, plan_tiles(grid.shape, card.tiling))


def test_a_case_that_matches_the_card_gives_no_warning() -> None:
    card = make_card(spacing=(1.0, 1.0, 1.0), unit="mm", intensity=[Window(0, 255), Rescale(0, 1)])
    assert warnings(card) == ()


def test_an_unknown_unit_is_a_warning_if_the_card_has_a_spacing() -> None:
    grid = make_grid((32, 32, 32), unit="unknown")
    (found,) = warnings(make_card(spacing=(1.0, 1.0, 1.0), unit="um"), grid)
    assert "no unit" in found
    assert "um" in found
    assert warnings(make_card(), grid) == ()


def test_a_distant_spacing_of_unknown_unit_is_reported_in_the_cards_unit() -> None:
    grid = make_grid((32, 32, 32), (1.0, 4.0, 1.0), "unknown")
    _, far = warnings(make_card(spacing=(1.0, 1.0, 1.0), unit="um"), grid)
    assert "along y is 4 um, 4.0 times off the model's 1 um" in far


@pytest.mark.parametrize(
    ("spacing", "warned"), [(1.99, False), (2.0, True), (0.51, False), (0.5, True), (10.0, True), (1.0, False)]
)
def test_a_spacing_off_by_a_factor_of_two_is_a_warning(spacing: float, warned: bool) -> None:
    found = warnings(make_card(spacing=(1.0, 1.0, 1.0), unit="mm"), make_grid((32, 32, 32), (1.0, spacing, 1.0)))
    assert len(found) == warned
    if warned:
        factor = max(spacing, 1 / spacing)
        assert f"along y is {spacing:g} mm, {factor:.1f} times off the model's 1 mm" in found[0]


def test_spacings_are_compared_across_units() -> None:
    card = make_card(spacing=(0.001, 0.001, 0.005), unit="mm")
    assert warnings(card, make_grid((32, 32, 32), (1.0, 1.0, 5.0), "um")) == ()
    found = warnings(card, make_grid((32, 32, 32), (1.0, 1.0, 1.0), "mm"))
    assert ["1000.0 times" in line for line in found] == [True, True, False]
    assert "200.0 times" in found[2]


def test_spacings_are_compared_along_the_models_axes() -> None:
    """Stored as SAR, the first axis is the model's z."""
    stored = make_grid((32, 32, 32), (5.0, 1.0, 1.0), codes="SAR")
    card = make_card(spacing=(1.0, 1.0, 5.0), unit="mm")
    assert warnings(card, stored) == ()
    as_stored = make_card(spacing=(1.0, 1.0, 5.0), unit="mm", orientation=None)
    assert [line.split(" is ")[0] for line in warnings(as_stored, stored)] == [
        "spacing along x",
        "spacing along z",
    ]


def test_a_volume_that_is_mostly_padding_is_a_warning() -> None:
    card = make_card(tiling=Tiling((32, 32, 32), divisor=16))
    (found,) = warnings(card, make_grid((32, 32, 8)))
    assert "8 voxels along z, padded" in found
    assert "minimum of 16" in found
    assert warnings(card, make_grid((32, 32, 9))) == ()


def test_a_constant_channel_gives_one_warning() -> None:
    card = make_card(2, intensity=[Window(100, 200)])
    (found,) = warnings(card, channels=[channel(150, 180), channel(7, 7)])
    assert found == "channel channel 1 has the value 7 everywhere: there is nothing to segment"


def test_channels_are_looked_at_by_their_source() -> None:
    (found,) = warnings(make_card([1]), channels=[channel(0, 1), channel(3, 3)])
    assert "channel 0 has the value 3" in found


@pytest.mark.parametrize(
    ("low", "high", "warned"),
    [
        (-1000, 3000, False),
        (-57, 164, False),
        (0, 1, False),  # narrow, and all of it is kept
        (200, 4000, True),
        (-2000, -57, True),
        (163, 4000, True),  # keeps 1 of 221
        (150, 4000, False),
    ],
)
def test_a_range_mostly_outside_the_window_is_a_warning(low: float, high: float, warned: bool) -> None:
    found = warnings(make_card(intensity=[Window(-57, 164)]), channels=[channel(low, high)])
    assert len(found) == warned
    if warned:
        assert f"ranges from {low:g} to {high:g}, the model expects -57 to 164" in found[0]


@pytest.mark.parametrize("step", [ShiftScale(0, 1 / 255), ZScore(mean=0, std=255), ZScore("nonzero", 0, 255)])
@pytest.mark.parametrize(("high", "warned"), [(255, False), (25000, False), (65535, True)])
def test_large_values_after_a_fixed_scale_are_a_warning(step: Step, high: float, warned: bool) -> None:
    found = warnings(make_card(intensity=[step]), channels=[channel(0, high)])
    assert len(found) == warned
    if warned:
        assert "0 to 257 after the model's shift and scale" in found[0]


@pytest.mark.parametrize("first", [Rescale(0, 1), ZScore(), ZScore("nonzero")])
@pytest.mark.parametrize("second", [Window(-3, 3), ShiftScale(0, 10)])
def test_a_step_after_normalisation_expects_no_range(first: Step, second: Step) -> None:
    assert warnings(make_card(intensity=[first, second]), channels=[channel(1000, 9000)]) == ()


def test_a_window_after_clipped_percentiles_still_speaks_of_the_values() -> None:
    (found,) = warnings(make_card(intensity=[ClipPercentiles(1, 99), Window(-3, 3)]), channels=[channel(1000, 9000)])
    assert "the model expects -3 to 3" in found


def test_an_axis_that_the_card_leaves_as_stored_is_not_compared() -> None:
    spacing: tuple[float | None, float | None, float | None] = (1.0, 1.0, None)
    card = make_card(spacing=(1.0, 1.0, 1.0), unit="mm")
    free = replace(card, input=replace(card.input, spacing=spacing))
    grid = make_grid((32, 32, 32), (1.0, 1.0, 9.0))
    assert len(warnings(card, grid)) == 1
    assert warnings(free, grid) == ()
