"""Dropped files become the volumes of a case."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from ...domain.errors import InputError, LimitError, VoxportError
from ...domain.reading import Reading
from ...domain.volume_names import DICOM, DICOM_MAGIC, DICOM_START, OME_ZARR, PLAIN, ZARR_FILES, VolumeNames

_SERIES = "series"  # the folder of a DICOM series


def take(
    uploads: Sequence[Path], folder: Path, names: VolumeNames, limit_bytes: int, *, keep: bool = False
) -> tuple[Path, ...]:
    """Move uploads into a folder, or copy them, and return the volumes that they are.

    Several DICOM files are one volume: a folder. What lies beside them in the folder that was dropped is ignored.

    Raises:
        InputError: an upload is gone, or the files are those of an OME-Zarr folder.
        LimitError: the DICOM files together exceed the limit of a file.
    """
    if len(uploads) > 1 and {path.name for path in uploads}.intersection(ZARR_FILES):
        do = f"zip the folder as NAME{OME_ZARR.single[0]} and drop the zip"
        raise InputError(OME_ZARR.name, expected="one file", got="the files of a folder", do=do)
    slices = [path for path in uploads if _is_dicom(path)] if len(uploads) > 1 else []
    if slices:
        size = sum(path.stat().st_size for path in slices)
        if size > limit_bytes:
            expected, got = f"at most {limit_bytes} bytes", f"{size} in {len(slices)} files"
            raise LimitError(f"{DICOM.name} files", expected=expected, got=got, do="drop one series of them")
        (folder / _SERIES).mkdir()
    place, taken = (folder / _SERIES if slices else folder), slices or list(uploads)
    voxels = {} if slices else _voxels(taken, names)
    whole, files = {*voxels, *voxels.values()}, []
    for number, path in enumerate(taken, 1):
        again = path in taken[number:]  # one may come twice
        files.append(_taken(path, place, names, path in whole, keep=keep or again))
    return (place,) if slices else tuple(file for file, path in zip(files, taken, strict=True) if path not in voxels)


def asks_for_reading(error: VoxportError) -> bool:
    """Return whether a volume can be opened once the user states how it is stored."""
    return any(f"`{stated.name}`" in error.do for stated in fields(Reading))


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(DICOM_START)
            return file.read(len(DICOM_MAGIC)) == DICOM_MAGIC
    except OSError:
        raise _gone(path) from None


def _voxels(uploads: Sequence[Path], names: VolumeNames) -> dict[Path, Path]:
    """Return the header of each upload that is the second file of a volume."""
    voxels: dict[Path, Path] = {}
    for header in uploads:
        if header not in voxels:
            both = names.files(header.name)
            voxels |= {path: header for path in uploads if path.name in both and path.name != header.name}
    return voxels


def _taken(upload: Path, folder: Path, names: VolumeNames, is_whole: bool, *, keep: bool) -> Path:
    halves = {ending for known in names.formats for pair in known.pairs for ending in pair}
    is_half = names.ending(upload.name) in halves and not is_whole  # refused alone
    name = f"{upload.name}{PLAIN}" if is_half else upload.name
    while (folder / name).exists():  # channels of one case may have one name, in several folders
        name = f"next_{name}"
    try:
        return Path((shutil.copy if keep else shutil.move)(upload, folder / name))
    except OSError:
        raise _gone(upload) from None


def _gone(upload: Path) -> InputError:
    return InputError(upload.name, expected="an upload", got="one that is gone", do="drop it again")
