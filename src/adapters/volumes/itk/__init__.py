"""NRRD and MetaImage volumes, the formats of ITK, 3D Slicer and elastix: one file, or a header beside its voxels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import FormatError, InputError, OutputError
from ....domain.geometry.grid import Grid
from ....domain.labels.label_map import LabelTable
from ....domain.reading import Reading
from ....domain.volume_names import META_IMAGE, NRRD, PACKED, SEGMENTATION_NRRD, VolumeNames
from ....ports.volume_store import VolumeSource
from ...arrays import ArraySource
from ...disk import scratch_folder
from ...spool import SpooledSink, check_new_volume
from ...stored_files import open_file
from .segments import segment_fields
from .source import data_files, digest, open_source, recognised
from .writing import write_meta_image, write_nrrd

_MAGIC_BYTES = 64


class ItkStore:
    """Volumes as NRRD or MetaImage files; a reference is the path of a header.

    Read: every real type, byte order and encoding (but NRRD's hex), voxels in the header's file or in files beside it,
    one or many; vectors and lists as channels; sheared directions. Voxels in another folder are refused.
    Written: ``.nrrd``, ``.seg.nrrd`` for label maps (3D Slicer's segments, with names and colours), ``.mha``, ``.mhd``.

    Args:
        scratch: folder for decoded copies of compressed volumes; they have no name and vanish when closed.
        max_voxels: the most voxels, all channels counted, that a volume may have to be opened.
    """

    names = VolumeNames((NRRD, SEGMENTATION_NRRD, META_IMAGE))

    def __init__(self, scratch: Path | None = None, max_voxels: int = 2**33) -> None:
        self._scratch = scratch
        self.max_voxels = max_voxels

    def recognises(self, reference: str) -> bool:
        """Return whether a file starts as a header of either format."""
        path = Path(reference)
        try:
            with closing(open_file(path, path.name)) as file:
                return recognised(os.pread(file.descriptor, _MAGIC_BYTES, 0))
        except (InputError, OSError):
            return False

    def places(self, reference: str) -> tuple[str, ...]:
        """Return the real paths of a header, of the voxels that it names, and of those that a new one would have."""
        paths = [*self.names.files(reference), *map(str, data_files(Path(reference)))]
        return tuple(dict.fromkeys(os.path.realpath(path) for path in paths))

    def open(self, reference: str, reading: Reading | None = None) -> ArraySource:
        """Open a volume for reading; see VolumeStore.open. Raises LimitError also without space to decode it."""
        scratch = scratch_folder(self._scratch)
        return open_source(Path(reference), scratch, self.max_voxels, reading or Reading())

    def create(
        self,
        reference: str,
        grid: Grid,
        dtype: np.dtype[Any],
        *,
        channels: int = 1,
        like: VolumeSource | None = None,
        channel_names: Sequence[str] = (),
        labels: LabelTable | None = None,
    ) -> SpooledSink:
        """Begin a volume filled with zeros; see VolumeStore.create. Names of channels are not stored.

        Raises FormatError for what the format cannot hold: a ``.seg.nrrd`` of several channels or real numbers, a
        MetaImage whose axes are not at right angles.
        """
        check_new_volume(grid, channels, channel_names, like)
        path = Path(reference)
        ending = self.names.ending(path.name)
        notes: list[str] = []
        write: Callable[[NDArray[Any], Path], None]
        if ending in SEGMENTATION_NRRD.endings:
            if channels != 1 or np.dtype(dtype).kind not in "iu":
                got = f"{channels} channels of {np.dtype(dtype)}"
                do = f"name it {NRRD.writable[0]}"
                raise FormatError(path.name, expected="a label map of one channel", got=got, do=do)
            write = partial(_write_segmentation, path.name, grid, labels)
        elif ending in META_IMAGE.writable:
            if grid.is_sheared:
                do = f"name it {NRRD.writable[0]} or {PACKED}: they hold a shear"
                raise FormatError(path.name, expected="axes at right angles, as ITK reads", got="a shear", do=do)
            if grid.unit != "unknown":
                notes.append(f"{path.name} does not state that its lengths are in {grid.unit}: MetaImage has no unit")
            write = partial(_write_meta_image, path.name, grid)
        elif ending in NRRD.writable:
            write = partial(_write_nrrd, path.name, grid)
        else:
            expected, got = f"a name in {self.names.writable_text}", path.suffix or "no suffix"
            raise OutputError(path.name or reference, expected=expected, got=got, do="name the output so")
        return SpooledSink(path, grid, dtype, channels, write=write, digest=digest, notes=notes)


def _write_nrrd(name: str, grid: Grid, values: NDArray[Any], folder: Path) -> None:
    write_nrrd(values, folder / name, grid)


def _write_segmentation(name: str, grid: Grid, labels: LabelTable | None, values: NDArray[Any], folder: Path) -> None:
    write_nrrd(values, folder / name, grid, segment_fields(values, labels, name))


def _write_meta_image(name: str, grid: Grid, values: NDArray[Any], folder: Path) -> None:
    header, voxels = META_IMAGE.beside[0]
    is_pair = name.lower().endswith(header)
    write_meta_image(values, folder / name, grid, folder / f"{name[: -len(header)]}{voxels}" if is_pair else None)
