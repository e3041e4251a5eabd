"""The routed store keeps the volume store's contract for each store behind it, and chooses by content, then name."""

from __future__ import annotations

import gzip
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from voxport.adapters.volumes.memory import MemoryStore
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.adapters.volumes.routed import RoutedStore, format_of
from voxport.domain.errors import InputError, OutputError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.volume import Volume
from voxport.domain.volume_names import VolumeFormat, VolumeNames
from voxport.ports.volume_store import VolumeStore
from voxport.testing.bad_files import nifti1_header
from voxport.testing.volume_store import VolumeStoreContract

from .test_nifti_store import TestCompressedFiles as _CompressedFiles

MEMORY = VolumeNames((VolumeFormat("memory", (".memory",), writable=(".memory",)),))


class TestRoutedToFiles(_CompressedFiles):
    def make_store(self) -> VolumeStore:
        return RoutedStore(super().make_store(), MemoryStore(MEMORY))


class TestRoutedToMemory(VolumeStoreContract):
    keeps_channel_names = True
    keeps_labels = True

    def make_store(self) -> VolumeStore:
        self.numbers, self.memory = count(), MemoryStore(MEMORY)
        return RoutedStore(NiftiStore(self.folder), self.memory)

    def new_reference(self) -> str:
        return f"volume {next(self.numbers)}.memory"

    def place(self, volume: Volume) -> str:
        reference = self.new_reference()
        self.memory.put(reference, volume)
        return reference

    def peek(self, reference: str) -> Volume | None:
        try:
            return self.memory.get(reference)
        except InputError:
            return None

    def occupied(self) -> set[str]:
        return set(self.memory._volumes)


@pytest.fixture
def store(tmp_path: Path) -> RoutedStore:
    return RoutedStore(NiftiStore(tmp_path), MemoryStore(MEMORY))


@pytest.mark.parametrize("name", ["scan.memory", "scan.txt", "scan", "scan.nii", "scan.NII.GZ"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_content_chooses_the_store_whatever_the_name(
    store: RoutedStore, tmp_path: Path, name: str, pack: type[bytes]
) -> None:
    (tmp_path / name).write_bytes(pack(nifti1_header() + bytes(range(120))))
    with store.open(str(tmp_path / name)) as source:
        assert source.read(Box.whole((4, 5, 6))).max() == 119


def test_a_name_chooses_where_the_content_does_not(store: RoutedStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="put it first"):
        store.open("nothing.memory")
    (tmp_path / "cut.nii").write_bytes(nifti1_header()[:200])
    with pytest.raises(InputError, match="cut short after 200 bytes"):
        store.open(str(tmp_path / "cut.nii"))


def test_a_name_without_a_known_ending_cannot_be_written(store: RoutedStore, tmp_path: Path) -> None:
    grid = Grid((2, 2, 2), np.eye(4))
    for name, got in (("mask.png", "got .png"), ("mask", "got no suffix"), (".nii.gz.part", "got .part")):
        with pytest.raises(OutputError) as refused:
            store.create(str(tmp_path / name), grid, np.dtype(np.uint8))
        assert "expected a name in .nii, .nii.gz, .hdr, .img or .memory" in str(refused.value)
        assert got in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_mask_like_a_volume_of_one_store_is_written_to_another(store: RoutedStore, tmp_path: Path) -> None:
    (tmp_path / "scan.nii").write_bytes(nifti1_header() + bytes(120))
    with (
        store.open(str(tmp_path / "scan.nii")) as scan,
        store.create("mask.memory", scan.grid, np.dtype(np.uint8), like=scan) as sink,
    ):
        sink.commit()
    with store.open("mask.memory") as mask, store.open(str(tmp_path / "scan.nii")) as scan:
        assert mask.grid == scan.grid


def test_both_files_of_a_pair_are_places_of_either_in_any_case_of_letters(store: RoutedStore, tmp_path: Path) -> None:
    (tmp_path / "link.img").symlink_to(tmp_path / "T1.IMG")
    for ours, others in (
        ("T1.IMG", ["T1.hdr", "T1.HDR", "T1.img", "link.img"]),
        ("T1.hdr.gz", ["T1.img.gz", "T1.IMG.GZ"]),
        ("a.nii", ["./a.nii", "none/../a.nii"]),
    ):
        for other in others:
            assert {*store.places(f"{tmp_path}/{ours}")} & {*store.places(f"{tmp_path}/{other}")}, (ours, other)
    assert not {*store.places("a.nii")} & {*store.places("a.nii.gz")}


def test_the_format_is_the_contents_then_the_names(tmp_path: Path) -> None:
    memory = MemoryStore(MEMORY)
    memory.put("scan.nii", Volume(np.zeros((2, 3, 4), np.uint8), Grid((2, 3, 4), np.eye(4))))
    store = RoutedStore(NiftiStore(tmp_path), memory)
    (tmp_path / "volume").write_bytes(nifti1_header() + bytes(120))
    assert format_of(store, str(tmp_path / "volume")) == "NIfTI"
    assert format_of(store, "scan.nii") == "memory"
    assert format_of(store, "absent.nii.gz") == "NIfTI"
    assert format_of(store, "absent.memory") == "memory"
    assert format_of(store, "absent") == ""
    assert format_of(memory, "absent.memory") == "memory"
