"""What a file states of the array in it, and the volume that follows from that and from what the user states.

What the file does not state, or states against itself, is asked for and never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, UsageError
from .geometry.grid import Box, FloatArray, Grid, Shape3, shape3
from .reading import AXES, SPATIAL, Reading
from .stored_grid import stored_grid

_MOST_SAMPLES = 4  # red, green, blue and opacity


@dataclass(frozen=True, eq=False)
class StoredArray:
    """What a file states of the array in it.

    Args:
        shape: of the array as stored.
        dtype: of its values as they are read.
        axes: a letter for each axis in stored order: X, Y, Z, C (channel), T (time), S (samples of a colour picture),
            any other for an axis of another meaning; empty where the file does not say.
        spacing: voxel sizes stated, by letter; NaN for an axis of which ``affine`` states the direction alone.
        unit: mm, um or unknown.
        sources: where each voxel size was found, by letter, e.g. ``{"Z": "PhysicalSizeZ"}``; also the name of the
            field that lacks, where none was.
        origin: world position of the first voxel along x, y and z, in ``unit``.
        affine: ``(4, 4)`` from index ``(x, y, z)`` to RAS+ world, where the file states directions; it goes before
            ``spacing`` and ``origin``.
        channel_names: one a channel, or none.
        chunk: shape of the block that is read at the least cost; the whole array where empty.
        conflicts: what the file states against itself about voxel sizes; refused unless the user states them.
        notes: what the reader should know.
        choices: which of ``series`` and ``level`` the store chooses by. Another one that the user states is refused.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str = ""
    spacing: Mapping[str, float] = field(default_factory=dict)
    unit: str = "unknown"
    sources: Mapping[str, str] = field(default_factory=dict)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    affine: FloatArray | None = None
    channel_names: tuple[str, ...] = ()
    chunk: tuple[int, ...] = ()
    conflicts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    def view(self, reading: Reading, subject: str) -> ArrayView:
        """Return the array as a volume.

        Raises:
            InputError: what the file does not state, or states against itself, and ``reading`` does not either.
            UsageError: ``reading`` does not fit the file.
        """
        if 0 in self.shape:
            do = "write it again; it has no voxels"
            raise InputError(subject, expected="at least one voxel", got=_shown(self.shape), do=do)
        _check_choices(self.choices, reading, subject)
        axes, notes = _axes(self, reading, subject), list(self.notes)
        if any(was != now for was, now in zip(self.axes, axes, strict=False) if was in AXES and now in AXES):
            notes.append(f"{subject} calls its axes {self.axes}; {reading.axes} was given and is taken")
        fixed = _fixed(self, axes, reading, subject)
        grid, sources = stored_grid(self, axes, reading, subject, notes)
        along = axes.find("C")
        names = self.channel_names if along >= 0 and len(self.channel_names) == self.shape[along] else ()
        if along < 0 and len(self.channel_names) == 1:
            names = self.channel_names
        count = self.shape[along] if along >= 0 else 1
        chosen = tuple(range(count)) if reading.channel is None else _channels(reading.channel, count, names, subject)
        named = tuple(names[channel] for channel in chosen if names)
        return ArrayView(self, axes, fixed, grid, chosen, named, sources, tuple(notes))


@dataclass(frozen=True, eq=False)
class ArrayView:
    """A stored array seen as a volume ``(C, x, y, z)``; made by ``StoredArray.view``.

    ``axes`` has a letter each stored axis; ``fixed`` is the index taken along each axis that the volume lacks, by
    position; ``chosen`` are the stored channels that the volume has. ``sources`` says where the voxel size along x, y
    and z comes from.
    """

    stored: StoredArray
    axes: str
    fixed: Mapping[int, int]
    grid: Grid
    chosen: tuple[int, ...]
    channel_names: tuple[str, ...]
    sources: tuple[str, str, str]
    notes: tuple[str, ...]

    @property
    def channels(self) -> int:
        """Number of channels of the volume."""
        return len(self.chosen)

    @cached_property
    def chunk(self) -> Shape3:
        """Shape of the box that is read at the least cost."""
        return shape3(self._edge(letter, self.stored.chunk or self.stored.shape) for letter in SPATIAL)

    @property
    def slowest_axis(self) -> int:
        """The axis with the most chunks across; the one stored first of several."""
        across = [-(-edge // part) for edge, part in zip(self.grid.shape, self.chunk, strict=True)]
        return min(range(3), key=lambda axis: (-across[axis], self.axes.find(SPATIAL[axis])))

    def index(self, box: Box, channel: int) -> tuple[slice | int, ...]:
        """Return the index of a box of one of the volume's channels in the stored array, an entry an axis.

        Raises ValueError for a box or a channel that the volume does not have.
        """
        if not 0 <= channel < self.channels:
            raise ValueError(f"channels: expected some of 0 to {self.channels - 1}, got {channel}")
        limits = zip(box.start, box.stop, self.grid.shape, strict=True)
        if not all(0 <= start <= stop <= edge for start, stop, edge in limits):
            raise ValueError(f"box: expected one within {self.grid.shape}, got {box.start} to {box.stop}")
        parts = dict(zip(SPATIAL, box.slices, strict=True))
        return tuple(
            parts[letter] if letter in parts else self.chosen[channel] if letter == "C" else self.fixed[position]
            for position, letter in enumerate(self.axes)
        )

    def arrange(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return what the stored array has at an ``index`` as a view ``(x, y, z)``."""
        present = [letter for letter in self.axes if letter in SPATIAL]
        moved = values.transpose([present.index(letter) for letter in SPATIAL if letter in present])
        return moved if len(present) == 3 else moved[..., np.newaxis]  # only z may be absent

    def values(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the volume ``(C, x, y, z)`` of a stored array that is in memory."""
        whole = Box.whole(self.grid.shape)
        return np.stack([self.arrange(array[self.index(whole, channel)]) for channel in range(self.channels)])

    def _edge(self, letter: str, shape: Sequence[int]) -> int:
        position = self.axes.find(letter)
        return 1 if position < 0 else max(1, min(shape[position], self.stored.shape[position]))


def _check_choices(choices: Sequence[str], reading: Reading, subject: str) -> None:
    """Raise UsageError for a series or a level of a file that has one image at full resolution."""
    if reading.level and "level" not in choices:
        expected = f"0, as {subject} has no other levels of resolution"
        raise UsageError("level", expected=expected, got=str(reading.level), do="leave it out")
    if reading.series is not None and "series" not in choices:
        expected = f"none, as {subject} is one image"
        raise UsageError("series", expected=expected, got=reading.series[:60], do="leave it out")


def _axes(stored: StoredArray, reading: Reading, subject: str) -> str:
    """Return the meaning of each stored axis. One that the user leaves out must have a length of 1."""
    shown = _shown(stored.shape)
    if reading.axes is not None:
        long = [position for position, edge in enumerate(stored.shape) if edge > 1]
        for positions in (range(len(stored.shape)), long):
            if len(reading.axes) == len(positions):
                letters = dict(zip(positions, reading.axes, strict=True))
                return "".join(letters.get(position, "-") for position in range(len(stored.shape)))
        expected = f"{len(stored.shape)} letters, one for each axis of {shown}"
        raise UsageError("axes", expected=expected, got=reading.axes, do="correct it")
    do = "name them with `axes`, e.g. ZYX or CZYX"
    if not stored.axes:
        raise InputError(subject, expected="named axes", got=f"{shown} without names", do=do)
    axes, samples = stored.axes, stored.axes.find("S")
    if samples >= 0 and stored.shape[samples] == 1:
        axes = axes.replace("S", "-")
    elif samples >= 0 and stored.shape[samples] <= _MOST_SAMPLES:
        is_single = "C" not in axes or stored.shape[axes.find("C")] == 1
        if is_single and reading.channel is not None:
            return axes.replace("C", "-").replace("S", "C")
        do = "give the volume that it was made from"
        do = f"take one of its colours with `channel`, e.g. 0, or {do}" if is_single else do
        raise InputError(subject, expected="one intensity a voxel", got="a picture in colours (RGB)", do=do)
    unknown = [letter for at, letter in enumerate(axes) if letter not in AXES and stored.shape[at] > 1]
    if unknown or not {"X", "Y"} <= set(axes):
        raise InputError(subject, expected="axes of X, Y, Z, C and T", got=f"{stored.axes} in {shown}", do=do)
    return axes


def _fixed(stored: StoredArray, axes: str, reading: Reading, subject: str) -> dict[int, int]:
    """Return the index to take along each axis that a volume lacks."""
    fixed = {position: 0 for position, letter in enumerate(axes) if letter not in "XYZC"}
    at = axes.find("T")
    count = stored.shape[at] if at >= 0 else 1
    if reading.timepoint is None:
        if count > 1:
            do = "choose one with `timepoint`, counted from 0"
            raise InputError(subject, expected="one point in time", got=f"{count}", do=do)
        return fixed
    if at < 0 and reading.timepoint > 0:
        do = "name the axis of time with `axes`, e.g. TZYX, or leave the timepoint out"
        raise UsageError("timepoint", expected="a volume with an axis of time", got=f"axes {axes}", do=do)
    if reading.timepoint >= count:
        raise UsageError("timepoint", expected=f"0 to {count - 1}", got=str(reading.timepoint), do="choose another")
    return fixed | ({at: reading.timepoint} if at >= 0 else {})


def _channels(text: str, count: int, names: Sequence[str], subject: str) -> tuple[int, ...]:
    """Return the indices of channels by name or index."""
    chosen = []
    for word in [text] if text in names else [part.strip() for part in text.split(",")]:
        if word in names:
            if list(names).count(word) > 1:
                got = f"{word[:40]}, the name of {list(names).count(word)}"
                raise UsageError("channel", expected=f"one channel of {subject}", got=got, do="give its index, from 0")
            chosen.append(list(names).index(word))
        elif word.isascii() and word.isdigit() and int(word) < count:
            chosen.append(int(word))
        else:
            known = f" or {', '.join(names)}" if names else ""
            expected = f"a channel of {subject}: 0 to {count - 1}{known}"
            raise UsageError("channel", expected=expected, got=word[:40], do="choose another")
    return tuple(chosen)


def _shown(shape: Sequence[int]) -> str:
    return f"an array of {'x'.join(map(str, shape))}"
