"""A stored array becomes the same volume however it is stored; what is not stated is asked for, never guessed."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.errors import InputError, UsageError, VoxportError
from voxport.domain.geometry.grid import Box
from voxport.domain.reading import LengthUnit, Reading
from voxport.domain.stored_array import ArrayView, StoredArray
from voxport.testing.strategies import boxes

NAME = "stack.odd"
SIZES = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}
SPACING = {"X": 0.5, "Y": 0.25, "Z": 2.0}
WHOLE = Reading(spacing=(0.5, 0.25, 2.0), unit="um")
ORDERS = [
    "".join(order)
    for letters in ("YX", "ZYX", "CYX", "CZYX", "TZYX", "TCYX", "TCZYX")
    for order in permutations(letters)
]
AFFINE = np.array([[0, -0.25, 0.1, 7], [0.5, 0, 0, -3], [0, 0, 2, 1], [0, 0, 0, 1]], dtype=np.float64)


def stored(axes: str = "ZYX", **stated: Any) -> StoredArray:
    """An array that states all it needs, other than ``stated``."""
    shape = tuple(SIZES.get(letter, 3) for letter in axes)
    own: dict[str, Any] = {"spacing": SPACING, "unit": "um"}
    return StoredArray(shape, np.dtype(np.uint16), axes, **(own | stated))


def plain(shape: tuple[int, ...], **stated: Any) -> StoredArray:
    """An array that states its shape alone, other than ``stated``."""
    return StoredArray(shape, np.dtype(np.uint8), **stated)


def refused(array: StoredArray, reading: Reading = Reading()) -> VoxportError:  # noqa: B008 - frozen
    with pytest.raises(VoxportError) as caught:
        array.view(reading, NAME)
    assert "\n" not in str(caught.value)
    return caught.value


# Axes


@given(axes=st.sampled_from(ORDERS), named_by_file=st.booleans(), data=st.data())
def test_every_order_of_axes_gives_the_same_volume(axes: str, named_by_file: bool, data: st.DataObject) -> None:
    whole = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    kept = tuple(slice(None) if letter in axes else 0 for letter in "TCZYX")
    order = [letter for letter in "TCZYX" if letter in axes]
    array = whole[kept].transpose([order.index(letter) for letter in axes])
    time = data.draw(st.integers(0, 1)) if "T" in axes else 0
    named = stored(axes) if named_by_file else plain(array.shape)
    reading = replace(WHOLE, axes=None if named_by_file else axes, timepoint=time if "T" in axes else None)
    view = named.view(reading, NAME)
    expected = whole[time, :, :, :, :].transpose(0, 3, 2, 1)
    expected = expected[: 3 if "C" in axes else 1, :, :, : 4 if "Z" in axes else 1]
    np.testing.assert_array_equal(view.values(array), expected)
    assert view.channels == (3 if "C" in axes else 1)
    assert view.grid.shape == (6, 5, 4 if "Z" in axes else 1)
    assert view.grid.spacing == (0.5, 0.25, 2.0)


@given(axes=st.sampled_from(ORDERS), ones=st.lists(st.integers(0, 7), max_size=3))
def test_axes_of_length_one_need_no_letter(axes: str, ones: list[int]) -> None:
    edges = [SIZES[letter] for letter in axes]
    for position in ones:
        edges.insert(min(position, len(edges)), 1)
    reading = replace(WHOLE, axes=axes, timepoint=1 if "T" in axes else None)
    array = np.arange(np.prod(edges)).reshape(edges)
    found = plain(array.shape).view(reading, NAME).values(array)
    short = array.reshape([edge for edge in edges if edge > 1])
    np.testing.assert_array_equal(found, plain(short.shape).view(reading, NAME).values(short))


def test_axes_of_the_file_that_have_no_meaning_here_may_have_a_length_of_one() -> None:
    array = StoredArray((1, 4, 5, 6, 1), np.dtype(np.uint8), "QZYXS", spacing=SPACING, unit="um")
    assert array.view(Reading(), NAME).grid.shape == (6, 5, 4)


@pytest.mark.parametrize(
    ("array", "axes"),
    [(plain((4, 5, 6)), "ZYX"), (stored("QYX"), "ZYX"), (stored("ZQX"), "ZYX"), (stored("ZYXH"), "ZYXC")],
)
def test_axes_without_names_or_a_known_meaning_are_asked_for(array: StoredArray, axes: str) -> None:
    error = refused(array)
    assert isinstance(error, InputError)
    assert "`axes`, e.g. ZYX" in error.do
    assert array.view(replace(WHOLE, axes=axes), NAME).grid.spacing == (0.5, 0.25, 2.0)


@pytest.mark.parametrize("axes", ["YX", "TCZYX"])
def test_too_few_or_too_many_letters_are_refused(axes: str) -> None:
    error = refused(plain((4, 5, 6)), Reading(axes=axes))
    assert isinstance(error, UsageError)
    assert (error.subject, error.expected) == ("axes", "3 letters, one for each axis of an array of 4x5x6")


def test_axes_given_for_those_of_the_file_are_taken_with_a_note() -> None:
    view = stored("CYX").view(Reading(axes="ZYX"), NAME)
    assert view.grid.shape == (6, 5, 3)
    assert view.notes == ("stack.odd calls its axes CYX; ZYX was given and is taken",)
    assert stored("ZYX").view(Reading(axes="ZYX"), NAME).notes == ()


def test_a_size_of_an_axis_that_is_called_otherwise_is_not_taken_for_another() -> None:
    array = stored("ZYX")
    error = refused(array, Reading(axes="XYZ"))
    assert error.expected == "a voxel size along x, z"
    assert error.got == "sizes of axes that the file calls ZYX"
    assert array.view(replace(WHOLE, axes="XYZ"), NAME).grid.shape == (4, 5, 6)
    same = stored("ZYX", spacing=dict.fromkeys("XYZ", 2.0))
    assert same.view(Reading(axes="XYZ"), NAME).grid.spacing == (2, 2, 2)


def test_an_array_without_voxels_is_refused() -> None:
    error = refused(plain((4, 0, 6)), Reading(axes="ZYX"))
    assert (error.expected, error.got) == ("at least one voxel", "an array of 4x0x6")


# Affines


def affine_array(axes: str = "XYZ", **stated: Any) -> StoredArray:
    shape = tuple(SIZES.get(letter, 3) for letter in axes)
    own: dict[str, Any] = {"affine": AFFINE, "unit": "mm"}
    return StoredArray(shape, np.dtype(np.uint8), axes, **(own | stated))


@pytest.mark.parametrize("axes", ["".join(order) for order in permutations("XYZ")])
def test_given_axes_keep_every_voxel_of_an_affine_in_its_place(axes: str) -> None:
    array = np.arange(6 * 5 * 4).reshape(6, 5, 4)
    file, user = (affine_array().view(reading, NAME) for reading in (Reading(), Reading(axes=axes)))
    places: dict[int, tuple[float, ...]] = {}
    for view in (file, user):
        values = view.values(array)[0]
        for index in np.ndindex(values.shape):
            place = tuple(np.round(view.grid.world(index), 9))
            assert places.setdefault(int(values[index]), place) == place


def test_a_direction_that_no_axis_has_goes_to_the_axis_of_length_one() -> None:
    array = StoredArray((6, 1, 4), np.dtype(np.uint8), "XYZ", affine=AFFINE, unit="mm")
    grid = array.view(Reading(axes="XY"), NAME).grid
    assert grid.shape == (6, 4, 1)
    np.testing.assert_array_equal(grid.affine, AFFINE[:, [0, 2, 1, 3]])


def test_an_affine_has_no_direction_for_channels() -> None:
    error = refused(affine_array("XYZC"), Reading(axes="CYXZ"))
    assert (error.subject, error.got) == ("axes", "Z for the axis that the file calls C")


def test_an_affine_is_kept_as_it_is() -> None:
    for axes in ("XYZ", "ZYX", "CXYZ"):
        np.testing.assert_array_equal(affine_array(axes).view(Reading(), NAME).grid.affine, AFFINE)


@pytest.mark.parametrize("column", [[0, 0, 0], [0, 0.5, 0], [np.nan, 0, 0]])
@pytest.mark.parametrize("reading", [Reading(), WHOLE])
def test_an_affine_without_three_directions_is_refused(column: list[float], reading: Reading) -> None:
    affine = AFFINE.copy()
    affine[:3, 2] = column
    error = refused(affine_array(affine=affine), reading)
    assert isinstance(error, InputError)
    assert "write the file again" in error.do


def test_a_spacing_that_is_given_keeps_the_directions_of_an_affine() -> None:
    view = affine_array().view(Reading(spacing=(1, 2, 3), unit="mm"), NAME)
    np.testing.assert_allclose(view.grid.spacing, (1, 2, 3))
    turned = AFFINE[:3, :3] / np.linalg.norm(AFFINE[:3, :3], axis=0)
    np.testing.assert_allclose(view.grid.affine[:3, :3] / view.grid.spacing, turned)
    np.testing.assert_array_equal(view.grid.affine[:3, 3], AFFINE[:3, 3])


# Voxel sizes and units


@pytest.mark.parametrize(
    ("unit", "own", "factor"),
    [("nm", "um", 1e-3), ("um", "um", 1), ("mm", "mm", 1), ("cm", "mm", 10), ("m", "mm", 1e3)],
)
@pytest.mark.parametrize("has_affine", [False, True])
def test_lengths_in_any_unit_become_mm_or_um(unit: LengthUnit, own: str, factor: float, has_affine: bool) -> None:
    given_sizes = plain((4, 5, 6), axes="ZYX").view(Reading(spacing=(1, 2, 3), unit=unit), NAME)
    assert given_sizes.grid.unit == own
    assert given_sizes.grid.spacing == (factor, 2 * factor, 3 * factor)
    place: dict[str, Any] = {"affine": np.array([[1, 0, 0, 7], [0, 2, 0, 8], [0, 0, 3, 9], [0, 0, 0, 1.0]])}
    sizes: dict[str, Any] = {"spacing": {"X": 1, "Y": 2, "Z": 3}, "origin": (7, 8, 9)}
    array = plain((4, 5, 6), axes="ZYX", **(place if has_affine else sizes))
    view = array.view(Reading(unit=unit), NAME)
    assert view.grid.unit == own
    np.testing.assert_allclose(view.grid.affine[:3], np.multiply(place["affine"][:3], factor))
    assert view.notes == ()
    assert array.view(Reading(), NAME).grid.unit == "unknown"


def test_a_unit_alone_replaces_that_of_the_file_with_a_note() -> None:
    view = stored(unit="mm", origin=(7, 8, 9)).view(Reading(unit="um"), NAME)
    assert (view.grid.unit, view.grid.spacing) == ("um", (0.5, 0.25, 2.0))
    np.testing.assert_array_equal(view.grid.affine[:3, 3], (7, 8, 9))
    assert view.notes == ("stack.odd states its lengths in mm; um was given and is taken",)
    assert stored(unit="mm").view(Reading(unit="mm"), NAME).notes == ()


@pytest.mark.parametrize(("own", "unit"), [("um", "nm"), ("mm", "nm"), ("mm", "cm"), ("um", "m")])
def test_a_unit_that_the_file_may_have_stated_itself_is_not_applied_twice(own: str, unit: LengthUnit) -> None:
    array = stored(unit=own)
    error = refused(array, Reading(unit=unit))
    assert (error.subject, error.do) == ("unit", "give `spacing` in it too, or leave `unit` out")
    assert array.view(Reading(), NAME).grid.unit == own
    array.view(Reading(spacing=(1, 1, 1), unit=unit), NAME)


def test_a_spacing_needs_a_unit_that_is_given_or_stated() -> None:
    array, reading = plain((4, 5, 6), axes="ZYX"), Reading(spacing=(1, 2, 3))
    error = refused(array, reading)
    assert isinstance(error, UsageError)
    assert error.do == "give `unit`, e.g. um"
    assert array.view(replace(reading, unit="um"), NAME).grid.unit == "um"
    assert stored(unit="mm").view(reading, NAME).grid.unit == "mm"


@pytest.mark.parametrize(("own", "unit", "factor"), [("mm", "um", 1e3), ("um", "mm", 1e-3), ("mm", "mm", 1)])
@pytest.mark.parametrize("has_affine", [False, True])
def test_a_place_that_the_file_states_is_kept_beside_a_given_spacing(
    own: str, unit: LengthUnit, factor: float, has_affine: bool
) -> None:
    array = affine_array(unit=own) if has_affine else stored(unit=own, origin=(7, -3, 1))
    view = array.view(Reading(spacing=(1, 2, 3), unit=unit), NAME)
    np.testing.assert_allclose(view.grid.affine[:3, 3], np.multiply((7, -3, 1), factor))


def test_a_given_spacing_that_differs_from_the_stated_one_is_noted() -> None:
    array = stored(unit="mm")
    assert array.view(Reading(spacing=(500, 250, 2000), unit="um"), NAME).notes == ()
    tiny = stored(spacing=dict.fromkeys("XYZ", 1e-10)).view(Reading(spacing=(2e-10, 1e-10, 1e-10)), NAME)
    assert len(tiny.notes) == 1
    assert array.view(WHOLE, NAME).notes == (
        "stack.odd states a spacing of 0.5 x 0.25 x 2 mm; 0.5 x 0.25 x 2 um is taken",
    )


@pytest.mark.parametrize("spacing", [{}, {"X": 1, "Y": 1}, {"X": 1, "Y": 1, "Z": 0}, {"X": 1, "Y": 1, "Z": np.nan}])
@pytest.mark.parametrize("axes", ["ZYX", "YX"])
def test_a_spacing_that_is_not_stated_is_asked_for(spacing: dict[str, float], axes: str) -> None:
    array = stored(axes, spacing=spacing)
    error = refused(array)
    assert isinstance(error, InputError)
    assert "z" in error.expected
    assert "0.5,0.5,2 and um" in error.do
    view = array.view(Reading(spacing=(0.5, 0.5, 2), unit="um"), NAME)
    assert view.grid.spacing == (0.5, 0.5, 2)
    assert view.sources == ("given", "given", "given")


def test_an_error_names_the_field_that_lacks_and_the_size_that_cannot_be() -> None:
    error = refused(stored(spacing={"X": 1, "Z": -2}, sources={"Z": "PhysicalSizeZ"}))
    assert error.expected == "a voxel size along y, z (PhysicalSizeZ)"
    assert error.got == "-2 along z"


def test_the_source_of_each_voxel_size_is_known() -> None:
    view = stored(sources={"X": "XResolution", "Z": "spacing"}).view(Reading(), NAME)
    assert view.sources == ("XResolution", "stated", "spacing")


def test_sizes_that_the_file_states_against_itself_are_asked_for() -> None:
    array = stored(conflicts=("0.5 in OME-XML", "0.6 in ImageJ"))
    error = refused(array)
    assert error.got == "0.5 in OME-XML and 0.6 in ImageJ"
    assert refused(array, Reading(unit="um")).got == error.got
    view = array.view(WHOLE, NAME)
    assert view.notes == ("stack.odd states 0.5 in OME-XML and 0.6 in ImageJ; 0.5 x 0.25 x 2 um is taken",)


@pytest.mark.parametrize(
    ("array", "reading"),
    [
        (stored(), Reading(spacing=(1e-12, 1, 1e12), unit="um")),
        (stored(spacing={"X": 1e-12, "Y": 1, "Z": 1e12}), Reading()),
        (stored(origin=(np.nan, 0, 0)), Reading()),
        (stored(origin=(np.inf, 0, 0)), WHOLE),
    ],
)
def test_a_grid_that_cannot_be_is_an_input_error(array: StoredArray, reading: Reading) -> None:
    assert isinstance(refused(array, reading), InputError)


# Time, channels and colours


def test_one_of_several_points_in_time_is_asked_for() -> None:
    array = stored("TZYX")
    error = refused(array)
    assert isinstance(error, InputError)
    assert error.do == "choose one with `timepoint`, counted from 0"
    assert array.view(Reading(timepoint=1), NAME).fixed == {0: 1}
    assert "0 to 1" in refused(array, Reading(timepoint=2)).expected
    single = StoredArray((1, 4, 5, 6), np.dtype(np.uint8), "TZYX", spacing=SPACING, unit="um")
    assert single.view(Reading(), NAME).fixed == {0: 0}
    assert single.view(Reading(timepoint=0), NAME).fixed == {0: 0}


def test_a_volume_without_time_has_its_first_point_alone() -> None:
    assert stored().view(Reading(timepoint=0), NAME).fixed == {}
    error = refused(stored(), Reading(timepoint=1))
    assert isinstance(error, UsageError)
    assert "TZYX" in error.do


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("0", (0,)), ("2,0", (2, 0)), ("GFP", (1,)), ("GFP, DAPI", (1, 0)), ("488, far", (2,)), ("1,1", (1, 1))],
)
def test_channels_are_chosen_by_index_or_name(text: str, chosen: tuple[int, ...]) -> None:
    names = ("DAPI", "GFP", "488, far")
    view = stored("CZYX", channel_names=names).view(Reading(channel=text), NAME)
    assert view.chosen == chosen
    assert view.channel_names == tuple(names[channel] for channel in chosen)
    array = np.random.default_rng(0).integers(0, 9, (3, 4, 5, 6))
    np.testing.assert_array_equal(view.values(array), array.transpose(0, 3, 2, 1)[list(chosen)])


@pytest.mark.parametrize("text", ["3", "-1", "RFP", "", "0,,1", "\u0661", "0.5"])
def test_a_channel_that_is_not_there_is_refused_with_those_that_are(text: str) -> None:
    error = refused(stored("CZYX", channel_names=("DAPI", "GFP", "far")), Reading(channel=text))
    assert (error.subject, error.expected) == ("channel", "a channel of stack.odd: 0 to 2 or DAPI, GFP, far")


def test_a_name_of_several_channels_is_refused() -> None:
    array = stored("CZYX", channel_names=("GFP", "DAPI", "GFP"))
    error = refused(array, Reading(channel="GFP"))
    assert error.do == "give its index, from 0"
    assert array.view(Reading(channel="2"), NAME).chosen == (2,)


def test_names_that_are_not_one_a_channel_are_left_out() -> None:
    assert stored("CZYX", channel_names=("a", "b")).view(Reading(), NAME).channel_names == ()
    assert stored("ZYX", channel_names=("a",)).view(Reading(channel="a"), NAME).channel_names == ("a",)
    assert stored("ZYX", channel_names=("a", "b")).view(Reading(), NAME).channel_names == ()


@pytest.mark.parametrize("axes", ["ZYXS", "SZYX"])
def test_a_picture_in_colours_is_refused_until_one_is_taken(axes: str) -> None:
    array = stored(axes)
    error = refused(array)
    assert isinstance(error, InputError)
    assert error.got == "a picture in colours (RGB)"
    assert "`channel`, e.g. 0" in error.do
    assert array.view(Reading(channel="0"), NAME).chosen == (0,)
    assert array.view(Reading(axes=axes.replace("S", "C")), NAME).channels == 3


def test_colours_beside_one_channel_are_taken_as_its_channels() -> None:
    array = StoredArray((1, 4, 5, 6, 3), np.dtype(np.uint8), "CZYXS", spacing=SPACING, unit="um")
    assert "`channel`" in refused(array).do
    assert array.view(Reading(channel="2"), NAME).chosen == (2,)


def test_colours_of_several_channels_are_refused() -> None:
    error = refused(stored("CZYXS"), Reading(channel="0"))
    assert error.do == "give the volume that it was made from"


# Reading boxes


def view_of(axes: str, chunk: tuple[int, ...] = ()) -> ArrayView:
    return stored(axes, chunk=chunk).view(Reading(timepoint=1 if "T" in axes else None), NAME)


@given(axes=st.sampled_from(ORDERS), data=st.data())
def test_the_index_of_a_box_takes_that_box(axes: str, data: st.DataObject) -> None:
    view = view_of(axes)
    array = np.random.default_rng(0).integers(0, 99, view.stored.shape)
    box = data.draw(boxes(view.grid.shape))
    for channel in range(view.channels):
        found = view.arrange(array[view.index(box, channel)])
        np.testing.assert_array_equal(found, view.values(array)[channel][box.slices])


def test_a_box_or_channel_beyond_the_volume_is_a_programming_error() -> None:
    view = view_of("CZYX")
    with pytest.raises(ValueError, match="channels"):
        view.index(Box.whole(view.grid.shape), 3)
    with pytest.raises(ValueError, match="box"):
        view.index(Box((0, 0, 0), (7, 5, 4)), 0)


@pytest.mark.parametrize(
    ("axes", "chunk", "expected", "slowest"),
    [
        ("ZYX", (1, 5, 6), (6, 5, 1), 2),
        ("XYZ", (1, 5, 4), (1, 5, 4), 0),
        ("ZYX", (), (6, 5, 4), 2),
        ("XYZ", (), (6, 5, 4), 0),
        ("CZYX", (1, 99, 2, 3), (3, 2, 4), 1),
        ("YX", (1, 6), (6, 1, 1), 1),
        ("CYX", (3, 5, 0), (1, 5, 1), 0),
    ],
)
def test_the_slowest_axis_has_the_most_chunks(
    axes: str, chunk: tuple[int, ...], expected: tuple[int, int, int], slowest: int
) -> None:
    view = view_of(axes, chunk)
    assert view.chunk == expected
    assert view.slowest_axis == slowest


def test_a_direction_without_a_voxel_size_asks_for_the_size_and_is_kept() -> None:
    turned = np.array([[0.0, 2.0, 0.0, 5.0], [2.0, 0.0, 0.0, 6.0], [0.0, 0.0, 1.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
    stored = StoredArray((4, 5), np.dtype(np.uint8), "XY", spacing={"Z": math.nan}, unit="um", affine=turned)
    with pytest.raises(InputError, match="a voxel size along z, got none"):
        stored.view(Reading(), "a")
    found = stored.view(Reading(spacing=(1.0, 2.0, 3.0)), "a").grid.affine
    np.testing.assert_array_equal(found, [[0, 2, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
