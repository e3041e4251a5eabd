"""Figures show each label's largest extent and draw every voxel where it is."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray
from PIL import Image
from voxport.adapters.pictures.png import PngPictures
from voxport.domain.cards.model_card import ModelCard
from voxport.domain.geometry.grid import Box, Shape3
from voxport.domain.intensity import ClipPercentiles, Rescale, Window
from voxport.domain.viewing.pages import CaseFigures
from voxport.domain.viewing.slicing import PLANES, PlaneView, to_grey
from voxport.domain.volume import Volume
from voxport.services.pages import figures
from voxport.services.pages.figures import case_figures, largest_extents
from voxport.services.segmentation.case import Case, survey
from voxport.testing.strategies import orientation_codes, shapes

from tests.services.conftest import make_card, make_grid, noise

Draw = Callable[..., CaseFigures]


def pixels(png: bytes) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


@pytest.fixture
def draw(opened: Callable[..., Case]) -> Draw:
    """The figures of values and labels on a grid."""

    def run(
        values: NDArray[Any], labels: NDArray[Any], card: ModelCard, codes: str = "RAS", nan_as: float = 0.0
    ) -> CaseFigures:
        shape: Shape3 = labels.shape
        case = opened(Volume(values, make_grid(shape, (0.5, 1.0, 2.0), codes=codes)))
        return case_figures(case, lambda box: labels[box.slices], card, survey(case, nan_as), PngPictures())

    return run


def blobs(shape: Sequence[int], seed: int = 0, count: int = 2) -> NDArray[np.uint8]:
    """Labels from 1 to ``count`` in boxes."""
    rng, labels = np.random.default_rng(seed), np.zeros(tuple(shape), np.uint8)
    for value in range(1, count + 1):
        start = [int(rng.integers(0, n - 1)) for n in shape]
        labels[tuple(slice(a, a + int(rng.integers(1, n - a + 1))) for a, n in zip(start, shape, strict=True))] = value
    return labels


@given(shapes(), orientation_codes())
def test_the_largest_extent_is_that_of_counting_voxel_by_voxel(shape: Shape3, codes: str) -> None:
    labels = np.random.default_rng(sum(shape)).integers(0, 4, shape, np.uint8)
    grid = make_grid(shape, codes=codes)
    for axis in range(3):
        found = largest_extents(lambda box: labels[box.slices], grid, axis, (1, 2, 3, 9))
        for value in (1, 2, 3):
            counts = [[int((np.take(labels, i, a) == value).sum()) for i in range(shape[a])] for a in range(3)]
            assert (value in found) == (max(counts[0]) > 0)
            if value in found:
                assert found[value] == tuple(count.index(max(count)) for count in counts)
        assert 9 not in found


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR", "PIL", "ASL"])
def test_every_slice_is_the_stored_voxels_under_the_outline_of_each_label(draw: Draw, codes: str) -> None:
    shape = (9, 12, 11)
    values, labels = noise(shape), blobs(shape, 3)
    card = make_card(labels=(1, 2))
    found = draw(values, labels, card, codes)
    grid = make_grid(shape, (0.5, 1.0, 2.0), codes=codes)
    assert {figure.plane for figure in found.slices} == set(PLANES)
    for figure in found.slices:
        view = PlaneView.of(grid, figure.plane)
        box = view.box(figure.index)
        shown, inside = view.display(values[box.slices]), view.display(labels[box.slices])
        np.testing.assert_array_equal(pixels(figure.grey)[..., 0], to_grey(shown, *found.levels))
        assert figure.count == view.count
        height, width = (n * s for n, s in zip(inside.shape, view.pixel_spacing, strict=True))
        assert figure.size[0] / figure.size[1] == pytest.approx(width / height)
        around = np.pad(inside.astype(int), 1, constant_values=-1)
        same = [np.roll(around, shift, axis)[1:-1, 1:-1] == inside for axis in (0, 1) for shift in (-1, 1)]
        edges = ~np.logical_and.reduce(same)
        drawn = {layer.toggle: pixels(layer.png) for layer in figure.layers}
        for toggle, label in enumerate(card.output.table.labels):
            wanted = edges & (inside == label.value)
            assert (toggle in drawn) == wanted.any()
            if toggle in drawn:
                np.testing.assert_array_equal(drawn[toggle][..., 3] == 255, wanted)
                assert (drawn[toggle][wanted][:, :3] == label.rgb).all()


def test_each_label_has_its_slices_and_evenly_spaced_ones_fill_the_rest(draw: Draw) -> None:
    labels = np.zeros((30, 20, 40), np.uint8)
    labels[4, 5, 8], labels[20:25, 10:12, 30] = 1, 2
    found = draw(noise(labels.shape), labels, make_card(labels=(1, 2, 3)))
    shown = {(figure.plane, figure.index): figure.shows for figure in found.slices if figure.shows}
    assert shown[("axial", 8)] == ("label 1",)
    assert shown[("axial", 30)] == ("label 2",)
    assert len(shown) == 6
    assert len([figure for figure in found.slices if not figure.shows]) == 6
    assert all(figure.plane == "axial" for figure in found.slices if not figure.shows)
    assert [toggle.name for toggle in found.toggles] == ["label 1", "label 2", "label 3"]


def test_many_labels_have_axial_slices_alone_that_share_the_room(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros((40, 30, 25), np.uint8)
    for value in range(1, 21):
        labels[value, :, value] = value
    monkeypatch.setattr(figures, "_PIXELS", 20 * 10 * 10)
    found = draw(noise(labels.shape), labels, make_card(labels=range(1, 21)))
    assert [(figure.plane, figure.index) for figure in found.slices] == [("axial", i) for i in range(1, 21)]
    assert {pixels(figure.grey).shape[:2] for figure in found.slices} == {(8, 10)}
    assert all(max(figure.size) == 512 for figure in found.slices)


def test_pictures_have_a_limit_together(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = blobs((30, 30, 30))
    whole = draw(noise(labels.shape), labels, make_card(labels=(1, 2)))
    monkeypatch.setattr(figures, "_MOST_BYTES", 3000)
    found = draw(noise(labels.shape), labels, make_card(labels=(1, 2)))
    total = sum(len(figure.grey) + sum(len(layer.png) for layer in figure.layers) for figure in found.slices)
    assert 0 < total <= 3000
    assert 0 < len(found.slices) < len(whole.slices)
    assert (len(found.slices) + found.left_out, whole.left_out) == (len(whole.slices), 0)


@pytest.mark.parametrize("values", [np.zeros((1, 1, 1), np.uint8), np.full((2, 3, 1), 7.5, np.float32)])
def test_a_constant_volume_without_labels_is_drawn(draw: Draw, values: NDArray[Any]) -> None:
    found = draw(values, np.zeros(values.shape, np.uint8), make_card())
    assert [figure.plane for figure in found.slices] == ["axial"]
    assert pixels(found.thumbnail).shape[:2] == pixels(found.slices[0].grey).shape[:2]


def test_values_that_are_not_finite_are_drawn_as_zero(draw: Draw) -> None:
    values = noise((5, 5, 5)) + 1
    values[2, 2, 2], values[0, 0, 0] = np.nan, np.inf
    found = draw(values, np.zeros(values.shape, np.uint8), make_card())
    assert found.levels[0] >= 0
    assert sum(found.histograms[0].counts) == values.size


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_a_histogram_counts_every_voxel_in_equal_bins(draw: Draw, dtype: type) -> None:
    values = (1000 * noise((20, 20, 20)) ** 3).astype(dtype) if dtype != np.uint8 else blobs((20, 20, 20), count=9)
    found = draw(values, np.zeros(values.shape, np.uint8), make_card()).histograms[0]
    assert sum(found.counts) == values.size
    assert found.channel == "channel 0"
    edges = np.linspace(found.low, found.high, len(found.counts) + 1)
    inner, _ = np.histogram(values.astype(np.float64), edges)
    # the outer bins hold the rest, and float edges are rounded
    assert sum(abs(a - b) for a, b in zip(found.counts[1:-1], inner[1:-1].tolist(), strict=True)) <= 4
    if dtype not in (np.float32, np.float64):
        assert found.counts[1:-1] == tuple(inner[1:-1].tolist())
        assert found.low % 1 == 0.5


def test_the_range_that_the_card_keeps_is_inside_the_histogram(draw: Draw) -> None:
    values, labels = (100 * noise((9, 9, 9))).astype(np.uint8), np.zeros((9, 9, 9), np.uint8)
    windowed = draw(values, labels, make_card(intensity=[Window(-50.0, 400.0)])).histograms[0]
    assert windowed.kept == (-50.0, 400.0)
    assert windowed.low <= -50
    assert windowed.high >= 400
    low, high = draw(values, labels, make_card(intensity=[ClipPercentiles(10, 90)])).histograms[0].kept or (0, 0)
    assert (low, high) == pytest.approx(np.percentile(values, (10, 90)))
    assert draw(values, labels, make_card(intensity=[Rescale(0, 1)])).histograms[0].kept is None


def test_each_channel_has_a_histogram_with_its_own_steps(draw: Draw) -> None:
    values = np.stack([noise((6, 6, 6)), 5 + noise((6, 6, 6), 1)])
    card = make_card(2)
    second = replace(card.input.channels[1], intensity=(Window(5.0, 5.5),))
    card = replace(card, input=replace(card.input, channels=(card.input.channels[0], second)))
    first, other = draw(values, np.zeros((6, 6, 6), np.uint8), card).histograms
    assert (first.kept, other.kept) == (None, (5.0, 5.5))
    assert first.high <= 1.01
    assert other.low >= 5


def test_the_mask_is_read_in_slabs_and_slices_alone(opened: Callable[..., Case]) -> None:
    labels = blobs((64, 64, 64))
    case = opened(Volume(noise(labels.shape), make_grid((64, 64, 64))))
    read: list[Box] = []

    def mask(box: Box) -> NDArray[np.uint8]:
        read.append(box)
        return labels[box.slices]

    case_figures(case, mask, make_card(labels=(1, 2)), survey(case, 0.0), PngPictures())
    assert sum(min(box.shape) == 1 for box in read) >= 12
