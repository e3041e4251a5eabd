"""Preview of a mask: three anatomical planes through the labelled structure, bare and overlaid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ...domain.geometry.grid import shape3
from ...domain.intensity import ChannelSurvey, percentiles
from ...domain.labels.label_map import Labels, LabelTable
from ...domain.labels.statistics import LabelStatistics
from ...domain.viewing.display import WINDOW_PERCENTILES, Display, plane_pixels
from ...domain.viewing.slicing import PLANES, Picture, PlaneView, side_by_side, side_marks, stacked
from ...ports.volume_store import VolumeSink
from ..segmentation.case import Case, finite

_LONGEST_EDGE = 768


def preview_picture(
    case: Case, mask: VolumeSink, window: tuple[float, float], table: LabelTable, statistics: Sequence[LabelStatistics]
) -> Picture:
    """Draw axial, coronal and sagittal planes of the first channel through the largest label's centroid."""
    largest = max(statistics, key=lambda label: label.voxels, default=None)
    centre = largest.centroid_voxel if largest is not None else None
    voxel = shape3(n // 2 for n in case.grid.shape) if centre is None else shape3(round(c) for c in centre)
    drawn = []
    for plane in PLANES:
        view = PlaneView.of(case.grid, plane)
        box = view.box(view.pixel_of(voxel)[2])
        drawn.append(slice_pictures(view, case.read_channel(0, box), mask.read(box)[0], window, table))
    return stacked([side_by_side(row) for row in zip(*drawn, strict=True)])


def display_window(channel: ChannelSurvey) -> tuple[float, float]:
    """Return the values shown black and white; a few extreme values lie outside."""
    low, high = percentiles(channel.chunks, WINDOW_PERCENTILES)
    return (channel.low, channel.high) if low == high else (low, high)


def slice_pictures(
    view: PlaneView, values: NDArray[Any], labels: Labels, window: tuple[float, float], table: LabelTable
) -> tuple[Picture, Picture]:
    """Draw a slice with square pixels, bare and with labels.

    ``values`` and ``labels`` are stored voxels ``(x, y, z)``, one of which is 1. ``window`` is shown black to white.
    """
    shown, display = view.display(finite(values, 0.0)), Display(*window, table)
    bare = plane_pixels(view, shown, None, display, _LONGEST_EDGE)
    overlaid = plane_pixels(view, shown, view.display(labels), display, _LONGEST_EDGE)
    marks = side_marks(view, *bare.shape[:2])
    return Picture(bare, marks), Picture(overlaid, marks)
