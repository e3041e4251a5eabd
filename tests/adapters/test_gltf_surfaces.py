"""GltfSurfaces keeps the SurfaceMaker contract."""

from __future__ import annotations

from voxport.adapters.surfaces.gltf import GltfSurfaces
from voxport.ports.surfaces import SurfaceMaker
from voxport.testing.surfaces import SurfaceMakerContract


class TestGltfSurfaces(SurfaceMakerContract):
    def make_maker(self) -> SurfaceMaker:
        return GltfSurfaces()
