"""DICOM images open for reading."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import InputError
from ....domain.reading import Reading
from ....domain.stored_array import ArrayView, StoredArray
from ...arrays import ArraySource, check_voxels
from ...disk import CHUNK_BYTES
from ...spool import tree_sha256
from .files import Part, find_parts
from .headers import Frame, quiet, read_frames
from .pixels import FramePixels, check_pixels, value_dtype
from .series import Ordered, chosen_stack, ordered


class DicomSource(ArraySource):
    """A DICOM volume; ``frames`` are those of the volume, from the first slice to the last."""

    def __init__(
        self,
        view: ArrayView,
        frames: Sequence[Frame],
        pixels: FramePixels,
        digest: Callable[[], str],
        release: Callable[[], None],
    ) -> None:
        super().__init__(view, pixels.fetch, digest, release)
        self.frames = frames

    @property
    def is_as_stored(self) -> bool:
        """Whether the user states neither other voxel sizes nor other axes than the files."""
        own = self.view.stored.affine
        return (
            self.view.axes == self.view.stored.axes
            and own is not None
            and np.array_equal(own, self.grid.affine)
            and self.grid.unit == self.view.stored.unit
        )


def open_source(path: Path, scratch: Path, max_voxels: int, reading: Reading) -> DicomSource:
    """Open the series at a path; see VolumeStore.open."""
    subject = path.name or str(path)
    quiet()
    parts, descriptor = find_parts(path, scratch, subject)
    try:
        frames = [frame for part in parts for frame in read_frames(part)]
        if not frames:
            do = "name the file or folder of a series of images"
            raise InputError(subject, expected="DICOM images", got="DICOM files without pixels", do=do)
        if reading.series is None:  # masks may lie beside the images that they were made from
            frames = [frame for frame in frames if not frame.stored.is_mask] or frames
        stack = chosen_stack(frames, reading.series, subject)
        for stored in dict.fromkeys(frame.stored for frame in stack):
            check_pixels(stored)
        volumes = ordered(stack, subject)
        stored_array = _stored_array(volumes, reading, subject, is_one=path.is_file() and len(frames) == 1)
        view = stored_array.view(reading, subject)
        check_voxels(view, max_voxels, subject)
        array = _array(volumes.frames)
        time = view.fixed.get(0, 0) if len(volumes.frames) > 1 else 0
        used = dict.fromkeys(f.stored.part for volume in volumes.frames for f in volume)
        digest = partial(_digest, used) if descriptor < 0 else partial(tree_sha256, path)  # a zip has its own hash
        release = partial(os.close, descriptor) if descriptor >= 0 else _nothing
        return DicomSource(view, volumes.frames[time], FramePixels(array, view.stored.dtype), digest, release)
    except BaseException:
        if descriptor >= 0:
            os.close(descriptor)
        raise


def _stored_array(volumes: Ordered, reading: Reading, subject: str, *, is_one: bool) -> StoredArray:
    frames = [frame for volume in volumes.frames for frame in volume]
    stored = frames[0].stored
    times, depth = len(volumes.frames), len(volumes.frames[0])
    plane = (stored.rows, stored.columns)
    affine: NDArray[np.float64] | None = volumes.affine
    spacing = dict(zip("XY", np.linalg.norm(volumes.affine[:3, :2], axis=0).tolist(), strict=True))
    if not volumes.affine[:3, 2].any():
        affine = None if reading.spacing is None else _with_any_depth(volumes.affine)
    notes = [*volumes.notes, *_notes(frames, subject, is_one=is_one)]
    if volumes.depth == "SliceThickness" and affine is not None and reading.spacing is None:
        notes.append(f"{subject} has one slice and no SpacingBetweenSlices; its SliceThickness is taken")
    return StoredArray(
        shape=(times, depth, *plane) if times > 1 else (depth, *plane),
        dtype=value_dtype(frames),
        axes="TZYX" if times > 1 else "ZYX",
        spacing=spacing,
        unit="mm",
        sources={"X": "PixelSpacing", "Y": "PixelSpacing", "Z": volumes.depth},
        affine=affine,
        chunk=(1, 1, *plane) if times > 1 else (1, *plane),
        notes=tuple(notes),
        choices=("series",),
    )


def _with_any_depth(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an affine with a third column of length 1 along the normal, for a spacing that the user states."""
    filled = affine.copy()
    right, down = (affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in (0, 1))
    filled[:3, 2] = np.cross(right, down)
    return filled


def _notes(frames: Sequence[Frame], subject: str, *, is_one: bool) -> list[str]:
    notes = []
    if is_one:
        notes.append(f"{subject} is one slice; name the folder for the whole series")
    if any(frame.stored.photometric == "MONOCHROME1" for frame in frames):
        notes.append(f"{subject} shows high values dark (MONOCHROME1); values are taken as stored")
    if any(frame.stored.padding and not frame.stored.is_mask for frame in frames):
        notes.append(f"{subject} marks voxels outside the image by a PixelPaddingValue, which is kept as a value")
    if len({(frame.slope, frame.intercept) for frame in frames}) > 1:
        notes.append(f"{subject} has another rescale slope or intercept at some slices; each slice has its own")
    return notes


def _array(volumes: Sequence[Sequence[Frame]]) -> NDArray[Any]:
    array = np.empty((len(volumes), len(volumes[0])), object)
    for time, volume in enumerate(volumes):
        for place, frame in enumerate(volume):
            array[time, place] = frame
    return array if len(volumes) > 1 else array[0]


def _digest(parts: dict[Part, None]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        position = 0
        while chunk := part.read(position, CHUNK_BYTES):
            position += len(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def _nothing() -> None:
    """Release nothing: each read opens its file."""
