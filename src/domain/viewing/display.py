"""Display settings and pictures of planes: window, overlay, scale bar, threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.grid import Box, Shape3, shape3
from ..intensity import Chunks
from ..labels.label_map import Labels, LabelTable
from .slicing import Mark, Picture, PlaneView, Rgb, overlay, side_marks, square_pixels, to_grey

WINDOW_PERCENTILES = (0.5, 99.5)
UNIT_NAMES = {"mm": "mm", "um": "µm", "unknown": "units"}
_BAR_SHARE = 0.25  # of a picture's width, at most
_BAR_STEPS = (1, 2, 5)
_BINS = 256


@dataclass(frozen=True)
class Display:
    """Display settings: the intensity window, and the labels of ``table`` drawn over it in their colours."""

    low: float
    high: float
    table: LabelTable = field(default_factory=lambda: LabelTable(()))
    opacity: float = 0.5
    outline: bool = False


def window_of(values: NDArray[Any]) -> tuple[float, float]:
    """Return a window from percentiles of the finite values, from their range if those are equal, or 0 to 1."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, WINDOW_PERCENTILES))
    return (low, high) if low < high else (float(finite.min()), float(finite.max()))


def plane_pixels(
    view: PlaneView, values: NDArray[Any], labels: Labels | None, display: Display, longest: int | None = None
) -> Rgb:
    """Render one slice of finite values and labels, both ``(rows, columns)``, with square pixels.

    Pictures of more than ``longest`` pixels along an edge are shrunk.
    """
    spacing = view.pixel_spacing
    grey = square_pixels(to_grey(values, display.low, display.high), spacing, smooth=True, longest=longest)
    if labels is None:
        return np.repeat(grey[..., np.newaxis], 3, axis=-1)
    shown = square_pixels(labels, spacing, smooth=False, longest=longest)
    return overlay(grey, shown, display.table, opacity=display.opacity, outline=display.outline)


def plane_picture(view: PlaneView, pixels: Rgb, width: float, unit: str) -> Picture:
    """Add orientation letters and a scale bar to square pixels ``(H, W, 3)``; ``width`` is in the grid's unit."""
    rows, columns, _ = pixels.shape
    length = bar_length(width)
    extent = max(1, round(columns * length / width))
    drawn = pixels.copy()
    row, left = rows - 6, 6
    if rows > 16 and columns > extent + left:
        drawn[row - 1 : row + 2, left - 1 : left + extent + 1] = 0
        drawn[row, left : left + extent] = 255
    # ASCII only, for the encoder's font.
    bar = Mark(max(0, row - 12), left + extent // 2, f"{length:g} {'units' if unit == 'unknown' else unit}")
    return Picture(drawn, (*side_marks(view, rows, columns), bar))


def bar_length(width: float) -> float:
    """Return the longest of 1, 2, 5, 10, 20, ... that is at most a quarter of a width."""
    return max(step for step in bar_steps(width, width) if step <= _BAR_SHARE * width)


def bar_steps(finest: float, widest: float) -> list[float]:
    """Return lengths 1, 2, 5 times powers of ten for scale bars of pictures from ``finest`` to ``widest`` wide."""
    first = int(np.floor(np.log10(_BAR_SHARE * finest))) - 1
    last = int(np.ceil(np.log10(widest)))
    return [float(f"{step}e{power}") for power in range(first, last + 1) for step in _BAR_STEPS]


def around(voxel: Sequence[int], shape: Shape3, edges: Sequence[int]) -> Box:
    """Return the box with these edges around a voxel, shifted and clipped to ``shape``."""
    start, stop = [], []
    for at, length, edge in zip(voxel, shape, edges, strict=True):
        first = min(max(0, at - edge // 2), max(0, length - edge))
        start.append(first)
        stop.append(min(length, first + edge))
    return Box(shape3(start), shape3(stop))


def otsu(chunks: Chunks, low: float, high: float) -> float:
    """Return the threshold that best separates values from ``low`` to ``high`` in two classes; ``high`` if low == high.

    Maximises the variance between the classes over 256 bins (Otsu, "A threshold selection method from gray-level
    histograms", 1979). Values above the threshold are the bright class.
    """
    if not low < high:
        return high
    edges = np.linspace(low, high, _BINS + 1)
    counts = np.zeros(_BINS)
    for values, times in chunks():
        counts += np.histogram(values, edges, weights=times)[0]
    centres = (edges[:-1] + edges[1:]) / 2
    dark, bright = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mean_dark = np.cumsum(counts * centres) / np.maximum(dark, 1)
    mean_bright = np.cumsum((counts * centres)[::-1])[::-1] / np.maximum(bright, 1)
    between = dark[:-1] * bright[1:] * (mean_dark[:-1] - mean_bright[1:]) ** 2
    return float(edges[1 + int(np.argmax(between))])
