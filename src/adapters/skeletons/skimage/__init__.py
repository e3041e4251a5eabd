"""Centre lines by scikit-image (Lee et al., 1994)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ....domain.labels.comparison import Mask
from ....ports.skeletons import Skeletoniser
from ...arrays import package

# as stored, then with another axis first
_ORDERS = ((0, 1, 2), (1, 0, 2), (0, 2, 1))


class SkimageSkeletoniser(Skeletoniser):
    """`Skeletoniser` that thins a mask from its surface.

    scikit-image (0.26) leaves nothing of some components of an even thickness, as tubes of 2 x 2 or 4 x 4, and of some
    that are oblique. Such a component is thinned in other orders of its axes. One that is lost in all of them loses its
    first layer along each axis along which something of it is left then.
    """

    def skeleton(self, mask: Mask) -> Mask:
        line, lost = _thinned(mask)
        if not lost.any():
            return line
        for axis in range(3):
            thinner = lost & ndimage.shift(lost, [int(axis == other) for other in range(3)], order=0)
            lost = thinner | _without(lost, thinner)
        more, lost = _thinned(lost)
        return line | more | lost


def _thinned(mask: Mask) -> tuple[Mask, Mask]:
    """Return the centre lines of a mask, and the components of which thinning leaves nothing."""
    skeletonise = package("skimage.morphology", "measure", "centre lines").skeletonize
    line: Mask = np.zeros(mask.shape, bool)
    lost = mask
    for order in _ORDERS:
        thin = np.asarray(skeletonise(np.ascontiguousarray(lost.transpose(order))) > 0)
        line |= thin.transpose(np.argsort(order))
        lost = _without(lost, line)
        if not lost.any():
            break
    return line, lost


def _without(mask: Mask, part: Mask) -> Mask:
    """Return the components of a mask that have no voxel of a part of it."""
    components, count = ndimage.label(mask, np.ones((3, 3, 3), bool))
    touched = np.zeros(count + 1, bool)
    touched[0] = True
    touched[components[part & mask]] = True
    left: Mask = ~touched[components]
    return left
