"""The writer in memory keeps the contract."""

from __future__ import annotations

import pytest
from voxport.ports.artifacts import ArtifactWriter
from voxport.testing.artifacts import ArtifactWriterContract, MemoryArtifacts


class TestMemoryArtifacts(ArtifactWriterContract):
    @pytest.fixture(autouse=True)
    def _writer(self) -> None:
        self.writer = MemoryArtifacts(refused=["refused"])

    def make_writer(self) -> ArtifactWriter:
        return self.writer

    def reference(self, name: str) -> str:
        return name

    def bad_reference(self) -> str:
        return "refused"

    def peek(self, reference: str) -> bytes | None:
        return self.writer.contents.get(reference)

    def leftovers(self) -> list[str]:
        return [name for name in self.writer.contents if name != "result.bin"]
