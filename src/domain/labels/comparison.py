"""How much of a label in one mask agrees with another mask: overlap, surfaces, centre lines, components.

Distances are in the unit of the spacing. The surface of a label is its voxels with a neighbour across a face outside
it, also where that lies outside the volume. What is undefined, as a distance to a label that is not there, is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from .label_map import Labels

Mask = NDArray[np.bool_]
Distances = NDArray[np.float64]
_FAR_PERCENT = 95.0
_TOUCHING = np.ones((3, 3, 3), bool)  # voxels that share a face, an edge or a corner are connected


@dataclass(frozen=True)
class LabelAgreement:
    """Agreement of one label in a mask with the truth.

    Args:
        value, name: of the label.
        voxels, true_voxels: of it in the mask and in the truth.
        dice: 2|A and B| / (|A| + |B|); 1 where both are empty.
        iou: |A and B| / |A or B|; 1 where both are empty.
        cl_dice: harmonic mean of the shares of each centre line that lie in the other mask; None without a
            skeletoniser.
        surface_dice: share of both surfaces within the tolerance of the other.
        hausdorff_95: 95th percentile of the distances from one surface to the other, the greater of both directions.
        surface_distance: mean distance from a voxel of either surface to the other surface.
        volume_difference: volume in the mask less that in the truth, in the cubed unit.
        component_precision: share of the mask's components that touch the truth.
        component_recall: share of the true components that the mask touches.
    """

    value: int
    name: str
    voxels: int
    true_voxels: int
    dice: float
    iou: float
    cl_dice: float | None
    surface_dice: float | None
    hausdorff_95: float | None
    surface_distance: float | None
    volume_difference: float
    component_precision: float | None
    component_recall: float | None


MEASURES = tuple(field.name for field in fields(LabelAgreement))[4:]
"""Names of the measures of a `LabelAgreement`, in their order."""


def agreement(
    mask: Labels,
    truth: Labels,
    spacing: Sequence[float],
    value: int,
    name: str,
    *,
    tolerance: float,
    skeletonise: Callable[[Mask], Mask] | None = None,
) -> LabelAgreement:
    """Compare one label of two label maps ``(x, y, z)`` of one shape; see `LabelAgreement`.

    ``tolerance`` is that of ``surface_dice``, and ``skeletonise`` finds centre lines.
    """
    from scipy import ndimage  # takes 0.25 s, and most commands compare nothing

    found, true = mask == value, truth == value
    counts = int(found.sum()), int(true.sum())
    parts = ndimage.find_objects((found | true).astype(np.uint8))
    if not parts:
        return LabelAgreement(value, name, 0, 0, 1.0, 1.0, None, None, None, None, 0.0, None, None)
    found, true = found[parts[0]], true[parts[0]]  # the least box with both: the rest takes no part
    both = int((found & true).sum())
    near, far, mean = _of_surfaces(found, true, spacing, tolerance)
    return LabelAgreement(
        value,
        name,
        *counts,
        dice=2 * both / sum(counts),
        iou=both / (sum(counts) - both),
        cl_dice=None if skeletonise is None else _of_centre_lines(found, true, skeletonise),
        surface_dice=near,
        hausdorff_95=far,
        surface_distance=mean,
        volume_difference=(counts[0] - counts[1]) * math.prod(spacing),
        component_precision=_share_touched(found, true),
        component_recall=_share_touched(true, found),
    )


def _of_surfaces(
    found: Mask, true: Mask, spacing: Sequence[float], tolerance: float
) -> tuple[float, float | None, float | None]:
    """The share of surfaces within the tolerance, the far distance and the mean one."""
    if not found.any() or not true.any():
        return 0.0, None, None
    from scipy import ndimage

    surfaces = [inside & ~ndimage.binary_erosion(inside) for inside in (found, true)]
    there = _distances(surfaces[0], surfaces[1], spacing)
    back = _distances(surfaces[1], surfaces[0], spacing)
    both = np.concatenate([there, back])
    far = max(float(np.percentile(one, _FAR_PERCENT)) for one in (there, back))
    return float((both <= tolerance).mean()), far, float(both.mean())


def _distances(one: Mask, other: Mask, spacing: Sequence[float]) -> Distances:
    """The distance of each voxel of one surface to the nearest of the other."""
    from scipy import ndimage

    distances: Distances = ndimage.distance_transform_edt(~other, sampling=tuple(spacing))[one]
    return distances


def _of_centre_lines(found: Mask, true: Mask, skeletonise: Callable[[Mask], Mask]) -> float:
    """Centre line Dice (Shit et al., 2021)."""
    line, true_line = skeletonise(found), skeletonise(true)
    if not line.any() or not true_line.any():
        return 0.0
    precision, recall = float(true[line].mean()), float(found[true_line].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _share_touched(components_of: Mask, other: Mask) -> float | None:
    """The share of the components of one mask that have a voxel in the other."""
    from scipy import ndimage

    numbers, count = ndimage.label(components_of, _TOUCHING)
    return None if count == 0 else (len(np.unique(numbers[other & components_of]))) / count
