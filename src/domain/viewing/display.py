"""How a person has planes shown: window, aspect, overlay, scale bar; and the part of a volume around a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.grid import Box, Shape3, shape3
from ..labels.label_map import Labels, LabelTable
from .slicing import Mark, Picture, PlaneView, Rgb, overlay, side_marks, square_pixels, to_grey

WINDOW_PERCENTILES = (0.5, 99.5)
UNIT_NAMES = {"mm": "mm", "um": "µm", "unknown": "units"}
_BAR_SHARE = 0.25  # of a picture's width, at most
_BAR_STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Display:
    """What a person has set: the window's ends, how the mask lies over the values, and which labels show.

    ``table`` holds the labels that are shown, in the colours in which they are.
    """

    low: float
    high: float
    table: LabelTable = field(default_factory=lambda: LabelTable(()))
    opacity: float = 0.5
    outline: bool = False


def window_of(values: NDArray[Any]) -> tuple[float, float]:
    """The window that shows typical values: percentiles, or all there is where those are one value.

    Values that are not finite do not count; without any others the window is 0 to 1.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, WINDOW_PERCENTILES))
    return (low, high) if low < high else (float(finite.min()), float(finite.max()))


def plane_pixels(
    view: PlaneView, values: NDArray[Any], labels: Labels | None, display: Display, longest: int | None = None
) -> Rgb:
    """One slice as a person sees it, with square pixels.

    Args:
        view: the plane.
        values: of the slice, ``(rows, columns)``, finite.
        labels: of the slice, ``(rows, columns)``, if there are any.
        display: what is set.
        longest: the most pixels along an edge; what would be more is shrunk.
    """
    spacing = view.pixel_spacing
    grey = square_pixels(to_grey(values, display.low, display.high), spacing, smooth=True, longest=longest)
    if labels is None:
        return np.repeat(grey[..., np.newaxis], 3, axis=-1)
    shown = square_pixels(labels, spacing, smooth=False, longest=longest)
    return overlay(grey, shown, display.table, opacity=display.opacity, outline=display.outline)


def plane_picture(view: PlaneView, pixels: Rgb, width: float, unit: str) -> Picture:
    """Pixels of a slice with orientation letters and a scale bar.

    Args:
        view: the plane.
        pixels: ``(H, W, 3)``, square.
        width: of the picture, in the grid's unit.
        unit: of the grid.
    """
    rows, columns, _ = pixels.shape
    length = bar_length(width)
    extent = max(1, round(columns * length / width))
    drawn = pixels.copy()
    row, left = rows - 6, 6
    if rows > 16 and columns > extent + left:
        drawn[row - 1 : row + 2, left - 1 : left + extent + 1] = 0
        drawn[row, left : left + extent] = 255
    # encoders' fonts may have no more than ASCII
    bar = Mark(max(0, row - 12), left + extent // 2, f"{length:g} {'units' if unit == 'unknown' else unit}")
    return Picture(drawn, (*side_marks(view, rows, columns), bar))


def bar_length(width: float) -> float:
    """The longest of 1, 2, 5, 10, 20, ... that takes no more than a quarter of a width."""
    return max(step for step in bar_steps(width, width) if step <= _BAR_SHARE * width)


def bar_steps(finest: float, widest: float) -> list[float]:
    """Lengths 1, 2, 5 times powers of ten, for scale bars of pictures from ``finest`` to ``widest`` across."""
    first = int(np.floor(np.log10(_BAR_SHARE * finest))) - 1
    last = int(np.ceil(np.log10(widest)))
    return [float(f"{step}e{power}") for power in range(first, last + 1) for step in _BAR_STEPS]


def around(voxel: Sequence[int], shape: Shape3, edges: Sequence[int]) -> Box:
    """The box with these edges about a voxel, moved and cut to lie within ``shape``."""
    start, stop = [], []
    for at, length, edge in zip(voxel, shape, edges, strict=True):
        first = min(max(0, at - edge // 2), max(0, length - edge))
        start.append(first)
        stop.append(min(length, first + edge))
    return Box(shape3(start), shape3(stop))
