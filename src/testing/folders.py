"""Contract suite of `WorkFolders`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..domain.errors import OutputError
from ..ports.folders import WorkFolders


class WorkFoldersContract:
    """Subclass and implement the hook."""

    def make_folders(self, parent: Path) -> WorkFolders:
        """Return an adapter that creates folders below ``parent``."""
        raise NotImplementedError

    def test_a_folder_is_new_empty_and_gone_afterwards(self, tmp_path: Path) -> None:
        folders = self.make_folders(tmp_path)
        with folders.new() as one, folders.new() as other:
            assert one != other
            (one / "sub").mkdir()
            (one / "sub" / "file").touch()
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_goes_where_its_block_fails(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="failed"), self.make_folders(tmp_path).new():
            raise RuntimeError("failed")
        assert list(tmp_path.iterdir()) == []

    def test_only_this_user_can_read_it(self, tmp_path: Path) -> None:
        with self.make_folders(tmp_path).new() as folder:
            assert folder.stat().st_mode & 0o077 == 0

    def test_clearing_spares_folders_in_use_and_what_else_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "voxport-run-of-somebody").mkdir()
        folders = self.make_folders(tmp_path)
        with folders.new() as folder:
            assert self.make_folders(tmp_path).clear() == 0
            assert folder.is_dir()
        assert (tmp_path / "voxport-run-of-somebody").is_dir()

    def test_a_parent_that_is_missing_is_an_output_error(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="scratch folder"), self.make_folders(tmp_path / "missing").new():
            pass
        assert self.make_folders(tmp_path / "missing").clear() == 0
