"""OME-Zarr: OME-NGFF images in folders, zip archives and under URLs, read and written chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....domain.errors import InputError, VoxportError
from ....domain.geometry.grid import Grid
from ....domain.labels.label_map import LabelTable
from ....domain.reading import Reading
from ....domain.volume_names import OME_ZARR, VolumeNames
from ....ports.volume_store import VolumeSink, VolumeSource
from ...spool import check_new_volume
from .containers import Archive, Remote, files_of, real
from .metadata import is_image
from .sink import new_sink
from .source import OmeZarrSource, open_source


class OmeZarrStore:
    """Volumes as OME-Zarr; a reference is a path, or a URL that fsspec opens.

    Read: OME-NGFF 0.1 to 0.5 (zarr formats 2 and 3) in a folder, in a zip archive, or under a URL; an image inside
    another one by its path, e.g. ``scan.zarr/labels/vessels`` or ``plate.zarr/A/1/0``; arrays of zarr without
    metadata of an image, whose axes and voxel sizes the user states. The axes X, Y, Z run to +R, +A, +S.
    Written: images and label images of OME-NGFF 0.4 (in or like a volume of zarr format 2) and 0.5, with a pyramid.

    The hash is that of an image's attributes and of the files of the array that is read; of a zip archive, its own.
    For a URL, the names, sizes and ETags of the files stand for their content.

    Args:
        max_voxels: the most voxels, all channels counted, that a volume may have to be opened.
    """

    names = VolumeNames((OME_ZARR,))

    def __init__(self, max_voxels: int = 2**33) -> None:
        self.max_voxels = max_voxels

    def recognises(self, reference: str) -> bool:
        """Return whether an image or an array of zarr lies under a reference, or a zip archive with one in it.

        A folder with several images, e.g. a plate, is no volume.
        """
        files = files_of(reference)
        if files is None:
            return False
        try:
            node = files.node(files.inside)
        except (VoxportError, ValueError):
            return not isinstance(files, Remote)  # damaged: the error says so
        return node is not None and (is_image(node) or isinstance(files, Archive))

    def places(self, reference: str) -> tuple[str, ...]:
        """Return the real path of a folder or file; a URL as it is."""
        return (real(reference),)

    def open(self, reference: str, reading: Reading | None = None) -> OmeZarrSource:
        """Open an image for reading; see VolumeStore.open."""
        files = files_of(reference)
        if files is None:
            path = Path(reference)
            got = "no such file or folder" if not path.exists() else "something else"
            do = "check the path" if not path.exists() else "name the folder that holds zarr.json or .zattrs"
            raise InputError(path.name or reference, expected="an OME-Zarr image", got=got, do=do)
        return open_source(files, self.max_voxels, reading or Reading())

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
    ) -> VolumeSink:
        """Begin a volume filled with zeros; see VolumeStore.create.

        ``image.zarr/labels/NAME`` adds a label image to an image.
        """
        check_new_volume(grid, channels, channel_names, like)
        zarr_format = like.zarr_format if isinstance(like, OmeZarrSource) else 3
        digest = lambda path: self.open(str(path)).sha256()  # noqa: E731
        return new_sink(reference, grid, np.dtype(dtype), channels, tuple(channel_names), labels, zarr_format, digest)
