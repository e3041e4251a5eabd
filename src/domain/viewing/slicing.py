"""Anatomical planes of a volume on display: orientation, aspect ratio, grey levels, overlay.

Rows run from top to bottom and columns from left to right. Radiological display has the patient's right on the left of
the picture, neurological display on the right. Sagittal planes face left in both.
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

# Directions of increasing (row, column, slice) index on display.
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
    """Map between the stored voxels of a grid and the displayed pixels of one anatomical plane."""

    grid: Grid
    codes: str
    change: Reorientation

    @classmethod
    def of(cls, grid: Grid, plane: Plane, convention: Convention = "radiological") -> PlaneView:
        """Build the view of ``plane`` on a grid of any orientation."""
        codes = _DISPLAY_CODES[plane, convention]
        return cls(grid, codes, grid.reorientation_to(codes))

    @property
    def count(self) -> int:
        """Number of slices."""
        return self.change.apply_shape(self.grid.shape)[2]

    @property
    def stored_axis(self) -> int:
        """The stored axis of the slices."""
        return self.change.axes[2]

    @property
    def pixel_spacing(self) -> tuple[float, float]:
        """Height and width of a pixel in the grid's unit."""
        rows, columns, _ = self.change.axes
        return self.grid.spacing[rows], self.grid.spacing[columns]

    @property
    def letters(self) -> dict[Literal["top", "bottom", "left", "right"], str]:
        """Anatomical letters at the four sides of the picture."""
        down, right = self.codes[0], self.codes[1]
        return {"top": _OPPOSITE[down], "bottom": down, "left": _OPPOSITE[right], "right": right}

    def box(self, index: int) -> Box:
        """Return the stored voxels of slice ``index``."""
        rows, columns, _ = self.change.apply_shape(self.grid.shape)
        return self.change.source_box(Box((0, 0, index), (rows, columns, index + 1)), self.grid.shape)

    def display(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return stored values ``(..., x, y, z)`` of one slice's box as ``(..., rows, columns)``."""
        return self.change.apply(stored)[..., 0]

    def pixel_of(self, voxel: Sequence[int]) -> Shape3:
        """Return the row, column and slice index of a stored voxel."""
        at = shape3(voxel)
        back = self.change.inverse()
        box = back.source_box(Box(at, shape3(v + 1 for v in at)), self.change.apply_shape(self.grid.shape))
        return box.start


def to_grey(values: NDArray[Any], low: float, high: float) -> Grey:
    """Return grey levels with ``low`` black and ``high`` white."""
    span = high - low if high > low else 1.0
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / span)
    return np.asarray(np.clip(np.rint(scaled), 0, 255), dtype=np.uint8)


def square_pixels(
    image: NDArray[Any], pixel_spacing: tuple[float, float], *, smooth: bool, longest: int | None = None
) -> NDArray[Any]:
    """Stretch an image ``(rows, columns)`` to square pixels; ``smooth`` for values, not for labels.

    The result is shrunk to at most ``longest`` pixels along an edge.
    """
    finest = min(pixel_spacing)
    zoom = [s / finest for s in pixel_spacing]
    if longest is not None:
        widest = max(n * z for n, z in zip(image.shape, zoom, strict=True))
        # 1 / n keeps at least one pixel.
        zoom = [max(z * min(1.0, longest / widest), 1 / n) for n, z in zip(image.shape, zoom, strict=True)]
    if max(abs(z - 1) for z in zoom) < 1e-3:
        return image
    from scipy import ndimage  # takes 0.25 s, and most runs draw no picture

    stretched: NDArray[Any] = ndimage.zoom(image, zoom, order=1 if smooth else 0, grid_mode=True, mode="nearest")
    return stretched


def overlay(grey: Grey, labels: Labels, table: LabelTable, *, opacity: float = 0.5, outline: bool = False) -> Rgb:
    """Draw labels ``(rows, columns)`` over a grey picture, filled or as an outline of one pixel.

    Values outside the table are not drawn. Outlines include the picture's edge.
    """
    picture = np.repeat(grey[..., np.newaxis], 3, axis=-1)
    known = [label for label in table.labels if label.value]
    # One look-up table: there may be a hundred labels.
    colours = np.zeros((max([int(labels.max(initial=0)), *(label.value for label in known)]) + 1, 3), np.uint8)
    is_known = np.zeros(len(colours), bool)
    for label in known:
        colours[label.value], is_known[label.value] = label.rgb, True
    shown = is_known[labels]
    if outline:
        shown &= at_an_edge(labels)
    mixed = (1 - opacity) * picture[shown].astype(np.float32) + opacity * colours[labels[shown]].astype(np.float32)
    picture[shown] = np.rint(mixed).astype(np.uint8)
    return picture


def at_an_edge(labels: Labels) -> NDArray[np.bool_]:
    """Return whether each pixel has a neighbour, of four, with another value or outside the picture."""
    edge = np.ones(labels.shape, bool)
    inner = labels[1:-1, 1:-1]
    around = (labels[:-2, 1:-1], labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:])
    edge[1:-1, 1:-1] = np.logical_or.reduce([inner != neighbour for neighbour in around])
    return edge


@dataclass(frozen=True)
class Mark:
    """Text centred at a pixel."""

    row: int
    column: int
    text: str


@dataclass(frozen=True, eq=False)
class Picture:
    """An RGB picture ``(H, W, 3)`` with text marks, which the encoder draws."""

    pixels: Rgb
    marks: tuple[Mark, ...] = ()


def side_by_side(pictures: Sequence[Picture], gap: int = 8) -> Picture:
    """Place pictures in a row on black, aligned at the top."""
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
    """Place pictures in a column on black, aligned at the left."""
    return _turned(side_by_side([_turned(picture) for picture in pictures], gap))


def _turned(picture: Picture) -> Picture:
    """Transpose a picture with its marks."""
    marks = tuple(Mark(m.column, m.row, m.text) for m in picture.marks)
    return Picture(picture.pixels.transpose(1, 0, 2), marks)


def side_marks(view: PlaneView, rows: int, columns: int, margin: int = 8) -> tuple[Mark, ...]:
    """Return orientation letters for the four sides of a picture of ``rows`` x ``columns``."""
    letters = view.letters
    return (
        Mark(margin, columns // 2, letters["top"]),
        Mark(rows - 1 - margin, columns // 2, letters["bottom"]),
        Mark(rows // 2, margin, letters["left"]),
        Mark(rows // 2, columns - 1 - margin, letters["right"]),
    )
