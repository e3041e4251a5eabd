"""Segment one case: read, prepare, score tile by tile, and put the mask on the case's own voxels."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, field

import numpy as np

from ..domain.errors import UsageError
from ..domain.geometry import Box, Grid
from ..domain.segmentation import Labels, Output, Scores
from ..domain.statistics import LabelStatistics, StatisticsAccumulator
from ..domain.stitching import Block, assemble_planes, stitch
from ..ports.artifacts import ArtifactWriter
from ..ports.pictures import PictureEncoder
from ..ports.progress import ProgressListener
from ..ports.volume_store import VolumeSink, VolumeStore
from .case import Case, replaced, slabs
from .prepare import Prepared, RunOptions, prepare
from .preview import preview_picture
from .runtimes import LoadedModel
from .scoring import Scorer
from .statistics_file import statistics_bytes

_PLANES_AT_ONCE = 8


@dataclass(frozen=True)
class Outputs:
    """Where results go; only the mask is always written. The report is written by who runs the case."""

    mask: str
    probabilities: str | None = None
    statistics: str | None = None
    preview: str | None = None
    report: str | None = None

    def __post_init__(self) -> None:
        given = [r for r in astuple(self) if r is not None]
        if len(set(given)) != len(given):
            raise UsageError("outputs", expected="a name of its own for each", got=", ".join(given), do="rename one")


@dataclass(frozen=True)
class Segmentation:
    """What a run did: names and sha256 of files, how it was tiled, what it found and warns of, how long it took."""

    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    grid: Grid
    prepared: Prepared
    statistics: tuple[LabelStatistics, ...]
    warnings: tuple[str, ...]
    seconds: dict[str, float] = field(compare=False)


@dataclass(frozen=True)
class SegmentPorts:
    """What segmenting needs from outside."""

    volumes: VolumeStore
    artifacts: ArtifactWriter
    pictures: PictureEncoder


def segment(
    inputs: Sequence[str],
    loaded: LoadedModel,
    outputs: Outputs,
    options: RunOptions,
    progress: ProgressListener,
    *,
    ports: SegmentPorts,
) -> Segmentation:
    """Segment a case and write its mask, on the grid of its first volume.

    Everything is computed before anything appears under its name; each file then appears whole. Where that fails
    midway (a disk that fills up), what has appeared already stays.

    Args:
        inputs: references of the volumes whose channels make up the case.
        loaded: the model in its runtime; its card says what the network expects and emits.
        outputs: references of the results.
        options: what to do differently from the card.
        progress: hears of stages and tiles; stops the run by raising CancelledError.
        ports: where volumes are kept and how results are written.

    Raises:
        InputError, ModelError, UsageError, LimitError, OutputError, CancelledError
    """
    _check_spares_inputs(inputs, outputs)
    clock, card = _Clock(progress), loaded.model.card
    with ExitStack() as stack:
        with clock.stage("read"):
            case = Case.open(ports.volumes, inputs, stack)
            scorer = stack.enter_context(Scorer(loaded.runtime, card))
            hashes = tuple((name, source.sha256()) for name, source in zip(inputs, case.sources, strict=True))
        with clock.stage("prepare"):
            prepared = prepare(case, card, scorer, options)
            sinks = _open_sinks(ports, outputs, case, card.output, stack)
        with clock.stage("score", prepared.plan.tile_count):
            overlapping = _score(prepared, scorer, sinks, progress)
        with clock.stage("measure"):
            statistics = _measure(prepared, sinks.mask)
            files = _small_files(outputs, ports, case, sinks.mask, prepared, statistics)
        with clock.stage("write"):
            written = [(reference, sink.commit()) for reference, sink in sinks.by_reference(outputs)]
            for reference, content in files:
                ports.artifacts.write(reference, content)
                written.append((reference, hashlib.sha256(content).hexdigest()))
    warnings = tuple(filter(None, (loaded.warning, *prepared.warnings, *overlapping)))
    return Segmentation(hashes, tuple(written), case.grid, prepared, statistics, warnings, clock.seconds)


def _check_spares_inputs(inputs: Sequence[str], outputs: Outputs) -> None:
    """UsageError where a result would replace a volume of the case."""
    taken = {_place(reference) for reference in inputs}
    for reference in astuple(outputs):
        if reference is not None and _place(reference) in taken:
            raise UsageError(reference, expected="a name that is no input's", got="an input", do="name the output")


def _place(reference: str) -> str:
    """What a reference writes to; either file of a .hdr/.img pair stands for both."""
    path = os.path.realpath(reference)
    return path.removesuffix(".img") + ".hdr" if path.endswith(".img") else path


@dataclass(frozen=True)
class _Sinks:
    mask: VolumeSink
    probabilities: VolumeSink | None

    def by_reference(self, outputs: Outputs) -> Iterator[tuple[str, VolumeSink]]:
        if self.probabilities is not None and outputs.probabilities is not None:
            yield outputs.probabilities, self.probabilities
        yield outputs.mask, self.mask


def _open_sinks(ports: SegmentPorts, outputs: Outputs, case: Case, output: Output, stack: ExitStack) -> _Sinks:
    """Open all outputs before anything is scored: a folder that cannot be written is found out at once."""
    for reference in (outputs.statistics, outputs.preview, outputs.report):
        if reference is not None:
            ports.artifacts.check(reference)
    like = case.sources[0]
    mask = stack.enter_context(ports.volumes.create(outputs.mask, case.grid, output.table.dtype, like=like))
    if outputs.probabilities is None:
        return _Sinks(mask, None)
    dtype = np.dtype(np.float32)
    created = ports.volumes.create(outputs.probabilities, case.grid, dtype, channels=output.channels, like=like)
    return _Sinks(mask, stack.enter_context(created))


def _score(prepared: Prepared, scorer: Scorer, sinks: _Sinks, progress: ProgressListener) -> tuple[str, ...]:
    """Score all tiles and write labels, and probabilities if wanted, on the stored grid."""
    output, axis = prepared.card.output, prepared.plan.axis
    blocks: Iterable[Block] = stitch(
        prepared.plan, prepared.planes(), scorer, batch=scorer.batch, on_tiles=progress.advance
    )
    if prepared.space.resamples:
        planes = assemble_planes(prepared.plan, blocks)
        blocks = _plane_blocks(prepared.space.resampling.inverse().planes(planes, axis), prepared.space.oriented, axis)
    back = prepared.space.reorientation.inverse()
    contested = 0
    decoded: list[tuple[Box, Labels]] = []
    for block in blocks:
        if decoded and (len(decoded) == _PLANES_AT_ONCE or not _follows(decoded[-1][0], block.box, axis)):
            _write_labels(decoded, prepared, sinks.mask)
            decoded = []
        decoded.append((block.box, output.labels(block.scores)))
        contested += output.contested(block.scores)
        if sinks.probabilities is not None:
            stored = prepared.stored_box(block.box)
            sinks.probabilities.write(stored, back.apply(output.probabilities(block.scores)))
    _write_labels(decoded, prepared, sinks.mask)
    if not contested:
        return ()
    return (f"{contested} voxels reach the threshold for several labels; each has the last of them in the label table",)


def _plane_blocks(planes: Iterable[Scores], grid: Grid, axis: int) -> Iterator[Block]:
    for index, plane in enumerate(planes):
        box = Box.whole(grid.shape).with_range(axis, index, index + 1)
        yield Block(box, np.expand_dims(plane, 1 + axis))


def _follows(before: Box, after: Box, axis: int) -> bool:
    return after == before.with_range(axis, before.stop[axis], before.stop[axis] + 1)


def _write_labels(decoded: Sequence[tuple[Box, Labels]], prepared: Prepared, mask: VolumeSink) -> None:
    """Write labels of boxes that follow each other along the visiting axis, as one piece."""
    axis = prepared.plan.axis
    first, last = decoded[0][0], decoded[-1][0]
    box = first.with_range(axis, first.start[axis], last.stop[axis])
    labels = np.concatenate([labels for _, labels in decoded], axis=axis)
    mask.write(prepared.stored_box(box), prepared.space.reorientation.inverse().apply(labels))


def _measure(prepared: Prepared, mask: VolumeSink) -> tuple[LabelStatistics, ...]:
    case = prepared.case
    axis = case.sources[0].slowest_axis
    found = StatisticsAccumulator(case.grid, prepared.card.output.table, case.channels, axis)
    for box in slabs(case.grid, axis):
        found.add(box, mask.read(box)[0], [replaced(values, prepared.nan_as) for values in case.read(box)])
    return found.result()


def _small_files(
    outputs: Outputs,
    ports: SegmentPorts,
    case: Case,
    mask: VolumeSink,
    prepared: Prepared,
    statistics: Sequence[LabelStatistics],
) -> list[tuple[str, bytes]]:
    files = []
    if outputs.statistics is not None:
        files.append((outputs.statistics, statistics_bytes(outputs.statistics, statistics, case.grid)))
    if outputs.preview is not None:
        picture = preview_picture(case, mask, prepared.channels[0], prepared.card.output.table, statistics)
        files.append((outputs.preview, ports.pictures.encode(picture)))
    return files


class _Clock:
    def __init__(self, progress: ProgressListener) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, tiles: int = 0) -> Iterator[None]:
        self._progress.stage(name, tiles)
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began
