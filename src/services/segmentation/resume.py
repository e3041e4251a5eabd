"""Resume an interrupted run from finished planes that are stored as blobs."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ...domain.cards.writing import write_card
from ...domain.errors import VoxportError
from ...domain.geometry.grid import Box, Shape3
from ...domain.labels.uncertainty import CHANNELS
from ...domain.run import BLENDINGS, RunOptions
from ...ports.blobs import BlobStore
from ..models.loading import LoadedModel
from .decoding import Sinks
from .inference import Inferer
from .preparation.prepare import Prepared

_log = logging.getLogger("voxport.jobs")
_SCHEMA = "voxport/slabs/1"
_PIECE_VALUES = 2**24  # values of one piece, so that a piece fits in memory for any volume
_DAMAGED = (VoxportError, OSError, BadZipFile, ValueError, KeyError, EOFError)


@dataclass(frozen=True)
class Reached:
    """Progress of a run: the first unfinished plane of the oriented grid, and the contested voxels before it."""

    plane: int = 0
    contested: int = 0


class Checkpoint:
    """Finished planes of one run, below ``folder`` of a blob store.

    They are reused only for the same inputs, model, card, options, plan, runtime and version, and if the network gives
    the same bits for a probe tile: processors differ. A run continues without checkpoint if the store fails.

    Args:
        version: voxport's version.
        every_seconds: minimum time between two pieces.
    """

    def __init__(self, blobs: BlobStore, folder: str, *, version: str, every_seconds: float = 10.0) -> None:
        self._blobs, self._folder, self._version, self._every_seconds = blobs, folder, version, every_seconds
        self._kept = Reached()
        self._head: dict[str, Any] | None = None
        self._last = time.monotonic()

    def pinned(self, options: RunOptions) -> RunOptions:
        """Return the options with the blending of the interrupted run, which depended on the free memory."""
        self._head = self._read_head()
        chosen = self._head.get("blending") if self._head else None
        if options.blending is None and chosen in BLENDINGS:
            return replace(options, blending=chosen)
        return options

    def restore(self, fingerprint: str, prepared: Prepared, inferer: Inferer, sinks: Sinks) -> Reached:
        """Write the stored planes of this run to the sinks and return the progress. Deletes unusable planes."""
        self._fingerprint, self._prepared, self._inferer, self._sinks = fingerprint, prepared, inferer, sinks
        self._last = time.monotonic()
        if self._head is None:
            return self._kept
        try:
            if self._head != self._new_head():
                raise ValueError("planes of another run")
            for piece in self._chain():
                self._read_piece(piece)
        except _DAMAGED as error:
            _log.info("%s: cannot resume from stored planes (%s); the run starts again", self._folder, error)
            self._kept, self._head = Reached(), None
            self.clear()
        return self._kept

    @property
    def due(self) -> bool:
        """Whether ``every_seconds`` have passed since the last piece."""
        return time.monotonic() - self._last >= self._every_seconds

    def keep(self, reached: Reached) -> None:
        """Store the planes finished since the last call, read from the sinks."""
        try:
            if self._head is None:
                self._head = self._new_head()
                self._put("head.json", json.dumps(self._head).encode())
            for begin, end in self._pieces(self._kept.plane, reached.plane):
                self._put(f"{begin:06d}-{end:06d}.npz", self._piece(begin, end, reached))
                self._kept = Reached(end, reached.contested)
        except (VoxportError, OSError) as error:
            _log.warning("%s: finished planes could not be stored (%s)", self._folder, error)
        self._last = time.monotonic()

    def clear(self) -> None:
        """Delete the stored planes."""
        try:
            self._blobs.delete_prefix(self._folder)
        except (VoxportError, OSError) as error:
            _log.warning("%s: %s", self._folder, error)

    def _new_head(self) -> dict[str, Any]:
        plan = self._prepared.plan
        return {
            "schema": _SCHEMA,
            "version": self._version,
            "run": self._fingerprint,
            "answer": answer_to_noise(self._inferer, plan.tile),
            "blending": plan.blending,
        }

    @property
    def _mark(self) -> str:
        """Hash of the head, stored in each piece: another worker may write to the same folder."""
        return hashlib.sha256(json.dumps(self._head, sort_keys=True).encode()).hexdigest()

    def _read_head(self) -> dict[str, Any] | None:
        try:
            with self._blobs.open(f"{self._folder}/head.json") as stream:
                head = json.load(stream)
        except _DAMAGED:
            return None
        return head if isinstance(head, dict) else None

    def _chain(self) -> Iterator[tuple[int, int]]:
        """Yield contiguous pieces from the first plane."""
        names = [name.rpartition("/")[2] for name in self._blobs.names(self._folder)]
        ends: dict[int, int] = {}
        for name in names:
            if name.endswith(".npz"):
                begin, end = map(int, name.removesuffix(".npz").split("-"))
                ends[begin] = max(end, ends.get(begin, 0))
        at = 0
        while at in ends:
            yield at, ends[at]
            at = ends[at]

    def _pieces(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        plan, oriented = self._prepared.plan, self._prepared.space.oriented
        values = oriented.voxel_count // oriented.shape[plan.axis]
        if "probabilities" in self._sinks:
            values *= 1 + self._prepared.card.output.channels
        if "uncertainty" in self._sinks:
            values += len(CHANNELS) * oriented.voxel_count // oriented.shape[plan.axis]
        thick = max(1, _PIECE_VALUES // values)
        for at in range(begin, end, thick):
            yield at, min(at + thick, end)

    def _box(self, begin: int, end: int) -> Box:
        oriented = Box.whole(self._prepared.space.oriented.shape).with_range(self._prepared.plan.axis, begin, end)
        return self._prepared.stored_box(oriented)

    def _piece(self, begin: int, end: int, reached: Reached) -> bytes:
        box, content = self._box(begin, end), io.BytesIO()
        values: dict[str, Any] = {f"sink{number}": sink.read(box) for number, sink in enumerate(self._sinks.values())}
        # Labels compress well, probabilities do not.
        write = np.savez_compressed if len(values) == 1 else np.savez
        write(content, reached=np.array([reached.plane, reached.contested]), head=np.array(self._mark), **values)
        return content.getvalue()

    def _read_piece(self, piece: tuple[int, int]) -> None:
        with self._blobs.open(f"{self._folder}/{piece[0]:06d}-{piece[1]:06d}.npz") as stream:
            content = io.BytesIO(stream.read())
        box = self._box(*piece)
        with np.load(content) as values:
            if str(values["head"]) != self._mark:  # written by a worker that was taken for dead
                raise ValueError("a piece of another run")
            for number, sink in enumerate(self._sinks.values()):
                sink.write(box, values[f"sink{number}"])
            plane, contested = map(int, values["reached"])
        if plane == piece[1]:  # else the count includes pieces that are missing
            self._kept = Reached(plane, contested)

    def _put(self, name: str, content: bytes) -> None:
        self._blobs.put(f"{self._folder}/{name}", io.BytesIO(content))


def answer_to_noise(inferer: Inferer, tile: Shape3) -> str:
    """Return a hash of the logits of noise, which differs between processors that round in another way."""
    probe = np.random.default_rng(0).standard_normal((inferer.batch, inferer.channels, *tile), np.float32)
    return hashlib.sha256(np.ascontiguousarray(inferer(probe)).tobytes()).hexdigest()


def fingerprint(
    hashes: tuple[tuple[str, str], ...], loaded: LoadedModel, prepared: Prepared, volumes: Iterable[str]
) -> str:
    """Return a hash of everything that a mask depends on."""
    runtime = loaded.runtime
    parts = {
        "inputs": [sha256 for _, sha256 in hashes],
        "model": loaded.model.sha256,
        "card": write_card(prepared.card),
        "runtime": [runtime.name, runtime.version, runtime.device, runtime.precision],
        "plan": asdict(prepared.plan),
        "nan_as": prepared.nan_as,
        "volumes": list(volumes),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
