"""Port for paths of centre lines."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..domain.labels.comparison import Mask


class LineTracer(Protocol):
    """Follows centre lines. Safe for several threads."""

    def trace(self, line: Mask) -> tuple[NDArray[np.int64], ...]:
        """Return the paths of a centre line ``(x, y, z)`` that is one voxel thick, each as voxels ``(n, 3)``.

        Successive voxels touch. A path goes from an end or a branch point to the next; paths that meet share a voxel.
        A closed line without branch points begins and ends in one voxel, and a voxel alone is a path of one.

        Raises:
            NotInstalledError: a package is missing.
        """
