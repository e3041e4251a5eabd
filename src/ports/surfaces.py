"""Surfaces of labels, for looking at a mask in three dimensions."""

from __future__ import annotations

from typing import Protocol

from ..domain.geometry.grid import FloatArray
from ..domain.labels.label_map import Labels, LabelTable


class SurfaceMaker(Protocol):
    """Turns labels into a scene of surfaces."""

    def make(self, labels: Labels, affine: FloatArray, table: LabelTable, faces: int) -> bytes:
        """A binary glTF scene: one mesh for each label that occurs, smoothed a little and thinned out.

        Args:
            labels: ``(x, y, z)``.
            affine: ``(4, 4)``, from voxel index to world in RAS+.
            table: names and colours; a mesh is called by its label's name, and its extras hold ``value``.
            faces: about how many triangles all meshes may have together.

        Positions are world coordinates in the affine's unit. The scene's root turns them so that superior is up, as
        glTF has it. Surfaces are closed, and face outwards. Empty bytes where no label occurs.
        """
        ...
