"""Contract suite of `SurfaceMaker`."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from ..domain.geometry.grid import FloatArray
from ..domain.labels.label_map import Label, LabelTable
from ..ports.surfaces import SurfaceMaker

_TABLE = LabelTable((Label(1, "ball", "#e4572e"), Label(3, "bar", "#56b4e9"), Label(7, "absent", "#009e73")))
_MANY = 10**6


@dataclass(frozen=True)
class Mesh:
    """One mesh of a scene: label value and name, points ``(N, 3)`` in world coordinates, triangles ``(M, 3)``."""

    value: int
    name: str
    points: NDArray[np.float64]
    triangles: NDArray[np.int64]

    @property
    def volume(self) -> float:
        """Enclosed volume; negative if faces point inwards."""
        a, b, c = (self.points[self.triangles[:, i]] for i in range(3))
        return float((a * np.cross(b, c)).sum() / 6)

    @property
    def is_closed(self) -> bool:
        """Whether each edge has two triangles."""
        edges = np.concatenate([self.triangles[:, pair] for pair in ((0, 1), (1, 2), (2, 0))])
        return {tuple(e) for e in edges.tolist()} == {tuple(e[::-1]) for e in edges.tolist()}


class SurfaceMakerContract:
    """Subclass and implement the hook."""

    def make_maker(self) -> SurfaceMaker:
        """Return a surface maker."""
        raise NotImplementedError

    def meshes(self, affine: FloatArray, faces: int = _MANY) -> list[Mesh]:
        """Return the meshes of a ball and a bar."""
        return read_scene(self.make_maker().make(_labels(), affine, _TABLE, faces))

    @pytest.mark.parametrize("diagonal", [(1, 1, 1), (-1, 1, 1), (0.5, -2, 3), (-1, -1, -4)])
    def test_surfaces_lie_in_the_world_and_face_outwards(self, diagonal: tuple[float, float, float]) -> None:
        affine = np.diag([*diagonal, 1.0])
        affine[:3, 3] = (100, -20, 7)
        ball, bar = self.meshes(affine)
        voxel = abs(float(np.prod(diagonal)))
        for mesh, value in ((ball, 1), (bar, 3)):
            assert mesh.volume == pytest.approx(np.count_nonzero(_labels() == value) * voxel, rel=0.05)
        centre = (ball.points.min(axis=0) + ball.points.max(axis=0)) / 2
        np.testing.assert_allclose(
            centre, affine[:3, :3] @ (14, 15, 12) + affine[:3, 3], atol=0.5 * max(map(abs, diagonal))
        )

    def test_surfaces_are_closed_also_at_the_border(self) -> None:
        assert all(mesh.is_closed for mesh in self.meshes(np.eye(4)))

    def test_each_label_that_occurs_has_its_mesh(self) -> None:
        assert [(mesh.value, mesh.name) for mesh in self.meshes(np.eye(4))] == [(1, "ball"), (3, "bar")]

    def test_triangles_are_kept_to_about_the_number_asked_for(self) -> None:
        whole, few = self.meshes(np.eye(4)), self.meshes(np.eye(4), faces=800)
        assert sum(len(mesh.triangles) for mesh in few) <= 1000 < sum(len(mesh.triangles) for mesh in whole)
        for mesh, thin in zip(whole, few, strict=True):
            assert thin.volume == pytest.approx(mesh.volume, rel=0.05)

    def test_without_a_label_there_is_nothing(self) -> None:
        assert self.make_maker().make(np.zeros((4, 4, 4), np.uint8), np.eye(4), _TABLE, _MANY) == b""


def _labels() -> NDArray[np.uint8]:
    x, y, z = np.ogrid[:40, :36, :30]
    labels = np.zeros((40, 36, 30), np.uint8)
    labels[(x - 14) ** 2 + (y - 15) ** 2 + (z - 12) ** 2 <= 81] = 1
    labels[30:36, :, 20:26] = 3
    return labels


def read_scene(content: bytes) -> list[Mesh]:
    """Return the meshes of a binary glTF 2.0 scene with one node a mesh; asserts that superior is up."""
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size = struct.unpack("<I", content[12:16])[0]
    scene, data = json.loads(content[20 : 20 + size]), content[28 + size :]

    def array(index: int, width: int) -> NDArray[np.float64]:
        accessor = scene["accessors"][index]
        kind = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}[accessor["componentType"]]
        start = scene["bufferViews"][accessor["bufferView"]].get("byteOffset", 0) + accessor.get("byteOffset", 0)
        return np.frombuffer(data, kind, accessor["count"] * width, start).reshape(-1, width).astype(np.float64)

    found = []
    for node in scene["nodes"]:
        if "mesh" not in node:
            continue
        mesh = scene["meshes"][node["mesh"]]
        (part,) = mesh["primitives"]
        points = array(part["attributes"]["POSITION"], 3)
        turned = np.reshape(node["matrix"], (4, 4)).T[:3, :3]
        np.testing.assert_allclose(turned @ (0, 0, 1), (0, 1, 0), atol=1e-9)
        triangles = array(part["indices"], 1).reshape(-1, 3).astype(np.int64)
        found.append(Mesh(mesh["extras"]["value"], mesh["name"], points, triangles))
    return found
