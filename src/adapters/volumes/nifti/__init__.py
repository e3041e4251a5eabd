"""NIfTI volumes on disk: NIfTI-1 and -2, single files and .hdr/.img pairs, compressed or not."""

from .image import volume_of_image
from .store import NiftiStore

__all__ = ["NiftiStore", "volume_of_image"]
