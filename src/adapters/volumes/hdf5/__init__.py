"""Volumes in HDF5 files: a dataset of two to five dimensions; files of ilastik, BigDataViewer and Imaris."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import InputError
from ....domain.reading import Reading
from ....domain.volume_names import HDF5, VolumeNames
from ...arrays import ArraySource, Index, check_voxels, package
from ...read_only import ReadOnlyStore, split_inside
from ...stored_files import open_file, sha256
from .datasets import Pieces, dataset_pieces
from .pyramids import pyramid_pieces

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OFFSETS = (0, 512, 1024, 2048)  # behind a block of the user's
_MINC = (b"minc-2.0", (106, 720))  # read by nibabel; the offset depends on the library that wrote it


class Hdf5Store(ReadOnlyStore):
    """Volumes in HDF5 files. A reference is a path, or ``FILE.h5:/path/of/dataset``; it needs the package h5py.

    Without a dataset, the file is one of BigDataViewer or Imaris, or has one dataset of two to five dimensions. Other
    files that links, virtual datasets or external storage name are never opened.
    """

    names = VolumeNames((HDF5,))

    def recognises(self, reference: str) -> bool:
        """Return whether a file has HDF5's signature, and is none of MINC's."""
        try:
            with split_inside(reference)[0].open("rb") as file:
                head = file.read(_OFFSETS[-1] + len(_SIGNATURE))
        except (OSError, ValueError):
            return False
        is_minc = any(head.startswith(_MINC[0], offset) for offset in _MINC[1])
        return any(head.startswith(_SIGNATURE, offset) for offset in _OFFSETS) and not is_minc

    def open(self, reference: str, reading: Reading | None = None) -> ArraySource:
        """Open a dataset for reading; see VolumeStore.open."""
        reading = reading or Reading()
        path, inside = split_inside(reference)
        name = (reading.series or "").strip("/") or inside
        subject = f"{path.name}:/{name}" if name else path.name or reference
        with ExitStack() as stack:
            stored = open_file(path, subject)
            stack.callback(stored.close)
            h5py = package("h5py", "microscopy", subject)
            with _reading_errors(subject):
                file = stack.enter_context(_opened(h5py, path, subject))
                pieces = None if name else pyramid_pieces(h5py, file, reading.level or 0, path, subject)
                pieces = pieces or dataset_pieces(h5py, file, name, reading, subject)
            view = pieces.array.view(reading, subject)
            check_voxels(view, self.max_voxels, subject)
            return ArraySource(
                view,
                lambda index: _values(pieces, index, subject),
                lambda: sha256([stored.descriptor]),
                stack.pop_all().close,
            )


def _opened(h5py: Any, path: Path, subject: str) -> Any:
    try:
        return h5py.File(os.fspath(path), "r", locking=False)
    except OSError as error:
        is_short = "truncated" in str(error) or "addr overflow" in str(error)
        got = "one cut short" if is_short else "a damaged one" if "signature" in str(error) else _line(error)
        raise InputError(subject, expected="a whole HDF5 file", got=got, do="copy or download it again") from None


def _values(pieces: Pieces, index: Index, subject: str) -> NDArray[Any]:
    with _reading_errors(subject):
        return np.asarray(pieces.fetch(index))


@contextmanager
def _reading_errors(subject: str) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, RuntimeError) as error:
        do = "copy or download the file again"
        raise InputError(subject, expected="intact content", got=_line(error), do=do) from None


def _line(error: Exception) -> str:
    """Return the library's reason, which it gives in parentheses behind what it did."""
    line = str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
    reason = line.rpartition("(")[2].rstrip(")") if line.endswith(")") else line
    return reason[:120]
