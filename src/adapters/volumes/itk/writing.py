"""Write NRRD and MetaImage files. Geometry is LPS; numbers are written so that they read back bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from ....domain.geometry.grid import FloatArray, Grid
from ...stored_files import COMPRESSION_LEVEL, deflated
from .layout import LPS, placed
from .meta_image import TYPES

_PLANES_AT_ONCE = 4
_NRRD_TYPES = {
    **{"i1": "signed char", "u1": "unsigned char", "i2": "short", "u2": "unsigned short", "i4": "int"},
    **{"u4": "unsigned int", "i8": "long long int", "u8": "unsigned long long int", "f4": "float", "f8": "double"},
}
_META_TYPES = {TYPES[name]: name for name in reversed(TYPES)}
_SIZE_DIGITS = 20


def write_nrrd(values: NDArray[Any], path: Path, grid: Grid, pairs: Iterable[tuple[str, str]] = ()) -> None:
    """Write a volume ``(C, x, y, z)`` as NRRD, compressed by gzip; several channels as a vector a voxel.

    ``pairs`` are its key/value pairs.
    """
    lps = placed(grid.affine[:3, :3], grid.affine[:3, 3].tolist(), LPS)
    several = len(values) > 1
    sizes = (*([len(values)] if several else []), *grid.shape)
    fields = {
        "type": _NRRD_TYPES[values.dtype.str[1:]],
        "dimension": len(sizes),
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, sizes)),
        "space directions": "none " * several + " ".join(_vector(lps[:3, column]) for column in range(3)),
        "kinds": "vector " * several + "domain domain domain",
        "endian": "little",
        "encoding": "gzip",
        "space origin": _vector(lps[:3, 3]),
    }
    if grid.unit != "unknown":
        fields["space units"] = " ".join([f'"{grid.unit}"'] * 3)
    lines = ["NRRD0005", *(f"{name}: {value}" for name, value in fields.items())]
    lines += [f"{name}:={value}" for name, value in pairs]
    with path.open("wb") as file:
        file.write("\n".join([*lines, "", ""]).encode())
        with deflated(file) as stream:
            for block in _blocks(values):
                stream.write(block)


def write_meta_image(values: NDArray[Any], path: Path, grid: Grid, voxels: Path | None = None) -> None:
    """Write a volume ``(C, x, y, z)`` as MetaImage, compressed in one file or plain beside it, in ``voxels``."""
    lps = placed(grid.affine[:3, :3], grid.affine[:3, 3].tolist(), LPS)
    directions = lps[:3, :3] / np.array(grid.spacing)
    tags = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": voxels is None,
        "CompressedDataSize": " " * _SIZE_DIGITS,
        "TransformMatrix": _numbers(directions.T.ravel()),
        "Offset": _numbers(lps[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": _numbers(np.array(grid.spacing)),
        "DimSize": " ".join(map(str, grid.shape)),
        "ElementNumberOfChannels": len(values),
        "ElementType": _META_TYPES[values.dtype.str[1:]],
        "ElementDataFile": "LOCAL" if voxels is None else voxels.name,
    }
    if voxels is not None:
        del tags["CompressedDataSize"]
        with voxels.open("wb") as stream:
            stream.writelines(_blocks(values))
    header = "".join(f"{name} = {value}\n" for name, value in tags.items()).encode()
    with path.open("wb") as file:
        file.write(header)
        if voxels is None:
            size = _write_compressed(_blocks(values), file)
            file.seek(header.index(b"CompressedDataSize = ") + len(b"CompressedDataSize = "))
            file.write(str(size).encode())


def _write_compressed(blocks: Iterable[bytes], file: IO[bytes]) -> int:
    engine, size = zlib_ng.compressobj(COMPRESSION_LEVEL), 0
    for block in blocks:
        size += file.write(engine.compress(block))
    return size + file.write(engine.flush())


def _blocks(values: NDArray[Any]) -> Iterator[bytes]:
    """Yield voxels in the order of the file, little-endian: channels of a voxel side by side, then x."""
    for start in range(0, values.shape[3], _PLANES_AT_ONCE):
        planes = values[..., start : start + _PLANES_AT_ONCE].transpose(3, 2, 1, 0)
        yield np.ascontiguousarray(planes, planes.dtype.newbyteorder("<")).tobytes()


def _vector(values: FloatArray) -> str:
    return f"({','.join(repr(float(value)) for value in values)})"


def _numbers(values: FloatArray | Sequence[float]) -> str:
    return " ".join(repr(float(value)) for value in values)
