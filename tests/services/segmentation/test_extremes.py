"""Values and spacings far from the usual give the answer that arithmetic gives, or a refusal that names the cause."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import nibabel
import numpy as np
import pytest
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.errors import InputError, LimitError
from voxport.domain.inference.patches import Padding, Tiling
from voxport.domain.intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore
from voxport.domain.labels.label_map import Activation
from voxport.domain.run import RunOptions
from voxport.domain.volume import Volume
from voxport.services.segmentation.case import Case
from voxport.services.segmentation.inference import Inferer
from voxport.services.segmentation.preparation.prepare import Prepared, prepare
from voxport.testing.resources import FixedResources

from tests.services.conftest import Bench, brighter_than, load, make_card, make_grid

SHAPE = (12, 10, 9)
FILLS = [sign * 10.0**power for power in (3, 9, 15, 18, 19, 20, 25, 30, 37, 38) for sign in (1, -1)]


def filled(fill: float, share: float) -> np.ndarray:
    """Tissue from 0 to 1, and a fill in the first part of the volume."""
    values = np.random.default_rng(5).random(SHAPE).astype(np.float32)
    values[: max(1, round(SHAPE[0] * share))] = fill
    return values


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("fill", FILLS)
def test_a_z_score_with_a_fill_is_that_of_double_precision(bench: Bench, fill: float, share: float) -> None:
    values = filled(fill, share)
    bench.put(values)
    exact = (values.astype(np.float64) - values.mean(dtype=np.float64)) / values.std(dtype=np.float64)
    level = 0.5 if abs(exact - 0.5).min() > 1e-3 else 0.7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bench.segment(load(brighter_than(level), make_card(intensity=[ZScore()])))
    np.testing.assert_array_equal(bench.array(), exact > level)


@pytest.mark.parametrize("size", [1e-37, 1e-30, 1e-25, 1e-20, 1e-10, 1.0, 1e10, 1e20, 1e30, 1e38])
@pytest.mark.parametrize("step", [ZScore(), ZScore("nonzero"), Rescale(0, 1), Rescale(-1, 1)])
def test_a_normalisation_does_not_depend_on_the_size_of_the_values(bench: Bench, step: Step, size: float) -> None:
    values = np.random.default_rng(6).random(SHAPE).astype(np.float32)
    bench.put((values * size).astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bench.segment(load(brighter_than(0.25), make_card(intensity=[step])))
    stored = (values * size).astype(np.float32).astype(np.float64)
    exact = (stored - stored.mean()) / stored.std()
    if isinstance(step, Rescale):
        exact = step.low + (stored - stored.min()) / (stored.max() - stored.min()) * (step.high - step.low)
    far = abs(exact - 0.25) > 1e-5
    np.testing.assert_array_equal(bench.array()[far], (exact > 0.25)[far])


@pytest.mark.parametrize("step", [ZScore(), Rescale(0, 1), ClipPercentiles(0, 100)])
def test_the_whole_of_single_precision_is_a_range_like_any_other(bench: Bench, step: Step) -> None:
    largest = float(np.finfo(np.float32).max)
    values = np.linspace(-largest, largest, 12 * 10 * 9).astype(np.float32).reshape(SHAPE)
    bench.put(values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bench.segment(
            load(lambda batch: brighter_than(0.5)(np.sign(batch - np.float32(0.6))), make_card(intensity=[step]))
        )
    scaled = values.astype(np.float64)
    exact = {ZScore: scaled / scaled.std(), Rescale: scaled / largest / 2 + 0.5, ClipPercentiles: scaled}[type(step)]
    np.testing.assert_array_equal(bench.array(), exact > 0.6)


def test_values_that_overflow_in_a_step_are_refused_by_the_channel(bench: Bench) -> None:
    bench.put(filled(-1e30, 0.1))
    with pytest.raises(InputError, match=r"channel 0 from -1e[+]30 to 0.99.*, normalised -inf") as refused:
        bench.segment(load(brighter_than(0.5), make_card(intensity=[ShiftScale(0, 1e10)])))
    assert "numpy.where" in refused.value.do


@pytest.mark.parametrize("fill", [1e7, -1e20, 3e37])
def test_a_fill_that_takes_the_logits_out_of_range_is_to_blame_and_not_the_network(bench: Bench, fill: float) -> None:
    bench.put(filled(fill, 0.1))
    with pytest.raises(InputError, match=r"channel 0 from .* to .*, normalised"):
        bench.segment(load(brighter_than(0.5), make_card()))
    bench.put(np.where(filled(fill, 0.1) == np.float32(fill), 0, filled(fill, 0.1)))  # the advice
    bench.segment(load(brighter_than(0.5), make_card()))
    np.testing.assert_array_equal(bench.array()[1:], filled(fill, 0.1)[1:] > 0.5)


@pytest.mark.parametrize("dtype", ["float64", "int32", "int64", "uint32"])
def test_a_constant_is_said_of_stored_values_alone(bench: Bench, dtype: str) -> None:
    bench.put(np.arange(1080).reshape(SHAPE).astype(dtype) % 11 + 1_000_000_000)
    positive = lambda batch: brighter_than(0.5)(np.sign(batch))  # noqa: E731
    found = bench.segment(load(positive, make_card()))
    assert bench.array().all()
    assert not [warning for warning in found.warnings if "everywhere" in warning]
    (warning,) = [warning for warning in found.warnings if "single precision" in warning]
    assert "ranges from 1000000000" in warning
    assert "to 1000000010" in warning
    bench.put((np.arange(1080).reshape(SHAPE) % 11).astype(dtype))  # the advice
    assert not bench.segment(load(brighter_than(0.5), make_card())).warnings


@pytest.mark.parametrize(
    ("bad", "got"),
    [
        ([np.nan], "1 voxel that is NaN or Inf;"),
        ([np.inf, -np.inf], "2 voxels that are NaN or Inf;"),
        ([1e300], "1 voxel that is beyond single precision (+-3.4e38);"),
        ([-4e38, np.nan, 1e39], "1 voxel that is NaN or Inf and 2 voxels that are beyond single precision (+-3.4e38);"),
    ],
)
def test_a_count_of_bad_voxels_is_true_of_the_stored_values(bench: Bench, bad: Sequence[float], got: str) -> None:
    values = np.random.default_rng(7).random(SHAPE)
    values[0, 0, : len(bad)] = bad
    bench.put(values)
    with pytest.raises(InputError) as refused:
        bench.segment(load(brighter_than(0.5), make_card()))
    assert f"got {got}" in str(refused.value)
    bench.segment(load(brighter_than(0.5), make_card()), nan_as=0.0)
    expected = values > 0.5
    expected[0, 0, : len(bad)] = False
    np.testing.assert_array_equal(bench.array(), expected)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_adding_one_adds_one_to_any_size_of_value(bench: Bench, activation: Activation) -> None:
    values = (np.random.default_rng(8).random(SHAPE) * 1000).astype(np.float32)
    bench.put(values)
    card = make_card(activation=activation)
    wanted = 1 if activation == "sigmoid" else 2
    plus_one = lambda batch: np.concatenate([np.full_like(batch, 500.0), batch + 1][2 - wanted :], axis=1)  # noqa: E731
    bench.segment(load(plus_one, card))
    np.testing.assert_array_equal(bench.array(), values + 1 > (0 if wanted == 1 else 500))


# Spacings


@pytest.mark.parametrize(("stored", "card", "factor"), [("mm", "um", 1.0), ("um", "mm", 1.0), ("unknown", "um", 500.0)])
def test_a_spacing_a_thousand_times_off_is_a_question_about_the_unit(
    bench: Bench, stored: str, card: str, factor: float
) -> None:
    bench.put(np.ones((16, 16, 16), np.float32), make_grid((16, 16, 16), (factor, factor, factor), stored))
    with pytest.raises(InputError, match="is the unit right") as refused:
        bench.segment(load(brighter_than(0.5), make_card(spacing=(1.0, 1.0, 1.0), unit=card)))
    assert ("1e+03 times as" in refused.value.got) == (factor != 500)
    assert f"set_xyzt_units('{'micron' if card == 'um' else 'mm'}')" in refused.value.do
    assert list(bench.volumes._volumes) == ["scan"]
    bench.put(np.ones((16, 16, 16), np.float32), make_grid((16, 16, 16), (1.0, 1.0, 1.0), card))  # the advice
    bench.segment(load(brighter_than(0.5), make_card(spacing=(1.0, 1.0, 1.0), unit=card)))
    assert bench.array().all()


def test_the_units_of_the_advice_are_nibabels() -> None:
    header = nibabel.nifti1.Nifti1Header()
    for name, code in (("micron", 3), ("mm", 2)):
        header.set_xyzt_units(name)
        assert int(header["xyzt_units"]) == code


@pytest.mark.parametrize(("times", "edge"), [(0.2, 40), (0.5, 40), (2.0, 40), (20.0, 12)])
def test_spacings_that_differ_by_less_are_resampled(bench: Bench, times: float, edge: int) -> None:
    shape = (edge, edge, edge)
    bench.put(np.ones(shape, np.float32), make_grid(shape, (times, times, times), "mm"))
    bench.segment(load(brighter_than(0.5), make_card(spacing=(4.0, 4.0, 4.0), unit="mm")))
    assert bench.array().all()


def test_a_volume_of_less_than_one_voxel_of_the_models_is_refused(bench: Bench) -> None:
    bench.put(np.ones((16, 16, 16), np.float32), make_grid((16, 16, 16), (0.05, 0.05, 0.05), "mm"))
    with pytest.raises(InputError, match="16x16x16 voxels, less than one of the model's in all"):
        bench.segment(load(brighter_than(0.5), make_card(spacing=(1.0, 1.0, 1.0), unit="mm")))


@pytest.mark.parametrize("channels", [1, 2])
def test_the_limit_on_voxels_holds_for_the_models_grid(channels: int) -> None:
    bench = Bench(volumes=MemoryStore(max_voxels=32**3))
    grid = make_grid((16, 16, 16), (2.0, 2.0, 2.0), "mm")
    bench.volumes.put("scan", Volume(np.ones((channels, 16, 16, 16), np.float32), grid))
    for edge, fits in ((1.0, channels == 1), (0.95, False), (1.5, True)):
        card = make_card(channels, spacing=(edge, edge, edge), unit="mm")
        if fits:
            bench.segment(load(brighter_than(0.5), card))
        else:
            with pytest.raises(LimitError, match="at most 32768 voxels at the model's spacing"):
                bench.segment(load(brighter_than(0.5), card))


def test_the_limit_on_voxels_holds_for_what_goes_through_the_network_and_its_advice_works() -> None:
    """A plane of 4 x 4 is padded to patches of 64 x 64: 256 times as many voxels."""
    model = load(brighter_than(0.5), make_card(tiling=Tiling((64, 64, 64), padding=Padding(to="patch"))))
    thin = Volume(np.ones((40, 4, 4), np.float32), make_grid((40, 4, 4)))
    advised: tuple[tuple[int, dict[str, Any]], ...] = ((1000, {"patch": (8, 8, 8)}), (64**3 // 64, {}))
    bench = Bench(volumes=MemoryStore(max_voxels=1000))
    bench.volumes.put("scan", thin)
    with pytest.raises(LimitError, match="at most 64000 voxels through the network") as refused:
        bench.segment(model)
    assert refused.value.got == "262144: is its spacing right?"
    assert list(bench.volumes._volumes) == ["scan"]
    for most, options in advised:
        bench = Bench(volumes=MemoryStore(max_voxels=most))
        bench.volumes.put("scan", thin)
        bench.segment(model, **options)
        assert bench.array().all()


def test_scratch_space_takes_half_of_what_is_free_at_most(opened: Callable[..., Case]) -> None:
    """512 x 512 planes of a slab of 64: 67 MB of window, and as much of sums, are outside memory."""
    card = make_card(tiling=Tiling((64, 64, 64)))
    case = opened(Volume(np.zeros((65, 512, 512), np.uint8), make_grid((65, 512, 512))))
    inferer = Inferer(load(brighter_than(0.5), card).runtime, card)

    def plan(scratch_bytes: float, **options: Any) -> Prepared:
        return prepare(
            case,
            card,
            inferer,
            RunOptions(axis="x", **options),
            resources=FixedResources(),
            scratch_bytes=scratch_bytes,
        )

    with pytest.raises(LimitError, match="scratch space: expected at most 50 MB for a run") as refused:
        plan(1e8)
    needed = float(refused.value.got.split()[0]) * 1e6
    assert 64 * 512 * 512 * 4 < needed < 64 * 512 * 512 * 4 * 5
    plan(2 * needed * 1.01)
    plan(1e8, patch=(8, 64, 64))


def test_a_window_clips_a_fill_before_it_does_harm(bench: Bench) -> None:
    values = filled(-1e20, 0.1)
    bench.put(values)
    bench.segment(load(brighter_than(0.5), make_card(intensity=[Window(0, 1)])))
    np.testing.assert_array_equal(bench.array(), values > 0.5)
