"""Reading of a zarr array chunk by chunk."""

from __future__ import annotations

import json
import lzma
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import InputError
from ....domain.reading import Reading
from ...arrays import ArraySource, check_voxels, package, real_dtype
from ...chunks import ChunkRows
from .containers import EXTRA, Archive, ZarrFiles, check_whole
from .metadata import Image, find_image

_MOST_CHUNK_BYTES = 2**32
_WRITE_AGAIN = "write the volume again"
# Codecs that decode numbers and do nothing else; some others run code of the file.
_COMPRESSORS = frozenset({"blosc", "zstd", "zlib", "gzip", "lz4", "bz2", "lzma", "zfpy", "pcodec"})
_FILTERS = frozenset({"delta", "shuffle", "bitround", "fixedscaleoffset", "quantize", "packbits", "astype"})
_SUMS = frozenset({"crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"})
_CODECS = frozenset({"bytes", "transpose", "sharding_indexed"}) | _COMPRESSORS | _FILTERS | _SUMS
_DAMAGES = (
    ValueError,
    RuntimeError,
    OSError,
    EOFError,
    TypeError,
    KeyError,
    IndexError,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)


class OmeZarrSource(ArraySource):
    """An image of an OME-Zarr, open for reading; ``zarr_format`` is 2 or 3."""

    zarr_format = 3


def open_source(files: ZarrFiles, max_voxels: int, reading: Reading) -> OmeZarrSource:
    """Open the image that is meant; see VolumeStore.open."""
    check_whole(files)
    image = find_image(files, reading)
    array = _Array.open(files, image)
    view = image.stored(array.shape, array.dtype, array.chunk).view(reading, files.subject)
    check_voxels(view, max_voxels, files.subject)
    rows = ChunkRows(array.shape, array.chunk, array.dtype.itemsize, array.fetch)
    source = OmeZarrSource(view, rows.read, lambda: files.digest(image.node, image.array), array.close)
    source.zarr_format = image.node.zarr_format
    return source


@dataclass(frozen=True, eq=False)
class _Array:
    """An open array of zarr."""

    files: ZarrFiles
    path: str
    array: Any
    dtype: np.dtype[Any]
    stamp: object

    @classmethod
    def open(cls, files: ZarrFiles, image: Image) -> _Array:
        """Open the array of an image. Raises InputError for one that is missing, or that cannot be read safely."""
        subject, node = files.subject, files.node(image.array)
        if node is None or node.array is None:
            got = f"none at {image.array!r}"
            raise InputError(subject, expected="an array that its metadata name", got=got, do=_WRITE_AGAIN)
        _check_codecs(node.array, subject)
        _check_sizes(node.array, subject)
        stamp = files.stamp(image.array)
        zarr = package("zarr", EXTRA, subject)
        store = files.store()
        try:
            array = zarr.open_array(store=store, path=image.array, mode="r", zarr_format=node.zarr_format)
        except (*_DAMAGES, AttributeError) as error:
            store.close()
            raise _damaged(subject, image.array, error) from None
        found = np.dtype(array.dtype)
        if isinstance(files, Archive):
            files.check_sizes(image.array, math.prod(array.shards or array.chunks) * found.itemsize)
        return cls(files, image.array, array, real_dtype(found, subject), stamp)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of the block that is decoded at once; of a shard, the chunks in it."""
        return tuple(self.array.chunks)

    def fetch(self, index: tuple[slice, ...]) -> NDArray[Any]:
        """Read the values at an index. Raises InputError for a chunk that cannot be decoded."""
        try:
            values = np.asarray(self.array[index]).astype(self.dtype, copy=False)
        except _DAMAGES as error:
            raise _damaged(self.files.subject, self.path, error) from None
        if self.files.stamp(self.path) != self.stamp:
            do = "run again, and let nothing write to it"
            raise InputError(self.files.subject, expected="the volume that was opened", got="another one", do=do)
        return values

    def close(self) -> None:
        self.array.store.close()


def _check_codecs(array: Mapping[str, Any], subject: str) -> None:
    """Raise InputError for a codec that is not there, or that does more than decode numbers."""
    if array.get("zarr_format") == 2:
        listed = [array.get("compressor"), *(array.get("filters") or ())]
        names = [str(codec.get("id")) for codec in listed if isinstance(codec, dict)]
    else:
        names = list(_names(array.get("codecs")))
    for name in names:
        if name.removeprefix("numcodecs.") not in _CODECS:
            do = "store it with another codec, e.g. zstd"
            raise InputError(subject, expected="a codec that is known", got=name[:40], do=do)


def _names(codecs: object) -> Any:
    for codec in codecs if isinstance(codecs, list) else ():
        if isinstance(codec, dict):
            yield str(codec.get("name"))
            configuration = codec.get("configuration")
            if isinstance(configuration, dict):
                yield from _names(configuration.get("codecs"))
                yield from _names(configuration.get("index_codecs"))
        else:
            yield str(codec)


def _check_sizes(array: Mapping[str, Any], subject: str) -> None:
    """Raise InputError for shapes that no array has, before anything is allocated for them."""
    grid = array.get("chunk_grid")
    regular = grid.get("configuration") if isinstance(grid, dict) else {}
    chunks = array.get("chunks") or (regular.get("chunk_shape") if isinstance(regular, dict) else None)
    for what, shape in (("shape", array.get("shape")), ("chunks", chunks)):
        if not isinstance(shape, list) or not all(isinstance(edge, int) and edge > 0 for edge in shape):
            got = json.dumps(shape)[:40]
            raise InputError(subject, expected=f"{what} of positive integers", got=got, do=_WRITE_AGAIN)
        if what == "chunks" and math.prod(shape) > _MOST_CHUNK_BYTES:
            got = " x ".join(map(str, shape))
            do = "store it in smaller chunks, e.g. of 64 x 64 x 64"
            raise InputError(subject, expected=f"chunks of at most {_MOST_CHUNK_BYTES} values", got=got, do=do)


def _damaged(subject: str, path: str, error: BaseException) -> InputError:
    got = f"{path or 'it'}: {str(error)[:120] or type(error).__name__}".replace("\n", " ")
    return InputError(subject, expected="chunks that can be decoded", got=got, do="copy or write the volume again")
