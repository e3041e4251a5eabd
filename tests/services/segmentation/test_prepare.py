"""Options, the card, the network's fixed sizes and the memory limit make one plan, or a clear error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from voxport.domain.cards.model_card import ModelCard, ResamplingRule
from voxport.domain.errors import LimitError, UsageError
from voxport.domain.geometry.grid import Box
from voxport.domain.inference.patches import Tiling
from voxport.domain.inference.sliding_window import slab_bytes
from voxport.domain.intensity import Rescale, ShiftScale
from voxport.domain.run import LARGEST_OVERLAP, RunOptions
from voxport.domain.volume import Volume
from voxport.ports.runtime import NetworkShape
from voxport.services.segmentation.case import Case
from voxport.services.segmentation.inference import Inferer
from voxport.services.segmentation.preparation.planning import size
from voxport.services.segmentation.preparation.prepare import Prepared, prepare

from tests.services.conftest import ANY, Bench, brighter_than, load, make_card, make_grid, noise

Prepare = Callable[..., Prepared]
MB = 10**6


@pytest.fixture
def prepared(bench: Bench, opened: Callable[..., Case]) -> Prepare:
    """Prepares a case of noise."""

    def run(
        card: ModelCard | None = None,
        volume: Volume | None = None,
        *,
        input_shape: NetworkShape = ANY,
        **options: Any,
    ) -> Prepared:
        card = card or make_card(tiling=Tiling((16, 16, 16), divisor=4))
        volume = volume or Volume(noise((40, 32, 24)), make_grid((40, 32, 24)))
        inferer = Inferer(load(brighter_than(0.5), card, input_shape=input_shape).runtime, card)
        return prepare(opened(volume), card, inferer, RunOptions(**options), resources=bench.resources)

    return run


def test_an_unknown_blending_is_a_usage_error_that_lists_the_known() -> None:
    with pytest.raises(UsageError, match="blending: expected one of gaussian, constant, halo, got linear"):
        RunOptions(blending="linear")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e39])
def test_a_non_finite_value_for_nan_is_a_usage_error(value: float) -> None:
    with pytest.raises(UsageError, match="nan_as: expected a finite number"):
        RunOptions(nan_as=value)


def test_without_options_the_cards_tiling_is_used(prepared: Prepare) -> None:
    plan = prepared().plan
    assert (plan.tile, plan.blending, plan.shape) == ((16, 16, 16), "gaussian", (40, 32, 24))


def test_options_replace_the_cards_tiling(prepared: Prepare) -> None:
    found = prepared(overlap=0.0, patch=(8, 32, 12), blending="constant")
    assert (found.plan.tile, found.plan.blending, found.overlap) == ((8, 32, 12), "constant", 0.0)
    assert found.plan.tile_count == 5 * 1 * 2


@pytest.mark.parametrize("overlap", [-0.01, LARGEST_OVERLAP + 0.01, 1.0])
def test_an_overlap_out_of_range_is_a_usage_error(prepared: Prepare, overlap: float) -> None:
    with pytest.raises(UsageError, match=rf"overlap: expected a fraction from 0 to {LARGEST_OVERLAP}"):
        prepared(overlap=overlap)


@pytest.mark.parametrize("overlap", [0.0, LARGEST_OVERLAP])
def test_the_ends_of_the_range_of_overlaps_are_fine(prepared: Prepare, overlap: float) -> None:
    assert prepared(overlap=overlap).overlap == overlap


@pytest.mark.parametrize("patch", [(16, 16, 6), (0, 16, 16), (-4, 16, 16)])
def test_a_patch_that_the_divisor_does_not_divide_is_a_usage_error(prepared: Prepare, patch: Any) -> None:
    with pytest.raises(UsageError, match="patch: expected positive multiples of the model's divisor 4"):
        prepared(patch=patch)


def test_tiles_may_be_as_thin_as_a_plane(prepared: Prepare) -> None:
    assert prepared(make_card(tiling=Tiling((8, 8, 8))), patch=(1, 8, 8)).plan.tile == (1, 8, 8)


def test_a_network_of_one_size_gets_tiles_of_that_size_even_beyond_the_volume(prepared: Prepare) -> None:
    found = prepared(input_shape=(None, 1, 64, None, 20))
    assert found.plan.tile == (64, 16, 20)
    assert found.plan.padded == (64, 32, 24)


def test_a_patch_other_than_the_networks_fixed_size_is_a_usage_error(prepared: Prepare) -> None:
    with pytest.raises(UsageError, match="the one size that this network takes, 16,16,16"):
        prepared(input_shape=(1, 1, 16, 16, 16), patch=(16, 16, 20))
    assert prepared(input_shape=(1, 1, 16, 16, 16), patch=(16, 16, 16)).plan.tile == (16, 16, 16)


def test_the_divisor_does_not_bind_edges_that_the_network_fixes(prepared: Prepare) -> None:
    assert prepared(input_shape=(1, 1, 18, None, None), patch=(18, 8, 8)).plan.tile == (18, 8, 8)


def test_fixed_sizes_of_a_zyx_network_are_turned(prepared: Prepare) -> None:
    card = make_card(axes="ZYX", tiling=Tiling((16, 16, 16)))
    assert prepared(card, input_shape=(1, 1, 8, 16, 32)).plan.tile == (32, 16, 8)


def test_the_visiting_axis_is_the_one_that_is_read_at_the_least_cost(prepared: Prepare) -> None:
    """Memory volumes read slabs along their first axis; stored as SAR, that is the model's z."""
    stored = Volume(noise((40, 32, 24)), make_grid((40, 32, 24), codes="SAR"))
    assert prepared(volume=stored).plan.axis == 2


def test_a_thin_volume_is_not_visited_along_its_depth(prepared: Prepare) -> None:
    """Tiles of 16 that overlap by half: 2 rows along z, 3 along y, 4 or more along x; stored from z to x."""
    for x, y, axis in ((40, 32, 0), (40, 40, 1), (24, 24, 2), (24, 32, 1)):
        stored = Volume(noise((24, y, x)), make_grid((24, y, x), codes="SAR"))
        assert prepared(volume=stored).plan.axis == axis
    assert prepared().plan.axis == 0
    assert prepared(axis="y").plan.axis == 1


def slab(found: Prepared, blending: Any = None) -> int:
    plan = found.plan if blending is None else replace(found.plan, blending=blending)
    return slab_bytes(plan, 1, 2)


def test_a_plan_that_fits_the_stated_memory_stays(prepared: Prepare, bench: Bench) -> None:
    bench.resources.resident = 100 * MB
    needed = prepared().stitching_bytes
    found = prepared(memory_bytes=100 * MB + needed)
    assert (found.plan.blending, found.stitching_bytes, found.warnings) == ("gaussian", needed, ())
    assert needed == slab(found)


@pytest.mark.parametrize("order", [1, 3])
def test_planes_that_are_resampled_count_as_memory(prepared: Prepare, order: Literal[1, 3]) -> None:
    card = make_card(spacing=(0.7, 1.3, 0.8), unit="mm")
    card = replace(
        card,
        input=replace(card.input, resampling=ResamplingRule(order)),
        output=replace(card.output, order=order),
    )
    found = prepared(card)
    there = found.space.resampling.held_bytes(found.plan.axis, 1)
    back = found.space.way_back(card.output).held_bytes(found.plan.axis, 2)
    assert min(there, back) > 0
    assert found.stitching_bytes == slab_bytes(found.plan, 1, 2, assembled=True) + there + back


def test_a_plan_that_does_not_fit_changes_to_halo_with_a_warning(prepared: Prepare, bench: Bench) -> None:
    bench.resources.resident = 100 * MB
    needed = prepared().stitching_bytes
    found = prepared(memory_bytes=100 * MB + needed - 1)
    assert found.plan.blending == "halo"
    assert found.stitching_bytes == slab(found) < needed
    assert any("blending changed from gaussian to halo" in line for line in found.warnings)
    assert any(size(needed) in line for line in found.warnings)


def test_a_limit_below_that_of_halo_blending_is_an_error_with_the_minimum(prepared: Prepare, bench: Bench) -> None:
    bench.resources.resident = 100 * MB
    least = 100 * MB + slab(prepared(), "halo")
    assert prepared(memory_bytes=least).plan.blending == "halo"
    with pytest.raises(LimitError, match=rf"memory: expected at least {size(least)}, got {size(50 * MB)}; raise"):
        prepared(memory_bytes=50 * MB)


def test_a_requested_blending_is_kept_and_the_limit_error_is_for_it(prepared: Prepare, bench: Bench) -> None:
    bench.resources.resident = 0
    needed = prepared().stitching_bytes
    with pytest.raises(LimitError, match=f"expected at least {size(needed)}, got {size(needed // 2)}"):
        prepared(memory_bytes=needed // 2, blending="gaussian")


def test_without_a_stated_limit_half_of_the_free_memory_counts(prepared: Prepare, bench: Bench) -> None:
    needed = prepared().stitching_bytes
    bench.resources.available = 2 * needed
    assert prepared().plan.blending == "gaussian"
    bench.resources.available = 2 * needed - 2
    assert prepared().plan.blending == "halo"


def test_too_little_free_memory_is_a_limit_error_with_the_minimum(prepared: Prepare, bench: Bench) -> None:
    least = slab(prepared(), "halo")
    bench.resources.available = least
    with pytest.raises(LimitError, match=f"memory: expected at least {size(least)}, got {size(least // 2)} free"):
        prepared()


def test_too_little_free_memory_is_only_a_warning_for_a_requested_blending(prepared: Prepare, bench: Bench) -> None:
    needed = prepared().stitching_bytes
    bench.resources.available = needed
    found = prepared(blending="gaussian")
    assert found.plan.blending == "gaussian"
    assert any(f"this run wants {size(needed)}" in line for line in found.warnings)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("codes", ["RAS", "SLP"])
def test_planes_are_the_normalised_volume_in_the_models_orientation(prepared: Prepare, axis: int, codes: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (2, 7, 6, 5), np.uint8)
    volume = Volume(values, make_grid((7, 6, 5), codes=codes))
    card = make_card([1, 0, 1], intensity=[Rescale(0, 1), ShiftScale(1.0, 2.0)])
    found = prepared(card, volume, axis="xyz"[axis])
    planes = np.stack(list(found.planes()), axis=1 + axis)
    expected = []
    for source in (1, 0, 1):
        channel = volume.reoriented("RAS").array[source].astype(np.float32)
        expected.append(((channel - channel.min()) / (channel.max() - channel.min()) + 1) * 2)
    assert planes.dtype == np.float32
    np.testing.assert_allclose(planes, expected, rtol=1e-6)


def test_a_box_in_model_orientation_maps_to_its_stored_voxels(prepared: Prepare) -> None:
    volume = Volume(noise((7, 6, 5)), make_grid((7, 6, 5), codes="SLP"))
    found, oriented = prepared(make_card(), volume), volume.reoriented("RAS")
    box = Box((1, 0, 2), (3, 4, 7))
    stored = volume.array[0][found.stored_box(box).slices]
    np.testing.assert_array_equal(np.sort(stored.ravel()), np.sort(oriented.array[0][box.slices].ravel()))


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 KB"), (1_500_000, "1.5 MB"), (2.5e9, "2.50 GB"), (1.2e13, "12000.00 GB")],
)
def test_sizes_are_formatted_with_units(count: float, text: str) -> None:
    assert size(count) == text
