"""A card that crops has the foreground's box segmented alone, and background around it, in every stored order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.cards.model_card import Crop
from voxport.domain.geometry.grid import Box
from voxport.domain.inference.patches import Tiling
from voxport.domain.intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore, apply, fit
from voxport.domain.run import Outputs, RunOptions
from voxport.domain.volume import Volume
from voxport.services.segmentation.case import Case, slabs
from voxport.services.segmentation.estimate import estimate
from voxport.services.segmentation.predict import predict
from voxport.services.segmentation.preparation.cropping import Foreground, Region
from voxport.services.segmentation.preparation.model_view import ModelView
from voxport.services.segmentation.report import run_report
from voxport.services.segmentation.segment import SegmentPorts
from voxport.testing.affine import Floats
from voxport.testing.strategies import boxes

from tests.services.conftest import Bench, brighter_than, load, make_card, make_grid, noise
from tests.services.segmentation.cropping_cases import When, card_that_crops, network_input, prepared_case

SHAPE = (14, 12, 11)
INNER = Box((3, 2, 4), (11, 9, 8))
Open = Callable[..., Case]
ALL_CODES = [
    a + b + c
    for x, y, z in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    for a in ("RL", "AP", "SI")[x]
    for b in ("RL", "AP", "SI")[y]
    for c in ("RL", "AP", "SI")[z]
]


def framed(values: Floats, box: Box = INNER, frame: float = 0.0) -> Floats:
    """The values inside the box, and the frame's around it."""
    result = np.full_like(values, frame)
    result[..., *box.slices] = values[..., *box.slices]
    return result


def dark(batch: Floats) -> Floats:
    """Label 1 below 0.5, so in every voxel of a frame of zeros."""
    return brighter_than(0.5)(1 - batch)


def inside(box: Box) -> NDArray[np.bool_]:
    found = np.zeros(SHAPE, bool)
    found[box.slices] = True
    return found


# The box


def test_the_network_sees_the_box_alone_and_what_lies_outside_is_background(bench: Bench) -> None:
    values = bench.put(framed(noise(SHAPE) * np.float32(0.5) + np.float32(0.2))).array[0]
    bench.segment(load(dark, make_card()))
    assert bench.array()[0, 0, 0] == 1  # without a crop, the dark frame is labelled
    done = bench.segment(load(dark, card_that_crops(Crop("nonzero"))))
    np.testing.assert_array_equal(bench.array(), (values < 0.5) & inside(INNER))
    assert done.prepared.crop == INNER
    assert done.prepared.space.grid.shape == INNER.shape
    assert bench.volumes.get("mask").grid == done.grid == bench.volumes.get("scan").grid


@pytest.mark.parametrize("margin", [0, 1, 3, 100])
def test_a_margin_is_clipped_to_the_volume(opened: Open, margin: int) -> None:
    card = card_that_crops(Crop("nonzero", margin=margin))
    found = prepared_case(opened(Volume(framed(noise(SHAPE) + 1), make_grid(SHAPE))), card).crop
    start = tuple(max(0, a - margin) for a in INNER.start)
    assert found == Box(start, tuple(min(n, b + margin) for n, b in zip(SHAPE, INNER.stop, strict=True)))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize(
    ("crop", "box"), [(Crop("nonzero"), Box((1, 2, 3), (9, 8, 8))), (Crop("above", 4), Box((5, 6, 7), (9, 8, 8)))]
)
def test_one_voxel_of_any_channel_is_enough(opened: Open, crop: Crop, box: Box, dtype: str) -> None:
    values = np.zeros((3, *SHAPE), dtype)
    values[0, 8, 7, 7], values[1, 5, 6, 7], values[1, 1, 2, 3] = 5, 5, 4
    values[2, 0, 0, 0] = 9  # of a channel that the card does not read
    card = card_that_crops(crop, channels=[1, 0, 2][:2])
    case = opened(Volume(values, make_grid(SHAPE)))
    foreground = Foreground.of(case, card, None)
    assert foreground is not None
    assert foreground.box() == box


def test_values_that_are_not_finite_count_as_what_replaces_them(opened: Open) -> None:
    values = framed(noise(SHAPE) + 1)
    values[0, 0, 0], values[13, 11, 10] = np.nan, np.inf
    case = opened(Volume(values, make_grid(SHAPE)))
    card = card_that_crops(Crop("nonzero"))
    assert prepared_case(case, card, nan_as=0.0).crop == INNER
    assert prepared_case(case, card, nan_as=1.0).crop == Box.whole(SHAPE)


@pytest.mark.parametrize(("crop", "value"), [(Crop("nonzero"), 0.0), (Crop("above", 3.0), 3.0)])
def test_a_volume_without_foreground_is_segmented_whole_with_a_warning(bench: Bench, crop: Crop, value: float) -> None:
    bench.put(np.full(SHAPE, value, np.float32))
    done = bench.segment(load(brighter_than(0.5), card_that_crops(crop)))
    assert done.prepared.crop == Box.whole(SHAPE)
    assert any("the volume is not cropped" in warning for warning in done.warnings)


@given(st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_region_is_the_foreground_with_its_holes_filled(opened: Open, data: st.DataObject) -> None:
    """Any part of it is read, of any box, whatever the axis along which it is stored."""
    seed, axis = data.draw(st.integers(0, 99)), data.draw(st.integers(0, 2))
    values = framed((noise(SHAPE, seed) > 0.4).astype(np.float32))
    foreground = Foreground.of(opened(Volume(values, make_grid(SHAPE))), card_that_crops(Crop("nonzero", 0, 1)), None)
    assert foreground is not None
    box = foreground.box()
    assert box is not None
    region, filled = foreground.region(box), ndimage.binary_fill_holes(values)
    part = data.draw(boxes(box.shape)).moved(box.start)
    np.testing.assert_array_equal(region.read(part), filled[part.slices])
    other = Region(box, axis)
    for plane in slabs(make_grid(SHAPE), axis, within=box):
        other.write(plane, filled[plane.slices])
    np.testing.assert_array_equal(other.read(part), filled[part.slices])


# Around the box


def test_probabilities_outside_are_those_of_background(bench: Bench) -> None:
    bench.put(framed(noise(SHAPE) + 1))
    outputs = Outputs("mask", "probabilities")
    bench.segment(load(brighter_than(0.5), card_that_crops(Crop("nonzero"))), outputs=outputs)
    found = bench.array("probabilities")
    assert (found[:, ~inside(INNER)] == [[1], [0]]).all()
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    each = card_that_crops(Crop("nonzero"), activation="sigmoid")
    bench.segment(load(lambda batch: batch, each), outputs=outputs)
    assert (bench.array("probabilities")[~inside(INNER)] == 0).all()
    assert (bench.array("probabilities")[inside(INNER)] > 0.5).all()


def test_statistics_are_of_the_whole_volume_and_the_report_has_the_box(bench: Bench) -> None:
    bench.put(framed(noise(SHAPE) + 1))
    loaded = load(brighter_than(0.5), card_that_crops(Crop("nonzero")))
    done = bench.segment(loaded, outputs=Outputs("mask", statistics="s.json", preview="p.png"))
    (label,) = done.statistics
    assert (label.bounding_box, label.voxels) == (INNER, int(np.prod(INNER.shape)))
    report = run_report(done, loaded, version="1", command="")
    assert report["grid"]["shape"] == list(SHAPE)
    assert report["crop"] == {"start": list(INNER.start), "stop": list(INNER.stop)}
    plain = load(brighter_than(0.5), make_card())
    assert "crop" not in run_report(bench.segment(plain), plain, version="1", command="")


def test_arrays_and_estimates_are_cropped_as_files_are(bench: Bench) -> None:
    scan = bench.put(framed(noise(SHAPE) * np.float32(0.5) + np.float32(0.2)))
    loaded = load(dark, card_that_crops(Crop("nonzero"), tiling=Tiling((4, 4, 4))))
    done = bench.segment(loaded, outputs=Outputs("mask", "probabilities"))
    ports = SegmentPorts(bench.volumes, bench.artifacts, PngPictures(), bench.resources)
    found = predict(
        [scan], loaded, RunOptions(), bench.progress, probabilities=True, ports=ports, new_store=MemoryStore
    )
    np.testing.assert_array_equal(found.labels.array, bench.array())
    np.testing.assert_array_equal(found.probabilities, bench.array("probabilities"))
    planned = estimate(
        ["scan"], loaded, RunOptions(), bench.progress, volumes=bench.volumes, resources=bench.resources
    ).prepared
    assert (planned.plan, planned.crop, planned.case.grid) == (done.prepared.plan, INNER, scan.grid)


def test_a_box_smaller_than_the_models_voxel_is_segmented(bench: Bench) -> None:
    values = np.zeros(SHAPE, np.float32)
    values[5, 6, 7] = 1
    bench.put(values)
    bench.segment(load(brighter_than(0.5), card_that_crops(Crop("nonzero"), spacing=(4.0, 4.0, 4.0), unit="mm")))
    np.testing.assert_array_equal(bench.array(), values)


# Orientations


@pytest.mark.parametrize(
    ("when", "steps"),
    [
        ("after_intensity", [ZScore("crop"), Rescale(0, 1)]),
        ("before_intensity", [Window(0.2, 1.0), ZScore("nonzero")]),
    ],
)
@pytest.mark.parametrize("spacing", [None, (1.7, 1.0, 0.8)])
def test_all_48_stored_orders_give_one_mask(
    bench: Bench, steps: Sequence[Step], spacing: tuple[float, float, float] | None, when: When
) -> None:
    """The network sees context and is lopsided in x."""
    values = framed(noise(SHAPE))
    values[INNER.slices][values[INNER.slices] < 0.2] = 0  # holes, and a ragged edge
    ras = Volume(values, make_grid(SHAPE))

    def lopsided(batch: Floats) -> Floats:
        return brighter_than(0.5)(batch + np.float32(0.1) * np.roll(batch, 1, axis=2))

    card = card_that_crops(Crop("nonzero", margin=1), *steps, when=when, spacing=spacing, unit=spacing and "mm")
    masks = set()
    for codes in ALL_CODES:
        bench.volumes.put(codes, ras.reoriented(codes))
        bench.segment(load(lopsided, card, radius=1), inputs=[codes])
        masks.add(bench.volumes.get("mask").reoriented("RAS").array.tobytes())
    assert len(masks) == 1
    assert len(set(masks.pop())) == 2


# Intensity steps


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_steps_are_fitted_on_the_box_alone(opened: Open, axis: str) -> None:
    values = framed(noise(SHAPE) + 1, frame=-40)
    card = card_that_crops(Crop("above", 0), Rescale(0, 1))
    found = network_input(prepared_case(opened(Volume(values, make_grid(SHAPE))), card, axis=axis))
    seen = values[INNER.slices]
    np.testing.assert_allclose(found[0], (seen - seen.min()) / np.ptp(seen), atol=1e-6)


def test_a_channel_may_have_steps_of_its_own(opened: Open) -> None:
    values = np.stack([noise(SHAPE), noise(SHAPE, 1)])
    card = card_that_crops(None, Rescale(0, 1), channels=2, own=(ShiftScale(1, 2),))
    found = network_input(prepared_case(opened(Volume(values, make_grid(SHAPE))), card))
    np.testing.assert_allclose(found[0], (values[0] - values[0].min()) / np.ptp(values[0]), atol=1e-6)
    np.testing.assert_array_equal(found[1], (values[1] + 1) * 2)


@pytest.mark.parametrize(
    "steps", [(ZScore(),), (Window(0.1, 0.9), ZScore("nonzero")), (ClipPercentiles(5, 95), Rescale(-1, 1))]
)
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_steps_that_follow_resampling_are_fitted_on_the_resampled_volume(
    opened: Open, steps: Sequence[Step], axis: str
) -> None:
    values = np.round(noise((2, *SHAPE)) * 50).astype(np.uint8)  # of a type that is counted in a table otherwise
    values[:, :3] = 0
    options: dict[str, Any] = {"channels": 2, "spacing": (1.7, 0.9, 0.8), "unit": "mm", "when": "before_intensity"}
    case = opened(Volume(values, make_grid(SHAPE)))
    resampled = network_input(prepared_case(case, card_that_crops(Crop("nonzero"), **options), axis=axis))
    found = network_input(prepared_case(case, card_that_crops(Crop("nonzero"), *steps, **options), axis=axis))
    for channel, before in zip(found, resampled, strict=True):
        np.testing.assert_array_equal(channel, apply(fit(steps, lambda v=before: [(v, None)]), before))  # type: ignore[misc]


def test_fixed_steps_take_no_pass_over_the_resampled_volume(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    case = opened(Volume(noise(SHAPE), make_grid(SHAPE)))
    options: dict[str, Any] = {"spacing": (1.7, 0.9, 0.8), "unit": "mm", "when": "before_intensity"}
    monkeypatch.setattr(ModelView, "_resampled", lambda *_: pytest.fail("the volume is resampled"))
    prepared_case(case, card_that_crops(None, Window(0, 1), ShiftScale(1, 2), ZScore(mean=1, std=2), **options))
    with pytest.raises(pytest.fail.Exception):
        prepared_case(case, card_that_crops(None, ZScore(), **options))
