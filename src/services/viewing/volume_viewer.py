"""Slices and values of a volume and its mask, read plane by plane."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...domain.geometry.grid import Box, Grid, Shape3, shape3
from ...domain.labels.label_map import Labels, LabelTable
from ...domain.reading import Reading
from ...domain.viewing.display import Display, plane_picture, plane_pixels, window_of
from ...domain.viewing.slicing import PLANES, Convention, Picture, Plane, PlaneView, side_by_side
from ...ports.volume_store import VolumeSource, VolumeStore
from ..segmentation.case import Case, finite, slabs

_SAMPLED_PLANES, _SAMPLED_VALUES = 16, 2**20
_LONGEST_EDGE = 1024
_PICTURE_EDGE = 640


class LabelSource(Protocol):
    """What a viewer needs of a mask; see `VolumeSource`, which has it."""

    @property
    def grid(self) -> Grid:
        """Shape, affine and unit."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the labels."""

    @property
    def slowest_axis(self) -> int:
        """The axis along which slabs are read at the least cost."""

    def read(self, box: Box) -> NDArray[Any]:
        """Read the labels in ``box`` as ``(1, x, y, z)``; a copy. Raises ValueError once closed."""

    def close(self) -> None:
        """Release what is held. Closing twice does nothing."""


@dataclass(frozen=True)
class ShownMask:
    """A mask over a volume, or over a part of it."""

    source: LabelSource
    table: LabelTable
    box: Box

    def read(self, box: Box) -> Labels:
        """Return labels ``(x, y, z)`` of the volume's voxels in ``box``; 0 outside the mask."""
        labels = np.zeros(box.shape, self.source.dtype)
        start = np.maximum(box.start, self.box.start)
        stop = np.minimum(box.stop, self.box.stop)
        if (start < stop).all():
            inside, place = (Box(shape3(start - first), shape3(stop - first)) for first in (self.box.start, box.start))
            labels[place.slices] = self.source.read(inside)[0]
        return labels


@dataclass(frozen=True)
class Look:
    """The displayed planes and settings."""

    display: Display
    channel: int = 0
    convention: Convention = "radiological"


class OpenVolume:
    """A case open for display. Thread-safe.

    ``windows`` are the default windows of each channel, ``ranges`` the smallest and largest values; both are sampled
    from a few planes.
    """

    def __init__(self, case: Case, stack: ExitStack) -> None:
        self.case = case
        self._stack = stack
        samples = [_sample(case, channel) for channel in range(case.channels)]
        self.windows = tuple(window_of(sample) for sample in samples)
        self.ranges = tuple((float(s.min()), float(s.max())) if s.size else (0.0, 1.0) for s in samples)

    @classmethod
    def open(cls, volumes: VolumeStore, references: Sequence[str], reading: Reading | None = None) -> OpenVolume:
        """Open the volumes of a case, as ``reading`` states them, and sample a few planes.

        Raises InputError, UsageError or LimitError.
        """
        with ExitStack() as stack:
            case = Case.open(volumes, references, stack, reading)
            return cls(case, stack.pop_all())

    def plane(self, plane: Plane, index: int, look: Look, mask: ShownMask | None) -> Picture:
        """Return one slice without letters, at most 1024 pixels on its longer edge. Raises IndexError."""
        return Picture(self._pixels(self._view(plane, look), index, look, mask))

    def picture(self, indices: Sequence[int], look: Look, mask: ShownMask | None) -> Picture:
        """Return the three planes side by side, with letters and scale bars; small ones are enlarged."""
        views = [self._view(plane, look) for plane in PLANES]
        slices = [self._pixels(view, index, look, mask) for view, index in zip(views, indices, strict=True)]
        times = max(1, _PICTURE_EDGE // max(max(pixels.shape) for pixels in slices))
        pictures = []
        for view, pixels in zip(views, slices, strict=True):
            width = view.change.apply_shape(self.case.grid.shape)[1] * view.pixel_spacing[1]
            large = pixels.repeat(times, axis=0).repeat(times, axis=1)
            pictures.append(plane_picture(view, large, width, self.case.grid.unit))
        return side_by_side(pictures)

    def at(self, voxel: Shape3, mask: ShownMask | None) -> tuple[list[float], int | None]:
        """Return the value of each channel, and the label, at a voxel. Raises IndexError."""
        if not all(0 <= v < n for v, n in zip(voxel, self.case.grid.shape, strict=True)):
            raise IndexError(voxel)
        box = Box(voxel, (voxel[0] + 1, voxel[1] + 1, voxel[2] + 1))
        values = [float(channel[0, 0, 0]) for channel in self.case.read(box)]
        return values, None if mask is None else int(mask.read(box)[0, 0, 0])

    def close(self) -> None:
        """Release the files. Closing twice does nothing."""
        self._stack.close()

    def _view(self, plane: Plane, look: Look) -> PlaneView:
        return PlaneView.of(self.case.grid, plane, look.convention)

    def _pixels(self, view: PlaneView, index: int, look: Look, mask: ShownMask | None) -> NDArray[np.uint8]:
        if not (0 <= index < view.count and 0 <= look.channel < self.case.channels):
            raise IndexError(index)
        box = view.box(index)
        values = view.display(finite(self.case.read_channel(look.channel, box), look.display.low))
        labels = None if mask is None else view.display(mask.read(box))
        return plane_pixels(view, values, labels, look.display, _LONGEST_EDGE)


def cut_out(
    volumes: VolumeStore,
    references: Sequence[str],
    box: Box,
    places: Iterable[str],
    reading: Reading | None = None,
) -> None:
    """Write a box of each volume as a smaller volume at the same world position. Raises the errors of the store."""
    for reference, place in zip(references, places, strict=True):
        with volumes.open(reference, reading) as source:
            grid = source.grid.part(box)
            with volumes.create(place, grid, source.dtype, channels=source.channels) as sink:
                sink.write(Box.whole(grid.shape), source.read(box))
                sink.commit()


def save_mask(volumes: VolumeStore, mask: ShownMask, place: str, like: VolumeSource) -> tuple[str, ...]:
    """Write a mask of the whole volume ``like`` under another name; return what the format cannot say of it.

    Raises the errors of the store.
    """
    with volumes.create(place, like.grid, mask.source.dtype, like=like, labels=mask.table) as sink:
        for box in slabs(like.grid, mask.source.slowest_axis):
            sink.write(box, mask.source.read(box))
        sink.commit()
        return tuple(sink.notes)


def _sample(case: Case, channel: int) -> NDArray[np.float32]:
    """Return finite values of a few planes, at most about a million."""
    grid, axis = case.grid, case.sources[0].slowest_axis
    whole, count = Box.whole(grid.shape), grid.shape[axis]
    planes = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED_PLANES)).round().astype(int))
    step = max(1, len(planes) * (grid.voxel_count // count) // _SAMPLED_VALUES)
    boxes = (whole.with_range(axis, int(plane), int(plane) + 1) for plane in planes)
    values = np.concatenate([finite(case.read_channel(channel, box), None).ravel(order="K")[::step] for box in boxes])
    found: NDArray[np.float32] = values[np.isfinite(values)]
    return found
