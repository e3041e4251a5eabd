"""scikit-image's skeletons by the contract."""

from __future__ import annotations

from voxport.adapters.skeletons.skimage import SkimageSkeletoniser
from voxport.ports.skeletons import Skeletoniser
from voxport.testing.skeletons import SkeletoniserContract


class TestSkimageSkeletoniser(SkeletoniserContract):
    def make_skeletoniser(self) -> Skeletoniser:
        return SkimageSkeletoniser()
