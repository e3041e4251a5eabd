"""Figures of a case: slices through each label's largest extent, in layers, and histograms of the channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ...domain.cards.model_card import ModelCard
from ...domain.geometry.grid import Box, Grid
from ...domain.intensity import ChannelSurvey, ClipPercentiles, Window
from ...domain.labels.label_map import Labels, LabelTable
from ...domain.viewing.pages import CaseFigures, Histogram, Layer, SliceFigure, Toggle
from ...domain.viewing.slicing import PLANES, Picture, Plane, PlaneView, at_an_edge, overlay, to_grey
from ...ports.pictures import PictureEncoder
from ..segmentation.case import Case, finite, slabs
from ..viewing.preview import display_window

_FEW = 4  # labels that are shown in three planes; of more, axial planes
_SLICES = 12  # evenly spaced ones are added to those through labels, up to so many
_LONGEST, _PIXELS = 512, 2**21  # of a slice, and of all through labels together
_LONGEST_BESIDE, _LONGEST_THUMBNAIL = 256, 96
_MOST_BYTES = 3_500_000  # of all pictures, which base64 makes a third larger
_BINS = 128

Reader = Callable[[Box], Labels]
Place = tuple[Plane, int]


def case_figures(
    case: Case, mask: Reader, card: ModelCard, surveys: Sequence[ChannelSurvey], pictures: PictureEncoder
) -> CaseFigures:
    """Draw a case; ``mask`` reads labels ``(x, y, z)`` on the case's grid, and slices are of the first channel."""
    table = card.output.table
    window = display_window(surveys[0])
    margin = (window[1] - window[0]) / 2  # so that the window can be widened, too
    levels = max(surveys[0].low, window[0] - margin), min(surveys[0].high, window[1] + margin)
    grid, names = case.grid, {label.value: label.name for label in table.labels}
    extents = largest_extents(mask, grid, case.sources[0].slowest_axis, table.values)
    through = _through_labels(grid, [(names[value], at) for value, at in extents.items()])
    longest = min(_LONGEST, math.isqrt(_PIXELS // max(1, len(through))))
    beside = dict.fromkeys(evenly_spaced(grid, through), ())
    sizes = [(place, longest) for place in through] + [(place, _LONGEST_BESIDE) for place in beside]
    drawn: dict[Place, SliceFigure] = {}
    left = _MOST_BYTES
    thumbnail = b""
    for (plane, index), edge in sizes:
        view = PlaneView.of(grid, plane)
        box, step = view.box(index), _step(view, edge)
        grey = to_grey(view.display(finite(case.read_channel(0, box), 0.0)), *levels)
        labels = view.display(mask(box))
        shows = through.get((plane, index), ())
        figure = slice_figure(
            plane, view, index, grey, _outlines(labels[::step, ::step], table), pictures, step, shows=shows
        )
        left -= len(figure.grey) + sum(len(layer.png) for layer in figure.layers)
        if left < 0 and drawn:
            break
        drawn[plane, index] = figure
        if not thumbnail:
            small = _step(view, _LONGEST_THUMBNAIL)
            grey = to_grey(grey[::small, ::small], *(255 * _share(value, levels) for value in window))
            thumbnail = pictures.encode(Picture(overlay(grey, labels[::small, ::small], table)), quickly=True)
    return CaseFigures(
        tuple(drawn[place] for place in sorted(drawn, key=lambda place: (PLANES.index(place[0]), place[1]))),
        tuple(Toggle(label.name, label.colour) for label in table.labels),
        levels,
        window,
        tuple(
            _histogram(found, name, _kept(found, card, i), whole=case.dtype_of(i).kind in "iub")
            for i, (found, name) in enumerate(zip(surveys, _names(case, card), strict=True))
        ),
        thumbnail,
        len(sizes) - len(drawn),
    )


def largest_extents(mask: Reader, grid: Grid, axis: int, values: Sequence[int]) -> dict[int, tuple[int, int, int]]:
    """Return, for each value that occurs, the first plane of each stored axis with the most voxels of it.

    The mask is read in slabs along ``axis``.
    """
    counts = {value: [np.zeros(length, np.int64) for length in grid.shape] for value in values}
    for box in slabs(grid, axis):
        labels = mask(box)
        for value, found in counts.items():
            inside = labels == value
            for across, total in enumerate(found):
                others = tuple(other for other in range(3) if other != across)
                total[box.start[across] : box.stop[across]] += np.count_nonzero(inside, axis=others)
    return {
        value: (int(x.argmax()), int(y.argmax()), int(z.argmax())) for value, (x, y, z) in counts.items() if x.any()
    }


def slice_figure(
    plane: Plane,
    view: PlaneView,
    index: int,
    grey: NDArray[np.uint8],
    layers: Mapping[int, tuple[NDArray[np.bool_], tuple[int, int, int]]],
    pictures: PictureEncoder,
    step: int = 1,
    *,
    shows: tuple[str, ...] = (),
) -> SliceFigure:
    """Encode a slice ``(rows, columns)`` of which every ``step``-th pixel is kept, under layers of that size."""
    height, width = (n * spacing for n, spacing in zip(grey.shape, view.pixel_spacing, strict=True))
    scale = _LONGEST / max(height, width)
    letters = view.letters
    return SliceFigure(
        plane,
        index,
        view.count,
        (max(1.0, width * scale), max(1.0, height * scale)),
        (letters["top"], letters["bottom"], letters["left"], letters["right"]),
        pictures.encode_grey(grey[::step, ::step]),
        tuple(Layer(toggle, pictures.encode_layer(*layer)) for toggle, layer in layers.items() if layer[0].any()),
        shows,
    )


def _through_labels(grid: Grid, extents: Sequence[tuple[str, tuple[int, int, int]]]) -> dict[Place, tuple[str, ...]]:
    """Return the slices through the largest extent of each label, with the names of the labels."""
    found: dict[Place, tuple[str, ...]] = {}
    for name, voxel in extents:
        for plane in PLANES if len(extents) <= _FEW else PLANES[:1]:
            place = plane, PlaneView.of(grid, plane).pixel_of(voxel)[2]
            found[place] = (*found.get(place, ()), name)
    return found


def evenly_spaced(grid: Grid, through: Collection[Place], most: int = _SLICES) -> Iterator[Place]:
    """Yield evenly spaced axial slices beside those through labels, ``most`` with them."""
    count = PlaneView.of(grid, "axial").count
    wanted = max(0, min(count, most - len(through)))
    for position in np.linspace(0, count - 1, wanted + 2)[1:-1]:
        if ("axial", round(position)) not in through:
            yield "axial", round(position)


def _step(view: PlaneView, longest: int) -> int:
    """Return every how many pixels one is kept of a slice, so that none of its edges is too long."""
    rows, columns, _ = view.change.apply_shape(view.grid.shape)
    return -(-max(rows, columns) // longest)


def _outlines(labels: Labels, table: LabelTable) -> dict[int, tuple[NDArray[np.bool_], tuple[int, int, int]]]:
    """Return the outline and the colour of each label of a slice, by its index in the table."""
    edges = at_an_edge(labels)
    values = set(np.unique(labels[edges]).tolist())
    return {
        toggle: (edges & (labels == label.value), label.rgb)
        for toggle, label in enumerate(table.labels)
        if label.value in values
    }


def _names(case: Case, card: ModelCard) -> Iterator[str]:
    named = {channel.source: channel.name for channel in reversed(card.input.channels)}
    for position, stored in enumerate(case.channel_names):
        yield named.get(position) or stored or f"channel {position}"


def _histogram(found: ChannelSurvey, name: str, kept: tuple[float, float] | None, *, whole: bool) -> Histogram:
    """Count a channel's values from a little below to a little above its window and the range that the card keeps.

    Bins of ``whole`` numbers hold as many of them each.
    """
    window = display_window(found)
    margin = (window[1] - window[0]) / 4
    low, high = max(found.low, window[0] - margin), min(found.high, window[1] + margin)
    low, high = min(chain([low], kept or ())), max(chain([high], kept or ()))
    width = (high - low) / _BINS
    if whole:
        low, high, width = math.floor(low) - 0.5, math.ceil(high) + 0.5, math.ceil(width)
    bins = max(1, math.ceil((high - low) / (width or 1.0) - 1e-6))
    counts = np.zeros(bins)
    for values, times in found.chunks():
        at = np.clip((values.astype(np.float64) - low) / (width or 1.0), 0, bins - 1).astype(np.intp)
        counts += np.bincount(at, times, bins)
    return Histogram(name, low, low + bins * width, tuple(int(count) for count in counts), kept)


def _kept(found: ChannelSurvey, card: ModelCard, position: int) -> tuple[float, float] | None:
    for channel in card.input.channels:
        if channel.source == position:
            first = next(iter(card.input.steps(channel)), None)
            fitted = first.fit(found.chunks) if isinstance(first, Window | ClipPercentiles) else None
            return (fitted.low, fitted.high) if isinstance(fitted, Window) else None
    return None


def _share(value: float, levels: tuple[float, float]) -> float:
    return (value - levels[0]) / ((levels[1] - levels[0]) or 1.0)
