"""A case is one or several volumes on one grid, and a survey knows its values."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import pytest
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.errors import InputError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.intensity import Chunks
from voxport.domain.volume import Volume
from voxport.services.segmentation.case import Case, describe_grid, finite, slabs, survey
from voxport.testing.strategies import DTYPES

from tests.services.conftest import make_card, make_grid, noise

Open = Callable[..., Case]
SHAPE = (5, 4, 3)


def volume(channels: int = 1, grid: Grid | None = None, seed: int = 0) -> Volume:
    grid = grid or make_grid(SHAPE)
    return Volume(noise((channels, *grid.shape), seed), grid)


def values_of(chunks: Chunks) -> list[float]:
    """All values that chunks stand for, sorted."""
    found: list[float] = []
    for values, counts in chunks():
        found.extend(np.repeat(values.ravel(), 1 if counts is None else counts.ravel()).tolist())
    return sorted(found)


def test_the_channels_of_all_volumes_follow_each_other(opened: Open) -> None:
    first, second = volume(2), volume(1, seed=1)
    case = opened(first, second)
    assert case.channels == 3
    assert case.grid == first.grid
    box = Box((1, 0, 0), (3, 4, 2))
    stored = [*first.array, *second.array]
    for channel, (found, expected) in enumerate(zip(case.read(box), stored, strict=True)):
        np.testing.assert_array_equal(found, expected[box.slices])
        np.testing.assert_array_equal(case.read_channel(channel, box), expected[box.slices])
    with pytest.raises(IndexError):
        case.dtype_of(3)


def test_each_channel_keeps_its_own_type(opened: Open) -> None:
    grid = make_grid(SHAPE)
    case = opened(Volume(np.zeros(SHAPE, np.uint8), grid), Volume(np.zeros(SHAPE, np.float64), grid))
    assert [case.dtype_of(0), case.dtype_of(1)] == [np.uint8, np.float64]
    assert [channel.dtype for channel in case.read(Box.whole(SHAPE))] == [np.uint8, np.float64]


def test_notes_of_all_volumes_are_collected(opened: Open) -> None:
    assert opened(volume(), volume()).notes == ()


@pytest.mark.parametrize(
    "other",
    [
        make_grid((5, 4, 4)),
        make_grid(SHAPE, spacing=(1.0, 1.0, 1.1)),
        make_grid(SHAPE, unit="um"),
        make_grid(SHAPE, codes="LAS"),
    ],
    ids=["shape", "spacing", "unit", "orientation"],
)
def test_volumes_on_another_grid_are_refused_by_name(opened: Open, other: Grid) -> None:
    with pytest.raises(InputError, match=r"volume 1: expected the grid of volume 0: 5x4x3 RAS") as caught:
        opened(volume(), volume(grid=other))
    assert describe_grid(other) in str(caught.value)


def test_grids_that_differ_by_less_than_a_thousandth_of_a_voxel_are_one(opened: Open) -> None:
    nearly = make_grid(SHAPE, spacing=(1.0, 1.0, 1.0001))
    assert opened(volume(), volume(grid=nearly)).channels == 2


def test_a_missing_volume_is_an_input_error(stack: ExitStack) -> None:
    with pytest.raises(InputError, match="absent"):
        Case.open(MemoryStore(), ["absent"], stack)


@pytest.mark.parametrize(("channels", "sources", "fits"), [(1, [0], True), (2, [0], False), (2, [1, 0], True)])
def test_a_case_has_exactly_the_channels_that_the_card_names(
    opened: Open, channels: int, sources: list[int], fits: bool
) -> None:
    case, card = opened(volume(channels)), make_card(sources)
    if fits:
        case.check_fits(card)
    else:
        with pytest.raises(InputError, match=r"volume 0: expected 1 channel\(s\) \(channel 0\), got 2"):
            case.check_fits(card)


def test_one_source_may_feed_several_channels(opened: Open) -> None:
    opened(volume(1)).check_fits(make_card([0, 0, 0]))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxels", [1, 30, 10**6])
def test_slabs_cover_each_voxel_once_in_order(axis: int, voxels: int) -> None:
    grid, seen, reached = make_grid((5, 7, 4)), np.zeros((5, 7, 4), int), 0
    for box in slabs(grid, axis, voxels):
        assert box.start[axis] == reached
        reached = box.stop[axis]
        seen[box.slices] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("voxels", [1, 10**6])
def test_a_survey_finds_the_range_and_every_value_of_any_type(
    opened: Open, monkeypatch: pytest.MonkeyPatch, name: str, voxels: int
) -> None:
    """Also for types that are counted in a table instead of being read again."""
    monkeypatch.setattr(slabs, "__defaults__", (voxels,))
    dtype = np.dtype(name)
    random = np.random.default_rng(1)
    if dtype.kind == "f":
        array = (random.standard_normal(SHAPE) * 100).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        array = random.integers(limits.min, limits.max, SHAPE, dtype, endpoint=True)
        array[0, 0, 0], array[1, 0, 0] = limits.min, limits.max
    (found,) = survey(opened(Volume(array, make_grid(SHAPE))), None)
    expected = array.astype(np.float32)
    assert (found.low, found.high) == (expected.min(), expected.max())
    assert values_of(found.chunks) == sorted(expected.ravel().tolist())


def test_a_table_stands_for_the_voxels(opened: Open) -> None:
    array = np.array([3, 3, 250, 3, 0, 250], np.uint8).reshape(1, 2, 3)
    (found,) = survey(opened(Volume(array, make_grid((1, 2, 3)))), None)
    ((values, counts),) = found.chunks()
    assert counts is not None
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0.0: 1, 3.0: 3, 250.0: 2}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_with_their_count(opened: Open, bad: float) -> None:
    first, second = noise((2, *SHAPE)), noise(SHAPE)
    first[1, 0, :2, 0] = bad
    second[4, 3, 2] = bad
    with pytest.raises(InputError, match=r"volume 0 \+ volume 1: .*got 3 voxels that are NaN or Inf.*`nan_as`"):
        survey(opened(Volume(first, make_grid(SHAPE)), Volume(second, make_grid(SHAPE))), None)


def test_values_that_are_not_finite_become_the_one_that_was_asked_for(opened: Open) -> None:
    array = noise(SHAPE)
    array[0, 0, 0], array[1, 1, 1], array[2, 2, 2] = np.nan, np.inf, -np.inf
    (found,) = survey(opened(Volume(array, make_grid(SHAPE))), -7.0)
    assert (found.low, found.high) == (-7.0, array[np.isfinite(array)].max())
    assert values_of(found.chunks)[:3] == [-7.0, -7.0, -7.0]


def test_doubles_beyond_single_precision_count_as_infinite(opened: Open) -> None:
    array = np.full(SHAPE, 0.5)
    array[0, 0, 0] = 1e300
    case = opened(Volume(array, make_grid(SHAPE)))
    with pytest.raises(InputError, match="got 1 voxel that is beyond single precision"):
        survey(case, None)
    assert survey(case, 0.0)[0].high == 0.5


def test_finite_leaves_what_it_is_given_alone() -> None:
    array = np.array([np.nan, 1.0], np.float32)
    assert finite(array, 5.0).tolist() == [5.0, 1.0]
    assert np.isnan(array[0])
    whole = np.array([1, 2], np.int16)
    assert finite(whole, 5.0).tolist() == [1.0, 2.0]


def test_a_grid_is_described_in_a_few_words() -> None:
    grid = make_grid((512, 512, 25), (0.994, 0.994, 5.0), "um")
    assert describe_grid(grid) == "512x512x25 RAS at 0.994 x 0.994 x 5 um"
    assert describe_grid(make_grid(SHAPE, unit="unknown", codes="LPS")) == "5x4x3 LPS at 1 x 1 x 1 (unit unknown)"


def _moved(values: object, *, shift: float = 0.0, degrees: float = 0.0, spacing: float = 1.0) -> Volume:
    turn, angle = np.eye(4), np.radians(degrees)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[0, 3] = shift
    return Volume(np.asarray(values), Grid(SHAPE, turn @ np.diag([spacing, spacing, spacing, 1.0]), "mm"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shift": 150.0}, "a centre 150 mm away"),
        ({"degrees": 10.0}, "axes turned by 10 degrees"),
        ({"spacing": 1.1}, "a spacing of 1.1 x 1.1 x 1.1 for 1 x 1 x 1"),
        ({"shift": -0.2}, "a centre 0.2 mm away"),
    ],
)
def test_a_channel_on_another_grid_is_refused_by_what_differs(
    opened: Open, change: dict[str, float], words: str
) -> None:
    with pytest.raises(InputError) as refused:
        opened(_moved(noise(SHAPE)), _moved(noise(SHAPE), **change))
    assert words in refused.value.got
    assert refused.value.got != refused.value.expected


@pytest.mark.parametrize(
    ("change", "noted"), [({"shift": 0.005}, True), ({"degrees": 0.1}, True), ({"shift": 1e-5}, False)]
)
def test_a_channel_a_little_off_is_taken_with_a_note(opened: Open, change: dict[str, float], noted: bool) -> None:
    case = opened(_moved(noise(SHAPE)), _moved(noise(SHAPE), **change))
    assert case.grid == _moved(noise(SHAPE)).grid
    assert len(case.notes) == noted
    if "shift" in change and noted:
        assert "volume 1 has a centre 0.005 mm away" in case.notes[0]
