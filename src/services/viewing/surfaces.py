"""Surfaces of a mask's labels within a memory limit."""

from __future__ import annotations

import math

import numpy as np

from ...domain.labels.label_map import Labels, LabelTable
from ...ports.surfaces import SurfaceMaker
from ..segmentation.case import slabs
from .volume_viewer import LabelSource

_MOST_VOXELS = 2**25
_FACES = 300_000


def label_surfaces(mask: LabelSource, table: LabelTable, *, surfaces: SurfaceMaker) -> bytes:
    """Return a binary glTF scene of a mask's labels in world coordinates.

    A mask of more than 32 Mi voxels is reduced first, to the largest label of each cube, which keeps thin vessels.
    """
    step = max(1, math.ceil((mask.grid.voxel_count / _MOST_VOXELS) ** (1 / 3)))
    affine = mask.grid.affine.copy()  # from the indices of cubes to world coordinates of their centres
    affine[:3, :3] *= step
    affine[:3, 3] = mask.grid.world([(step - 1) / 2] * 3)
    return surfaces.make(_thinned(mask, step), affine, table, _FACES)


def _thinned(mask: LabelSource, step: int) -> Labels:
    shape = [-(-n // step) for n in mask.grid.shape]
    result = np.zeros(shape, mask.dtype)
    axis = mask.slowest_axis
    for box in slabs(mask.grid, axis):
        part = mask.read(box)[0]
        for a in range(3):
            first = box.start[a] % step
            starts = np.arange(-first, part.shape[a], step).clip(0)
            part = np.maximum.reduceat(part, starts, axis=a)
        at = tuple(slice(s // step, s // step + n) for s, n in zip(box.start, part.shape, strict=True))
        result[at] = np.maximum(result[at], part)
    return result
