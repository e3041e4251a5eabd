"""Surfaces as binary glTF: marching cubes by scikit-image, thinning by fast-simplification, the rest by trimesh."""

from __future__ import annotations

import numpy as np
import trimesh
from fast_simplification import simplify
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes
from trimesh.smoothing import filter_taubin
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from ....domain.geometry.grid import FloatArray
from ....domain.labels.label_map import Label, Labels, LabelTable

# Taubin's two weights keep the volume, where plain averaging would thin vessels away; the rounds
# smooth the stairs of slices that are far apart.
_SMOOTHING = {"lamb": 0.5, "nu": 0.53, "iterations": 20}
# z up, as in RAS, to y up, as glTF has it
_UPRIGHT = np.array([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1.0]])
_Faces = NDArray[np.int64]


class GltfSurfaces:
    """SurfaceMaker that writes GLB."""

    def make(self, labels: Labels, affine: FloatArray, table: LabelTable, faces: int) -> bytes:
        """See SurfaceMaker.make."""
        known = {label.value: label for label in table.labels}
        boxes = ndimage.find_objects(labels.astype(np.int32, copy=False))
        raw = {
            value: _raw_surface(labels, value, box)
            for value, box in enumerate(boxes, 1)
            if box is not None and value in known
        }
        if not raw:
            return b""
        total = sum(len(triangles) for _, triangles in raw.values())
        scene = trimesh.Scene()
        for value, (points, triangles) in raw.items():
            kept = max(200, round(len(triangles) * faces / total)) if total > faces else len(triangles)
            mesh = _finished(points, triangles, kept, affine, known[value])
            scene.add_geometry(mesh, node_name=known[value].name, geom_name=known[value].name)
        scene.apply_transform(_UPRIGHT)
        content: bytes = scene.export(file_type="glb", include_normals=True)
        return content


def _raw_surface(labels: Labels, value: int, box: tuple[slice, slice, slice]) -> tuple[FloatArray, _Faces]:
    """The surface half way between a label's voxels and the others, in voxel indices; closed at the border."""
    inside = np.pad(labels[box] == value, 1).astype(np.float32)
    points, triangles, _, _ = marching_cubes(inside, 0.5, gradient_direction="ascent")  # type: ignore[no-untyped-call]
    return points + [s.start - 1 for s in box], triangles.astype(np.int64)


def _finished(points: FloatArray, triangles: _Faces, kept: int, affine: FloatArray, label: Label) -> trimesh.Trimesh:
    """A label's mesh in the world: smoothed, thinned out to about ``kept`` triangles, facing outwards."""
    world = points @ affine[:3, :3].T + affine[:3, 3]
    # marching_cubes faces outwards where the axes are right-handed
    if np.linalg.det(affine[:3, :3]) < 0:
        triangles = triangles[:, ::-1]
    mesh = trimesh.Trimesh(world, triangles, process=False)
    filter_taubin(mesh, **_SMOOTHING)
    if kept < len(triangles):
        thin, left = simplify(mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), target_count=kept, agg=5)
        mesh = trimesh.Trimesh(thin, left, process=False)
    material = PBRMaterial(name=label.name, baseColorFactor=[*label.rgb, 255], metallicFactor=0.0, roughnessFactor=0.6)
    mesh.visual = TextureVisuals(material=material)
    mesh.metadata["value"] = label.value
    return mesh
