"""Pixels of DICOM frames: read by rows where they are stored plainly, else decoded frame by frame."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import InputError
from ...arrays import Index, package
from .headers import DEFLATED, Frame, Stored, damage_errors, quiet

_IMPLICIT, _EXPLICIT, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
# Compressions for which pydicom needs packages of other licences, and imagecodecs' decoder.
_IMAGECODECS = {
    "1.2.840.10008.1.2.4.57": "jpegsof3_decode",  # JPEG lossless
    "1.2.840.10008.1.2.4.70": "jpegsof3_decode",
    "1.2.840.10008.1.2.4.201": "htj2k_decode",  # JPEG 2000, high throughput
    "1.2.840.10008.1.2.4.202": "htj2k_decode",
    "1.2.840.10008.1.2.4.203": "htj2k_decode",
}
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_UNDEFINED = 0xFFFFFFFF
_FRAMES_KEPT = 4
_AGAIN = "copy or export it again: it was cut short, or its header is wrong"


def value_dtype(frames: Sequence[Frame]) -> np.dtype[Any]:
    """Return the type that holds the rescaled values of all frames: of integers where slope and intercept allow it."""
    types = {frame.stored.dtype for frame in frames}
    scales = {(frame.slope, frame.intercept) for frame in frames}
    if scales == {(1.0, 0.0)}:
        return np.result_type(*types)
    if any(slope != 1 or intercept != round(intercept) for slope, intercept in scales):
        return np.dtype("f4" if max(kind.itemsize for kind in types) <= 2 else "f8")
    limits = [limit + int(frame.intercept) for frame in frames for limit in _limits(frame.stored)]
    for kind in ("u1", "i1", "u2", "i2", "u4", "i4", "i8"):
        if np.iinfo(kind).min <= min(limits) and max(limits) <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype("f8")


def _limits(stored: Stored) -> tuple[int, int]:
    return (-(2 ** (stored.bits - 1)), 2 ** (stored.bits - 1) - 1) if stored.signed else (0, 2**stored.bits - 1)


def check_pixels(stored: Stored) -> None:
    """Raise InputError for pixels that a header promises and the file lacks, or that nothing here decodes."""
    name = stored.part.name
    if stored.has_segments:
        do = "save it as a label map (LABELMAP), or in another format"
        raise InputError(name, expected="images or a label map", got="a segmentation with frames a segment", do=do)
    if stored.samples != 1 or stored.photometric.startswith(("RGB", "YBR")):
        do = "give the series of intensities that it was made from"
        raise InputError(name, expected="one intensity a voxel", got="a picture in colours (RGB)", do=do)
    start = data_start(stored)
    if start is not None:
        needed = -(-stored.frames * stored.rows * stored.columns * stored.allocated // 8)
        found = stored.part.size - start
        with damage_errors(name, "pixel data"):
            stated = struct.unpack("<I", stored.part.read(start - 4, 4))[0]
        if min(found, stated) < needed:
            raise InputError(name, expected=f"{needed} bytes of pixels", got=str(min(found, stated)), do=_AGAIN)
        return
    if stored.syntax in (DEFLATED, _BIG):
        return
    if stored.part.read(stored.offset, 4) != _PIXEL_DATA:
        raise InputError(name, expected="pixel data", got="none", do=_AGAIN)
    _check_decoder(stored)


def _check_decoder(stored: Stored) -> None:
    name, pydicom = stored.part.name, quiet()
    if stored.syntax in _IMAGECODECS:
        package("imagecodecs", "medical", name)
        return
    syntax = pydicom.uid.UID(stored.syntax)
    try:
        is_available = pydicom.pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        is_available = False
    if not is_available:
        got = "an unknown one" if syntax.is_private or syntax.name == syntax else syntax.name
        do = "decompress it, e.g. with gdcmconv --raw IN OUT"
        raise InputError(name, expected="a compression that is decoded here", got=got, do=do)


def data_start(stored: Stored) -> int | None:
    """Return where plain pixels begin in their file; None where they must be decoded."""
    if stored.syntax not in (_IMPLICIT, _EXPLICIT) or stored.allocated == 1:
        return None
    if stored.part.read(stored.offset, 4) != _PIXEL_DATA:
        raise InputError(stored.part.name, expected="pixel data", got="none", do=_AGAIN)
    return stored.offset + (8 if stored.syntax == _IMPLICIT else 12)


class FramePixels:
    """Values of frames ``[..., rows, columns]`` on demand; several threads may read.

    Args:
        frames: an array of frames.
        dtype: of the values, rescaled.
    """

    def __init__(self, frames: NDArray[Any], dtype: np.dtype[Any]) -> None:
        self._frames, self._dtype = frames, dtype
        self._decoded: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._lock = Lock()

    def fetch(self, index: Index) -> NDArray[Any]:
        """Return the values at an index, an entry for each axis."""
        chosen = self._frames[index[:-2]]
        if isinstance(chosen, Frame):
            return self._values(chosen, index[-2:])
        parts = [self._values(frame, index[-2:]) for frame in chosen.flat]
        shape = parts[0].shape if parts else ()
        return np.stack(parts).reshape(*chosen.shape, *shape) if parts else np.empty((*chosen.shape, 0, 0), self._dtype)

    def _values(self, frame: Frame, index: Index) -> NDArray[Any]:
        stored = frame.stored
        start = data_start(stored)
        raw = self._cached(frame)[index] if start is None else _rows(frame, start, index)
        values = _significant(raw, stored)
        if (frame.slope, frame.intercept) == (1.0, 0.0):
            return values.astype(self._dtype)
        if self._dtype.kind == "f":
            return (values.astype(np.float64) * frame.slope + frame.intercept).astype(self._dtype)
        return (values.astype(np.int64) + int(frame.intercept)).astype(self._dtype)

    def _cached(self, frame: Frame) -> NDArray[Any]:
        with self._lock:
            if id(frame) in self._decoded:
                self._decoded.move_to_end(id(frame))
                return self._decoded[id(frame)]
        values = _decoded(frame)
        with self._lock:
            self._decoded[id(frame)] = values
            while len(self._decoded) > _FRAMES_KEPT:
                self._decoded.popitem(last=False)
        return values


def _rows(frame: Frame, start: int, index: Index) -> NDArray[Any]:
    """Read whole rows of a plain frame and return what is asked of them."""
    stored, rows = frame.stored, index[0]
    first, stop = (rows.start, rows.stop) if isinstance(rows, slice) else (rows, rows + 1)
    width = stored.columns * stored.dtype.itemsize
    content = stored.part.read(start + (frame.index * stored.rows + first) * width, (stop - first) * width)
    if len(content) != (stop - first) * width:
        raise InputError(stored.part.name, expected="whole pixel data", got="less than at opening", do=_AGAIN)
    values = np.frombuffer(content, stored.dtype.newbyteorder("<")).reshape(stop - first, stored.columns)
    return values[:, index[1]] if isinstance(rows, slice) else values[0, index[1]]


def _decoded(frame: Frame) -> NDArray[Any]:
    stored = frame.stored
    pydicom = quiet()
    with damage_errors(stored.part.name, "pixel data that decode"), stored.part.stream() as stream:
        if stored.syntax in _IMAGECODECS:
            stream.seek(stored.offset + 12)
            code = pydicom.encaps.get_frame(stream, frame.index, number_of_frames=stored.frames)
            values = getattr(package("imagecodecs", "medical", stored.part.name), _IMAGECODECS[stored.syntax])(code)
            values = values.view(stored.dtype) if values.dtype.itemsize == stored.dtype.itemsize else values
        else:
            source = pydicom.dcmread(stream) if stored.syntax == DEFLATED else stream
            values = np.asarray(pydicom.pixels.pixel_array(source, index=frame.index, raw=True))
        if values.shape != (stored.rows, stored.columns):
            raise ValueError("another size than in the header")
        return np.asarray(values)


def _significant(values: NDArray[Any], stored: Stored) -> NDArray[Any]:
    """Return values without the bits beside those stored, which old writers used for overlays."""
    if stored.bits == stored.allocated or stored.allocated == 1 or values.dtype.kind not in "iu":
        return values
    above = 8 * values.dtype.itemsize - 1 - stored.high
    if above < 0:
        return values
    below = 8 * values.dtype.itemsize - stored.bits
    return np.asarray(np.right_shift(np.left_shift(values, above), below))
