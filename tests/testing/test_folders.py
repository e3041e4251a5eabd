"""Temporary folders keep the contract, and count how often they were cleared."""

from __future__ import annotations

from pathlib import Path

from voxport.ports.folders import WorkFolders
from voxport.testing.folders import TemporaryFolders, WorkFoldersContract


class TestTemporaryFolders(WorkFoldersContract):
    def make_folders(self, parent: Path) -> WorkFolders:
        return TemporaryFolders(parent)


def test_it_counts_how_often_it_was_cleared() -> None:
    folders = TemporaryFolders()
    folders.clear()
    folders.clear()
    assert folders.cleared == 2
