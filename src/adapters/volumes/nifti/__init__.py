"""NIfTI volumes on disk: NIfTI-1 and -2, single files and .hdr/.img pairs, compressed or not."""

from .store import NiftiStore

__all__ = ["NiftiStore"]
