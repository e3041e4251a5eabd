"""A picture of a mask on its volume: three anatomical planes through the labelled structure, bare and overlaid."""

from __future__ import annotations

from collections.abc import Sequence

from ..domain.display import WINDOW_PERCENTILES, Display, plane_pixels
from ..domain.geometry import shape3
from ..domain.intensity import percentiles
from ..domain.segmentation import LabelTable
from ..domain.slicing import PLANES, Picture, PlaneView, side_by_side, side_marks, stacked
from ..domain.statistics import LabelStatistics
from ..ports.volume_store import VolumeSink
from .case import Case, ChannelSurvey, finite

_LONGEST_EDGE = 768


def preview_picture(
    case: Case,
    mask: VolumeSink,
    channel: ChannelSurvey,
    table: LabelTable,
    statistics: Sequence[LabelStatistics],
) -> Picture:
    """Axial, coronal and sagittal planes of the first channel through the largest label's centroid."""
    low, high = percentiles(channel.chunks, WINDOW_PERCENTILES)
    if low == high:
        low, high = channel.low, channel.high
    largest = max(statistics, key=lambda label: label.voxels, default=None)
    centre = largest.centroid_voxel if largest is not None else None
    voxel = shape3(n // 2 for n in case.grid.shape) if centre is None else shape3(round(c) for c in centre)
    bare: list[Picture] = []
    overlaid: list[Picture] = []
    for plane in PLANES:
        view = PlaneView.of(case.grid, plane)
        box = view.box(view.pixel_of(voxel)[2])
        values = view.display(finite(case.read_channel(0, box), 0.0))
        labels = view.display(mask.read(box)[0])
        for pictures, shown in ((bare, None), (overlaid, labels)):
            pixels = plane_pixels(view, values, shown, Display(low, high, table), _LONGEST_EDGE)
            pictures.append(Picture(pixels, side_marks(view, *pixels.shape[:2])))
    return stacked([side_by_side(bare), side_by_side(overlaid)])
