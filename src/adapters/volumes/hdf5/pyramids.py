"""Files of BigDataViewer and Imaris: a dataset for each level, point in time and channel."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import InputError, UsageError
from ....domain.reading import LENGTH_UNITS, length_unit
from ....domain.stored_array import StoredArray
from ...arrays import Index, real_dtype
from .datasets import Pieces, check_dataset, chunk_of, find, text_of

_MOST_XML_BYTES = 2**22
_IMARIS = "DataSet/ResolutionLevel {level}/TimePoint {time}/Channel {channel}/Data"
_BIG_DATA_VIEWER = "t{time:05d}/s{channel:02d}/{level}/cells"


def pyramid_pieces(h5py: Any, file: Any, level: int, path: Path, subject: str) -> Pieces | None:
    """Return one level of a file of BigDataViewer or Imaris, with axes TCZYX; None for another file.

    Raises:
        InputError: it is incomplete, or its channels differ in shape.
        UsageError: it has no such level.
    """
    if "DataSetInfo" in file and "DataSet" in file:
        return _imaris(h5py, file, level, subject)
    if "t00000" in file and "s00" in file:
        return _big_data_viewer(h5py, file, level, path, subject)
    return None


def _imaris(h5py: Any, file: Any, level: int, subject: str) -> Pieces:
    levels = _count(h5py, file, "DataSet", r"ResolutionLevel \d+", subject)
    _check_level(level, levels)
    base = f"DataSet/ResolutionLevel {level}"
    times = _count(h5py, file, base, r"TimePoint \d+", subject)
    channels = _count(h5py, file, f"{base}/TimePoint 0", r"Channel \d+", subject)
    first = find(h5py, file, f"{base}/TimePoint 0/Channel 0", subject)
    image = find(h5py, file, "DataSetInfo/Image", subject).attrs
    try:  # datasets are padded to whole chunks
        shape = tuple(int(text_of(first.attrs[f"ImageSize{letter}"])) for letter in "ZYX")
        limits = [[float(text_of(image[f"Ext{end}{axis}"])) for axis in range(3)] for end in ("Min", "Max")]
    except (KeyError, ValueError) as error:
        expected = "sizes as Imaris writes them"
        raise InputError(subject, expected=expected, got=str(error)[:60], do="write the file again") from None
    named = length_unit(text_of(image.get("Unit", b"")))
    unit, factor = LENGTH_UNITS[named] if named else ("unknown", 1.0)
    lengths = np.subtract(limits[1], limits[0]) / shape[::-1] * factor
    x, y, z = np.multiply(limits[0], factor) + lengths / 2  # limits are the outer faces of the first and last voxel
    names = []
    for channel in range(channels):
        group = f"DataSetInfo/Channel {channel}"
        names.append(text_of(find(h5py, file, group, subject).attrs.get("Name", b"")) if group in file else "")
    return _pieces(
        h5py,
        file,
        lambda time, channel: _IMARIS.format(level=level, time=time, channel=channel),
        (times, channels, *shape),
        subject,
        spacing=dict(zip("XYZ", map(float, lengths), strict=True)),
        unit=unit,
        sources={letter: f"ExtMax{axis}" for axis, letter in enumerate("XYZ")},
        origin=(float(x), float(y), float(z)),
        channel_names=tuple(names) if all(names) else (),
    )


def _big_data_viewer(h5py: Any, file: Any, level: int, path: Path, subject: str) -> Pieces:
    times = _count(h5py, file, "", r"t\d{5}", subject)
    setups = _count(h5py, file, "", r"s\d{2}", subject)
    factors = np.atleast_2d(find(h5py, file, "s00/resolutions", subject)[()])
    _check_level(level, len(factors))
    shape = find(h5py, file, _BIG_DATA_VIEWER.format(time=0, channel=0, level=level), subject).shape
    sizes, unit = _voxel_size(path.with_suffix(".xml"))
    spacing = {letter: size * float(factor) for letter, size, factor in zip("XYZ", sizes, factors[level], strict=False)}
    return _pieces(
        h5py,
        file,
        lambda time, channel: _BIG_DATA_VIEWER.format(level=level, time=time, channel=channel),
        (times, setups, *shape),
        subject,
        is_unsigned=True,  # its Java library of HDF5 has no unsigned types
        spacing=spacing,
        unit=unit,
        sources=dict.fromkeys("XYZ", f"voxelSize in {path.stem}.xml"),
    )


def _pieces(
    h5py: Any,
    file: Any,
    name: Callable[[int, int], str],
    shape: tuple[int, ...],
    subject: str,
    *,
    is_unsigned: bool = False,
    **stated: Any,
) -> Pieces:
    """Return a dataset for each point in time and channel as one array; with ``is_unsigned``, int16 means uint16."""

    def dataset(time: int, channel: int) -> Any:
        found = find(h5py, file, name(time, channel), subject)
        check_dataset(h5py, found, subject)
        return found

    first = dataset(0, 0)
    for channel in range(1, shape[1]):
        other = dataset(0, channel)
        if (other.shape, other.dtype) != (first.shape, first.dtype):
            do = f"name one with `series`, e.g. /{name(0, channel)}"
            expected = f"channels of one shape, {'x'.join(map(str, first.shape))}"
            raise InputError(subject, expected=expected, got="x".join(map(str, other.shape)), do=do)
    is_unsigned = is_unsigned and first.dtype == np.int16
    dtype = np.dtype(np.uint16) if is_unsigned else real_dtype(first.dtype, subject)
    array = StoredArray(shape, dtype, "TCZYX", chunk=(1, 1, *chunk_of(first)), choices=("level",), **stated)

    def fetch(index: Index) -> NDArray[Any]:
        time, channel, *box = index
        values = np.asarray(dataset(int(time), int(channel))[tuple(box)])  # type: ignore[arg-type]
        return values.astype(np.int16, copy=False).view(np.uint16) if is_unsigned else values

    return Pieces(array, fetch)


def _count(h5py: Any, file: Any, group: str, pattern: str, subject: str) -> int:
    found = find(h5py, file, group, subject)
    names = list(found) if isinstance(found, h5py.Group) else []
    return sum(re.fullmatch(pattern, name) is not None for name in names)


def _check_level(level: int, levels: int) -> None:
    if level >= levels:
        raise UsageError("level", expected=f"0 to {levels - 1}", got=str(level), do="choose another")


def _voxel_size(path: Path) -> tuple[list[float], str]:
    """Return the voxel size that the XML of BigDataViewer states, and its unit; nothing where all do not share one."""
    try:
        if path.stat().st_size > _MOST_XML_BYTES:
            return [], "unknown"
        setups = ElementTree.parse(path).iter("voxelSize")
        stated = {(each.findtext("unit", ""), each.findtext("size", "")) for each in setups}
        ((unit, size),) = stated
        x, y, z = (float(part) for part in size.split())
    except (OSError, ElementTree.ParseError, ValueError):
        return [], "unknown"
    known = length_unit(unit)
    own, factor = LENGTH_UNITS[known] if known else ("unknown", 1.0)
    return [x * factor, y * factor, z * factor], own
