"""Sources of volumes that are arrays in files. Adapters of volumes share this module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..domain.errors import InputError, LimitError, UsageError
from ..domain.geometry.grid import Box
from ..domain.stored_array import ArrayView
from ..ports.volume_store import OpenVolume

Index = tuple[slice | int, ...]


class ArraySource(OpenVolume):
    """A stored array, open for reading as a volume; see VolumeSource.

    Args:
        view: the array as a volume.
        fetch: returns a new array of the stored values at an index, which has an entry a stored axis; an axis with an
            integer goes. Several threads call it at once.
        digest: computes the hash of the stored bytes.
        release: closes what is open.
    """

    def __init__(
        self,
        view: ArrayView,
        fetch: Callable[[Index], NDArray[Any]],
        digest: Callable[[], str],
        release: Callable[[], None],
    ) -> None:
        self.view = view
        self.grid, self.channels, self.channel_names = view.grid, view.channels, view.channel_names
        self.dtype = np.dtype(view.stored.dtype).newbyteorder("=")
        self.slowest_axis, self.chunk = view.slowest_axis, view.chunk
        self.spacing_sources, self.notes = view.sources, view.notes
        self._fetch, self._digest, self._release = fetch, digest, release
        self._hash: str | None = None
        self._closed = False
        self._lock = Lock()

    def read(self, box: Box, channels: Sequence[int] | None = None) -> NDArray[Any]:
        """Copy the values ``(C, x, y, z)`` in ``box``, x fastest in memory where it is so in the file."""
        if self._closed:
            raise ValueError("the volume is closed")
        chosen = range(self.channels) if channels is None else channels
        if not len(chosen):
            raise ValueError("channels: expected at least one")
        indices = [self.view.index(box, channel) for channel in chosen]
        parts = [self.view.arrange(np.asarray(self._fetch(index), self.dtype)) for index in indices]
        if len(parts) == 1:
            return parts[0][np.newaxis]
        return np.stack([part.transpose(2, 1, 0) for part in parts]).transpose(0, 3, 2, 1)

    def sha256(self) -> str:
        with self._lock:
            if self._hash is None:
                if self._closed:
                    raise ValueError("the volume is closed")
                self._hash = self._digest()
            return self._hash

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._release()


def check_voxels(view: ArrayView, max_voxels: int, subject: str) -> None:
    """Raise LimitError for a volume with more voxels, all channels counted, than the limit."""
    count = view.grid.voxel_count * view.channels
    if count > max_voxels:
        raise LimitError(
            subject, expected=f"at most {max_voxels} voxels", got=f"{count}", do="crop it, or raise the limit"
        )


def package(name: str, extra: str, subject: str) -> Any:
    """Import a package that one of voxport's extras installs. Raises UsageError where it is missing."""
    try:
        return import_module(name)
    except ImportError:
        raise UsageError.not_installed(subject, f"the package {name.partition('.')[0]}", extra) from None


def real_dtype(dtype: np.dtype[Any], subject: str) -> np.dtype[Any]:
    """Return the dtype that stored values are read as: uint8 for truth values, float32 or float64 for other floats.

    Raises InputError for values that are not real numbers.
    """
    native = np.dtype(dtype).newbyteorder("=")
    if native.kind == "b":
        return np.dtype(np.uint8)
    if native.kind == "f" and native.itemsize not in (4, 8):
        return np.dtype(np.float32 if native.itemsize < 4 else np.float64)
    if native.kind not in "iuf":
        do = "convert its array to integers, float32 or float64"
        raise InputError(subject, expected="real numbers", got=str(native)[:60], do=do)
    return native
