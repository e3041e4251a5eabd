"""What workers do with a block: survey it, infer its tiles, add up its neighbours' sums, write its voxels."""

from __future__ import annotations

import hashlib
import io
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...domain.cards.model_card import ModelCard
from ...domain.errors import ModelError, UsageError
from ...domain.geometry.grid import Box, Shape3, shape3
from ...domain.geometry.resampling import Limits
from ...domain.inference.blending import Block, mean_logits
from ...domain.inference.tile_blocks import TileBlocks, infer_block
from ...domain.labels.disagreement import Disagreement
from ...domain.labels.label_map import Output
from ...domain.labels.packing import packed, unpacked
from ...domain.labels.seams import grown, seen
from ...domain.labels.statistics import Measures
from ...domain.labels.uncertainty import CERTAIN, CHANNELS, UncertaintyScale
from ...domain.run import RunOptions
from ...ports.blobs import BlobStore
from ...ports.block_scheduler import Workbench
from ...ports.block_volumes import BlockVolumes
from ...ports.model import Model
from ...ports.resources import Resources
from ...ports.runtime import RuntimeOpener, RuntimeOptions
from ...ports.volume_store import VolumeSink, VolumeStore
from ..segmentation.case import Case, replaced, value_table
from ..segmentation.decoding import resampled_values
from ..segmentation.inference import Inferer
from ..segmentation.preparation.model_view import Fitted, ModelView, reopened_view
from ..segmentation.resume import answer_to_noise

VolumeName = Literal["mask", "probabilities", "uncertainty"]
Stage = Literal["inferred", "joined", "written", "measured"]
MODEL = "model"
_READ_EDGE = 256  # of what is surveyed at once


@dataclass(frozen=True)
class WorkerPorts:
    """Ports of a worker. ``open_blobs`` opens a folder that the workers share. ``version`` is voxport's."""

    volumes: VolumeStore
    block_volumes: BlockVolumes
    open_blobs: Callable[[str], BlobStore]
    runtimes: Mapping[str, RuntimeOpener]
    resources: Resources
    version: str


@dataclass(frozen=True)
class Shared:
    """What every worker is told: the case, the folder of the run, and how a worker finds its own ports."""

    key: str
    folder: str
    inputs: tuple[str, ...]
    options: RunOptions
    version: str
    open_ports: Callable[[], WorkerPorts]


@dataclass(frozen=True)
class Boxes:
    """Boxes of one shape that cover a box, numbered, z fastest. They are part of each task, so they are not listed."""

    whole: Box
    steps: Shape3

    def __len__(self) -> int:
        return math.prod(self._counts)

    def __iter__(self) -> Iterator[Box]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> Box:
        places = np.unravel_index(number, self._counts)
        ends = zip(self.whole.start, self.whole.stop, self.steps, places, strict=True)
        low, high = zip(*((a + at * step, min(a + (at + 1) * step, b)) for a, b, step, at in ends), strict=True)
        return Box(shape3(low), shape3(high))

    @property
    def _counts(self) -> Shape3:
        return shape3(-(-length // step) for length, step in zip(self.whole.shape, self.steps, strict=True))


@dataclass(frozen=True)
class BlockRun:
    """A prepared run.

    ``box`` holds the stored voxels that are segmented, ``limits`` those of the resampled values, ``references`` the
    names of the results, the mask first. With ``keeps_logits``, blocks pass on logits in place of labels.
    """

    shared: Shared
    model: Model
    runtime: tuple[str, str, int | None]
    card: ModelCard
    box: Box
    fitted: Fitted
    limits: Limits | None
    blocks: TileBlocks
    returned: Output
    keeps_logits: bool
    references: Mapping[VolumeName, str]
    boxes: Boxes

    @property
    def doubt(self) -> Disagreement | None:
        """What is appended to the logits, for a map of the uncertainty."""
        return Disagreement.of(self.card.output, self.blocks.plan) if "uncertainty" in self.references else None


def survey_block(shared: Shared, boxes: Boxes, bench: Workbench, number: int) -> None:
    """Count the values of each channel of integers in a box, and store the counts."""
    worker = _kept(bench, shared.key, lambda stack: _Reader(shared, stack))
    name = survey_name(shared, number)
    if not worker.blobs.exists(name):
        tables: dict[str, NDArray[Any]] = {}
        case = worker.case
        parts = boxes_within(boxes[number], case.sources[0].chunk, _READ_EDGE)
        for channel in range(case.channels):
            values = (case.read_channel(channel, part).ravel(order="K") for part in parts)
            table = value_table(values, case.dtype_of(channel))
            tables[f"values{channel}"], tables[f"counts{channel}"] = table
        worker.put_arrays(name, tables)


def work_on_block(run: BlockRun, stage: Stage, bench: Workbench, number: int) -> dict[str, Any]:
    """Take a block through a stage, and store the result with its record; returns the record.

    A block whose record is there is not worked on again.
    """
    worker = _kept(bench, f"{run.shared.key} {run.blocks.tiles}", lambda stack: _Worker(run, stack))
    name = record_name(stage, number)
    if worker.blobs.exists(name):
        with worker.blobs.open(name) as stream:
            found: dict[str, Any] = json.load(stream)
            return found
    record: dict[str, Any] = worker.work(stage, number)
    worker.blobs.put(name, io.BytesIO(json.dumps(record).encode()))
    if stage == "joined":
        worker.blobs.delete_prefix(f"sums/{number:06d}")
    return record


def survey_name(shared: Shared, number: int) -> str:
    """Return the name of the counts of a box."""
    return f"surveyed/{shared.key[:16]}-{number:06d}.npz"


def record_name(stage: Stage, number: int) -> str:
    """Return the name of the record of a finished block."""
    return f"{stage}/{number:06d}.json"


def _kept(bench: Workbench, key: str, make: Callable[[ExitStack], Any]) -> Any:
    """Return what a worker keeps of a run; it is made first, in place of that of another run."""
    if key not in bench.kept:
        bench.kept.clear()
        bench.close()
        bench.kept[key] = make(bench)
    return bench.kept[key]


class _Reader:
    """An open case and the run's folder."""

    def __init__(self, shared: Shared, stack: ExitStack) -> None:
        self.ports = shared.open_ports()
        if self.ports.version != shared.version:
            do = "install the same version on all machines"
            raise UsageError("worker", expected=f"voxport {shared.version}", got=self.ports.version, do=do)
        self.case = Case.open(self.ports.volumes, shared.inputs, stack, shared.options.reading)
        self.blobs = self.ports.open_blobs(shared.folder)

    def put_arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store arrays."""
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        content.seek(0)
        self.blobs.put(name, content)

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Return stored arrays."""
        with self.blobs.open(name) as stream, np.load(io.BytesIO(stream.read())) as found:
            return dict(found)


class _Worker(_Reader):
    """A reader with the network, which knows the run."""

    def __init__(self, run: BlockRun, stack: ExitStack) -> None:
        super().__init__(run.shared, stack)
        self._run, self._stack = run, stack
        self._view: ModelView = reopened_view(self.case, run.card, run.box, run.shared.options.nan_as)
        self._back = self._view.space.way_back(run.card.output)

    def work(self, stage: Stage, number: int) -> dict[str, Any]:
        """Take a block through a stage."""
        stages = {"inferred": self._infer, "joined": self._join, "written": self._write, "measured": self._measure}
        return stages[stage](number)

    @cached_property
    def _inferer(self) -> Inferer:
        """The network, from the run's folder."""
        name, precision, threads = self._run.runtime
        path = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="voxport-"))) / "model.onnx"
        if self.blobs.link(MODEL, path) != self._run.model.sha256:
            do = "delete the run's folder, and run again"
            raise ModelError(self._run.card.reference, expected="the model of the run", got="another file", do=do)
        opened = self.ports.runtimes[name](replace(self._run.model, path=path), RuntimeOptions(precision, threads))
        self._stack.callback(opened.close)
        return self._stack.enter_context(Inferer(opened, self._run.card, 1, self._run.blocks.plan.tile))

    @cached_property
    def _answer(self) -> str:
        return answer_to_noise(self._inferer, self._run.blocks.plan.tile)

    def _infer(self, number: int) -> dict[str, Any]:
        """Infer the tiles of a block; store what it has of its own voxels, and its sums of its neighbours'."""
        run, blocks = self._run, self._run.blocks
        axis, (part, region) = blocks.plan.axis, blocks.part(number)
        piece = _Piece(run, blocks.own(number))
        planes = self._view.planes(run.fitted, axis, region, run.limits)
        begin = self._inferer.begin if run.doubt is None else run.doubt.beside(self._inferer.begin)
        for found in infer_block(blocks, number, planes, begin):
            if isinstance(found, Block):
                piece.add(found.box, found.logits)
                continue
            name = _sums_name(found.cell.owner, number, found.cell.box)
            self.put_arrays(name, {"sums": found.sums})
        self._put_pieces("inferred", number, [piece])
        processor = self.ports.resources.describe().processor
        return {
            "tiles": part.tile_count,
            "contested": piece.contested,
            "answer": self._answer,
            "processor": processor,
        }

    def _join(self, number: int) -> dict[str, Any]:
        """Add up the sums of a block's voxels that its neighbours' tiles reach too."""
        run, blocks = self._run, self._run.blocks
        contested = 0
        joined: list[_Piece] = []
        for cell in blocks.seams(number):
            total: NDArray[np.int64] | None = None
            for giver in cell.blocks:
                sums = self.arrays(_sums_name(number, giver, cell.box))["sums"]
                total = sums if total is None else np.add(total, sums, out=total)
            assert total is not None
            piece = _Piece(run, cell.box)
            piece.add(cell.box, mean_logits(blocks.plan, cell.box, total))
            joined.append(piece)
            contested += piece.contested
        self._put_pieces("joined", number, joined)
        return {"contested": contested}

    def _write(self, number: int) -> dict[str, Any]:
        """Write a box of the results, from the blocks that finished its voxels."""
        run, box = self._run, self._run.boxes[number]
        contested, values = 0, {name: outside(name, run.returned, box.shape) for name in run.references}
        if (inside := box.common(run.box)) is not None:
            decoded, contested = self._decoded(inside)
            for name, part in decoded.items():
                values[name][(..., *inside.within(box).slices)] = part
        for name, array in values.items():
            self._sink(name).write(box, array)
        return {"contested": contested}

    def _measure(self, number: int) -> dict[str, Any]:
        """Measure the labels in a box of the mask; store the components on its seams."""
        run, shape = self._run, self.case.grid.shape
        box, mask = run.boxes[number], self._sink("mask")
        outer = grown(box, shape)
        labels, nan_as = mask.read(outer)[0], run.shared.options.nan_as
        own = labels[box.within(outer).slices]
        image = [replaced(values, nan_as) for values in self.case.read(box)]
        record, seams = {}, {}
        for value in run.returned.table.values:
            measures = Measures.empty(len(image))
            measures.add(box, own == value, image)
            found = seen(labels == value, box, shape)
            seams[f"places{value}"], seams[f"components{value}"] = found.places, found.components
            record[str(value)] = {"components": found.count, **measures.as_data()}
        self.put_arrays(seams_name(number), seams)
        return {"labels": record}

    def _decoded(self, stored: Box) -> tuple[dict[VolumeName, NDArray[Any]], int]:
        """Return the results at stored voxels, in their order, and the number of contested voxels."""
        run, space, axis = self._run, self._view.space, self._run.blocks.plan.axis
        turned, output = space.reorientation.inverse(), self._run.returned
        oriented = turned.source_box(stored.within(run.box), space.oriented.shape)
        if not run.keeps_logits:
            return {"mask": turned.apply(self._gathered(oriented))}, 0
        logits = self._gathered(self._back.source_box(oriented) if space.resamples else oriented)
        if space.resamples:
            logits = resampled_values(run.card.output, logits)
            planes = self._back.planes(iter(np.moveaxis(logits, 1 + axis, 0)), axis, within=oriented)
            logits = np.stack(list(planes), axis=1 + axis)
        logits, disagreement = logits[: output.channels], logits[output.channels :]
        ways: dict[VolumeName, Callable[[NDArray[np.float32]], NDArray[Any]]] = {
            "mask": output.labels,
            "probabilities": output.calibrated,
            "uncertainty": lambda logits: UncertaintyScale(output).of(logits, *disagreement),
        }
        return {name: turned.apply(ways[name](logits)) for name in run.references}, output.contested(logits)

    def _gathered(self, box: Box) -> NDArray[Any]:
        """Return labels ``(x, y, z)`` or logits ``(K, x, y, z)`` of a box of the model's grid."""
        gathered: NDArray[Any] | None = None
        for number in self._run.blocks.meeting(box):
            own = self._run.blocks.own(number)
            common = own.common(box)
            assert common is not None
            values = self._finished(number)
            if gathered is None:
                gathered = np.zeros((*values.shape[:-3], *box.shape), values.dtype)
            gathered[(..., *common.within(box).slices)] = values[(..., *common.within(own).slices)]
        assert gathered is not None
        return gathered

    def _finished(self, number: int) -> NDArray[Any]:
        """Return the labels or logits of a block's own voxels, its seams included."""
        blocks, own = self._run.blocks, self._run.blocks.own(number)
        (values,) = self._pieces("inferred", number, [own])
        if last_stage(blocks) == "joined":
            seams = [cell.box for cell in blocks.seams(number)]
            for box, joined in zip(seams, self._pieces("joined", number, seams), strict=True):
                values[(..., *box.within(own).slices)] = joined
        return values

    def _put_pieces(self, stage: Stage, number: int, pieces: Iterable[_Piece]) -> None:
        """Store pieces of a block: logits, or labels in few bits."""
        keeps, highest = self._run.keeps_logits, max(self._run.card.output.table.values)
        stored = (piece.values if keeps else packed(piece.values, highest) for piece in pieces)
        self.put_arrays(_piece_name(stage, number), {str(key): values for key, values in enumerate(stored)})

    def _pieces(self, stage: Stage, number: int, boxes: Iterable[Box]) -> Iterator[NDArray[Any]]:
        """Yield the stored pieces of a block, which have the voxels of ``boxes``."""
        stored, dtype = self.arrays(_piece_name(stage, number)), self._run.card.output.table.dtype
        for key, box in enumerate(boxes):
            values = stored[str(key)]
            yield values if self._run.keeps_logits else unpacked(values, box.shape, dtype)

    def _sink(self, name: VolumeName) -> VolumeSink:
        sinks = self.__dict__.setdefault("_sinks", {})
        if name not in sinks:
            opened = self.ports.block_volumes.open(
                self._run.shared.folder, name, self._run.references[name], self.case.grid
            )
            sinks[name] = self._stack.enter_context(opened)
        found: VolumeSink = sinks[name]
        return found


class _Piece:
    """The labels ``(x, y, z)``, or logits ``(K, x, y, z)``, of a block's own voxels as they are finished."""

    def __init__(self, run: BlockRun, own: Box) -> None:
        self._run, self._own = run, own
        self.contested = 0
        self.values: NDArray[Any]
        output = run.card.output
        self._doubt = run.doubt
        if run.keeps_logits:
            channels = output.channels + (self._doubt is not None)
            self.values = np.zeros((channels, *own.shape), np.float32)
        else:
            self.values = np.zeros(own.shape, output.table.dtype)

    def add(self, box: Box, logits: NDArray[np.float32]) -> None:
        """Set the voxels of a box."""
        output, place = self._run.card.output, (..., *box.within(self._own).slices)
        if self._run.keeps_logits:
            self.values[place] = logits if self._doubt is None else self._doubt.settled(logits)
            return
        self.values[place] = output.labels(logits)
        self.contested += output.contested(logits)


def seams_name(number: int) -> str:
    """Return the name of the components on the seams of a box."""
    return f"seams/{number:06d}.npz"


def last_stage(blocks: TileBlocks) -> Literal["inferred", "joined"]:
    """Return the stage after which blocks are finished: tiles of several blocks meet, unless there is one, or halos."""
    return "inferred" if blocks.count == 1 or blocks.plan.blending == "halo" else "joined"


def sink_channels(name: VolumeName, output: Output) -> tuple[str, ...]:
    """Return the names of a result's channels; none for the mask, which has one."""
    return {"mask": (), "probabilities": output.channel_names, "uncertainty": CHANNELS}[name]


def sink_dtype(name: VolumeName, output: Output) -> np.dtype[Any]:
    """Return the type of a result."""
    kinds: dict[VolumeName, Any] = {"mask": output.table.dtype, "probabilities": np.float32, "uncertainty": np.uint8}
    found: np.dtype[Any] = np.dtype(kinds[name])
    return found


def outside(name: VolumeName, output: Output, shape: Shape3) -> NDArray[Any]:
    """Return what a result ``(C, x, y, z)`` is beyond the crop: certain background."""
    names = sink_channels(name, output)
    values = np.zeros((max(1, len(names)), *shape), sink_dtype(name, output))
    if name == "probabilities" and "background" in names:
        values[names.index("background")] = 1
    if name == "uncertainty":
        values[:] = np.reshape(CERTAIN, (-1, 1, 1, 1))
    return values


def boxes_within(whole: Box, chunk: Shape3, edge: int) -> Boxes:
    """Return boxes of whole chunks that cover a box, of at most ``edge`` voxels along each axis or one chunk."""
    return Boxes(whole, shape3(max(1, edge // length) * length for length in chunk))


def _piece_name(stage: Stage, number: int) -> str:
    return f"pieces/{stage}/{number:06d}.npz"


def _sums_name(owner: int, giver: int, box: Box) -> str:
    corner = "-".join(map(str, box.start))
    return f"sums/{owner:06d}/{giver:06d}-{corner}.npz"


def key_of(*parts: object) -> str:
    """Return a hash of what tells runs apart."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()
