"""Boxes and normalised values are those of nnU-Net's preprocessor and of MONAI's transforms."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from voxport.domain.cards.model_card import Crop, ResamplingRule
from voxport.domain.intensity import Rescale, ShiftScale, Step, Window, ZScore
from voxport.domain.volume import Volume
from voxport.services.segmentation.case import Case
from voxport.services.segmentation.preparation.cropping import Foreground
from voxport.testing.affine import Floats

from tests.services.conftest import make_grid
from tests.services.segmentation.cropping_cases import card_that_crops, network_input, prepared_case

SHAPE = (17, 15, 13)
CT = {"mean": 101.5, "std": 37.25, "percentile_00_5": 20.0, "percentile_99_5": 180.0}
Open = Callable[..., Case]


def spheres(seed: int, channels: int = 2) -> Floats:
    """Bright shells with holes and loose voxels in the middle of zeros: their box, holes and edges all matter."""
    random = np.random.default_rng(seed)
    centre = np.array([random.uniform(5, 10, 3) for _ in range(channels)])
    distance = np.linalg.norm(np.indices(SHAPE)[None] - centre[:, :, None, None, None], axis=1)
    values = np.where((distance < 4.5) & (distance > 2), random.uniform(1, 200, (channels, *SHAPE)), 0)
    values[0][random.random(SHAPE) > 0.999] = -7
    return np.asarray(values.astype(np.float32))


def normalised(opened: Open, values: Floats, crop: Crop, *steps: Step, **options: Any) -> Floats:
    card = card_that_crops(crop, *steps, channels=len(values), **options)
    return network_input(prepared_case(opened(Volume(values, make_grid(SHAPE))), card))


def by_nnunet(
    values: Floats, schemes: Sequence[str], masked: Sequence[bool], spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> tuple[Floats, list[list[int]]]:
    """The preprocessor's output for a case whose spacing is 1, and its box."""
    reason = "nnunetv2 is not installed"
    preprocessing = pytest.importorskip("nnunetv2.preprocessing.preprocessors.default_preprocessor", reason=reason)
    resampling = importlib.import_module("nnunetv2.preprocessing.resampling.default_resampling")
    properties = {str(channel): CT for channel in range(len(values))}
    plans = SimpleNamespace(transpose_forward=[0, 1, 2], foreground_intensity_properties_per_channel=properties)
    configuration = SimpleNamespace(
        spacing=list(spacing),
        normalization_schemes=schemes,
        use_mask_for_norm=masked,
        resampling_fn_data=partial(resampling.resample_data_or_seg_to_shape, order=3, order_z=0, force_separate_z=None),
        resampling_fn_seg=lambda data, *_: data,
    )
    run = preprocessing.DefaultPreprocessor(verbose=False).run_case_npy
    data, _, found = run(values, None, {"spacing": [1.0, 1.0, 1.0]}, plans, configuration, {})
    return data, found["bbox_used_for_cropping"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("schemes", "masked", "steps"),
    [
        (["ZScoreNormalization"] * 2, [True, True], [(ZScore("crop"),)] * 2),
        (["ZScoreNormalization"] * 2, [False, True], [(ZScore(),), (ZScore("crop"),)]),
        (
            ["CTNormalization", "ZScoreNormalization"],
            [False, True],
            [(Window(20, 180), ZScore(mean=CT["mean"], std=CT["std"])), (ZScore("crop"),)],
        ),
        (["RescaleTo01Normalization", "NoNormalization"], [False, False], [(Rescale(0, 1),), ()]),
    ],
)
def test_nnunets_preprocessor_gives_the_same_box_and_values(
    opened: Open, seed: int, schemes: list[str], masked: list[bool], steps: list[tuple[Step, ...]]
) -> None:
    values = spheres(seed)
    expected, box = by_nnunet(values, schemes, masked)
    assert expected.shape[1:] != SHAPE
    case = opened(Volume(values, make_grid(SHAPE)))
    card = card_that_crops(Crop("nonzero"), *steps[0], channels=2, own=steps[1])
    prepared = prepared_case(case, card)
    assert prepared.crop is not None
    assert [list(ends) for ends in zip(prepared.crop.start, prepared.crop.stop, strict=True)] == box
    np.testing.assert_allclose(network_input(prepared), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("spacing", [(0.7, 0.9, 0.8), (1.6, 1.3, 1.1), (0.9, 0.8, 4.1), (3.7, 1.0, 1.2)])
def test_nnunets_preprocessor_resamples_to_the_same_values(
    opened: Open, seed: int, spacing: tuple[float, float, float]
) -> None:
    """With cubic splines, and the coarse axis apart where there is one."""
    expected, _ = by_nnunet(spheres(seed), ["ZScoreNormalization"] * 2, [True, False], spacing)
    rule = ResamplingRule(3, "auto", align="extent")
    options: dict[str, Any] = {"rule": rule, "own": (ZScore(),), "spacing": spacing, "unit": "mm"}
    found = normalised(opened, spheres(seed), Crop("nonzero"), ZScore("crop"), **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_holes_matter_in_these_cases(opened: Open) -> None:
    """Within the nonzero voxels alone, the statistics differ."""
    values = spheres(0, 1)
    filled, zeros = (normalised(opened, values, Crop("nonzero"), ZScore(w)) for w in ("crop", "nonzero"))
    assert np.abs(filled - zeros).max() > 0.1


def test_an_empty_volume_is_not_cropped_by_nnunet_either(opened: Open) -> None:
    values = np.zeros((1, *SHAPE), np.float32)
    expected, box = by_nnunet(values, ["ZScoreNormalization"], [False])
    assert box == [[0, edge] for edge in SHAPE]
    np.testing.assert_array_equal(normalised(opened, values, Crop("nonzero"), ZScore()), expected)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("margin", [0, 2])
@pytest.mark.parametrize("threshold", [0.0, 150.0])
def test_monai_crops_to_the_same_box(opened: Open, seed: int, margin: int, threshold: float) -> None:
    from monai.transforms import CropForeground

    values = spheres(seed)
    crop = CropForeground(lambda x: x > threshold, margin=margin, allow_smaller=True)
    start, stop = crop.compute_bounding_box(values)
    case = opened(Volume(values, make_grid(SHAPE)))
    card = card_that_crops(Crop("above", threshold, margin), channels=2)
    foreground = Foreground.of(case, card, None)
    assert foreground is not None
    box = foreground.box()
    assert box is not None
    assert (list(box.start), list(box.stop)) == (start.tolist(), stop.tolist())


GIVEN = {"subtrahend": [10.0, 10.0], "divisor": [4.0, 4.0]}
TO_ONE = {"a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1}


@pytest.mark.parametrize(
    ("name", "arguments", "steps"),
    [
        ("NormalizeIntensity", {"channel_wise": True}, [ZScore()]),
        ("NormalizeIntensity", {"channel_wise": True, "nonzero": True}, [ZScore("nonzero")]),
        ("NormalizeIntensity", {"channel_wise": True, **GIVEN}, [ZScore(mean=10, std=4)]),
        ("NormalizeIntensity", {"channel_wise": True, "nonzero": True, **GIVEN}, [ZScore("nonzero", mean=10, std=4)]),
        ("ScaleIntensityRange", {"clip": True, **TO_ONE}, [Window(-57, 164), ShiftScale(57, 1 / 221)]),
        ("ScaleIntensityRange", {"clip": False, **TO_ONE}, [ShiftScale(57, 1 / 221)]),
    ],
)
@pytest.mark.parametrize("spacing", [None, (1.7, 1.0, 0.8)])
def test_monai_normalises_a_resampled_volume_to_the_same_values(
    opened: Open,
    name: str,
    arguments: dict[str, Any],
    steps: list[Step],
    spacing: tuple[float, float, float] | None,
) -> None:
    from monai import transforms
    from monai.data import MetaTensor

    rule = ResamplingRule(align="first")
    options: dict[str, Any] = {"rule": rule, "when": "before_intensity", "spacing": spacing, "unit": spacing and "mm"}
    cropped = transforms.CropForeground()(MetaTensor(spheres(5)))
    by_monai = cropped if spacing is None else transforms.Spacing(spacing, padding_mode="border")(cropped)
    resampled = normalised(opened, spheres(5), Crop("above"), **options)
    np.testing.assert_allclose(resampled, np.asarray(by_monai), rtol=1e-5, atol=1e-5)
    # of ours: by rounding alone, voxels between zeros are nonzero in MONAI's
    expected = getattr(transforms, name)(**arguments)(resampled)
    found = normalised(opened, spheres(5), Crop("above"), *steps, **options)
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-5, atol=1e-5)
