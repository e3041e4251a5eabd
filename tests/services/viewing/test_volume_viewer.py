"""Slices, values and pictures of an open volume and its mask are what the volume holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from voxport.adapters.volumes.memory import MemoryStore
from voxport.domain.errors import InputError
from voxport.domain.geometry.grid import Box, Grid, Shape3
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.viewing.display import Display
from voxport.domain.viewing.slicing import PLANES, PlaneView
from voxport.domain.volume import Volume
from voxport.services.viewing.volume_viewer import Look, OpenVolume, ShownMask, cut_out, save_mask

from tests.services.conftest import make_grid

TABLE = LabelTable((Label(1, "red", "#ff0000"),))
LOOK = Look(Display(0, 255, TABLE, opacity=1.0))
GRID = make_grid((20, 15, 12), codes="LIP")


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    values = np.random.default_rng(0).integers(0, 256, (2, *GRID.shape), np.uint8)
    store.put("scan", Volume(values, GRID))
    return store


@pytest.fixture
def volume(store: MemoryStore) -> Iterator[OpenVolume]:
    volume = OpenVolume.open(store, ["scan"])
    yield volume
    volume.close()


def masked(store: MemoryStore, box: Box, voxel: Shape3) -> ShownMask:
    """A mask over ``box`` in which one voxel of the volume is labelled."""
    labels = np.zeros(box.shape, np.uint8)
    labels[tuple(v - s for v, s in zip(voxel, box.start, strict=True))] = 1
    store.put("mask", Volume(labels, GRID.part(box)))
    return ShownMask(store.open("mask"), TABLE, box)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("channel", [0, 1])
def test_a_slice_shows_the_volumes_values(store: MemoryStore, volume: OpenVolume, plane: str, channel: int) -> None:
    stored = store.get("scan").array[channel]
    view = PlaneView.of(GRID, plane)  # type: ignore[arg-type]
    for index in (0, view.count - 1):
        shown = volume.plane(plane, index, Look(LOOK.display, channel), None)  # type: ignore[arg-type]
        expected = view.display(stored[view.box(index).slices])
        np.testing.assert_array_equal(shown.pixels[..., 0], expected)


@pytest.mark.parametrize("box", [Box.whole(GRID.shape), Box((3, 2, 1), (9, 12, 8))])
def test_a_mask_shows_in_its_place(store: MemoryStore, volume: OpenVolume, box: Box) -> None:
    voxel = (5, 9, 4)
    mask = masked(store, box, voxel)
    for plane in PLANES:
        row, column, index = PlaneView.of(GRID, plane).pixel_of(voxel)
        pixels = volume.plane(plane, index, LOOK, mask).pixels
        red = (pixels == (255, 0, 0)).all(axis=-1)
        assert np.argwhere(red).tolist() == [[row, column]]
        assert volume.plane(plane, 0, LOOK, mask).pixels.shape == pixels.shape
    assert volume.at(voxel, mask)[1] == 1
    assert volume.at((0, 0, 0), mask)[1] == 0


def test_values_are_those_of_all_channels(store: MemoryStore, volume: OpenVolume) -> None:
    values, label = volume.at((7, 3, 11), None)
    assert values == store.get("scan").array[:, 7, 3, 11].tolist()
    assert label is None


def test_there_is_no_such_place(volume: OpenVolume) -> None:
    with pytest.raises(IndexError):
        volume.at((20, 0, 0), None)
    with pytest.raises(IndexError):
        volume.plane("axial", 99, LOOK, None)
    with pytest.raises(IndexError):
        volume.plane("axial", 0, Look(LOOK.display, channel=2), None)


def test_a_picture_holds_three_planes_their_letters_and_bars(volume: OpenVolume) -> None:
    picture = volume.picture((1, 2, 3), LOOK, None)
    texts = [mark.text for mark in picture.marks]
    assert len(texts) == 15
    assert sorted(text for text in texts if len(text) == 1) == sorted("APRLSIRLSIAP")


def test_windows_and_ranges_come_from_what_is_finite() -> None:
    store = MemoryStore()
    values = np.zeros((30, 30, 40), np.float32)
    values[10:20] = 100
    values[0, 0, 0] = np.nan
    store.put("scan", Volume(values, Grid((30, 30, 40), np.eye(4))))
    volume = OpenVolume.open(store, ["scan"])
    assert volume.windows == ((0, 100),)
    assert volume.ranges == ((0, 100),)
    assert volume.plane("sagittal", 0, LOOK, None).pixels.max() == 0
    store.put("nothing", Volume(np.full((2, 2, 2), np.nan, np.float32), Grid((2, 2, 2), np.eye(4))))
    assert OpenVolume.open(store, ["nothing"]).ranges == ((0.0, 1.0),)


def test_a_volume_that_cannot_be_opened_is_an_error() -> None:
    with pytest.raises(InputError):
        OpenVolume.open(MemoryStore(), ["nowhere"])


def test_a_part_keeps_its_values_and_its_place_in_the_world(store: MemoryStore) -> None:
    box = Box((4, 0, 2), (9, 6, 12))
    cut_out(store, ["scan"], box, ["part"])
    part = store.get("part")
    np.testing.assert_array_equal(part.array, store.get("scan").array[(slice(None), *box.slices)])
    np.testing.assert_allclose(part.grid.world((0, 0, 0)), GRID.world(box.start))
    assert part.grid.axis_codes == GRID.axis_codes


def test_a_mask_is_saved_with_its_labels_and_the_volumes_grid(store: MemoryStore, volume: OpenVolume) -> None:
    mask = masked(store, Box.whole(GRID.shape), (5, 9, 4))
    assert save_mask(store, mask, "saved", volume.case.sources[0]) == ()
    saved = store.get("saved")
    assert np.argwhere(saved.array[0]).tolist() == [[5, 9, 4]]
    assert saved.array.dtype == np.uint8
    assert saved.grid == GRID
