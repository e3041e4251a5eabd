"""Port for surface meshes of labels."""

from __future__ import annotations

from typing import Protocol

from ..domain.geometry.grid import FloatArray
from ..domain.labels.label_map import Labels, LabelTable


class SurfaceMaker(Protocol):
    """Builds surface meshes from labels."""

    def make(self, labels: Labels, affine: FloatArray, table: LabelTable, faces: int) -> bytes:
        """Return a binary glTF scene with one smoothed, closed mesh a label; empty bytes without labels.

        ``labels`` are ``(x, y, z)``; ``affine`` ``(4, 4)`` maps voxel index to world in RAS+. All meshes have about
        ``faces`` triangles, which point outwards. A mesh has its label's name and colour, and ``value`` in its extras.
        Positions are world coordinates in the affine's unit; the scene's root rotates superior upwards, as glTF
        requires.
        """
