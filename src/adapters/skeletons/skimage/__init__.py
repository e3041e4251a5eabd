"""Centre lines by scikit-image (Lee et al., 1994)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ....ports.skeletons import Mask, Skeletoniser
from ...arrays import package


class SkimageSkeletoniser(Skeletoniser):
    """`Skeletoniser` that thins a mask from its surface.

    scikit-image (0.26) leaves nothing of a tube that is two voxels thick each way. Such a component is kept whole.
    """

    def skeleton(self, mask: Mask) -> Mask:
        line: Mask = np.asarray(package("skimage.morphology", "measure", "centre lines").skeletonize(mask) > 0)
        components, count = ndimage.label(mask, np.ones((3, 3, 3), bool))
        lost = np.ones(count + 1, bool)
        lost[0] = False
        lost[components[line]] = False
        line[lost[components]] = True
        return line
