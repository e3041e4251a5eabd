"""The fake keeps the contract of the port that it stands in for."""

from __future__ import annotations

from voxport.ports.blobs import BlobStore
from voxport.testing.blobs import BlobStoreContract, MemoryBlobs


class TestMemoryBlobs(BlobStoreContract):
    def make_store(self) -> BlobStore:
        return MemoryBlobs()

    def leftovers(self) -> list[str]:
        return []
