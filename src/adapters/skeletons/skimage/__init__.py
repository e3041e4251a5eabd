"""Centre lines by scikit-image (Lee et al., 1994)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ....domain.labels.comparison import Mask
from ....ports.skeletons import Skeletoniser
from ...arrays import package


class SkimageSkeletoniser(Skeletoniser):
    """`Skeletoniser` that thins a mask from its surface.

    scikit-image (0.26) leaves nothing of some components of an even thickness, as tubes of 2 x 2 or 4 x 4. Such a
    component loses its first layer along each axis along which something of it is left then.
    """

    def skeleton(self, mask: Mask) -> Mask:
        skeletonise = package("skimage.morphology", "measure", "centre lines").skeletonize
        line: Mask = np.asarray(skeletonise(mask) > 0)
        lost = _without(mask, line)
        if not lost.any():
            return line
        for axis in range(3):
            thinner = lost & ndimage.shift(lost, [int(axis == other) for other in range(3)], order=0)
            lost = thinner | _without(lost, thinner)
        line |= np.asarray(skeletonise(lost) > 0)
        return line | _without(lost, line)


def _without(mask: Mask, part: Mask) -> Mask:
    """Return the components of a mask that have no voxel of a part of it."""
    components, count = ndimage.label(mask, np.ones((3, 3, 3), bool))
    touched = np.zeros(count + 1, bool)
    touched[0] = True
    touched[components[part & mask]] = True
    left: Mask = ~touched[components]
    return left
