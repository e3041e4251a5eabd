"""Volumes that callers keep between requests: their own, a few, and for a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from voxport.domain.errors import InputError
from voxport.services.jobs.kept_volumes import KeptVolumes
from voxport.testing.blobs import MemoryBlobs


@dataclass
class Kept:
    """Kept volumes with a clock that the test sets."""

    folder: Path
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    now: float = 1000.0

    @property
    def volumes(self) -> KeptVolumes:
        return KeptVolumes(self.blobs, lambda: self.now)

    def keep(self, owner: str, id: str, *contents: str, seconds: float = 60.0) -> None:
        files = []
        for number, content in enumerate(contents, 1):
            path = self.folder / f"volume_{number}.nii"
            path.write_text(content, encoding="utf-8")
            files.append((path, "0" * 64))
        self.volumes.keep(owner, id, files, seconds)

    def read(self, owner: str, id: str) -> list[str]:
        folder = self.folder / f"linked-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        return [path.read_text(encoding="utf-8") for path in self.volumes.link(owner, id, folder)]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_a_volume_of_one_or_several_files_is_kept_under_any_id(kept: Kept) -> None:
    kept.keep("ada", "../../etc/passwd", "one")
    kept.keep("ada", "series", "one", "two")
    assert kept.read("ada", "../../etc/passwd") == ["one"]
    assert kept.read("ada", "series") == ["one", "two"]
    assert kept.volumes.seconds_left("ada", "series") == 60.0


def test_an_owner_sees_and_deletes_only_what_is_theirs(kept: Kept) -> None:
    kept.keep("ada", "scan", "hers")
    with pytest.raises(InputError, match="upload it again"):
        kept.read("bob", "scan")
    with pytest.raises(InputError):
        kept.volumes.forget("bob", "scan")
    kept.keep("bob", "scan", "his")
    kept.volumes.forget("bob", "scan")
    assert kept.read("ada", "scan") == ["hers"]


def test_an_id_that_is_kept_again_has_the_later_volume_alone(kept: Kept) -> None:
    for content in ("first", "second", "third"):
        kept.keep("ada", "scan", content)
    assert kept.read("ada", "scan") == ["third"]
    assert len(kept.blobs.names("kept")) == 1


def test_a_volume_is_gone_when_its_time_is_over(kept: Kept) -> None:
    kept.keep("ada", "short", "a", seconds=10)
    kept.keep("ada", "long", "b", seconds=100)
    kept.now += 11
    with pytest.raises(InputError):
        kept.read("ada", "short")
    assert kept.volumes.sweep() == 1
    assert kept.read("ada", "long") == ["b"]
    assert len(kept.blobs.names("kept")) == 1


def test_the_oldest_of_seventeen_goes(kept: Kept) -> None:
    for number in range(17):
        kept.keep("ada", f"{number}", f"{number}", seconds=100 + number)
    kept.keep("bob", "scan", "his")
    with pytest.raises(InputError):
        kept.read("ada", "0")
    assert [kept.read("ada", f"{number}") for number in range(1, 17)] == [[f"{number}"] for number in range(1, 17)]
    assert kept.read("bob", "scan") == ["his"]
