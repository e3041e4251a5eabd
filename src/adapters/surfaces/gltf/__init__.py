"""Surface meshes as binary glTF, with scikit-image, fast-simplification and trimesh."""

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
from ....ports.surfaces import SurfaceMaker

# Taubin smoothing keeps the volume; plain averaging would shrink vessels. 20 iterations smooth the steps of thick
# slices.
_SMOOTHING = {"lamb": 0.5, "nu": 0.53, "iterations": 20}
# From z up (RAS) to y up (glTF).
_UPRIGHT = np.array([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1.0]])
_Faces = NDArray[np.int64]


class GltfSurfaces(SurfaceMaker):
    """`SurfaceMaker` that writes GLB."""

    def make(self, labels: Labels, affine: FloatArray, table: LabelTable, faces: int) -> bytes:
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
    """Return points and triangles of a label's surface in voxel indices, closed at the volume's border."""
    inside = np.pad(labels[box] == value, 1).astype(np.float32)
    points, triangles, _, _ = marching_cubes(inside, 0.5, gradient_direction="ascent")  # type: ignore[no-untyped-call]
    return points + [s.start - 1 for s in box], triangles.astype(np.int64)


def _finished(points: FloatArray, triangles: _Faces, kept: int, affine: FloatArray, label: Label) -> trimesh.Trimesh:
    """Return a label's mesh in world coordinates, smoothed and reduced to about ``kept`` triangles."""
    world = points @ affine[:3, :3].T + affine[:3, 3]
    # Faces of marching_cubes point outwards for right-handed axes only.
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
