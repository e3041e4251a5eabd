"""GltfSurfaces keeps the SurfaceMaker contract."""

from __future__ import annotations

from voxport.adapters.gltf_surfaces import GltfSurfaces
from voxport.ports.surfaces import SurfaceMaker
from voxport.testing.surfaces import SurfaceMakerContract


class TestGltfSurfaces(SurfaceMakerContract):
    def make_maker(self) -> SurfaceMaker:
        return GltfSurfaces()
