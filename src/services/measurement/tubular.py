"""Measure the tubes of a mask, such as vessels: lengths, radii and branches."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from ...domain.errors import InputError, LimitError, OutputError
from ...domain.geometry.grid import Grid
from ...domain.labels.comparison import Mask
from ...domain.reading import Reading
from ...domain.tubes.centreline import CentreLine, Tube
from ...domain.tubes.files import LABELS, SEGMENTS, tube_files
from ...domain.tubes.graph import Points, tube_graph
from ...domain.tubes.measures import Segment, TubeMeasures, tube_measures
from ...ports.artifacts import ArtifactWriter
from ...ports.progress import ProgressListener
from ...ports.skeletons import Skeletoniser
from ...ports.tracers import LineTracer
from ...ports.volume_store import VolumeStore
from ..comparison.compare import read_labels

MOST_VOXELS = 2**27  # 512 x 512 x 512, which takes up to 3 GB
_MOST_LABELS = 1000
_TOUCHING = np.ones((3, 3, 3), bool)
_SURROUNDED = 20  # of 26 neighbours; 18 lie on both sides of a gap between two surfaces


@dataclass(frozen=True)
class TubePorts:
    """Ports that `measure_tubes` uses."""

    volumes: VolumeStore
    artifacts: ArtifactWriter
    skeletons: Skeletoniser
    tracer: LineTracer


@dataclass(frozen=True)
class TubeReport:
    """The tubes of a mask: measures of each label, and the segments of each by its value."""

    grid: Grid
    measures: tuple[TubeMeasures, ...]
    segments: Mapping[int, Sequence[Segment]]


def measure_tubes(
    mask: str,
    progress: ProgressListener,
    *,
    ports: TubePorts,
    names: Sequence[tuple[int, str]] = (),
    reading: Reading | None = None,
) -> TubeReport:
    """Measure the tubes of each label of a mask; ``names`` are values and names of labels, in it or not.

    Raises:
        InputError: the mask cannot be read, is no label map, or has sheared axes.
        LimitError: it is too large to be measured in memory.
        NotInstalledError: a package is missing.
        CancelledError
    """
    with ports.volumes.open(mask, reading) as source:
        grid = source.grid
        if grid.is_sheared:
            do = "resample it to a grid with axes at right angles"
            raise InputError(mask, expected="axes at right angles, along which lengths are", got="others", do=do)
        if grid.voxel_count > MOST_VOXELS:
            do = "measure a part of it, or a mask on a coarser grid"
            raise LimitError(mask, expected=f"at most {MOST_VOXELS} voxels", got=str(grid.voxel_count), do=do)
        labels = read_labels(source, mask)
    known = dict(names)
    values = sorted(({int(value) for value in np.unique(labels)} | set(known)) - {0})
    if len(values) > _MOST_LABELS:
        do = "measure a label map, not an image or numbered components"
        raise InputError(mask, expected=f"at most {_MOST_LABELS} labels", got=str(len(values)), do=do)
    progress.stage("tubes", len(values))
    measures, segments = [], {}
    volume = math.prod(grid.spacing) * grid.voxel_count
    for value in values:
        found: list[Segment] = []
        nodes: dict[tuple[int, int], int] = {}
        components = 0
        for components, (part, first) in enumerate(_components(labels == value), 1):
            progress.advance(0)
            for line, *ends in _lines(part, grid.spacing, ports):
                start, end = (nodes.setdefault((components, node), 1 + len(nodes)) for node in ends)
                found.append(Segment(components, start, end, line.moved(first * np.array(grid.spacing))))
        segments[value] = found
        name = known.get(value, f"label {value}")
        measures.append(tube_measures(value, name, found, components=components, grid_volume=volume))
        progress.advance(1)
    return TubeReport(grid, tuple(measures), segments)


def write_tubes(report: TubeReport, folder: Path, artifacts: ArtifactWriter) -> None:
    """Write the tables and centre lines of a mask's tubes into a folder, which is made, or replaces one of such files.

    Raises:
        OutputError: it cannot be written, or holds other files.
    """
    try:
        check_tube_folder(folder)
        part = Path(mkdtemp(dir=folder.parent, prefix=".voxport-", suffix=".part"))
        try:
            part.chmod(0o755)
            for name, content in tube_files(report.measures, report.segments, report.grid).items():
                artifacts.write(str(part / name), content)
            if folder.exists():
                shutil.rmtree(folder)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise OutputError.cannot_write(str(folder), error) from None


def check_tube_folder(folder: Path) -> None:
    """Check that a folder is new, or holds nothing but what `write_tubes` writes. Raises OutputError."""
    try:
        if not folder.parent.is_dir():
            raise OutputError.cannot_write(str(folder), "no such folder")
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise OutputError.cannot_write(str(folder), "another file of that name")
        others = [p.name for p in folder.iterdir() if not _is_ours(p)] if folder.is_dir() else []
    except OSError as error:
        raise OutputError.cannot_write(str(folder), error) from None
    if others:
        got = f"one that holds {others[0]}"
        raise OutputError(str(folder), expected="a new folder, or one of such measures", got=got, do="name another")


def _is_ours(path: Path) -> bool:
    return path.name in (LABELS, SEGMENTS) or (path.suffix == ".swc" and path.stem.isdecimal())


def _components(mask: Mask) -> Iterator[tuple[Mask, Points]]:
    """Yield each connected part of a mask in its box, which is a voxel wider, and the box's first voxel."""
    from scipy import ndimage  # takes 0.25 s, and most commands measure nothing

    parts, _ = ndimage.label(mask, _TOUCHING)
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        wider = tuple(
            slice(max(axis.start - 1, 0), min(axis.stop + 1, edge)) for axis, edge in zip(box, mask.shape, strict=True)
        )
        part: Mask = parts[wider] == number
        # a gap of one voxel would be a loop, and a hole inside a shell
        part |= ndimage.convolve(part.astype(np.uint8), _TOUCHING.astype(np.uint8), mode="constant") > _SURROUNDED
        part = ndimage.binary_fill_holes(part)
        yield part, np.array([axis.start for axis in wider], float)


def _lines(mask: Mask, spacing: tuple[float, float, float], ports: TubePorts) -> Iterator[tuple[CentreLine, int, int]]:
    """Yield the centre lines of a connected mask, with the nodes that they begin and end at."""
    fine, step, first = _even(mask, spacing)
    paths = [path * step + first for path in ports.tracer.trace(ports.skeletons.skeleton(fine))]
    tube = Tube(mask, spacing)
    lines = tube_graph(paths, tube.radius_at)
    degrees = Counter(node for line in lines for node in (line.start, line.end))
    for line in lines:
        free = degrees[line.start] == 1, degrees[line.end] == 1
        found = tube.centre_line(line.points, free=free, closed=line.start == line.end)
        yield found, line.start, line.end


def _even(mask: Mask, spacing: Sequence[float]) -> tuple[Mask, Points, Points]:
    """Return a mask with more planes along its coarse axes, its spacing, and the place of its first voxel.

    Thinning takes all axes for equal. Between planes lie the shapes whose distance from the surface is between theirs
    (Raya and Udupa, 1990).
    """
    from scipy import ndimage

    times = np.array([max(1, round(edge / min(spacing))) for edge in spacing])
    while math.prod((n - 1) * k + 1 for n, k in zip(mask.shape, times, strict=True)) > MOST_VOXELS and times.max() > 1:
        times = np.maximum(times - (times == times.max()), 1)
    step = np.array(spacing) / times
    if times.max() == 1 or mask.all():
        return mask, np.array(spacing), np.zeros(3)
    depth = ndimage.distance_transform_edt(mask, sampling=spacing)
    depth -= ndimage.distance_transform_edt(~mask, sampling=spacing)
    zoom = [((n - 1) * k + 1) / n for n, k in zip(mask.shape, times, strict=True)]
    fine: Mask = ndimage.zoom(depth, zoom, order=1, output=np.float32) >= 0
    if ndimage.label(fine, _TOUCHING)[1] == 1:
        return fine, step, np.zeros(3)
    for axis, count in enumerate(times):  # lines of single voxels lost their touch
        mask = np.repeat(mask, count, axis=axis)
    return mask, step, step * (1 - times) / 2
