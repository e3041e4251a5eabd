"""Volumes that several processes write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from voxport.adapters.volumes.ome_zarr import OmeZarrStore
from voxport.adapters.volumes.ome_zarr.blocks import OmeZarrBlocks
from voxport.domain.geometry.grid import Grid
from voxport.ports.block_volumes import BlockVolumes
from voxport.ports.volume_store import VolumeStore
from voxport.testing.block_volumes import BlockVolumesContract


class TestOmeZarr(BlockVolumesContract):
    def make_volumes(self) -> BlockVolumes:
        return OmeZarrBlocks(OmeZarrStore())

    def make_store(self) -> VolumeStore:
        return OmeZarrStore()

    def reference(self, folder: Path, stem: str) -> str:
        return str(folder / f"{stem}.ome.zarr")

    def bytes_of(self, reference: str) -> dict[str, bytes]:
        root = Path(reference)
        files = {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        about = json.loads(files.pop("zarr.json"))
        del about["attributes"]["ome"]["multiscales"][0]["name"]
        return {**files, "zarr.json": json.dumps(about).encode()}

    def test_an_archive_and_a_label_image_are_written_as_a_whole(self, tmp_path: Path) -> None:
        volumes = self.make_volumes()
        assert not volumes.publishes(str(tmp_path / "mask.ome.zarr.zip"))
        grid = Grid((4, 4, 4), np.eye(4))
        with OmeZarrStore().create(str(tmp_path / "image.zarr"), grid, np.dtype(np.uint8)) as sink:
            sink.commit()
        assert not volumes.publishes(str(tmp_path / "image.zarr" / "labels" / "mask"))
