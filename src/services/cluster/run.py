"""Segment a case in blocks on the workers of a scheduler; the same command goes on with a run that was killed.

Next to the mask a folder holds the record of the run: what the blocks have found so far, and the results in the making.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...domain.cards.model_card import ModelCard
from ...domain.errors import InputError, LimitError, ModelError, OutputError, UsageError, VoxportError
from ...domain.geometry.grid import Box, Grid
from ...domain.inference.sliding_window import LogitRangeError
from ...domain.inference.tile_blocks import TileBlocks
from ...domain.intensity import ChannelSurvey, is_within_crop
from ...domain.labels.postprocessing import Changed
from ...domain.labels.ranking import Uncertainty
from ...domain.labels.seams import SeenComponents, count_components
from ...domain.labels.statistics import LabelStatistics, Measures, label_statistics
from ...domain.run import Outputs, RunOptions
from ...ports.blobs import BlobStore
from ...ports.block_scheduler import BlockScheduler
from ...ports.block_volumes import BlockVolumes
from ...ports.locks import Locks
from ...ports.progress import ProgressListener
from ...ports.resources import Resources
from ...ports.volume_store import VolumeSink, VolumeStore
from ..models.loading import LoadedModel
from ..segmentation.case import Case, is_counted, slabs, survey_of
from ..segmentation.decoding import Sinks, contested_notes
from ..segmentation.preparation.planning import free_bytes
from ..segmentation.preparation.prepare import Prepared, open_inferer, prepare
from ..segmentation.resume import fingerprint
from .sizes import BlockSizes, chosen_blocks
from .tasks import (
    MODEL,
    BlockRun,
    Shared,
    Stage,
    VolumeName,
    WorkerPorts,
    boxes_within,
    key_of,
    last_stage,
    record_name,
    seams_name,
    sink_channels,
    sink_dtype,
    survey_block,
    survey_name,
    work_on_block,
)

_log = logging.getLogger("voxport.cluster")
_SCHEMA = "voxport/blocks/1"
_RECORD, _LOCK = "run.json", "lock"
_CHANGED, _DONE = "postprocessing/begun.json", "postprocessing/done.json"
_SURVEYED_EDGE = 1024
_ENDING = ".blocks"
_SAME_KIND = (UsageError, InputError, ModelError, LimitError, OutputError)


@dataclass(frozen=True)
class ClusterPorts:
    """What a run in blocks uses.

    Args:
        scheduler: makes the scheduler of a run.
        block_volumes: the results in the making.
        open_blobs: opens the folder of a run.
        open_ports: the ports of a worker, which makes them itself.
        locks: of the folder of a run.
        version: voxport's.
        edge: of blocks, in voxels of the model; None for the largest that memory holds.
        attempts: at a block.
        folder: that workers and this process share, for the folders of runs; None for that of the mask.
    """

    scheduler: Callable[[], BlockScheduler]
    block_volumes: BlockVolumes
    open_blobs: Callable[[str], BlobStore]
    open_ports: Callable[[], WorkerPorts]
    locks: Locks
    version: str
    edge: int | None = None
    attempts: int = 3
    folder: Path | None = None


@dataclass(frozen=True)
class RunOf:
    """A case that is open, with the names and sha256 of its volumes, and how it is segmented."""

    case: Case
    hashes: tuple[tuple[str, str], ...]
    loaded: LoadedModel
    outputs: Outputs
    options: RunOptions
    progress: ProgressListener


Measured = tuple[tuple[LabelStatistics, ...], Uncertainty | None]


class BlockedRun:
    """An engine of `segment`: workers infer, write and measure blocks.

    The scheduler is connected, and the folder is locked, while the context manager is entered.

    Raises:
        UsageError: the model or the mask cannot be made in blocks, or another process makes it.
    """

    network = 0.0, 0  # of the workers nothing is known

    def __init__(self, run: RunOf, ports: ClusterPorts, volumes: VolumeStore, resources: Resources) -> None:
        _check(run.loaded)
        self._case, self._hashes, self._loaded = run.case, run.hashes, run.loaded
        self._outputs, self._options, self._progress = run.outputs, run.options, run.progress
        self._ports, self._volumes, self._resources = ports, volumes, resources
        mask = Path(run.outputs.mask).absolute()
        place = mask.parent / mask.name
        if ports.folder is not None:  # masks of one name may be made in many folders, each attempt in another one
            contents = [sha256 for _, sha256 in run.hashes]
            own = key_of(contents, run.loaded.model.sha256, asdict(run.options), list(self._wanted))
            place = ports.folder.absolute() / f"{mask.name}-{own[:16]}"
        self.folder = f"{place}{_ENDING}"
        self._blobs = ports.open_blobs(self.folder)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._scheduler = stack.enter_context(self._ports.scheduler())
            if self._scheduler.dashboard is not None:
                _log.info("what the workers do is shown at %s", self._scheduler.dashboard)
            # A folder by content may be that of another case with the same content: it is waited for.
            wait = self._ports.folder is not None
            held = stack.enter_context(self._ports.locks.hold(Path(self.folder) / _LOCK, wait=wait))
            if not held:
                got = "one that another process makes now"
                raise UsageError(self._outputs.mask, expected="a mask of its own", got=got, do="wait for it")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object = None, *_: object) -> None:
        if kind is not None and not self._blobs.exists(_RECORD):
            with suppress(OutputError):
                self.finish()  # nothing to go on with
        self._stack.close()

    def prepare(self) -> Prepared:
        """See Engine."""
        card, surveyed = self._loaded.model.card, self._survey()
        with open_inferer(self._loaded, self._options) as inferer:
            self._prepared = prepare(self._case, card, inferer, self._options, resources=None, surveyed=surveyed)
        return self._prepared

    def _survey(self) -> tuple[ChannelSurvey, ...] | None:
        """Have the workers look over channels of 8- or 16-bit integers; None for others, and where the card crops."""
        case, card = self._case, self._loaded.model.card
        if card.input.crop is not None or not all(is_counted(case.dtype_of(c)) for c in range(case.channels)):
            return None
        boxes = boxes_within(Box.whole(case.grid.shape), case.sources[0].chunk, _SURVEYED_EDGE)
        shared = self._shared("survey", self._hashes)
        self._map(partial(survey_block, shared, boxes), range(len(boxes)), lambda _: None)
        found = [self._arrays(survey_name(shared, number)) for number in range(len(boxes))]
        surveys = []
        for channel in range(case.channels):
            values, place = np.unique(np.concatenate([t[f"values{channel}"] for t in found]), return_inverse=True)
            counts = np.zeros(len(values), np.int64)
            np.add.at(counts, place, np.concatenate([t[f"counts{channel}"] for t in found]))
            surveys.append(survey_of((values, counts)))
        return tuple(surveys)

    def infer(self) -> tuple[Sinks, tuple[str, ...]]:
        """See Engine."""
        prepared = self._prepared
        marks = self._marks(prepared)
        known = self._read(_RECORD)
        _check_same(known, marks, self.folder)
        sizes = BlockSizes(prepared, self._keeps_logits(prepared), int("uncertainty" in self._wanted))
        blocks, edge = self._blocks(sizes, known)
        self._run = self._new_run(prepared, blocks, edge, marks)
        half_changed = self._blobs.exists(_CHANGED) and not self._blobs.exists(_DONE)
        if known is None or half_changed or not self._all_open():
            self._begin_results()
            self._blobs.put(MODEL, self._loaded.model.path)
            self._put(_RECORD, {**marks, "tiles": blocks.tiles, "edge": edge})
        stages: tuple[Stage, ...] = ("inferred", "joined", "written")
        records: list[Mapping[str, Any]] = []
        for stage in stages:
            if stage != "joined" or last_stage(blocks) == stage:
                records += self._stage(stage)
        answers = {record["answer"]: record["processor"] for record in records if "answer" in record}
        notes = (*contested_notes(sum(record["contested"] for record in records)), *_rounding_notes(answers))
        return self._sinks(), notes

    def measure(self, measured: Callable[[], Measured]) -> Measured:
        """See Engine. Where to look first is found here, from all of the map."""
        if "uncertainty" in self._wanted:
            return measured()
        table = self._prepared.card.output.table
        measures = {value: Measures.empty(self._case.channels) for value in table.values}
        seams: dict[int, list[SeenComponents]] = {value: [] for value in table.values}
        for number, record in enumerate(self._stage("measured")):
            arrays = self._arrays(seams_name(number))
            for value in table.values:
                data = record["labels"][str(value)]
                measures[value].merge(Measures.of_data(data))
                on_seams = arrays[f"places{value}"], arrays[f"components{value}"]
                seams[value].append(SeenComponents(data["components"], *on_seams))
        components = {value: count_components(found) for value, found in seams.items()}
        return label_statistics(self._case.grid, table, measures, components), None

    def postprocess(self, change: Callable[[], tuple[Changed, ...]]) -> tuple[Changed, ...]:
        """Change the labels in place, once: a run that goes on after a kill amid this writes them anew."""
        known = self._read(_DONE)
        if known is None:
            self._put(_CHANGED, {})
            known = {"steps": [asdict(step) for step in change()]}
            self._put(_DONE, known)
        return tuple(Changed(**{**step, "labels": tuple(step["labels"])}) for step in known["steps"])

    def finish(self) -> None:
        """Delete the folder of the run."""
        self._ports.block_volumes.discard(self.folder)

    def _stage(self, stage: Stage) -> list[Mapping[str, Any]]:
        """Take all blocks through a stage that have not been; return their records."""
        run = self._run
        count = run.blocks.count if stage in ("inferred", "joined") else len(run.boxes)
        done = {int(Path(name).stem) for name in self._blobs.names(stage)}

        def advance(number: int) -> None:
            if stage == "inferred":
                self._progress.advance(run.blocks.part(number)[0].tile_count)

        for number in done:
            advance(number)
        task = partial(work_on_block, run, stage)
        self._map(task, [number for number in range(count) if number not in done], advance)
        return [self._read(record_name(stage, number)) or {} for number in range(count)]

    def _map(self, task: Callable[..., Any], numbers: Sequence[int], advance: Callable[[int], object]) -> None:
        """Run a task for all blocks. Raises the first error, once all others are done, with the number of failures."""
        failed: list[tuple[int, VoxportError]] = []
        on_wait = lambda: self._progress.advance(0)  # noqa: E731
        for finished in self._scheduler.map(task, numbers, attempts=self._ports.attempts, on_wait=on_wait):
            if finished.error is None:
                advance(finished.block)
            else:
                failed.append((finished.block, finished.error))
        if failed:
            number, first = min(failed, key=lambda item: item[0])
            if isinstance(first, LogitRangeError):
                raise first
            kind = next((kind for kind in _SAME_KIND if isinstance(first, kind)), VoxportError)
            failures = "" if len(failed) == 1 else f" ({len(failed)} failed)"
            subject = f"block {number} of {len(numbers)}{failures}: {first.subject}"
            kept = f": what was finished is kept in {self.folder}" if self._blobs.exists(_RECORD) else ""
            do = f"{first.do}; then run again{kept}"
            raise kind(subject, expected=first.expected, got=first.got, do=do)

    def _blocks(self, sizes: BlockSizes, known: Mapping[str, Any] | None) -> tuple[TileBlocks, int]:
        """Return the blocks, and the edge of the boxes that are written: those of the run that is gone on with."""
        if known is not None:
            x, y, z = known["tiles"]
            return TileBlocks(sizes.prepared.plan, (x, y, z)), known["edge"]
        memory, workers = self._options.memory_bytes, self._scheduler.workers
        blocks = chosen_blocks(sizes, memory, self._resources, self._ports.edge, workers)
        return blocks, sizes.box_edge(blocks, free_bytes(memory, self._resources))

    def _keeps_logits(self, prepared: Prepared) -> bool:
        return prepared.space.resamples or len(self._wanted) > 1

    @property
    def _wanted(self) -> dict[VolumeName, str]:
        """The volumes that are asked for, and their names."""
        names: tuple[VolumeName, ...] = ("mask", "probabilities", "uncertainty")
        found = {name: getattr(self._outputs, name) for name in names}
        return {name: reference for name, reference in found.items() if reference is not None}

    def _new_run(self, prepared: Prepared, blocks: TileBlocks, edge: int, marks: Mapping[str, Any]) -> BlockRun:
        runtime, view = self._loaded.runtime, prepared.view
        whole = Box.whole(self._case.grid.shape)
        return BlockRun(
            self._shared("run", self._hashes, marks),
            self._loaded.model,
            (runtime.name, runtime.precision, self._scheduler.threads),
            prepared.card,
            view.box,
            prepared.fitted,
            view.limits(prepared.fitted, prepared.plan.axis),
            blocks,
            prepared.returned,
            self._keeps_logits(prepared),
            self._references(),
            boxes_within(whole, self._ports.block_volumes.chunk, edge),
        )

    def _shared(self, *parts: object) -> Shared:
        inputs = tuple(name if "://" in name else str(Path(name).absolute()) for name in self._case.references)
        key = key_of(self.folder, *parts)
        return Shared(key, self.folder, inputs, self._options, self._ports.version, self._ports.open_ports)

    def _references(self) -> dict[VolumeName, str]:
        publishes = self._ports.block_volumes.publishes
        return {name: made if publishes(made) else f"{name}.ome.zarr" for name, made in self._wanted.items()}

    def _begin_results(self) -> None:
        for name in ("written", "postprocessing", "measured"):
            self._blobs.delete_prefix(name)
        run, case = self._run, self._case
        for name, reference in run.references.items():
            self._ports.block_volumes.begin(
                self.folder,
                name,
                reference,
                case.grid,
                **self._form(name),
            )

    def _form(self, name: VolumeName) -> dict[str, Any]:
        """Return type, channels and labels of a result."""
        output, names = self._run.returned, sink_channels(name, self._run.returned)
        return {
            "dtype": sink_dtype(name, output),
            "channels": max(1, len(names)),
            "like": self._case.sources[0],
            "channel_names": names,
            "labels": output.table if name == "mask" else None,
        }

    def _all_open(self) -> bool:
        try:
            for name in self._run.references:
                self._open(name).close()
        except OutputError:
            return False
        return True

    def _open(self, name: VolumeName) -> VolumeSink:
        reference = self._run.references[name]
        return self._ports.block_volumes.open(self.folder, name, reference, self._case.grid)

    def _sinks(self) -> Sinks:
        """Return the results: those in the making, or copies where their format has to be written as a whole."""
        sinks: Sinks = {}
        for name, wanted in self._wanted.items():
            sinks[name] = made = self._stack.enter_context(self._open(name))
            if wanted != self._run.references[name]:
                created = self._volumes.create(wanted, self._case.grid, **self._form(name))
                copy = self._stack.enter_context(created)
                sinks[name] = _Copied(made, copy, self._case.grid, lambda: self._progress.advance(0))
        return sinks

    def _marks(self, prepared: Prepared) -> dict[str, Any]:
        """Return what a run must have in common with the one that it goes on with."""
        runtime = self._loaded.runtime
        return {
            "schema": _SCHEMA,
            "volumes": [sha256 for _, sha256 in self._hashes],
            "model": self._loaded.model.sha256,
            "voxport": self._ports.version,
            "runtime": f"{runtime.name} {runtime.version} {runtime.precision}",
            "options": fingerprint(self._hashes, self._loaded, prepared, self._wanted),
        }

    def _read(self, name: str) -> dict[str, Any] | None:
        if not self._blobs.exists(name):
            return None
        with self._blobs.open(name) as stream:
            found: dict[str, Any] = json.load(stream)
        return found

    def _arrays(self, name: str) -> Mapping[str, NDArray[Any]]:
        with self._blobs.open(name) as stream, np.load(io.BytesIO(stream.read())) as found:
            return dict(found)

    def _put(self, name: str, content: Mapping[str, Any]) -> None:
        self._blobs.put(name, io.BytesIO(json.dumps(content, indent=2).encode()))


class _Copied(VolumeSink):
    """A volume that is copied to another one when it is committed."""

    def __init__(self, made: VolumeSink, copy: VolumeSink, grid: Grid, on_slab: Callable[[], object]) -> None:
        self._made, self._copy, self._grid, self._on_slab = made, copy, grid, on_slab

    def write(self, box: Box, values: NDArray[Any]) -> None:
        self._made.write(box, values)

    def read(self, box: Box) -> NDArray[Any]:
        return self._made.read(box)

    @property
    def notes(self) -> tuple[str, ...]:
        return self._copy.notes

    def commit(self) -> str:
        for box in slabs(self._grid, 2):
            self._on_slab()
            self._copy.write(box, self._made.read(box))
        return self._copy.commit()

    def close(self) -> None:
        self._made.close()
        self._copy.close()


def _check(loaded: LoadedModel) -> None:
    """Raise UsageError for a model that cannot be run in blocks."""
    card: ModelCard = loaded.model.card
    steps = (step for channel in card.input.channels for step in card.input.steps(channel))
    if card.input.crop is not None and any(map(is_within_crop, steps)):
        expected, got = "a model whose intensity steps do not depend on the crop's region", card.reference
        raise UsageError("cluster", expected=expected, got=got, do="segment it on one machine")
    if loaded.model.format != "onnx" or loaded.quantised_sha256 is not None:
        got = "a checkpoint" if loaded.model.format != "onnx" else "int8 that was made on this machine"
        do = "export it first" if loaded.model.format != "onnx" else "set the precision to fp32"
        raise UsageError("cluster", expected="an ONNX file that every worker runs", got=got, do=do)


def _check_same(known: Mapping[str, Any] | None, marks: Mapping[str, Any], folder: str) -> None:
    """Raise UsageError if the folder holds a run of something else."""
    if known is None:
        return
    others = [name for name, value in marks.items() if known.get(name) != value]
    if others:
        named = [name for name in others if name != "options"] or others
        do = f"run it as it was begun, or delete {folder}"
        raise UsageError(folder, expected="the run that was begun", got=f"another {', '.join(named)}", do=do)


def _rounding_notes(answers: Mapping[str, str]) -> Iterable[str]:
    if len(answers) > 1:
        yield (
            f"blocks were inferred on {len(answers)} kinds of processors that round in different ways "
            f"({', '.join(answers.values())}): another run may differ from this one in the last bits"
        )
