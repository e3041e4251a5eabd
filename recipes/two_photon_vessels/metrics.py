"""Agreement of two binary masks, and the classical baselines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt
from skimage.filters import frangi, threshold_otsu
from skimage.morphology import skeletonize

Mask = NDArray[np.bool_]


def dice(mask: Mask, truth: Mask) -> float:
    """2|A∩B| / (|A|+|B|); 1 when both are empty."""
    total = int(mask.sum()) + int(truth.sum())
    return 2.0 * int((mask & truth).sum()) / total if total else 1.0


def cl_dice(mask: Mask, truth: Mask) -> float:
    """Centreline Dice (Shit et al. 2021): harmonic mean of the shares of each skeleton inside the other mask."""
    skeleton, true_skeleton = _skeleton(mask), _skeleton(truth)
    if not skeleton.any() or not true_skeleton.any():
        return float(not mask.any() and not truth.any())
    precision, recall = float(truth[skeleton].mean()), float(mask[true_skeleton].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _skeleton(mask: Mask) -> Mask:
    return np.asarray(skeletonize(mask) > 0)  # type: ignore[no-untyped-call]


def surface_dice(mask: Mask, truth: Mask, tolerance_voxels: float = 1.0) -> float:
    """Share of both surfaces within `tolerance_voxels` of the other (Nikolov et al. 2018), in voxels."""
    surface, true_surface = mask & ~binary_erosion(mask), truth & ~binary_erosion(truth)
    total = int(surface.sum()) + int(true_surface.sum())
    if not surface.any() or not true_surface.any():
        return float(total == 0)
    near = distance_transform_edt(~true_surface)[surface] <= tolerance_voxels
    true_near = distance_transform_edt(~surface)[true_surface] <= tolerance_voxels
    return float((near.sum() + true_near.sum()) / total)


def otsu_mask(image: NDArray[np.float32]) -> Mask:
    """Voxels above Otsu's threshold of the whole volume."""
    return np.asarray(image > threshold_otsu(image), dtype=np.bool_)  # type: ignore[no-untyped-call]


def frangi_mask(image: NDArray[np.float32]) -> Mask:
    """Otsu's threshold of slice-wise Frangi vesselness at scales of 1 to 12 voxels; slice-wise because z is coarse."""
    stretched = image / max(float(np.quantile(image, 0.995)), 1e-6)
    scales = (1, 2, 4, 8, 12)
    vesselness = np.stack(
        [
            frangi(plane, sigmas=scales, black_ridges=False)  # type: ignore[no-untyped-call]
            for plane in np.moveaxis(stretched, -1, 0)
        ],
        axis=-1,
    )
    vesselness = np.minimum(vesselness, np.quantile(vesselness, 0.99))
    return np.asarray(vesselness > threshold_otsu(vesselness), dtype=np.bool_)  # type: ignore[no-untyped-call]
