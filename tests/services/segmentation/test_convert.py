"""A copy of a volume has the same grid, values and channel names; a stopped one leaves nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from voxport.adapters.artifacts.local import LocalFiles
from voxport.adapters.volumes.memory import MemorySource, MemoryStore
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.domain.errors import CancelledError, UsageError
from voxport.domain.geometry.grid import Box
from voxport.domain.reading import Reading
from voxport.domain.volume import Volume
from voxport.services.segmentation.convert import Conversion, convert
from voxport.testing.artifacts import MemoryArtifacts
from voxport.testing.progress import RecordingProgress

from tests.services.conftest import make_grid, noise


def in_memory(store: MemoryStore, reading: Reading | None = None) -> Conversion:
    progress, artifacts = RecordingProgress(), MemoryArtifacts()
    return convert("scan", "copy", reading or Reading(), progress, volumes=store, artifacts=artifacts)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("u1", "u1"), ("i1", "i1"), (">i2", "i2"), ("f2", "f4"), (">f8", "f8"), ("?", "u1")],
)
def test_grid_values_names_and_type_stay(given: str, kept: str) -> None:
    store, grid = MemoryStore(), make_grid(codes="LPS")
    volume = Volume((noise((2, *grid.shape)) * 100).astype(given), grid, ("dapi", "gfp"))
    store.put("scan", volume)
    done = in_memory(store)
    copy = store.get("copy")
    assert (copy.grid, copy.channel_names, copy.array.dtype) == (grid, ("dapi", "gfp"), np.dtype(kept))
    np.testing.assert_array_equal(copy.array, volume.array)
    assert (done.grid, done.channels, done.dtype) == (grid, 2, np.dtype(kept))


def test_what_the_user_states_is_what_is_copied() -> None:
    store, grid = MemoryStore(), make_grid(spacing=(1, 1, 1))
    store.put("scan", Volume(noise((2, *grid.shape)), grid, ("dapi", "gfp")))
    in_memory(store, Reading(spacing=(0.5, 0.5, 2.0), unit="um", channel="gfp"))
    copy = store.get("copy")
    assert (copy.grid.spacing, copy.grid.unit, copy.channel_names) == ((0.5, 0.5, 2.0), "um", ("gfp",))


class ChunkedStore(MemoryStore):
    """Keeps volumes in chunks of 5 planes along y, and counts how often each plane is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[int] = Counter()

    def open(self, reference: str, reading: Reading | None = None) -> MemorySource:  # noqa: ARG002
        reads = self.reads

        class Source(MemorySource):
            def __init__(self, volume: Volume) -> None:
                super().__init__(volume)
                self.slowest_axis, self.chunk = 1, (volume.grid.shape[0], 5, volume.grid.shape[2])

            def read(self, box: Box, channels: Any = None) -> NDArray[Any]:
                assert box.start[1] % 5 == 0
                reads.update(range(box.start[1], box.stop[1]))
                return super().read(box, channels)

        return Source(self.get(reference))


def test_slabs_are_whole_chunks_and_each_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxport.services.segmentation.convert.SLAB_VOXELS", 1)
    store, grid = ChunkedStore(), make_grid((4, 23, 3))
    store.put("scan", Volume(noise((1, *grid.shape)), grid))
    in_memory(store)
    assert store.reads == dict.fromkeys(range(23), 1)
    assert store.get("copy") == store.get("scan")


def on_disk(folder: Path, destination: str, progress: RecordingProgress) -> Conversion:
    volumes, reading = NiftiStore(), Reading()
    reference = str(folder / "scan.nii")
    return convert(reference, destination, reading, progress, volumes=volumes, artifacts=LocalFiles())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    grid, values = make_grid(), noise((12, 10, 9))
    folder = tmp_path / "Folder"
    folder.mkdir()
    with NiftiStore().create(str(folder / "scan.nii"), grid, values.dtype) as sink:
        sink.write(Box.whole(grid.shape), values)
        sink.commit()
    return folder


def test_a_stopped_conversion_leaves_nothing(folder: Path) -> None:
    with pytest.raises(CancelledError):
        on_disk(folder, str(folder / "copy.nii.gz"), RecordingProgress(cancel_after=1))
    assert [path.name for path in folder.iterdir()] == ["scan.nii"]


def test_a_volume_is_never_converted_onto_itself(folder: Path) -> None:
    (folder / "link.nii").symlink_to(folder / "scan.nii")
    before = (folder / "scan.nii").read_bytes()
    for name in ("scan.nii", "link.nii", "SCAN.nii"):
        with pytest.raises(UsageError, match="the place of the input"):
            on_disk(folder, str(folder / name), RecordingProgress())
    assert (folder / "scan.nii").read_bytes() == before
