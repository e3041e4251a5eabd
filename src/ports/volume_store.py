"""Reading and writing volumes slab by slab."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..domain.geometry.grid import Box, Grid, Shape3
from ..domain.labels.label_map import LabelTable
from ..domain.reading import Reading
from ..domain.volume import Volume
from ..domain.volume_names import VolumeNames


class OpenVolume(Protocol):
    """A volume that is open. A context manager that closes itself."""

    def close(self) -> None:
        """Release what is held, and drop what was not committed. Closing twice does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class VolumeSource(OpenVolume, Protocol):
    """A stored volume, open for reading any box of it."""

    @property
    def grid(self) -> Grid:
        """Shape, affine and unit as stored."""

    @property
    def channels(self) -> int:
        """Number of channels; 1 for a 3-D volume."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The real scalar type that ``read`` returns, scaling applied."""

    @property
    def slowest_axis(self) -> int:
        """The array axis along which slabs are read at the least cost."""

    @property
    def chunk(self) -> Shape3:
        """Shape of the box that is read at the least cost; boxes of whole chunks read nothing twice."""

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Name of each channel, as stored; empty where the volume states none."""

    @property
    def spacing_sources(self) -> tuple[str, str, str]:
        """Where the voxel size along x, y and z was found, e.g. ``PhysicalSizeX``; ``given`` for one of the user."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know about how the volume is stored, e.g. two affines that disagree."""

    def read(self, box: Box, channels: Sequence[int] | None = None) -> NDArray[Any]:
        """Read the voxels in ``box`` as ``(C, x, y, z)``, in ``dtype`` and any memory order; a copy.

        Only the given channels are read, in the given order; all of them for None. Raises ValueError for a box or a
        channel that the volume does not have.
        """

    def sha256(self) -> str:
        """Hash of the stored bytes."""


class VolumeSink(OpenVolume, Protocol):
    """A volume being written box by box, in any order. Without ``commit`` nothing appears under its name."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the format cannot say of the volume, e.g. its directions; empty where it says all."""

    def write(self, box: Box, values: NDArray[Any]) -> None:
        """Set the voxels of ``box`` to ``(C, x, y, z)`` or, for one channel, ``(x, y, z)``.

        Raises:
            OutputError: the place cannot be written.
            ValueError: the box is not within the grid, the shape is not the box's, or the sink is closed.
            TypeError: the values' kind does not fit the volume's.
        """

    def read(self, box: Box) -> NDArray[Any]:
        """Copy the values ``(C, x, y, z)`` written so far; zeros elsewhere. Raises ValueError once closed."""

    def commit(self) -> str:
        """Make the volume appear under its name, whole, replacing what was there; returns its sha256.

        The hash is what ``VolumeSource.sha256`` gives for the volume from now on. Committing twice does nothing.
        Raises OutputError; then nothing has changed, and the sink is closed.
        """


class VolumeStore(Protocol):
    """A place that keeps volumes by reference: a path, of a file or a folder, for volumes on disk."""

    @property
    def names(self) -> VolumeNames:
        """Endings of the references that this store reads and writes; empty where any text will do."""

    @property
    def max_voxels(self) -> int:
        """The most voxels, all channels counted, that a volume may have, here or resampled for a network."""

    def recognises(self, reference: str) -> bool:
        """Return whether a volume of this store's kind lies under a reference, by its content and not by its name."""

    def places(self, reference: str) -> tuple[str, ...]:
        """Return every place that a volume of this reference may occupy, links resolved.

        Two references whose places intersect cannot be input and output of one run.
        """

    def open(self, reference: str, reading: Reading | None = None) -> VolumeSource:
        """Open a volume for reading, as ``reading`` states it where the user states more than the file.

        Raises:
            InputError: it is missing, damaged, or of a kind that cannot be segmented; or it does not state its axes or
                voxel sizes, and ``reading`` does not either.
            LimitError: it has more voxels than the stated limit.
            UsageError: ``reading`` does not fit the volume, or a package that reads it is not installed.
        """

    def create(
        self,
        reference: str,
        grid: Grid,
        dtype: np.dtype[Any],
        *,
        channels: int = 1,
        like: VolumeSource | None = None,
        channel_names: Sequence[str] = (),
        labels: LabelTable | None = None,
    ) -> VolumeSink:
        """Begin a volume filled with zeros.

        Args:
            reference: where it will be.
            grid: of the volume.
            dtype: an integer type, float32 or float64.
            channels: their number.
            like: a source on the same grid, of any store. A source of this store gives its exact statement of the place
                in space (for NIfTI: sform, qform, their codes, unit); another one gives its grid.
            channel_names: one a channel, or none. Kept where the format can hold them.
            labels: of a label map. Their names and colours are kept where the format can hold them.

        Raises:
            OutputError: the place does not exist, is read-only, or is full; or the store writes no such volume.
            UsageError: a package that writes it is not installed.
            ValueError: ``like`` is on another grid, or the number of names is wrong.
        """


class ArrayStore(VolumeStore, Protocol):
    """A volume store in memory: holds what ``put`` gave it, gives back what was written."""

    def put(self, reference: str, volume: Volume) -> None:
        """Keep a volume under a reference, in the place of the one before."""

    def get(self, reference: str) -> Volume:
        """Return the volume under a reference. Raises InputError if there is none."""
