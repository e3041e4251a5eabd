"""Compare label maps with the truth, in any format and orientation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...domain.errors import InputError, NotInstalledError, UsageError
from ...domain.geometry.grid import Box, Grid, unit_factor
from ...domain.labels.comparison import LabelAgreement, Mask, agreement
from ...domain.labels.label_map import Labels
from ...domain.viewing.pages import SliceFigure
from ...domain.volume_names import VolumeNames
from ...ports.progress import ProgressListener
from ...ports.skeletons import Skeletoniser
from ...ports.volume_store import VolumeSource, VolumeStore
from ..segmentation.case import volumes_in

_MOST_LABELS = 1000

Draw = Callable[[Grid, Labels, Labels], tuple[SliceFigure, ...]]


@dataclass(frozen=True)
class Comparison:
    """A mask and its truth.

    ``unit`` is that of distances; ``tolerance`` that of the surface Dice. ``notes``: what the reader should know.
    ``slices``: what differs, if it was drawn.
    """

    labels: tuple[LabelAgreement, ...]
    unit: str
    tolerance: float
    notes: tuple[str, ...] = ()
    slices: tuple[SliceFigure, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class ComparePorts:
    """Ports that `compare` uses."""

    volumes: VolumeStore
    skeletons: Skeletoniser


def compare(
    mask: str,
    truth: str,
    progress: ProgressListener,
    *,
    ports: ComparePorts,
    tolerance: float | None = None,
    resample: bool = False,
    as_one: bool = False,
    names: Sequence[tuple[int, str]] = (),
    draw: Draw | None = None,
) -> Comparison:
    """Compare a label map with the true one, label by label.

    The mask may be stored in another orientation than the truth. One on another grid is refused unless ``resample``
    is set: then each voxel of the truth is compared with the nearest one of the mask.

    Args:
        tolerance: of the surface Dice, in the unit of the grid; by default the longest edge of a voxel.
        as_one: all that is not zero is one label.
        names: values and names of labels.
        draw: draws the label maps, on the grid of the truth.

    Raises:
        InputError: a volume cannot be read, is no label map, or lies elsewhere.
        CancelledError
    """
    with ports.volumes.open(truth) as true_source, ports.volumes.open(mask) as source:
        grid = true_source.grid
        if grid.is_sheared:
            do = "resample it to a grid with axes at right angles"
            raise InputError(truth, expected="axes at right angles, along which distances are", got="others", do=do)
        true = read_labels(true_source, truth, as_one=as_one)
        stored = read_labels(source, mask, as_one=as_one)
        found, notes = _on_grid(stored, source.grid, grid, mask, resample=resample)
    values = sorted(({int(value) for part in (found, true) for value in np.unique(part)} | {v for v, _ in names}) - {0})
    if len(values) > _MOST_LABELS:
        do = "compare label maps, not images or numbered components"
        raise InputError(mask, expected=f"at most {_MOST_LABELS} labels", got=str(len(values)), do=do)
    known, limit = dict(names), max(grid.spacing) if tolerance is None else tolerance
    skeletonise, lacking = _skeletoniser(ports.skeletons)
    progress.stage("compare", len(values))
    agreements = []
    for value in values:
        agreements.append(
            agreement(
                found,
                true,
                grid.spacing,
                value,
                known.get(value, f"label {value}"),
                tolerance=limit,
                skeletonise=skeletonise,
            )
        )
        progress.advance(1)
    slices = () if draw is None else draw(grid, found, true)
    return Comparison(tuple(agreements), grid.unit, limit, (*notes, *lacking), slices)


def paired(masks: Path, truths: Path, volumes: VolumeStore) -> tuple[tuple[str, str, str], ...]:
    """Return name, mask and truth of two files, or of the volumes of two folders that have the same name.

    Raises:
        InputError: a path does not exist, or a truth has no mask.
        UsageError: a file and a folder.
    """
    folders = [path.is_dir() and not volumes.recognises(str(path)) for path in (masks, truths)]
    if not any(folders):
        return ((volumes.names.stem(masks.name), str(masks), str(truths)),)
    for path, is_folder in zip((masks, truths), folders, strict=True):
        if not is_folder and not path.exists():
            raise InputError(str(path), expected="a folder of label maps", got="no such path", do="check the path")
    if not all(folders):
        raise UsageError("MASK", expected="two files or two folders", got="one of each", do="give two of a kind")
    known = _by_name(masks, volumes.names)
    wanted = _by_name(truths, volumes.names)
    if not wanted:
        raise InputError(str(truths), expected="a folder of label maps", got="no volume", do="check the path")
    lacking = [name for name in wanted if name not in known]
    if lacking:
        got = f"none of {', '.join(lacking[:5])}{' and others' if len(lacking) > 5 else ''}"
        raise InputError(str(masks), expected="a mask for each true label map, of its name", got=got, do="add them")
    return tuple((name, known[name], truth) for name, truth in sorted(wanted.items()))


def _by_name(folder: Path, names: VolumeNames) -> dict[str, str]:
    return {names.stem(name): str(folder / name) for name in volumes_in(folder, names)}


def read_labels(source: VolumeSource, name: str, *, as_one: bool = False) -> Labels:
    """Read a label map. Raises InputError for values that are no labels."""
    if source.channels != 1:
        do = "give a label map of one channel"
        raise InputError(name, expected="a label map", got=f"{source.channels} channels", do=do)
    values: NDArray[Any] = source.read(Box.whole(source.grid.shape))[0]
    if values.dtype.kind == "f":
        whole = np.nan_to_num(values, nan=-1.0, posinf=-1.0, neginf=-1.0)
        if not (np.equal(whole, np.rint(whole)).all() and whole.min(initial=0) >= 0):
            got, do = "values that are not whole", "give masks, not probabilities"
            raise InputError(name, expected="a label map", got=got, do=do)
        values = whole
    if values.size and (values.min() < 0 or values.max() > np.iinfo(np.uint32).max):
        raise InputError(name, expected="labels from 0 on", got="other values", do="give a label map")
    return (values != 0).astype(np.uint8) if as_one else values.astype(np.uint32)


def _on_grid(labels: Labels, grid: Grid, wanted: Grid, name: str, *, resample: bool) -> tuple[Labels, tuple[str, ...]]:
    """Return labels on another grid: turned, or taken from the nearest voxels. Raises InputError for other grids."""
    turn = grid.reorientation_to(wanted.axis_codes)
    turned = turn.apply_grid(grid)
    known = "unknown" not in (grid.unit, wanted.unit)
    same_unit = not known or grid.unit == wanted.unit
    if same_unit and turned.same_space(wanted):
        return turn.apply(labels), ()
    if not resample:
        got = wanted.difference(turned) if same_unit else f"one in {grid.unit} beside one in {wanted.unit}"
        do = "give the mask as it was made for this image, or set `resample`"
        raise InputError(name, expected="the grid of the truth", got=got or "another", do=do)
    scale = unit_factor(grid.unit, wanted.unit)
    affine = np.diag([scale, scale, scale, 1.0]) @ grid.affine
    note = f"{name} lies on another grid: each voxel of the truth is compared with the nearest one of the mask"
    return _nearest(labels, np.linalg.inv(affine) @ wanted.affine, wanted), (note,)


def _nearest(labels: Labels, to_index: NDArray[np.float64], wanted: Grid) -> Labels:
    """Take the nearest voxel at each place of a grid; background outside."""
    taken = np.zeros(wanted.shape, labels.dtype)
    across = np.stack(np.meshgrid(*map(np.arange, wanted.shape[:2]), indexing="ij"))
    shape = np.array(labels.shape)[:, np.newaxis, np.newaxis]
    for z in range(wanted.shape[2]):
        at = np.rint(
            np.tensordot(to_index[:3, :2], across, 1)
            + (to_index[:3, 2] * z + to_index[:3, 3])[:, np.newaxis, np.newaxis]
        ).astype(np.int64)
        inside = ((at >= 0) & (at < shape)).all(axis=0)
        taken[:, :, z][inside] = labels[tuple(at[:, inside])]
    return taken


def _skeletoniser(skeletons: Skeletoniser) -> tuple[Callable[[Mask], Mask] | None, tuple[str, ...]]:
    """Return what finds centre lines; without the package for them None, and a note that says so."""
    try:
        skeletons.skeleton(np.zeros((1, 1, 1), bool))
    except NotInstalledError as error:
        return None, (f"no clDice: {error}",)
    return skeletons.skeleton, ()
