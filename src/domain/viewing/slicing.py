"""Anatomical planes of a volume as a person looks at them: orientation, aspect ratio, window, overlay.

A displayed plane has rows from top to bottom and columns from left to right. Radiological display puts the patient's
right on the left of the picture, neurological display on the right; sagittal planes face left in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..geometry.grid import Box, Grid, Reorientation, Shape3, shape3
from ..labels.label_map import Labels, LabelTable

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
Convention = Literal["radiological", "neurological"]
Grey = NDArray[np.uint8]
Rgb = NDArray[np.uint8]

# Directions in which (row, column, slice) indices grow on display.
_DISPLAY_CODES: dict[tuple[Plane, Convention], str] = {
    ("axial", "radiological"): "PLS",
    ("axial", "neurological"): "PRS",
    ("coronal", "radiological"): "ILA",
    ("coronal", "neurological"): "IRA",
    ("sagittal", "radiological"): "IPR",
    ("sagittal", "neurological"): "IPR",
}
_OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


@dataclass(frozen=True)
class PlaneView:
    """How one anatomical plane of a grid is shown: the link between stored voxels and displayed pixels."""

    grid: Grid
    codes: str
    change: Reorientation

    @classmethod
    def of(cls, grid: Grid, plane: Plane, convention: Convention = "radiological") -> PlaneView:
        """The view of ``plane`` on a grid stored in any orientation."""
        codes = _DISPLAY_CODES[plane, convention]
        return cls(grid, codes, grid.reorientation_to(codes))

    @property
    def count(self) -> int:
        """Number of slices."""
        return self.change.apply_shape(self.grid.shape)[2]

    @property
    def stored_axis(self) -> int:
        """The stored axis along which slices follow each other, forwards or backwards."""
        return self.change.axes[2]

    @property
    def pixel_spacing(self) -> tuple[float, float]:
        """Height and width of a pixel, in the grid's unit."""
        rows, columns, _ = self.change.axes
        return self.grid.spacing[rows], self.grid.spacing[columns]

    @property
    def letters(self) -> dict[Literal["top", "bottom", "left", "right"], str]:
        """Anatomical letters at the four sides of the picture."""
        down, right = self.codes[0], self.codes[1]
        return {"top": _OPPOSITE[down], "bottom": down, "left": _OPPOSITE[right], "right": right}

    def box(self, index: int) -> Box:
        """The stored voxels of slice ``index``."""
        rows, columns, _ = self.change.apply_shape(self.grid.shape)
        return self.change.source_box(Box((0, 0, index), (rows, columns, index + 1)), self.grid.shape)

    def display(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Stored values ``(..., x, y, z)`` of one slice's box as ``(..., rows, columns)``."""
        return self.change.apply(stored)[..., 0]

    def voxel_at(self, row: int, column: int, index: int) -> Shape3:
        """The stored voxel shown at a pixel of slice ``index``."""
        pixel = Box((row, column, index), (row + 1, column + 1, index + 1))
        return self.change.source_box(pixel, self.grid.shape).start

    def pixel_of(self, voxel: Sequence[int]) -> Shape3:
        """Row, column and slice index at which a stored voxel is shown."""
        at = shape3(voxel)
        back = self.change.inverse()
        box = back.source_box(Box(at, shape3(v + 1 for v in at)), self.change.apply_shape(self.grid.shape))
        return box.start


def to_grey(values: NDArray[Any], low: float, high: float) -> Grey:
    """Grey levels of values, with ``low`` black and ``high`` white."""
    span = high - low if high > low else 1.0
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / span)
    return np.asarray(np.clip(np.rint(scaled), 0, 255), dtype=np.uint8)


def square_pixels(
    image: NDArray[Any], pixel_spacing: tuple[float, float], *, smooth: bool, longest: int | None = None
) -> NDArray[Any]:
    """An image ``(rows, columns)`` stretched so that its pixels are square; ``smooth`` for values, not for labels.

    Where an edge would have more than ``longest`` pixels, the whole is shrunk to fit.
    """
    finest = min(pixel_spacing)
    zoom = [s / finest for s in pixel_spacing]
    if longest is not None:
        widest = max(n * z for n, z in zip(image.shape, zoom, strict=True))
        # 1 / n: at least one pixel is left of a thin edge
        zoom = [max(z * min(1.0, longest / widest), 1 / n) for n, z in zip(image.shape, zoom, strict=True)]
    if max(abs(z - 1) for z in zoom) < 1e-3:
        return image
    from scipy import ndimage  # a quarter of a second, and most runs make no picture

    stretched: NDArray[Any] = ndimage.zoom(image, zoom, order=1 if smooth else 0, grid_mode=True, mode="nearest")
    return stretched


def overlay(grey: Grey, labels: Labels, table: LabelTable, *, opacity: float = 0.5, outline: bool = False) -> Rgb:
    """A grey picture ``(rows, columns)`` with each label in its colour, filled or as a one-pixel outline.

    Values that the table lacks are not shown. A label that reaches the picture's edge is outlined there as well.
    """
    picture = np.repeat(grey[..., np.newaxis], 3, axis=-1)
    known = [label for label in table.labels if label.value]
    # one look-up for all labels: there may be a hundred of them
    colours = np.zeros((max([int(labels.max(initial=0)), *(label.value for label in known)]) + 1, 3), np.uint8)
    is_known = np.zeros(len(colours), bool)
    for label in known:
        colours[label.value], is_known[label.value] = label.rgb, True
    shown = is_known[labels]
    if outline:
        shown &= _at_an_edge(labels)
    mixed = (1 - opacity) * picture[shown].astype(np.float32) + opacity * colours[labels[shown]].astype(np.float32)
    picture[shown] = np.rint(mixed).astype(np.uint8)
    return picture


def _at_an_edge(labels: Labels) -> NDArray[np.bool_]:
    """Pixels ``(rows, columns)`` of which one of the four neighbours has another value or is outside."""
    edge = np.ones(labels.shape, bool)
    inner = labels[1:-1, 1:-1]
    around = (labels[:-2, 1:-1], labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:])
    edge[1:-1, 1:-1] = np.logical_or.reduce([inner != neighbour for neighbour in around])
    return edge


@dataclass(frozen=True)
class Mark:
    """A piece of text in a picture, centred at a pixel."""

    row: int
    column: int
    text: str


@dataclass(frozen=True, eq=False)
class Picture:
    """An RGB picture ``(H, W, 3)`` with text marks that are drawn when it is encoded."""

    pixels: Rgb
    marks: tuple[Mark, ...] = ()


def side_by_side(pictures: Sequence[Picture], gap: int = 8) -> Picture:
    """Pictures in a row on black, aligned at the top."""
    height = max(p.pixels.shape[0] for p in pictures)
    width = sum(p.pixels.shape[1] for p in pictures) + gap * (len(pictures) - 1)
    pixels = np.zeros((height, width, 3), np.uint8)
    marks: list[Mark] = []
    left = 0
    for picture in pictures:
        rows, columns, _ = picture.pixels.shape
        pixels[:rows, left : left + columns] = picture.pixels
        marks.extend(Mark(m.row, m.column + left, m.text) for m in picture.marks)
        left += columns + gap
    return Picture(pixels, tuple(marks))


def stacked(pictures: Sequence[Picture], gap: int = 8) -> Picture:
    """Pictures below each other on black, aligned at the left."""
    return _turned(side_by_side([_turned(picture) for picture in pictures], gap))


def _turned(picture: Picture) -> Picture:
    """Rows and columns exchanged."""
    marks = tuple(Mark(m.column, m.row, m.text) for m in picture.marks)
    return Picture(picture.pixels.transpose(1, 0, 2), marks)


def side_marks(view: PlaneView, rows: int, columns: int, margin: int = 8) -> tuple[Mark, ...]:
    """Orientation letters at the four sides of a picture of ``rows`` x ``columns``."""
    letters = view.letters
    return (
        Mark(margin, columns // 2, letters["top"]),
        Mark(rows - 1 - margin, columns // 2, letters["bottom"]),
        Mark(rows // 2, margin, letters["left"]),
        Mark(rows // 2, columns - 1 - margin, letters["right"]),
    )
