"""A case: one or several stored volumes whose channels lie on one grid, and a survey of their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...domain.cards.model_card import ModelCard
from ...domain.errors import InputError
from ...domain.geometry.grid import Box, Grid
from ...domain.intensity import ChannelSurvey, Chunk, extremes
from ...domain.reading import Reading
from ...domain.volume_names import VolumeNames
from ...ports.volume_store import VolumeSource, VolumeStore

_CHUNK_VOXELS = 2**22
_MOST_SLAB_VOXELS = 2**25
# Of decoded chunks that a source keeps between slabs.
MOST_ROW_BYTES = 2**30
# In voxels. Rounding in headers and between tools moves grids by a few thousandths; more than this shifts a channel.
_LARGEST_MISFIT = 0.1


@dataclass(frozen=True)
class Case:
    """Open volumes with one grid; their channels in order are the case's channels."""

    references: tuple[str, ...]
    sources: tuple[VolumeSource, ...]
    max_voxels: int = 2**33
    misfits: tuple[str, ...] = ()

    @classmethod
    def open(
        cls, store: VolumeStore, references: Sequence[str], stack: ExitStack, reading: Reading | None = None
    ) -> Case:
        """Open a case, each volume as ``reading`` states it; ``stack`` closes it.

        Raises InputError for an unreadable volume, or one on another grid.
        """
        if not references:
            raise InputError("case", expected="at least one volume", got="none", do="name one")
        sources = tuple(stack.enter_context(store.open(reference, reading)) for reference in references)
        first, misfits = sources[0].grid, []
        for reference, source in zip(references, sources, strict=True):
            comparable = source.grid.shape == first.shape and source.grid.unit == first.unit
            if not comparable or first.voxels_apart(source.grid) > _LARGEST_MISFIT:
                raise InputError(
                    reference,
                    expected=f"the grid of {references[0]}: {describe_grid(first)}",
                    got=f"{describe_grid(source.grid)}: {first.difference(source.grid)}",
                    do="resample the volumes of a case to one grid first",
                )
            if not source.grid.same_space(first):
                difference = first.difference(source.grid)
                misfits.append(f"{reference} has {difference}; the grid of {references[0]} is taken for both")
        return cls(tuple(references), sources, store.max_voxels, tuple(misfits))

    @property
    def grid(self) -> Grid:
        """The grid that masks are written on."""
        return self.sources[0].grid

    @property
    def channels(self) -> int:
        """Channels of all volumes together."""
        return sum(source.channels for source in self.sources)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Name of each channel, as stored; empty for one that has none."""
        return tuple(name for s in self.sources for name in s.channel_names or [""] * s.channels)

    @property
    def reading_bytes(self) -> int:
        """Bytes of the chunks that sources keep decoded while slabs thinner than a chunk are read."""
        total = 0
        for source in self.sources:
            axis = source.slowest_axis
            if source.chunk[axis] > 1:
                row = self.grid.voxel_count // self.grid.shape[axis] * source.chunk[axis]
                total += min(row * source.dtype.itemsize * source.channels, MOST_ROW_BYTES)
        return total

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of all volumes."""
        return (*self.misfits, *(note for source in self.sources for note in source.notes))

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
            do = "give one file for each channel in this order, or one 4-D file that holds them"
            if len(self.sources) == 1 and self.channels > wanted:
                do = "choose with `channel`, by name or index from 0"
            expected, got = f"{wanted} channel(s) ({names})", f"{self.channels}"
            raise InputError(" + ".join(self.references), expected=expected, got=got, do=do)

    def _locate(self, channel: int) -> tuple[VolumeSource, int]:
        for source in self.sources:
            if channel < source.channels:
                return source, channel
            channel -= source.channels
        raise IndexError(channel)


def slabs(
    grid: Grid, axis: int, voxels: int = _CHUNK_VOXELS, *, multiple: int = 1, within: Box | None = None
) -> Iterator[Box]:
    """Yield boxes of whole planes along ``axis``, each of about ``voxels`` voxels and ``multiple`` planes, or more.

    A ``multiple`` of planes that memory should not hold does not count: sources keep the chunks between slabs.
    ``within``: the part of the grid to take; None takes all. Boxes are no thicker for it: stores may read whole planes.
    """
    whole = within or Box.whole(grid.shape)
    plane = grid.voxel_count // grid.shape[axis]
    multiple = multiple if multiple * plane <= _MOST_SLAB_VOXELS else 1
    thick = max(1, voxels // plane // multiple) * multiple
    for start in range(whole.start[axis], whole.stop[axis], thick):
        yield whole.with_range(axis, start, min(start + thick, whole.stop[axis]))


def survey(case: Case, nan_as: float | None, within: Box | None = None) -> tuple[ChannelSurvey, ...]:
    """Look over each channel once, within a box if one is given.

    Raises InputError for what float32 cannot hold, unless ``nan_as`` replaces it.
    """
    channels, not_finite, beyond = [], 0, 0
    for channel in range(case.channels):
        found, bad, unfit = _survey_channel(case, channel, nan_as, within)
        channels.append(found)
        not_finite, beyond = not_finite + bad, beyond + unfit
    if (not_finite or beyond) and nan_as is None:
        found_bad = [f"{_voxels(not_finite)} NaN or Inf"] if not_finite else []
        found_bad += [f"{_voxels(beyond)} beyond single precision (+-3.4e38)"] if beyond else []
        raise InputError(
            " + ".join(case.references),
            expected="finite values",
            got=" and ".join(found_bad),
            do="repair the volume, or set `nan_as` to the value to take instead",
        )
    return tuple(channels)


def _voxels(count: int) -> str:
    return f"{count} voxel that is" if count == 1 else f"{count} voxels that are"


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


def _survey_channel(
    case: Case, channel: int, nan_as: float | None, within: Box | None
) -> tuple[ChannelSurvey, int, int]:
    """Return the survey, the number of NaN and Inf voxels, and the number of finite ones beyond single precision."""
    dtype, axis = case.dtype_of(channel), case.sources[0].slowest_axis

    def read() -> Iterator[NDArray[Any]]:
        # Flat, in memory's order: the order of values does not matter, and a C-ordered copy takes long.
        boxes = slabs(case.grid, axis, multiple=case.sources[0].chunk[axis], within=within)
        return (case.read_channel(channel, box).ravel(order="K") for box in boxes)

    if is_counted(dtype):
        return survey_of(value_table(read(), dtype)), 0, 0
    low, high, rounding, not_finite, beyond = math.inf, -math.inf, 0.0, 0, 0
    for values in read():
        single = finite(values, None)
        if (bad := ~np.isfinite(single)).any():
            lost = int(np.count_nonzero(~np.isfinite(values)))
            not_finite, beyond = not_finite + lost, beyond + int(np.count_nonzero(bad)) - lost
            values, single = values[~bad], single[~bad]
        if values.size:
            low, high = min(low, values.min().item()), max(high, values.max().item())
            if dtype.itemsize > single.itemsize or dtype.kind != "f":
                rounding = max(rounding, float(np.abs(single - values.astype(np.float64)).max()))
    if (not_finite or beyond) and nan_as is not None:
        low, high = min(low, nan_as), max(high, nan_as)
    elif low > high:
        low = high = 0.0
    singles = float(np.float32(low)), float(np.float32(high))
    stream: Callable[[], Iterator[Chunk]] = lambda: ((finite(values, nan_as), None) for values in read())  # noqa: E731
    found = ChannelSurvey(*singles, stream, (low, high), rounding)
    return found, not_finite, beyond


def is_counted(dtype: np.dtype[Any]) -> bool:
    """Return whether the survey of a channel is a table of its values: for integers of 8 or 16 bits."""
    return np.issubdtype(dtype, np.integer) and dtype.itemsize <= 2


def survey_of(table: Chunk) -> ChannelSurvey:
    """Return the survey of a channel from the table of its values."""
    low, high = extremes(lambda: [table])
    return ChannelSurvey(low, high, lambda: [table], (low, high))


def value_table(chunks: Iterable[NDArray[Any]], dtype: np.dtype[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the distinct values of an 8- or 16-bit channel, and how often each occurs."""
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


def volumes_in(folder: Path, names: VolumeNames) -> list[str]:
    """Return the names of the volumes in a folder, not below it, sorted."""
    return sorted(path.name for path in folder.iterdir() if names.is_volume(path.name, is_folder=path.is_dir()))
