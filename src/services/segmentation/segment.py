"""Segment one case and write the mask on the case's own grid."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ...domain.geometry.grid import Box, Grid
from ...domain.inference.blending import Block
from ...domain.inference.sliding_window import LogitRangeError, assemble_planes, stitch
from ...domain.labels.disagreement import Disagreement
from ...domain.labels.label_file import label_file_bytes
from ...domain.labels.label_map import Labels, LabelTable, Logits, Output
from ...domain.labels.postprocessing import Changed, postprocess
from ...domain.labels.ranking import Uncertainty, UncertaintyRanking
from ...domain.labels.statistics import LabelStatistics, StatisticsAccumulator
from ...domain.labels.statistics_file import statistics_bytes
from ...domain.labels.uncertainty import CERTAIN, CHANNELS, Levels
from ...domain.run import Outputs, RunOptions
from ...domain.viewing.pages import CaseFigures
from ...ports.artifacts import ArtifactWriter
from ...ports.pages import PageWriter
from ...ports.pictures import PictureEncoder
from ...ports.progress import ProgressListener
from ...ports.resources import Resources
from ...ports.scratch import Scratch
from ...ports.volume_store import VolumeSink, VolumeSource, VolumeStore
from ..cluster.run import BlockedRun, ClusterPorts, Measured, RunOf
from ..models.loading import LoadedModel
from ..pages.figures import case_figures
from ..viewing.preview import display_window, preview_picture
from .case import Case, replaced, slabs
from .decoding import Labeller, Sinks, resampled_values
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
    ``postprocessing``: voxels that each step of the card changed. ``uncertainty``: where to look first, beside a map.
    ``figures``: of the page, if one is asked for.
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
    uncertainty: Uncertainty | None = None
    figures: CaseFigures | None = field(default=None, compare=False)


@dataclass(frozen=True)
class SegmentPorts:
    """Ports that `segment` uses.

    Without ``scratch`` it works in memory, without ``pages`` it makes none, without ``cluster`` it is in this process.
    """

    volumes: VolumeStore
    artifacts: ArtifactWriter
    pictures: PictureEncoder
    resources: Resources
    scratch: Scratch | None = None
    pages: PageWriter | None = None
    cluster: ClusterPorts | None = None


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
            hashes = tuple((name, source.sha256()) for name, source in zip(inputs, case.sources, strict=True))
            of_run = RunOf(case, hashes, loaded, outputs, options, progress)
            engine: Engine = Here(of_run, ports, checkpoint)
            if ports.cluster is not None:
                engine = BlockedRun(of_run, ports.cluster, ports.volumes, ports.resources)
            stack.enter_context(engine)
        with clock.stage("prepare"):
            prepared = engine.prepare()
        with clock.stage("score", prepared.plan.tile_count):
            try:
                sinks, notes = engine.infer()
            except LogitRangeError as error:
                raise prepared.blame(error) from None
        if card.output.postprocessing:
            with clock.stage("postprocess"):
                changed = engine.postprocess(partial(_postprocess, case, sinks["mask"], card.output, progress))
        with clock.stage("measure"):
            table, doubts = prepared.card.output.table, sinks.get("uncertainty")
            measured = partial(_measured, case, sinks["mask"], doubts, table, prepared.nan_as)
            statistics, uncertainty = engine.measure(measured)
            window = None if outputs.preview is None else display_window(prepared.channels[0])
            figures = _figures(case, sinks["mask"], prepared, ports.pictures) if outputs.html is not None else None
            files = _small_files(outputs, ports, case, sinks["mask"], prepared, statistics, window, uncertainty)
        with clock.stage("write"):
            written = [(getattr(outputs, name), sink.commit()) for name, sink in reversed(sinks.items())]
            for reference, content in files:
                ports.artifacts.write(reference, content)
                written.append((reference, hashlib.sha256(content).hexdigest()))
            engine.finish()
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
        *engine.network,
        window,
        changed,
        uncertainty,
        figures,
    )


class Engine(Protocol):
    """How a case is segmented; a context manager."""

    @property
    def network(self) -> tuple[float, int]:
        """Seconds spent inside the network, and constant tiles whose logits were reused."""

    def prepare(self) -> Prepared:
        """Survey the case and plan its tiles, and see that the results can be written."""

    def infer(self) -> tuple[Sinks, tuple[str, ...]]:
        """Infer all tiles; return the results, which are not yet committed, and warnings."""

    def postprocess(self, change: Callable[[], tuple[Changed, ...]]) -> tuple[Changed, ...]:
        """Change the labels, unless that was done before."""

    def measure(self, measured: Callable[[], Measured]) -> Measured:
        """Return the statistics of the labels, as ``measured`` would."""

    def finish(self) -> None:
        """Delete what is not needed once the results are committed."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: Any) -> bool | None: ...


class Here(ExitStack):
    """Segments a case in this process; see Engine."""

    def __init__(self, run: RunOf, ports: SegmentPorts, checkpoint: Checkpoint | None) -> None:
        super().__init__()
        self._run, self._ports, self._checkpoint = run, ports, checkpoint
        self._inferer = self.enter_context(open_inferer(run.loaded, run.options))

    @property
    def network(self) -> tuple[float, int]:
        """See Engine."""
        return self._inferer.seconds, self._inferer.repeated

    def prepare(self) -> Prepared:
        """See Engine."""
        run, ports = self._run, self._ports
        card, free = run.loaded.model.card, None if ports.scratch is None else ports.scratch.available_bytes()
        memory: dict[str, Any] = {"resources": ports.resources, "scratch_bytes": free}
        memory["more_channels"] = int(run.outputs.uncertainty is not None)
        self._prepared = prepare(run.case, card, self._inferer, run.options, **memory)
        self._sinks = _open_sinks(ports, run.outputs, run.case, card.output, self)
        _fill_background(self._prepared, self._sinks)
        return self._prepared

    def infer(self) -> tuple[Sinks, tuple[str, ...]]:
        """See Engine."""
        run, progress = self._run, self._run.progress
        mark = fingerprint(run.hashes, run.loaded, self._prepared, self._sinks) if self._checkpoint else ""
        resumed = self._checkpoint, mark
        return self._sinks, _infer(self._prepared, self._inferer, self._sinks, progress, *resumed, self._ports.scratch)

    def postprocess(self, change: Callable[[], tuple[Changed, ...]]) -> tuple[Changed, ...]:
        """See Engine."""
        return change()

    def measure(self, measured: Callable[[], Measured]) -> Measured:
        """See Engine."""
        return measured()

    def finish(self) -> None:
        """See Engine."""


def _open_sinks(ports: SegmentPorts, outputs: Outputs, case: Case, output: Output, stack: ExitStack) -> Sinks:
    """Open all outputs before inference, so that an unwritable folder fails at once."""
    like = case.sources[0]
    create = ports.volumes.create
    mask = stack.enter_context(create(outputs.mask, case.grid, output.table.dtype, like=like, labels=output.table))
    sinks: Sinks = {"mask": mask}
    more: Sequence[tuple[Literal["probabilities", "uncertainty"], Sequence[str], type]] = (
        ("probabilities", output.channel_names, np.float32),
        ("uncertainty", CHANNELS, np.uint8),
    )
    for name, channels, kind in more:
        if (reference := getattr(outputs, name)) is not None:
            dtype, count = np.dtype(kind), len(channels)
            created = create(reference, case.grid, dtype, channels=count, like=like, channel_names=channels)
            sinks[name] = stack.enter_context(created)
    return sinks


def _fill_background(prepared: Prepared, sinks: Sinks) -> None:
    """Write what is certain outside the crop: the probability of background, where that has a channel, and no doubt."""
    output, grid = prepared.card.output, prepared.case.grid
    certain: dict[Literal["probabilities", "uncertainty"], NDArray[Any]] = {"uncertainty": np.array(CERTAIN, np.uint8)}
    if "background" in output.channel_names:
        certain["probabilities"] = np.eye(output.channels, dtype=np.float32)[output.channel_names.index("background")]
    for beyond in () if prepared.crop is None else prepared.crop.around(grid.shape):
        for box in slabs(grid, prepared.case.sources[0].slowest_axis, _BACKGROUND_VOXELS, within=beyond):
            for name, values in certain.items():
                if name in sinks:
                    sinks[name].write(box, np.broadcast_to(values[:, None, None, None], (len(values), *box.shape)))


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
    output, begin = prepared.card.output, inferer.begin
    doubt = Disagreement.of(output, plan) if "uncertainty" in sinks else None
    blocks: Iterable[Block] = stitch(
        plan,
        prepared.planes(),
        begin if doubt is None else doubt.beside(begin),
        batch=inferer.batch,
        on_tiles=progress.advance,
        begin=first,
        buffers=scratch,
    )
    if doubt is not None:
        blocks = (replace(block, logits=doubt.settled(block.logits)) for block in blocks)
    if prepared.space.resamples:
        blocks = (replace(block, logits=resampled_values(output, block.logits)) for block in blocks)
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
    return labeller.notes()


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
    return _measured(case, mask, None, table, nan_as)[0]


def _measured(
    case: Case, mask: VolumeSink | VolumeSource, doubts: VolumeSink | None, table: LabelTable, nan_as: float | None
) -> tuple[tuple[LabelStatistics, ...], Uncertainty | None]:
    """Return the statistics of a mask's labels, and where to look if there is a map of the uncertainty."""
    axis = case.sources[0].slowest_axis
    found = StatisticsAccumulator(case.grid, table, case.channels, axis, with_pieces=doubts is not None)
    ranking = UncertaintyRanking(case.grid)
    for box in slabs(case.grid, axis):
        levels = None if doubts is None else doubts.read(box)
        found.add(box, mask.read(box)[0], [replaced(values, nan_as) for values in case.read(box)], levels)
        if levels is not None:
            ranking.add(box, levels)
    if doubts is None:
        return found.result(), None

    def read(box: Box) -> tuple[Levels, Labels]:
        return doubts.read(box), mask.read(box)[0]

    return found.result(), ranking.result(found.pieces(), table, read)


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
    uncertainty: Uncertainty | None,
) -> list[tuple[str, bytes]]:
    files, table = [], prepared.card.output.table
    if outputs.label_table is not None:
        files.append((outputs.label_table, label_file_bytes(outputs.label_table, table)))
    if outputs.statistics is not None:
        files.append((outputs.statistics, statistics_bytes(outputs.statistics, statistics, case.grid, uncertainty)))
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
