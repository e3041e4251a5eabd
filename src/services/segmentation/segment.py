"""Segment one case and write the mask on the case's own grid."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from ...domain.geometry.grid import Box, Grid
from ...domain.inference.blending import Block
from ...domain.inference.sliding_window import LogitRangeError, assemble_planes, stitch
from ...domain.labels.label_file import label_file_bytes
from ...domain.labels.label_map import LabelTable, Logits, Output
from ...domain.labels.postprocessing import Changed, postprocess
from ...domain.labels.statistics import LabelStatistics, StatisticsAccumulator
from ...domain.labels.statistics_file import statistics_bytes
from ...domain.run import Outputs, RunOptions
from ...domain.viewing.pages import CaseFigures
from ...ports.artifacts import ArtifactWriter
from ...ports.pages import PageWriter
from ...ports.pictures import PictureEncoder
from ...ports.progress import ProgressListener
from ...ports.resources import Resources
from ...ports.scratch import Scratch
from ...ports.volume_store import VolumeSink, VolumeSource, VolumeStore
from ..models.loading import LoadedModel
from ..pages.figures import case_figures
from ..viewing.preview import display_window, preview_picture
from .case import Case, replaced, slabs
from .decoding import Labeller, Sinks
from .inference import Inferer
from .outputs import check_outputs
from .preparation.prepare import Prepared, open_inferer, prepare
from .resume import Checkpoint, Reached, fingerprint

_BACKGROUND_VOXELS = 2**20  # written at once


@dataclass(frozen=True)
class Segmentation:
    """Result of a run.

    ``inputs`` and ``outputs``: names and sha256 of files. ``seconds``: duration of each stage. ``network_seconds``:
    time spent inside the network. ``repeated_tiles``: constant tiles whose logits were reused.
    ``postprocessing``: voxels that each step of the card changed. ``figures``: of the page, if one is asked for.
    """

    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    grid: Grid
    prepared: Prepared
    statistics: tuple[LabelStatistics, ...]
    warnings: tuple[str, ...]
    seconds: dict[str, float] = field(compare=False)
    network_seconds: float = field(default=0.0, compare=False)
    repeated_tiles: int = field(default=0, compare=False)
    display_window: tuple[float, float] | None = None
    postprocessing: tuple[Changed, ...] = ()
    figures: CaseFigures | None = field(default=None, compare=False)


@dataclass(frozen=True)
class SegmentPorts:
    """Ports that `segment` uses; without ``scratch`` it works in memory, and without ``pages`` it makes none."""

    volumes: VolumeStore
    artifacts: ArtifactWriter
    pictures: PictureEncoder
    resources: Resources
    scratch: Scratch | None = None
    pages: PageWriter | None = None


def segment(
    inputs: Sequence[str],
    loaded: LoadedModel,
    outputs: Outputs,
    options: RunOptions,
    progress: ProgressListener,
    *,
    ports: SegmentPorts,
    checkpoint: Checkpoint | None = None,
) -> Segmentation:
    """Segment a case and write its mask on the grid of its first volume.

    Results are written atomically, file by file, after everything has been computed. If writing fails midway (a full
    disk), the files already written remain.

    ``inputs`` are the volumes whose channels make up the case. A ``checkpoint`` stores finished planes, and resumes
    from them with identical results. ``progress`` raises CancelledError to stop the run.

    Raises:
        InputError, ModelError, UsageError, LimitError, OutputError, CancelledError
    """
    check_outputs(inputs, outputs, volumes=ports.volumes, artifacts=ports.artifacts, kept=[loaded.model.path])
    clock, card = _Clock(progress), loaded.model.card
    options = options if checkpoint is None else checkpoint.pinned(options)
    with ExitStack() as stack:
        changed: tuple[Changed, ...] = ()
        with clock.stage("read"):
            case = Case.open(ports.volumes, inputs, stack, options.reading)
            inferer = stack.enter_context(open_inferer(loaded, options))
            hashes = tuple((name, source.sha256()) for name, source in zip(inputs, case.sources, strict=True))
        with clock.stage("prepare"):
            free = None if ports.scratch is None else ports.scratch.available_bytes()
            prepared = prepare(case, card, inferer, options, resources=ports.resources, scratch_bytes=free)
            sinks = _open_sinks(ports, outputs, case, card.output, stack)
            _fill_background(prepared, sinks)
        with clock.stage("score", prepared.plan.tile_count):
            run = "" if checkpoint is None else fingerprint(hashes, loaded, prepared, outputs.probabilities is not None)
            try:
                notes = _infer(prepared, inferer, sinks, progress, checkpoint, run, ports.scratch)
            except LogitRangeError as error:
                raise prepared.blame(error) from None
        if card.output.postprocessing:
            with clock.stage("postprocess"):
                changed = _postprocess(case, sinks["mask"], card.output, progress)
        with clock.stage("measure"):
            statistics = measure(case, sinks["mask"], prepared.card.output.table, prepared.nan_as)
            window = None if outputs.preview is None else display_window(prepared.channels[0])
            figures = _figures(case, sinks["mask"], prepared, ports.pictures) if outputs.html is not None else None
            files = _small_files(outputs, ports, case, sinks["mask"], prepared, statistics, window)
        with clock.stage("write"):
            written = [(getattr(outputs, name), sink.commit()) for name, sink in reversed(sinks.items())]
            for reference, content in files:
                ports.artifacts.write(reference, content)
                written.append((reference, hashlib.sha256(content).hexdigest()))
    unsaid = dict.fromkeys(note for sink in sinks.values() for note in sink.notes)
    warnings = tuple(filter(None, (loaded.warning, *prepared.warnings, *notes, *unsaid)))
    return Segmentation(
        hashes,
        tuple(written),
        case.grid,
        prepared,
        statistics,
        warnings,
        clock.seconds,
        inferer.seconds,
        inferer.repeated,
        window,
        changed,
        figures,
    )


def _open_sinks(ports: SegmentPorts, outputs: Outputs, case: Case, output: Output, stack: ExitStack) -> Sinks:
    """Open all outputs before inference, so that an unwritable folder fails at once."""
    like = case.sources[0]
    create = ports.volumes.create
    mask = stack.enter_context(create(outputs.mask, case.grid, output.table.dtype, like=like, labels=output.table))
    if outputs.probabilities is None:
        return {"mask": mask}
    dtype = np.dtype(np.float32)
    names = output.channel_names
    created = create(outputs.probabilities, case.grid, dtype, channels=len(names), like=like, channel_names=names)
    return {"mask": mask, "probabilities": stack.enter_context(created)}


def _fill_background(prepared: Prepared, sinks: Sinks) -> None:
    """Write the probabilities of voxels outside the crop: 1 for background where that has a channel."""
    output, grid = prepared.card.output, prepared.case.grid
    if prepared.crop is None or "probabilities" not in sinks or "background" not in output.channel_names:
        return
    certain = np.zeros((output.channels, 1, 1, 1), np.float32)
    certain[output.channel_names.index("background")] = 1
    for beyond in prepared.crop.around(grid.shape):
        for box in slabs(grid, prepared.case.sources[0].slowest_axis, _BACKGROUND_VOXELS, within=beyond):
            sinks["probabilities"].write(box, np.broadcast_to(certain, (output.channels, *box.shape)))


def _infer(
    prepared: Prepared,
    inferer: Inferer,
    sinks: Sinks,
    progress: ProgressListener,
    checkpoint: Checkpoint | None,
    run: str,
    scratch: Scratch | None,
) -> tuple[str, ...]:
    """Infer all tiles; write labels, and probabilities if requested, on the stored grid. Return warnings."""
    axis, plan = prepared.plan.axis, prepared.plan
    back = prepared.space.way_back(prepared.card.output)
    done = Reached() if checkpoint is None else checkpoint.restore(run, prepared, inferer, sinks)
    labeller = Labeller(prepared, sinks, done.contested)
    first = back.first_source(axis, done.plane) if done.plane else 0
    if done.plane:
        progress.advance(plan.tiles_before(first))
    blocks: Iterable[Block] = stitch(
        plan,
        prepared.planes(),
        inferer.begin,
        batch=inferer.batch,
        on_tiles=progress.advance,
        begin=first,
        buffers=scratch,
    )
    if prepared.space.resamples:
        if (output := prepared.card.output).resample == "probabilities":
            blocks = (replace(block, logits=output.probabilities(block.logits)) for block in blocks)
        planes = back.planes(assemble_planes(plan, blocks, scratch), axis, begin=done.plane, first=first)
        blocks = _plane_blocks(planes, prepared.space.oriented, axis, done.plane)
    ends = prepared.space.oriented.shape
    for block in blocks:
        labeller.add(block)
        stop = block.box.stop
        # Blocks are ordered: the one in the far corner completes its planes.
        is_last = all(stop[across] == ends[across] for across in plan.across)
        if checkpoint is not None and is_last and stop[axis] < ends[axis] and checkpoint.due:
            labeller.flush()
            checkpoint.keep(Reached(stop[axis], labeller.contested))
    labeller.flush()
    return tuple(labeller.notes())


def _plane_blocks(planes: Iterable[Logits], grid: Grid, axis: int, begin: int) -> Iterator[Block]:
    for index, plane in enumerate(planes, begin):
        box = Box.whole(grid.shape).with_range(axis, index, index + 1)
        yield Block(box, np.expand_dims(plane, 1 + axis))


def _postprocess(case: Case, mask: VolumeSink, output: Output, progress: ProgressListener) -> tuple[Changed, ...]:
    """Apply the card's postprocessing to a finished mask, slab by slab."""
    axis = case.sources[0].slowest_axis
    return postprocess(
        output.postprocessing,
        case.grid,
        list(slabs(case.grid, axis)),
        axis=axis,
        read=lambda box: mask.read(box)[0],
        write=mask.write,
        on_slab=lambda: progress.advance(0),
    )


def measure(
    case: Case, mask: VolumeSink | VolumeSource, table: LabelTable, nan_as: float | None
) -> tuple[LabelStatistics, ...]:
    """Return the statistics of a mask's labels over a case on the same grid; ``nan_as`` replaces non-finite values."""
    axis = case.sources[0].slowest_axis
    found = StatisticsAccumulator(case.grid, table, case.channels, axis)
    for box in slabs(case.grid, axis):
        found.add(box, mask.read(box)[0], [replaced(values, nan_as) for values in case.read(box)])
    return found.result()


def _figures(case: Case, mask: VolumeSink, prepared: Prepared, pictures: PictureEncoder) -> CaseFigures:
    return case_figures(case, lambda box: mask.read(box)[0], prepared.card, prepared.channels, pictures)


def _small_files(
    outputs: Outputs,
    ports: SegmentPorts,
    case: Case,
    mask: VolumeSink,
    prepared: Prepared,
    statistics: Sequence[LabelStatistics],
    window: tuple[float, float] | None,
) -> list[tuple[str, bytes]]:
    files, table = [], prepared.card.output.table
    if outputs.label_table is not None:
        files.append((outputs.label_table, label_file_bytes(outputs.label_table, table)))
    if outputs.statistics is not None:
        files.append((outputs.statistics, statistics_bytes(outputs.statistics, statistics, case.grid)))
    if outputs.preview is not None and window is not None:
        picture = preview_picture(case, mask, window, table, statistics)
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
