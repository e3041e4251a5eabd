"""What differs between a mask and its truth, as slices in layers."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...domain.errors import InputError
from ...domain.geometry.grid import Box, Grid
from ...domain.labels.label_map import Labels
from ...domain.viewing.display import window_of
from ...domain.viewing.pages import SliceFigure, Toggle
from ...domain.viewing.slicing import PLANES, PlaneView, at_an_edge, to_grey
from ...ports.pictures import PictureEncoder
from ...ports.volume_store import VolumeStore
from .figures import Place, evenly_spaced, slice_figure

# Colours of Okabe and Ito, distinct for readers with colour blindness too.
DIFFERENCES = (
    Toggle("both agree (outline)", "#56b4e9"),
    Toggle("only in the mask", "#e69f00"),
    Toggle("only in the truth", "#cc79a7"),
    Toggle("another label", "#f0e442"),
)
_LABELS = 12  # of a page, those with the most voxels that differ
_FEW = 8  # labels of all cases that are drawn in three planes; of more, in axial ones
_SLICES = 24  # of a page; evenly spaced ones are added up to so many
_LONGEST, _SHORTEST, _PIXELS = 512, 64, 2**21


def draw_differences(
    grid: Grid,
    mask: Labels,
    truth: Labels,
    *,
    image: str | None,
    cases: int,
    volumes: VolumeStore,
    pictures: PictureEncoder,
) -> tuple[SliceFigure, ...]:
    """Draw slices with the most voxels of a label that differ; of a label that agrees, through its largest extent.

    Evenly spaced slices are added where there is room.

    Args:
        grid: of both label maps ``(x, y, z)``.
        mask, truth: to compare.
        image: a volume to show below, on the same grid; None for black.
        cases: that share a page, and the room in it.
        volumes: opens the image.
        pictures: encodes the slices.

    Raises:
        InputError: the image cannot be read, or has another shape.
    """
    values, window = _image(image, grid, volumes)
    through = set(_places(grid, mask, truth, max(1, _LABELS // cases), cases))
    through |= set(evenly_spaced(grid, through, max(1, _SLICES // cases)))
    wanted = sorted(through, key=lambda place: (PLANES.index(place[0]), place[1]))
    longest = max(_SHORTEST, min(_LONGEST, math.isqrt(_PIXELS // (cases * max(1, len(wanted))))))
    drawn = []
    for plane, index in wanted:
        view = PlaneView.of(grid, plane)
        box = view.box(index)
        found, true, shown = (view.display(part[box.slices]) for part in (mask, truth, values))
        step = -(-max(shown.shape) // longest)
        kept = found[::step, ::step], true[::step, ::step]
        layers = {i: (inside, _rgb(DIFFERENCES[i])) for i, inside in enumerate(_kinds(*kept))}
        drawn.append(slice_figure(plane, view, index, to_grey(shown, *window), layers, pictures, step))
    return tuple(drawn)


def _kinds(found: Labels, true: Labels) -> Iterator[NDArray[np.bool_]]:
    same = np.where(found == true, found, 0)
    yield at_an_edge(same) & (same != 0)
    yield (found != 0) & (true == 0)
    yield (true != 0) & (found == 0)
    yield (found != true) & (found != 0) & (true != 0)


def _places(grid: Grid, mask: Labels, truth: Labels, most: int, cases: int) -> Iterator[Place]:
    """Yield the plane and the slice where most voxels of each of ``most`` labels differ."""
    values = set(np.unique(mask).tolist()) | set(np.unique(truth).tolist())
    apart = {value: np.count_nonzero((mask == value) != (truth == value)) for value in sorted(values - {0})}
    worst = sorted(apart, key=lambda value: -apart[value])[:most]
    for value in worst:
        inside = (mask == value) != (truth == value) if apart[value] else truth == value
        counts = [np.count_nonzero(inside, axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
        voxel = [int(count.argmax()) for count in counts]
        for plane in PLANES if cases * len(worst) <= _FEW else PLANES[:1]:
            yield plane, PlaneView.of(grid, plane).pixel_of(voxel)[2]


def _image(image: str | None, grid: Grid, volumes: VolumeStore) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Return the values of the first channel, finite, and their window."""
    if image is None:
        return np.broadcast_to(np.float32(0), grid.shape), (0.0, 1.0)
    with volumes.open(image) as source:
        if source.grid.shape != grid.shape:
            expected, got = f"{grid.shape} voxels, as the truth has", str(source.grid.shape)
            raise InputError(image, expected=expected, got=got, do="name the image that the truth is of")
        values = np.nan_to_num(source.read(Box.whole(grid.shape), [0])[0].astype(np.float32), posinf=0.0, neginf=0.0)
    return values, window_of(values)


def _rgb(toggle: Toggle) -> tuple[int, int, int]:
    return int(toggle.colour[1:3], 16), int(toggle.colour[3:5], 16), int(toggle.colour[5:7], 16)
