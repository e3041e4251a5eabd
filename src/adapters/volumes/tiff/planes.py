"""Values of a TIFF series: the rows or tiles that an index needs, and no more, are read and decoded."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import InputError, LimitError, UsageError
from ...arrays import Index, real_dtype

EXTRA = "microscopy"
# Decoded strips and tiles that are kept for the next box; a larger one is decoded again.
_CACHE_BYTES = 2**26
_MOST_SEGMENT_BYTES = 2**30
_JPEG = (6, 7, 34892, 33007)
_Region = tuple[slice, slice, slice, slice, slice]


@dataclass(frozen=True)
class _Page:
    """A page as stored: where its segments (strips or tiles) lie, or all of its bytes where they lie in one piece."""

    descriptor: int
    offsets: Sequence[int]
    sizes: Sequence[int]
    jpeg_tables: bytes | None
    keyframe: Any
    is_plain: bool


class SeriesReader:
    """Reads the values of one of tifffile's series, in any thread.

    Args:
        series: of an open file.
        subject: the file's name.

    Raises:
        InputError: pages are missing, cut short, or of a kind that is not read.
        UsageError: the package that decodes the pages is missing.
    """

    def __init__(self, series: Any, subject: str) -> None:
        self._subject, self.keyframe = subject, series.keyframe
        self.shape: tuple[int, ...] = tuple(int(edge) for edge in series.shape)
        if series.transform is not None:
            raise self._unread("values behind a formula of the instrument")
        self.dtype = real_dtype(series.dtype, subject)
        self._lead = self._leading_axes()
        self._inner = _inner_axes(self.shape[self._lead :], self.keyframe.shaped)
        self._check_codec()
        self._pages = self._located(series)
        self._native = np.dtype(self.keyframe.parent.byteorder + self.keyframe._dtype.char)
        self._cache = _Cache(_CACHE_BYTES)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Open files that the pages are in."""
        return tuple(dict.fromkeys(page.descriptor for page in self._pages))

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of a page or, of a page in tiles, of a tile."""
        inner = list(self.shape[self._lead :])
        page = self.keyframe
        if page.is_tiled and not self._pages[0].is_plain:
            tile = (1, page.tiledepth, page.tilelength, page.tilewidth, page.shaped[4])
            for position, axis in enumerate(self._inner):
                inner[position] = min(inner[position], tile[axis]) if axis >= 0 else 1
        return (1,) * self._lead + tuple(inner)

    def fetch(self, index: Index) -> NDArray[Any]:
        """Return a new array of the values at an index, which has an entry an axis.

        Raises InputError for pages that cannot be decoded.
        """
        spans = [range(edge)[entry] if isinstance(entry, slice) else range(entry, entry + 1)
                 for entry, edge in zip(index, self.shape, strict=True)]  # fmt: skip
        values = np.empty([len(span) for span in spans], self.dtype)
        region = [slice(0, edge) for edge in self.keyframe.shaped]
        for span, axis in zip(spans[self._lead :], self._inner, strict=True):
            if axis >= 0:
                region[axis] = slice(span.start, span.stop)
        if values.size:
            for place in product(*(range(len(span)) for span in spans[: self._lead])):
                at = [span[step] for span, step in zip(spans, place, strict=False)]
                number = int(np.ravel_multi_index(at, self.shape[: self._lead])) if at else 0
                values[place] = self._read(number, tuple(region)).reshape(values.shape[self._lead :])
        kept = tuple(0 if not isinstance(entry, slice) else slice(None) for entry in index)
        return values[kept]

    def _read(self, number: int, region: Any) -> NDArray[Any]:
        """Return a region of a page, ``(samples apart, depth, length, width, samples together)``."""
        page = self._pages[number]
        if page.is_plain:
            return self._read_rows(page, region)
        edges = [part.stop - part.start for part in region]
        values = np.empty(edges, self.dtype)
        for segment in _segments_of(page.keyframe, region):
            found, corner = self._decoded(number, page, segment)
            begin = [max(part.start, at) for part, at in zip(region, corner, strict=True)]
            extent = (1, *found.shape) if found is not None else _segment_shape(page.keyframe)
            end = [min(part.stop, at + n) for part, at, n in zip(region, corner, extent, strict=True)]
            to = tuple(slice(a - part.start, b - part.start) for a, b, part in zip(begin, end, region, strict=True))
            if found is None:
                values[to] = page.keyframe.nodata
            else:
                where = tuple(slice(a - at, b - at) for a, b, at in zip(begin, end, corner, strict=True))
                values[to] = found[np.newaxis][where]
        return values

    def _read_rows(self, page: _Page, region: _Region) -> NDArray[Any]:
        samples, depth, length, width, together = region
        _, depths, lengths, widths, each = self.keyframe.shaped
        row = widths * each * self._native.itemsize
        rows = length.stop - length.start
        parts = []
        for sample, slab in product(range(samples.start, samples.stop), range(depth.start, depth.stop)):
            first = (sample * depths + slab) * lengths + length.start
            content = self._bytes(page, page.offsets[0] + first * row, rows * row)
            parts.append(np.frombuffer(content, self._native).reshape(rows, widths, each)[:, width, together])
        shape = (samples.stop - samples.start, depth.stop - depth.start, *parts[0].shape)
        return np.stack(parts).reshape(shape)

    def _bytes(self, page: _Page, position: int, size: int) -> bytes:
        parts = []
        while size:
            part = os.pread(page.descriptor, size, position)
            if not part:
                raise self._damaged("it ends within a page")
            parts.append(part)
            position, size = position + len(part), size - len(part)
        return b"".join(parts)

    def _decoded(self, number: int, page: _Page, segment: int) -> tuple[NDArray[Any] | None, tuple[int, ...]]:
        """Return a strip or tile, None for an empty one, and the place of its first value in the page."""
        known: tuple[NDArray[Any] | None, tuple[int, ...]] | None = self._cache.get((number, segment))
        if known is not None:
            return known
        size = page.sizes[segment]
        content = self._bytes(page, page.offsets[segment], size) if size else None
        jpeg = {"jpegtables": page.jpeg_tables, "jpegheader": page.keyframe.jpegheader}
        options = jpeg if page.keyframe.compression in _JPEG else {}
        try:
            found, corner, _ = page.keyframe.decode(content, segment, **options)
        except Exception as error:  # noqa: BLE001 - decoders raise errors of any class
            raise self._damaged(f"page {number} does not decode ({_first_line(error)})") from None
        self._cache.put((number, segment), (found, tuple(corner)), 0 if found is None else found.nbytes)
        return found, tuple(corner)

    def _damaged(self, got: str) -> InputError:
        return InputError(self._subject, expected="a whole TIFF file", got=got, do="copy it again")

    def _unread(self, got: str) -> InputError:
        do = "save it as OME-TIFF with integer or floating-point values"
        return InputError(self._subject, expected="pages of plain intensities", got=got, do=do)

    def _leading_axes(self) -> int:
        """Return the number of axes that pages are along; the rest is within a page."""
        size = math.prod(self.keyframe.shape)
        for lead in range(len(self.shape) + 1):
            if math.prod(self.shape[lead:]) == size and size:
                return lead
        shown = "x".join(map(str, self.shape))
        raise self._damaged(f"an array of {shown} in pages of {'x'.join(map(str, self.keyframe.shape))}")

    def _check_codec(self) -> None:
        """Raise unless the pages can be decoded."""
        from tifffile import TIFF

        page = self.keyframe
        for known, code in ((TIFF.DECOMPRESSORS, page.compression), (TIFF.UNPREDICTORS, page.predictor)):
            try:
                known[code]
            except KeyError as error:
                if "imagecodecs" in str(error):
                    raise UsageError.not_installed(self._subject, "the package imagecodecs", EXTRA) from None
                raise self._unread(f"compression {getattr(code, 'name', code)}"[:40]) from None
        segment = math.prod(page.chunks) * np.dtype(page.dtype).itemsize
        if not page.is_final and segment > _MOST_SEGMENT_BYTES:
            expected = f"strips or tiles of at most {_MOST_SEGMENT_BYTES} bytes"
            raise LimitError(self._subject, expected=expected, got=f"{segment}", do="save it in tiles")
        page.init_decode()

    def _located(self, series: Any) -> list[_Page]:
        """Return the pages. Raises InputError where one is missing or the file ends before it."""
        count = math.prod(self.shape[: self._lead])
        pages = _pages_of(series)
        if len(pages) == 1 < count and series.keyframe.is_final and pages[0] is not None:
            step, start = int(series.keyframe.nbytes), int(pages[0].dataoffsets[0])
            if start + count * step > (size := pages[0].parent.filehandle.size):
                raise self._damaged(f"{size} bytes instead of {start + count * step}")
            found = [self._page(pages[0], start + number * step) for number in range(count)]
        elif len(pages) != count or None in pages:
            given = sum(page is not None for page in pages)
            raise self._damaged(f"{given} pages of {count}")
        else:
            found = [self._page(page) for page in pages]
        return found

    def _page(self, page: Any, start: int | None = None) -> _Page:
        handle = page.parent.filehandle
        if handle.closed:  # of another file of a set, closed when its pages were found
            handle.open()
        offsets, sizes = page.dataoffsets, page.databytecounts
        is_plain = bool(page.is_final) and len(offsets) > 0
        if is_plain:
            offsets, sizes = [offsets[0] if start is None else start], [int(page.keyframe.nbytes)]
        elif min(len(offsets), len(sizes)) < math.prod(page.keyframe.chunked):
            raise self._damaged("fewer strips or tiles than its header says")
        if any(offset + size > handle.size for offset, size in zip(offsets, sizes, strict=False)):
            raise self._damaged(f"{handle.size} bytes, of which a page is beyond the end")
        return _Page(handle.fileno(), offsets, sizes, getattr(page, "jpegtables", None), page.keyframe, is_plain)


def _pages_of(series: Any) -> list[Any]:
    """Return the pages that are there; a list of the series would first make room for all that are claimed."""
    pages: list[Any] = []
    with suppress(IndexError):
        for number in range(len(series)):
            pages.append(series[number])
    return pages


def _inner_axes(shape: Sequence[int], shaped: Sequence[int]) -> tuple[int, ...]:
    """Return the axis of ``shaped``, tifffile's five axes of a page, for each axis of a page; -1 for a length of 1."""
    long = [axis for axis, edge in enumerate(shaped) if edge > 1]
    if [edge for edge in shape if edge > 1] != [shaped[axis] for axis in long]:
        raise ValueError(f"shape: expected that of a page, {shaped}, got {shape}")
    left = iter(long)
    return tuple(next(left) if edge > 1 else -1 for edge in shape)


def _segment_shape(page: Any) -> tuple[int, int, int, int, int]:
    if page.is_tiled:
        return 1, page.tiledepth, page.tilelength, page.tilewidth, page.shaped[4]
    return 1, 1, page.rowsperstrip, page.imagewidth, page.shaped[4]


def _segments_of(page: Any, region: _Region) -> Iterator[int]:
    """Yield the numbers of the strips or tiles that a region touches."""
    edges = _segment_shape(page)[:4]
    counts = [-(-total // edge) for total, edge in zip(page.shaped, edges, strict=False)]
    touched = [range(part.start // edge, -(-part.stop // edge)) for part, edge in zip(region, edges, strict=False)]
    for place in product(*touched):
        yield int(np.ravel_multi_index(place, counts))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:80]


class _Cache:
    """The last decoded segments, up to a number of bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._held = most_bytes, 0
        self._known: OrderedDict[tuple[int, int], tuple[Any, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: tuple[int, int]) -> Any:
        with self._lock:
            if key not in self._known:
                return None
            self._known.move_to_end(key)
            return self._known[key][0]

    def put(self, key: tuple[int, int], value: Any, size: int) -> None:
        if size > self._most:
            return
        with self._lock:
            self._held += size - self._known.pop(key, (None, 0))[1]
            self._known[key] = (value, size)
            while self._held > self._most:
                self._held -= self._known.popitem(last=False)[1][1]
