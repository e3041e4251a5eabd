"""DICOM frames that make one volume: grouped, chosen, ordered along their normal, and placed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....domain.errors import InputError, UsageError
from ....domain.geometry.grid import FloatArray
from .headers import TIMES, Frame

# The direction cosines of one volume's slices, and the lengths of their vectors, differ by less than this.
_DIRECTION_TOLERANCE = 1e-3
# Slices lie apart by more than this part of a pixel.
_SAME_PLACE = 1e-3
# A slice lies off its even place by at most this part of the distance between slices; by more than the second, with a
# note. Many scanners round positions to 0.1 mm.
_UNEVEN, _ROUNDING = 0.05, 1e-3
_MOST_LISTED = 8
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Ordered:
    """Frames ``[t][z]`` in order; ``affine`` from index ``(x, y, z)`` to RAS+ in mm, without a third column where
    neither positions nor a thickness give it; ``depth`` names the field that gave it."""

    frames: Sequence[Sequence[Frame]]
    affine: FloatArray
    depth: str
    notes: tuple[str, ...] = ()


def chosen_stack(frames: Sequence[Frame], wanted: str | None, subject: str) -> list[Frame]:
    """Return the frames that make one volume.

    A series with frames of several sizes, directions or kinds (a scout beside the slices, water beside fat) counts as
    several, named ``UID:1``, ``UID:2`` and so on.

    Raises:
        InputError: there are several, and none is named.
        UsageError: none, or several, have the name.
    """
    stacks = dict(_stacks(frames))
    listed = "; ".join(_described(name, stack) for name, stack in list(stacks.items())[:_MOST_LISTED])
    more = f"; and {len(stacks) - _MOST_LISTED} more" if len(stacks) > _MOST_LISTED else ""
    if wanted is None:
        if len(stacks) > 1:
            do = "choose one with `series`, its UID or the start of it"
            raise InputError(subject, expected="one series", got=f"{len(stacks)}: {listed}{more}", do=do)
        return next(iter(stacks.values()))
    found = [wanted] if wanted in stacks else [name for name in stacks if name.startswith(wanted)]
    if len(found) != 1:
        got = f"{wanted[:80]!r}, which {'none' if not found else len(found)} of them match"
        raise UsageError("series", expected=f"one of {listed}{more}", got=got, do="name one of them")
    return stacks[found[0]]


def ordered(frames: Sequence[Frame], subject: str) -> Ordered:
    """Return the frames of one volume in order, and their place.

    Raises:
        InputError: no geometry; slices that are missing, doubled or unevenly spaced.
    """
    first = frames[0]
    for frame in frames:
        if frame.position is None or frame.orientation is None or frame.spacing is None:
            raise _no_geometry(frame, subject)
    right, down = _directions(first, subject)
    normal = np.cross(right, down)
    spacing = np.array(first.spacing)
    if not (spacing > 0).all() or any(not np.allclose(f.spacing or 0, spacing, rtol=1e-3) for f in frames):
        got = "several" if (spacing > 0).all() else "zero"
        raise InputError(subject, expected="one PixelSpacing above 0", got=got, do="export the series again")
    positions = np.array([frame.position for frame in frames], np.float64)
    along = positions @ normal
    order = np.lexsort((np.array([frame.number for frame in frames]), along))
    places = _places([frames[at] for at in order], along[order], float(_SAME_PLACE * spacing.min()))
    volumes, notes = _times(places, normal, subject)
    third, depth, uneven = _third_column(volumes[0], normal, subject)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = right * spacing[1], down * spacing[0]
    affine[:3, 2] = third
    affine[:3, 3] = volumes[0][0].position
    return Ordered(volumes, _LPS_TO_RAS @ affine, depth, (*notes, *uneven))


def _stacks(frames: Sequence[Frame]) -> Iterable[tuple[str, list[Frame]]]:
    by_series: dict[str, list[Frame]] = {}
    for frame in frames:
        by_series.setdefault(frame.series, []).append(frame)
    for uid, members in by_series.items():
        stacks = sorted((part for alike in _alike(members) for part in _by_kind(alike)), key=len, reverse=True)
        for number, stack in enumerate(stacks, 1):
            yield (uid if len(stacks) == 1 else f"{uid}:{number}"), stack


def _alike(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group frames of one size and direction."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            first = group[0]
            same = (first.stored.rows, first.stored.columns) == (frame.stored.rows, frame.stored.columns)
            if same and _same_direction(first, frame):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _same_direction(one: Frame, other: Frame) -> bool:
    if one.orientation is None or other.orientation is None:
        return one.orientation is other.orientation
    return bool(np.allclose(one.orientation, other.orientation, rtol=0, atol=_DIRECTION_TOLERANCE))


def _by_kind(frames: list[Frame]) -> list[list[Frame]]:
    """Split frames by their kind (ImageType) where one kind alone fills each place once."""
    kinds: dict[str, list[Frame]] = {}
    for frame in frames:
        kinds.setdefault(frame.kind, []).append(frame)
    places = [frozenset(_rounded(frame) for frame in kind) for kind in kinds.values()]
    if len(kinds) > 1 and (any("LOCALIZER" in kind for kind in kinds) or len(set(places)) < len(places)):
        return list(kinds.values())
    return [frames]


def _rounded(frame: Frame) -> tuple[float, ...] | None:
    return None if frame.position is None else tuple(round(value, 3) for value in frame.position)


def _described(name: str, frames: Sequence[Frame]) -> str:
    first = frames[0]
    words = "".join(letter for letter in first.description if letter.isprintable())[:40].strip()
    count = f"{len(frames)} slice{'s' if len(frames) > 1 else ''}"
    size = f"{first.stored.columns} x {first.stored.rows}"
    return f"{name} ({', '.join(filter(None, (first.modality, words, count)))} of {size})"


def _no_geometry(frame: Frame, subject: str) -> InputError:
    names = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    stated = (frame.position, frame.orientation, frame.spacing)
    lacking = [name for name, value in zip(names, stated, strict=True) if value is None]
    do = "export the original series instead of pictures of it (secondary captures)"
    got = f"no {' and no '.join(lacking)} in {frame.stored.part.name}"
    return InputError(subject, expected="slices with a place in space", got=got, do=do)


def _directions(frame: Frame, subject: str) -> tuple[FloatArray, FloatArray]:
    right, down = np.array(frame.orientation).reshape(2, 3)
    lengths = np.linalg.norm([right, down], axis=1)
    if not (np.abs(lengths - 1) < 1e-2).all() or abs(right @ down) > 1e-2:
        expected, do = "direction cosines at right angles", "export the series again"
        got = f"ImageOrientationPatient {', '.join(f'{value:g}' for value in frame.orientation or ())}"
        raise InputError(subject, expected=expected, got=got, do=do)
    return right / lengths[0], down / lengths[1]


def _places(frames: Sequence[Frame], along: FloatArray, tolerance: float) -> list[list[Frame]]:
    """Group sorted frames by their place along the normal."""
    places = [[frames[0]]]
    for frame, step in zip(frames[1:], np.diff(along), strict=True):
        if step > tolerance:
            places.append([])
        places[-1].append(frame)
    return places


def _times(
    places: Sequence[list[Frame]], normal: FloatArray, subject: str
) -> tuple[list[list[Frame]], tuple[str, ...]]:
    """Return the frames ``[t][z]`` of places with several frames each, told apart by the first field that does it."""
    counts = {len(place) for place in places}
    if counts == {1}:
        return [[place[0] for place in places]], ()
    uids = [(frame.stored.sop_uid, frame.index) for place in places for frame in place]
    count = next(iter(counts))
    if len(counts) == 1 and len(set(uids)) == len(uids):
        for name in TIMES:
            values = [[frame.times.get(name) for frame in place] for place in places]
            if all(None not in place and len(set(place)) == count for place in values):
                kinds = {tuple(sorted(map(repr, place))) for place in values}
                if len(kinds) == 1 or name.endswith("Time"):
                    by_time = [sorted(place, key=lambda frame: _key(frame.times[name])) for place in places]
                    return [list(volume) for volume in zip(*by_time, strict=True)], (f"{name} orders the timepoints",)
    doubled = max(places, key=len) if len(counts) > 1 else places[0]
    at = float(np.dot(doubled[0].position or (0, 0, 0), normal))
    got = f"{len(doubled)} slices ({_numbers(doubled)}) at one place, {at:.6g} mm"
    do = "keep one series, each slice once, in the folder"
    raise InputError(subject, expected="one slice at each place", got=got, do=do)


def _key(value: float | str) -> tuple[bool, Any]:
    return isinstance(value, str), value


def _third_column(frames: Sequence[Frame], normal: FloatArray, subject: str) -> tuple[FloatArray, str, tuple[str, ...]]:
    """Return the step from slice to slice, the field that gave it, and notes. Tilted stacks step off the normal."""
    if len(frames) == 1:
        name, length = frames[0].thickness or ("SliceThickness", 0.0)
        return normal * length, name, ()
    positions = np.array([frame.position for frame in frames], np.float64)
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    even = positions[0] + np.arange(len(frames))[:, np.newaxis] * step
    off = np.linalg.norm(positions - even, axis=1).max()
    distance = float(step @ normal)
    if off > _UNEVEN * distance:
        raise _uneven(frames, positions @ normal, off, subject)
    if off <= _ROUNDING * distance:
        return step, "ImagePositionPatient", ()
    note = f"its slices lie up to {off:.3g} mm off even steps of {distance:.6g} mm; even steps are taken"
    return step, "ImagePositionPatient", (note,)


def _uneven(frames: Sequence[Frame], along: FloatArray, off: float, subject: str) -> InputError:
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    worst = int(np.argmax(np.abs(gaps - usual)))
    ratio = gaps[worst] / usual
    if abs(ratio - 1) <= _UNEVEN:  # a shift within the planes
        got = f"slices up to {off:.3g} mm beside a straight line"
        do = "export one series with slices in a straight stack"
        return InputError(subject, expected="slices on a straight line", got=got, do=do)
    where = f"{_numbers(frames[worst : worst + 2])} at {along[worst]:.6g} and {along[worst + 1]:.6g} mm"
    got = f"{gaps[worst]:.6g} mm between slices {where}, {usual:.6g} mm between others"
    missing = round(ratio) - 1
    if missing > 0 and abs(ratio - round(ratio)) < 0.1:
        got += f" ({missing} missing)"
        do = "copy or export the series again with all slices"
    else:
        do = "resample it to even steps: dcm2niix -z y -o OUTPUT_FOLDER FOLDER makes a file with _Eq in its name"
    return InputError(subject, expected="evenly spaced slices", got=got, do=do)


def _numbers(frames: Sequence[Frame]) -> str:
    *first, last = [str(frame.number) for frame in frames[:_MOST_LISTED]]
    return f"{', '.join(first)} and {last}" if first else last
