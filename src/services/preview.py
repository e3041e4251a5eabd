"""A picture of a mask on its volume: three anatomical planes through the labelled structure, bare and overlaid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..domain.geometry import shape3
from ..domain.intensity import percentiles
from ..domain.segmentation import LabelTable
from ..domain.slicing import (
    PLANES,
    Picture,
    PlaneView,
    overlay,
    side_by_side,
    side_marks,
    square_pixels,
    stacked,
    to_grey,
)
from ..domain.statistics import LabelStatistics
from ..ports.volume_store import VolumeSink
from .case import Case, ChannelSurvey, finite

_WINDOW_PERCENTILES = (0.5, 99.5)
_LONGEST_EDGE = 768


def preview_picture(
    case: Case,
    mask: VolumeSink,
    channel: ChannelSurvey,
    table: LabelTable,
    statistics: Sequence[LabelStatistics],
) -> Picture:
    """Axial, coronal and sagittal planes of the first channel through the largest label's centroid."""
    low, high = percentiles(channel.chunks, _WINDOW_PERCENTILES)
    if low == high:
        low, high = channel.low, channel.high
    largest = max(statistics, key=lambda label: label.voxels, default=None)
    centre = largest.centroid_voxel if largest is not None else None
    voxel = shape3(n // 2 for n in case.grid.shape) if centre is None else shape3(round(c) for c in centre)
    bare, overlaid = [], []
    for plane in PLANES:
        view = PlaneView.of(case.grid, plane)
        box = view.box(view.pixel_of(voxel)[2])
        grey = to_grey(view.display(finite(case.read_channel(0, box), 0.0)), low, high)
        labels = view.display(mask.read(box)[0])
        grey = square_pixels(grey, view.pixel_spacing, smooth=True)
        labels = square_pixels(labels, view.pixel_spacing, smooth=False)
        step = max(1, -(-max(grey.shape) // _LONGEST_EDGE))
        grey, labels = grey[::step, ::step], labels[::step, ::step]
        marks = side_marks(view, *grey.shape)
        bare.append(Picture(np.repeat(grey[..., np.newaxis], 3, axis=-1), marks))
        overlaid.append(Picture(overlay(grey, labels, table), marks))
    return stacked([side_by_side(bare), side_by_side(overlaid)])
