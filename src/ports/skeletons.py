"""Port for centre lines of masks."""

from __future__ import annotations

from typing import Protocol

from ..domain.labels.comparison import Mask


class Skeletoniser(Protocol):
    """Finds centre lines. Safe for several threads."""

    def skeleton(self, mask: Mask) -> Mask:
        """Return the voxels of the centre lines of a mask ``(x, y, z)``: part of it, and something of each component.

        Raises:
            NotInstalledError: a package is missing.
        """
