"""LocalFiles keeps the ArtifactWriter contract."""

from __future__ import annotations

from pathlib import Path

import pytest
from voxport.adapters.artifacts.local import LocalFiles
from voxport.domain.errors import OutputError
from voxport.ports.artifacts import ArtifactWriter
from voxport.testing.artifacts import ArtifactWriterContract


class TestLocalFiles(ArtifactWriterContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_writer(self) -> ArtifactWriter:
        return LocalFiles()

    def reference(self, name: str) -> str:
        return str(self.folder / name)

    def bad_reference(self) -> str:
        return str(self.folder / "missing" / "result.bin")

    def peek(self, reference: str) -> bytes | None:
        path = Path(reference)
        return path.read_bytes() if path.exists() else None

    def leftovers(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if path.name != "result.bin"]


def test_a_folder_in_the_files_place_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="folder of that name"):
        LocalFiles().check(str(tmp_path / "taken"))
    with pytest.raises(OutputError):
        LocalFiles().write(str(tmp_path / "taken"), b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
