"""A DICOM node: series arrive, are segmented as jobs once they are complete, and their masks are sent to a peer."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO
from zipfile import ZipFile, ZipInfo

from ...domain.dicom_series import (
    Instance,
    SeriesRecord,
    SeriesRule,
    SeriesState,
    read_record,
    record_mapping,
    resend_seconds,
    rule_of,
)
from ...domain.errors import UnknownJobError, VoxportError
from ...domain.job import Job
from ...domain.run import RunOptions
from ...domain.volume_names import MaskFormat
from ...ports.dicom_peer import DicomPeer
from ...ports.folders import WorkFolders
from ...ports.model import Model
from ..jobs.submit import JobPorts, submit_case

_KEPT, _INSTANCES, _RECORD = "dicom", "instances", "record"
_OWNER = "dicom"
_LOOK_SECONDS, _REST_SECONDS = 1.0, 60.0
_MOST_REMEMBERED = 1000
_MASK: MaskFormat = "dcm"
_log = logging.getLogger("voxport.dicom")


@dataclass(frozen=True)
class NodeTimes:
    """Times of a node, in seconds.

    Args:
        quiet: a series is complete once nothing of it has come for so long.
        keep: how long its instances are kept after its end, for those that come late.
        retention: how long its record is kept after its end, so that it is not segmented again.
    """

    quiet: float
    keep: float
    retention: float


@dataclass
class DicomNode:
    """Keeps the series that arrive, has each segmented once, and sends each mask once.

    Everything that must survive lies in the blob store: an instance as ``dicom/SERIES/instances/UID``, how far its
    series has come as ``dicom/SERIES/record``. A node that was killed goes on from there. What cannot be repeated
    safely is first asked for: a mask that may have been sent is sent again only if the peer does not have it, and a
    series that may have been submitted is submitted under the same key. One node at a time may use a blob store.

    Args:
        rules: the first that takes a series counts.
        peers: by the names that rules give them.
        find_model: finds a model by its name; the default model for None.
        now: seconds since 1970.
    """

    rules: Sequence[SeriesRule]
    peers: Mapping[str, DicomPeer]
    times: NodeTimes
    ports: JobPorts
    folders: WorkFolders
    find_model: Callable[[str | None], Model]
    now: Callable[[], float] = time.time
    _due: dict[str, float] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _unwanted: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_REMEMBERED), init=False)

    def __post_init__(self) -> None:
        for name in self.ports.blobs.names(_KEPT):
            self._due[name.split("/")[1]] = self.now() + self.times.quiet

    def keep(self, instance: Instance, content: IO[bytes]) -> bool:
        """Keep an instance, given as a DICOM file; return False for one that no rule takes, which is not kept.

        Once this returns, the instance survives the end of the process and of the machine.

        Raises:
            OutputError, OSError: it cannot be stored.
        """
        series = instance.series
        if not instance.is_image or rule_of(self.rules, instance.facts) is None:
            if series not in self._unwanted:
                self._unwanted.append(series)
                self._audit(series, SeriesRecord(instance.facts, "ignored"), "no rule takes it; it is not kept")
            return False
        with self._lock:
            self._due[series] = self.now() + self.times.quiet  # also of one that cannot be stored
            if not self.ports.blobs.exists(f"{_KEPT}/{series}/{_RECORD}"):
                self._write(series, SeriesRecord(instance.facts))
            self.ports.blobs.put(f"{_KEPT}/{series}/{_INSTANCES}/{instance.uid}", content)
            self._due[series] = self.now() + self.times.quiet
        return True

    def run(self, stop: threading.Event) -> None:
        """Call ``advance`` each second until ``stop`` is set."""
        while not stop.wait(_LOOK_SECONDS):
            self.advance()

    def advance(self) -> None:
        """Do the next step of each series that is due."""
        for series in sorted(series for series, due in self._due.copy().items() if due <= self.now()):
            due = self._due[series]
            try:
                wait = self._step(series)
            except Exception as error:  # noqa: BLE001 - one series must not stop the others
                self._audit(series, None, _reason(error), level=logging.ERROR)
                wait = _REST_SECONDS
            with self._lock:
                if self._due[series] != due:  # an instance came meanwhile
                    continue
                if wait is None:
                    del self._due[series]
                else:
                    self._due[series] = self.now() + wait

    def _step(self, series: str) -> float | None:
        """Do the next step of a series; return the seconds until the next one, None after the last."""
        record = self._read(series)
        uids = self._uids(series)
        if not uids <= record.uids:
            return self._submit(series, record, uids)
        if record.state in ("submitted", "failed"):
            return self._follow(series, record)
        if record.state == "sending":
            return self._send(series, record)
        return self._sweep(series, record)

    def _submit(self, series: str, record: SeriesRecord, uids: frozenset[str]) -> float:
        """Have the series segmented, in place of a job that had fewer of its instances."""
        if not record.uids <= uids:
            why = "instances came after the others were deleted; send the whole series again"
            self._audit(series, record, why, level=logging.WARNING)
            self._delete(series, uids, f"/{_INSTANCES}")
            return _LOOK_SECONDS
        rule = rule_of(self.rules, record.facts)
        if rule is None:  # the rules were changed meanwhile
            return self._end(series, replace(record, uids=uids), "ignored", "no rule takes it any more")
        if record.job:
            with suppress(UnknownJobError):
                self.ports.queue.cancel(record.job)
        model = self.find_model(rule.model)
        reference = model.card.reference
        with self.folders.new() as folder:
            archive = self._archive(series, uids, folder / "series.zip")
            with archive.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            key = hashlib.sha256(f"{series} {reference} {digest}".encode()).hexdigest()
            job = submit_case(
                [(archive.name, archive)],
                reference,
                RunOptions(),
                (),
                _OWNER,
                ports=self.ports,
                key=f"dicom-{key}",
                model_sha256=model.sha256,
                mask_format=_MASK,
            )
        submitted = SeriesRecord(record.facts, "submitted", uids, reference, job.id, rule.send_to)
        self._write(series, submitted)
        self._audit(series, submitted, f"submitted with {len(uids)} instances")
        return _LOOK_SECONDS

    def _follow(self, series: str, record: SeriesRecord) -> float | None:
        """See what has become of the job. One that failed may be tried again by an operator."""
        job = self._job(record)
        if record.state == "failed" and (job is None or (job.has_ended and job.state != "done")):
            return self._sweep(series, record)
        if job is None:
            return self._end(series, record, "failed", "its job was deleted", level=logging.ERROR)
        if job.state == "done":
            self._write(series, replace(record, state="sending", ended=None))
            return 0.0
        if job.has_ended:
            why = f"its job has {job.state} ({job.failure.kind})" if job.failure else f"its job was {job.state}"
            return self._end(series, record, "failed", why, level=logging.ERROR)
        if record.state == "failed":
            self._write(series, replace(record, state="submitted", ended=None))
        return _LOOK_SECONDS

    def _send(self, series: str, record: SeriesRecord) -> float:
        """Send the mask, unless an earlier attempt, whose answer was not seen, has done so."""
        peer = self.peers.get(record.send_to)
        if peer is None:
            why = f"no peer is named {record.send_to} in the settings; its mask waits"
            self._audit(series, record, why, level=logging.ERROR)
            return _REST_SECONDS
        job = self._job(record)
        if job is None:
            return self._end(series, record, "failed", "its job was deleted", level=logging.ERROR)
        begun = replace(record, attempts=record.attempts + 1)
        try:
            with self.folders.new() as folder:
                file = folder / job.results["mask"].name
                self.ports.blobs.fetch(job.results["mask"].blob, file)
                if not (record.attempts and peer.has(file)):
                    self._write(series, begun)
                    peer.send(file)
        except ConnectionError as error:
            wait = resend_seconds(begun.attempts)
            self._write(series, begun)
            self._audit(series, begun, f"{error}; sent again in {wait:.0f} s", level=logging.WARNING)
            return wait
        return self._end(series, begun, "sent", _took(job))

    def _end(
        self, series: str, record: SeriesRecord, state: SeriesState, why: str, *, level: int = logging.INFO
    ) -> float:
        ended = replace(record, state=state, ended=self.now())
        self._write(series, ended)
        self._audit(series, ended, why, level=level)
        return _LOOK_SECONDS

    def _sweep(self, series: str, record: SeriesRecord) -> float | None:
        """Delete what is kept no longer."""
        if self._is_over(record, self.times.retention) or (record.state == "receiving" and not record.uids):
            return None if self._delete(series, record.uids) else _LOOK_SECONDS
        if self._is_over(record, self.times.keep):
            self._delete(series, record.uids, f"/{_INSTANCES}")
        return _REST_SECONDS

    def _delete(self, series: str, known: frozenset[str], part: str = "") -> bool:
        """Delete a series, or a part of it, unless an instance beside the known ones has come; return whether."""
        with self._lock:
            if not self._uids(series) <= known:
                return False
            self.ports.blobs.delete_prefix(f"{_KEPT}/{series}{part}")
            return True

    def _job(self, record: SeriesRecord) -> Job | None:
        try:
            return self.ports.queue.get(record.job)
        except UnknownJobError:
            return None

    def _is_over(self, record: SeriesRecord, seconds: float) -> bool:
        return record.ended is not None and self.now() >= record.ended + seconds

    def _archive(self, series: str, uids: Iterable[str], path: Path) -> Path:
        """Write the instances as a zip; the same instances give the same bytes."""
        with ZipFile(path, "w") as archive:
            for uid in sorted(uids):
                with (
                    self.ports.blobs.open(f"{_KEPT}/{series}/{_INSTANCES}/{uid}") as source,
                    archive.open(ZipInfo(f"{uid}.dcm"), "w", force_zip64=True) as copy,
                ):
                    while chunk := source.read(2**20):
                        copy.write(chunk)
        return path

    def _uids(self, series: str) -> frozenset[str]:
        names = self.ports.blobs.names(f"{_KEPT}/{series}/{_INSTANCES}")
        return frozenset(name.rpartition("/")[2] for name in names)

    def _read(self, series: str) -> SeriesRecord:
        with self.ports.blobs.open(f"{_KEPT}/{series}/{_RECORD}") as file:
            return read_record(json.load(file))

    def _write(self, series: str, record: SeriesRecord) -> None:
        self.ports.blobs.put(f"{_KEPT}/{series}/{_RECORD}", io.BytesIO(json.dumps(record_mapping(record)).encode()))

    def _audit(self, series: str, record: SeriesRecord | None, why: str, *, level: int = logging.INFO) -> None:
        """Log what happened to a series, with its UIDs hashed: only who knows them finds the line."""
        fields: dict[str, object] = {"event": "dicom", "series": _hashed(series)}
        if record is not None:
            fields |= {"study": _hashed(record.facts.study), "state": record.state, "instances": len(record.uids)}
            fields |= {"model": record.model, "job": record.job, "peer": record.send_to}
        _log.log(level, "series %s: %s", fields["series"], why, extra={"fields": fields})


def _took(job: Job) -> str:
    return f"sent; it took {(job.ended or job.submitted) - job.submitted:.1f} s to segment"


def _reason(error: Exception) -> str:
    """What went wrong, without the names of files, which have UIDs in them."""
    if isinstance(error, VoxportError):
        return f"expected {error.expected}, got {error.got}; {error.do}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"an unexpected {type(error).__name__}"


def _hashed(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:16]
