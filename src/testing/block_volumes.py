"""Contract suite of `BlockVolumes`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ..domain.errors import OutputError
from ..domain.geometry.grid import Box, Grid
from ..domain.labels.label_map import Label, LabelTable
from ..ports.block_volumes import BlockVolumes
from ..ports.volume_store import VolumeStore

_GRID = Grid((300, 170, 90), np.diag([0.5, 0.5, 2.0, 1.0]), "um")
_TABLE = LabelTable((Label(1, "vessel", "#ff0000"), Label(7, "wall", "#00ff00")))


class BlockVolumesContract:
    """Subclass and implement the hooks."""

    def make_volumes(self) -> BlockVolumes:
        """Return what is tested."""
        raise NotImplementedError

    def make_store(self) -> VolumeStore:
        """Return the store that writes and reads the same volumes as a whole."""
        raise NotImplementedError

    def reference(self, folder: Path, stem: str) -> str:
        """Return a name of a volume that is published without another copy."""
        raise NotImplementedError

    def bytes_of(self, reference: str) -> dict[str, bytes]:
        """Return the files of a volume by their path in it, without what depends on its name."""
        raise NotImplementedError

    @pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (2, np.float32)])
    def test_blocks_in_any_order_give_the_files_of_a_volume_written_at_once(
        self, tmp_path: Path, channels: int, dtype: Any
    ) -> None:
        volumes, store = self.make_volumes(), self.make_store()
        values = _values(channels, dtype)
        table, names = (_TABLE, ()) if channels == 1 else (None, ("a", "b"))
        more: dict[str, Any] = {"channels": channels, "channel_names": names, "labels": table}
        whole, blocks = self.reference(tmp_path, "whole"), self.reference(tmp_path, "blocks")
        with store.create(whole, _GRID, np.dtype(dtype), **more) as sink:
            sink.write(Box.whole(_GRID.shape), values)
            sink.commit()
        making = str(tmp_path / "making")
        volumes.begin(making, "mask", blocks, _GRID, np.dtype(dtype), **more)
        for box in reversed(_boxes(volumes.chunk)):
            with volumes.open(making, "mask", blocks, _GRID) as sink:  # as another process would
                sink.write(box, values[:, *box.slices])
                np.testing.assert_array_equal(sink.read(box), values[:, *box.slices])
        assert not Path(blocks).exists()
        with volumes.open(making, "mask", blocks, _GRID) as sink:
            found = sink.commit()
            assert sink.commit() == found
        assert self.bytes_of(blocks) == self.bytes_of(whole)
        with store.open(blocks) as source:
            assert source.sha256() == found
            assert source.grid == _GRID
            np.testing.assert_array_equal(source.read(Box.whole(_GRID.shape)), values)
        volumes.discard(making)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(Path(path).name for path in (whole, blocks))

    def test_a_volume_that_is_begun_again_is_empty(self, tmp_path: Path) -> None:
        volumes, reference = self.make_volumes(), self.reference(tmp_path, "mask")
        for _ in range(2):
            volumes.begin(str(tmp_path), "making", reference, _GRID, np.dtype(np.uint8))
            with volumes.open(str(tmp_path), "making", reference, _GRID) as sink:
                assert not sink.read(Box.whole(_GRID.shape)).any()
                sink.write(Box.whole(_GRID.shape), _values(1, np.uint8))

    def test_a_volume_that_was_not_begun_or_is_committed_is_refused(self, tmp_path: Path) -> None:
        volumes, reference = self.make_volumes(), self.reference(tmp_path, "mask")
        with pytest.raises(OutputError):
            volumes.open(str(tmp_path), "making", reference, _GRID)
        volumes.begin(str(tmp_path), "making", reference, _GRID, np.dtype(np.uint8))
        with volumes.open(str(tmp_path), "making", reference, _GRID) as sink:
            sink.commit()
            with pytest.raises(ValueError, match="committed"):
                sink.write(Box.whole(_GRID.shape), _values(1, np.uint8))
        with pytest.raises(OutputError):
            volumes.open(str(tmp_path), "making", reference, _GRID)

    def test_what_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        volumes, reference = self.make_volumes(), self.reference(tmp_path, "mask")
        volumes.begin(str(tmp_path), "making", reference, _GRID, np.dtype(np.uint8))
        with volumes.open(str(tmp_path), "making", reference, _GRID) as sink:
            beyond = Box((0, 0, 0), (301, 1, 1))
            with pytest.raises(ValueError, match="box"):
                sink.write(beyond, np.zeros(beyond.shape, np.uint8))
            with pytest.raises(ValueError, match="box"):
                sink.read(beyond)
            with pytest.raises(ValueError, match="values"):
                sink.write(Box((0, 0, 0), (2, 2, 2)), np.zeros((2, 2, 3), np.uint8))
            with pytest.raises(TypeError):
                sink.write(Box((0, 0, 0), (2, 2, 2)), np.zeros((2, 2, 2), np.float32))
        with pytest.raises(ValueError, match="closed"):
            sink.read(beyond)

    def test_only_its_own_names_are_published(self, tmp_path: Path) -> None:
        volumes = self.make_volumes()
        assert volumes.publishes(self.reference(tmp_path, "mask"))
        for name in ("mask.nii.gz", "mask", "http://host/mask.ome.zarr", "mask.tif"):
            assert not volumes.publishes(str(tmp_path / name) if "://" not in name else name)


def _values(channels: int, dtype: Any) -> NDArray[Any]:
    """Values with empty chunks among them."""
    values = np.random.default_rng(0).integers(0, 8, (channels, *_GRID.shape)).astype(dtype)
    values[:, :150] = 0
    return values


def _boxes(chunk: tuple[int, int, int]) -> list[Box]:
    starts = [range(0, edge, step) for edge, step in zip(_GRID.shape, chunk, strict=True)]
    return [
        Box((x, y, z), tuple(min(a + s, n) for a, s, n in zip((x, y, z), chunk, _GRID.shape, strict=True)))  # type: ignore[arg-type]
        for x in starts[0]
        for y in starts[1]
        for z in starts[2]
    ]
