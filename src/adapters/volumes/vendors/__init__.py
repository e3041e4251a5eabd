"""Volumes in the files of microscopes: Zeiss CZI, Leica LIF and Nikon ND2; read only, through bioio's plug-ins."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import InputError, UsageError, VoxportError
from ....domain.reading import Reading
from ....domain.stored_array import StoredArray
from ....domain.volume_names import VENDORS, VolumeNames
from ...arrays import ArraySource, Index, check_voxels, package, real_dtype
from ...read_only import ReadOnlyStore, listed, split_inside
from ...stored_files import open_file, sha256

_UNNAMED = "Channel:"  # what bioio calls a channel without a name
_PLANE = ["Y", "X"]
_AGAIN = "copy it again, or export it as OME-TIFF in the software of the microscope or in Fiji"


@dataclass(frozen=True)
class _Kind:
    """A format: what a file begins with, and the plug-in that reads it."""

    name: str
    magic: bytes
    package: str
    options: tuple[tuple[str, Any], ...] = ()


_KINDS = (
    _Kind("CZI", b"ZISRAWFILE", "bioio_czi", (("chunk_dims", _PLANE),)),
    _Kind("LIF", b"\x70\0\0\0", "bioio_lif", (("chunk_dims", _PLANE),)),
    _Kind("ND2", b"\xda\xce\xbe\x0a", "bioio_nd2"),
    _Kind("OIR", b"OLYMPUSRAWFORMAT", ""),
)


class VendorStore(ReadOnlyStore):
    """Volumes in files of Zeiss, Leica and Nikon; a reference is a path. Each read takes whole planes of the file.

    A file with several images asks for one by its name or index (``series``). Tiles of a mosaic are joined where the
    file places them.
    """

    names = VolumeNames((VENDORS,))

    def recognises(self, reference: str) -> bool:
        """Return whether a file begins as one of these formats."""
        return _kind(Path(reference)) is not None

    def open(self, reference: str, reading: Reading | None = None) -> ArraySource:
        """Open an image for reading; see VolumeStore.open."""
        reading, path = reading or Reading(), split_inside(reference)[0]
        subject = path.name or reference
        with ExitStack() as stack:
            file = open_file(path, subject)
            stack.callback(file.close)
            kind = _kind(path)
            if kind is None:
                got = "something else, or one cut short"
                raise InputError(subject, expected="a CZI, LIF or ND2 file", got=got, do=_AGAIN)
            if not kind.package:
                do = "convert it, e.g. to OME-TIFF with Fiji, or to OME-Zarr with bioformats2raw"
                raise InputError(subject, expected="CZI, LIF or ND2", got="an OIR file of Olympus", do=do)
            module = package(kind.package, "vendors", subject)
            with _plug_in_errors(subject):
                reader = module.Reader(str(path.absolute()), **dict(kind.options))
                reader.set_scene(_scene(reader.scenes, reading.series, subject))
                values, stored = _stored(reader, path, kind, subject)
            view = stored.view(reading, subject)
            check_voxels(view, self.max_voxels, subject)

            def fetch(index: Index) -> NDArray[Any]:
                with _plug_in_errors(subject):
                    return np.array(values[index].compute(scheduler="synchronous"))

            return ArraySource(view, fetch, lambda: sha256([file.descriptor]), stack.pop_all().close)


def _kind(path: Path) -> _Kind | None:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except (OSError, ValueError):
        return None
    found = next((kind for kind in _KINDS if head.startswith(kind.magic)), None)
    # a LIF file goes on with the length of its XML, behind which is a star
    return None if found is not None and found.name == "LIF" and head[8:9] != b"\x2a" else found


def _scene(scenes: tuple[str, ...], series: str | None, subject: str) -> int:
    """Return the index of the image that is meant."""
    names = [str(scene) for scene in scenes]
    if series is None:
        if len(names) == 1:
            return 0
        do = f"choose one by name or index with `series`, e.g. {next(iter(names), 0)}"
        raise InputError(subject, expected=f"one of the images {listed(names)}", got=f"{len(names)}", do=do)
    if names.count(series) == 1:
        return names.index(series)
    if series.isascii() and series.isdigit() and int(series) < len(names):
        return int(series)
    many = names.count(series)
    do = "give its index, from 0" if many else "choose another"
    got = f"{series[:60]}, the name of {many}" if many else series[:60]
    raise UsageError("series", expected=f"one of the images {listed(names)}", got=got, do=do)


def _stored(reader: Any, path: Path, kind: _Kind, subject: str) -> tuple[Any, StoredArray]:
    """Return the image's array of dask, and what the file states of it."""
    image = reader.xarray_dask_data
    notes: tuple[str, ...] = ()
    if "M" in image.dims and image.sizes["M"] > 1:
        notes = (f"{subject} is a mosaic of {image.sizes['M']} tiles, joined where it places them",)
        image = reader.mosaic_xarray_dask_data
    names = tuple(str(name) for name in reader.channel_names or ())
    sizes = reader.physical_pixel_sizes._asdict()  # in um; None, or zero, where the file states none
    if kind.name == "ND2":
        sizes = _calibrated(path, sizes)
    array = StoredArray(
        tuple(image.shape),
        real_dtype(image.dtype, subject),
        "".join(str(axis) for axis in image.dims),
        spacing={axis: float(size) for axis, size in sizes.items() if size is not None},
        unit="um",
        sources=dict.fromkeys("XYZ", f"the metadata of {kind.name}"),
        channel_names=() if any(name.startswith(_UNNAMED) or not name for name in names) else names,
        chunk=tuple(max(along) for along in image.data.chunks),
        notes=notes,
        choices=("series",),
    )
    return image.data, array


def _calibrated(path: Path, sizes: dict[str, float | None]) -> dict[str, float | None]:
    """Return the sizes that an ND2 file states: its library gives 1 for one that is not calibrated."""
    with package("nd2", "vendors", path.name).ND2File(path) as file:
        channels = getattr(file.metadata, "channels", None) or ()
        known = channels[0].volume.axesCalibrated if channels else (False, False, False)
    return {axis: sizes.get(axis) if is_known else None for axis, is_known in zip("XYZ", known, strict=True)}


@contextmanager
def _plug_in_errors(subject: str) -> Iterator[None]:
    """Raise what a plug-in raises for a damaged file as an InputError, and leave out its warnings."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (VoxportError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - each plug-in has errors of its own
        line = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(subject, expected="an intact file", got=line, do=_AGAIN) from None
