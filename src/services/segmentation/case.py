"""A case: one or several stored volumes whose channels lie on one grid, and a survey of their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...domain.cards.model_card import ModelCard
from ...domain.errors import InputError
from ...domain.geometry.grid import Box, Grid
from ...domain.intensity import ChannelSurvey, Chunk, extremes
from ...ports.volume_store import VolumeSource, VolumeStore

_CHUNK_VOXELS = 2**22


@dataclass(frozen=True)
class Case:
    """Open volumes with one grid; their channels in order are the case's channels."""

    references: tuple[str, ...]
    sources: tuple[VolumeSource, ...]

    @classmethod
    def open(cls, store: VolumeStore, references: Sequence[str], stack: ExitStack) -> Case:
        """Open all volumes of a case; ``stack`` closes them.

        Raises:
            InputError: a volume cannot be read, or they do not lie on one grid.
        """
        if not references:
            raise InputError("case", expected="at least one volume", got="none", do="name one")
        sources = tuple(stack.enter_context(store.open(reference)) for reference in references)
        first = sources[0].grid
        for reference, source in zip(references, sources, strict=True):
            if not source.grid.same_space(first) or source.grid.unit != first.unit:
                raise InputError(
                    reference,
                    expected=f"the grid of {references[0]}: {describe_grid(first)}",
                    got=describe_grid(source.grid),
                    do="resample the volumes of a case to one grid first",
                )
        return cls(tuple(references), sources)

    @property
    def grid(self) -> Grid:
        """The grid that masks are written on."""
        return self.sources[0].grid

    @property
    def channels(self) -> int:
        """Channels of all volumes together."""
        return sum(source.channels for source in self.sources)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of all volumes."""
        return tuple(note for source in self.sources for note in source.notes)

    def read(self, box: Box) -> list[NDArray[Any]]:
        """One array ``(x, y, z)`` a channel, each in its own type."""
        return [channel for source in self.sources for channel in source.read(box)]

    def read_channel(self, channel: int, box: Box) -> NDArray[Any]:
        """Read the values ``(x, y, z)`` of one channel, and nothing of the others."""
        source, position = self._locate(channel)
        values: NDArray[Any] = source.read(box, [position])[0]
        return values

    def dtype_of(self, channel: int) -> np.dtype[Any]:
        """The type of a channel's values."""
        return self._locate(channel)[0].dtype

    def check_fits(self, card: ModelCard) -> None:
        """InputError unless the case has as many channels as the card asks for."""
        wanted = card.input.source_count
        if self.channels != wanted:
            names = ", ".join(channel.name for channel in card.input.channels)
            raise InputError(
                " + ".join(self.references),
                expected=f"{wanted} channel(s) ({names})",
                got=f"{self.channels}",
                do="give one file for each channel in this order, or one 4-D file that holds them",
            )

    def _locate(self, channel: int) -> tuple[VolumeSource, int]:
        for source in self.sources:
            if channel < source.channels:
                return source, channel
            channel -= source.channels
        raise IndexError(channel)


def slabs(grid: Grid, axis: int, voxels: int = _CHUNK_VOXELS) -> Iterator[Box]:
    """Boxes of whole planes that follow each other along ``axis``, each of about ``voxels`` voxels."""
    plane = grid.voxel_count // grid.shape[axis]
    thick = max(1, voxels // plane)
    for start in range(0, grid.shape[axis], thick):
        yield Box.whole(grid.shape).with_range(axis, start, min(start + thick, grid.shape[axis]))


def survey(case: Case, nan_as: float | None) -> tuple[ChannelSurvey, ...]:
    """Look over each channel once.

    Raises:
        InputError: a channel holds NaN or Inf and ``nan_as`` gives no value to take instead.
    """
    found = tuple(_survey_channel(case, channel, nan_as) for channel in range(case.channels))
    bad = sum(channel.not_finite for channel in found)
    if bad and nan_as is None:
        raise InputError(
            " + ".join(case.references),
            expected="finite values",
            got=f"{bad} voxels that are NaN or Inf",
            do="repair the volume, or set `nan_as` to the value to take instead",
        )
    return found


def finite(values: NDArray[Any], nan_as: float | None) -> NDArray[np.float32]:
    """Values as float32, with what is not finite replaced by ``nan_as``."""
    # float64 beyond float32's range becomes Inf here, and is counted as such
    with np.errstate(over="ignore"):
        result = np.asarray(values).astype(np.float32)
    if nan_as is not None and not np.issubdtype(values.dtype, np.integer):
        result[~np.isfinite(result)] = nan_as
    return result


def replaced(values: NDArray[Any], nan_as: float | None) -> NDArray[Any]:
    """Values in their own type, with what ``finite`` replaces replaced."""
    if nan_as is None or np.issubdtype(values.dtype, np.integer):
        return values
    return np.where(np.isfinite(finite(values, None)), values, values.dtype.type(nan_as))


def _survey_channel(case: Case, channel: int, nan_as: float | None) -> ChannelSurvey:
    dtype, axis = case.dtype_of(channel), case.sources[0].slowest_axis

    def read() -> Iterator[NDArray[Any]]:
        # flat, in the order of memory: the order of values does not matter here, and turning it takes long
        return (case.read_channel(channel, box).ravel(order="K") for box in slabs(case.grid, axis))

    if np.issubdtype(dtype, np.integer) and dtype.itemsize <= 2:
        table = _table_of(read(), dtype)
        low, high = extremes(lambda: [table])
        return ChannelSurvey(low, high, 0, lambda: [table])
    bad = sum(int(np.count_nonzero(~np.isfinite(finite(values, None)))) for values in read())
    stream: Callable[[], Iterator[Chunk]] = lambda: ((finite(values, nan_as), None) for values in read())  # noqa: E731
    low, high = (0.0, 0.0) if bad and nan_as is None else extremes(stream)
    return ChannelSurvey(low, high, bad, stream)


def _table_of(chunks: Iterator[NDArray[Any]], dtype: np.dtype[Any]) -> Chunk:
    """Distinct values of an 8- or 16-bit channel and how often each occurs."""
    lowest = int(np.iinfo(dtype).min)
    counts = np.zeros(2 ** (8 * dtype.itemsize), np.int64)
    for values in chunks:
        counts += np.bincount(values if lowest == 0 else values.astype(np.int32) - lowest, minlength=counts.size)
    present = np.flatnonzero(counts)
    return (present + lowest).astype(np.float32), counts[present]


def describe_grid(grid: Grid) -> str:
    """A grid in a few words, e.g. ``512x512x25 RAS at 0.994 x 0.994 x 5 um``."""
    shape = "x".join(str(n) for n in grid.shape)
    spacing = " x ".join(f"{s:.4g}" for s in grid.spacing)
    unit = "(unit unknown)" if grid.unit == "unknown" else grid.unit
    return f"{shape} {grid.axis_codes} at {spacing} {unit}"
