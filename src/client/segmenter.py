"""Segment cases on a server. Volumes go there once, when a run begins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract.card import read_card
from ..contract.options import REMOTE
from ..domain.cards.model_card import ModelCard
from ..domain.errors import CancelledError, VoxportError
from ..domain.labels.label_file import label_file_bytes
from ..domain.run import Outputs, RunOptions
from ..domain.volume_names import USUAL_FORMAT
from ..ports.progress import ProgressListener
from ..ports.segmenter import Capacity, Offer, RunEstimate
from .answers import RemoteJob, checked
from .client import Client
from .downloads import Download
from .results import asked_format

if TYPE_CHECKING:
    import httpx

# Far longer than the server's own limit; ends the wait for a server that is gone.
_LONGEST_SILENCE_SECONDS = 6 * 3600.0
_PATIENCE_SECONDS = 30.0
_GLANCE_SECONDS = 0.1
_MEGABYTE = 10**6
# Estimates a run of a local case with a card, on a machine of a capacity.
Estimator = Callable[[Sequence[str], ModelCard, Capacity, RunOptions, ProgressListener], RunEstimate]


class RemoteSegmenter:
    """A Segmenter on the server of an address; see `Client` for the key.

    Args:
        estimate: estimates a run on a machine of the server's capacity.
        as_jobs: run cases as jobs, which report patches as they are done; without, as requests that need no worker.
        transport: makes httpx transports in place of the network.

    Raises:
        UsageError: the URL or the key cannot be used.
    """

    def __init__(
        self,
        url: str,
        estimate: Estimator,
        *,
        api_key: str | None = None,
        as_jobs: bool = True,
        transport: Callable[[], httpx.BaseTransport] | None = None,
    ) -> None:
        with Client(url, api_key=api_key) as client:
            self.url = client.url
        self._key, self._estimate, self._as_jobs = api_key, estimate, as_jobs
        self._transport = transport

    def offers(self) -> Sequence[Offer]:
        """See Segmenter."""
        with self._client() as client:
            listed = client.models()
            ready = [m["reference"] for m in listed["models"] if m["status"] == "ready"]
            ready.sort(key=lambda reference: reference != listed["default"])
            return [Offer(_card(client.model(m)), m == listed["default"]) for m in ready]

    def card(self, model: str) -> ModelCard:
        """See Segmenter."""
        with self._client() as client:
            return _card(client.model(model))

    def estimate(
        self, inputs: Sequence[str], model: str, options: RunOptions, progress: ProgressListener
    ) -> RunEstimate:
        """See Segmenter. Nothing is sent: the server states its capacity."""
        with self._client() as client:
            details = client.model(model)
        capacity = checked(Capacity, details.get("capacity"), self.url, "the capacity of a model")
        return self._estimate(inputs, _card(details), capacity, options, progress)

    def segment(
        self,
        inputs: Sequence[str],
        model: str | None,
        outputs: Outputs,
        options: RunOptions,
        progress: ProgressListener,
    ) -> Mapping[str, Any]:
        """See Segmenter. A job, and the server's copies of its files, are deleted in the end."""
        names = ("probabilities", "uncertainty", "statistics", "preview")
        files = {name: place for name in names if (place := getattr(outputs, name)) is not None}
        fields: dict[str, Any] = {"model": model, **{name: getattr(options, name) for name in REMOTE}}
        steps, volumes = _Steps(progress), list(inputs)
        with self._interruptible(progress) as client:
            if not self._as_jobs:
                report = client.segment(volumes, outputs.mask, outputs=files, on_progress=steps.sent, **fields)
                return _with_label_table(report, outputs)
            asked = asked_format(Path(outputs.mask)) or USUAL_FORMAT
            job = client.jobs.submit(volumes, outputs=files, format=asked, on_progress=steps.sent, **fields)
        with self._client() as client, _deleted_in_the_end(client, job, progress):
            client.jobs.wait(job, on_progress=steps.job)
            return _with_label_table(client.jobs.download(job, outputs.mask, outputs=files), outputs)

    def _client(self, seconds: float = _PATIENCE_SECONDS) -> Client:
        transport = None if self._transport is None else self._transport()
        return Client(self.url, api_key=self._key, timeout_seconds=seconds, transport=transport)

    @contextmanager
    def _interruptible(self, progress: ProgressListener) -> Iterator[Client]:
        """A client whose connections are cut when the run is cancelled: the server stops at its next patch."""
        with self._client(_LONGEST_SILENCE_SECONDS) as client, _watched(progress, client.cut) as is_cancelled:
            try:
                yield client
            except VoxportError:
                if is_cancelled():
                    raise CancelledError from None
                raise


class _Steps:
    """Passes bytes that travel, and the tiles of a job, to a progress listener."""

    def __init__(self, progress: ProgressListener) -> None:
        self._progress = progress
        self._stage, self._total, self._done = "", 0, 0

    def sent(self, stage: str, done: int, total: int) -> None:
        self._moved(f"{stage} (MB)" if total else stage, -(-done // _MEGABYTE), -(-total // _MEGABYTE))

    def job(self, job: RemoteJob) -> None:
        self._moved("score" if job.state == "running" else "wait", job.tiles_done, job.tiles_total)

    def _moved(self, stage: str, done: int, total: int) -> None:
        if (stage, total) != (self._stage, self._total) or done < self._done:
            self._stage, self._total, self._done = stage, total, 0
            self._progress.stage(stage, total)
        self._progress.advance(done - self._done)
        self._done = done


@contextmanager
def _deleted_in_the_end(client: Client, job: RemoteJob, progress: ProgressListener) -> Iterator[None]:
    """Cancel a job when the run is cancelled, and delete it in any case."""

    def cancel() -> None:
        with suppress(VoxportError):
            client.jobs.cancel(job)

    try:
        with _watched(progress, cancel):
            yield
    finally:
        cancel()
        with suppress(VoxportError):
            client.jobs.wait(job, timeout_seconds=_PATIENCE_SECONDS)
        with suppress(VoxportError):
            client.jobs.delete(job)


@contextmanager
def _watched(progress: ProgressListener, stop: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Call ``stop`` from a thread once ``progress`` cancels the run; yields a function that returns whether it has."""
    ended, cancelled = threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.wait(_GLANCE_SECONDS):
            try:
                progress.advance(0)
            except CancelledError:
                cancelled.set()
                stop()
                return

    progress.advance(0)
    thread = threading.Thread(target=watch, name="voxport-watch", daemon=True)
    thread.start()
    try:
        yield cancelled.is_set
    finally:
        ended.set()
        thread.join()


def _with_label_table(report: Mapping[str, Any], outputs: Outputs) -> Mapping[str, Any]:
    """Write the label table of the report's card, if it is asked for; return the report with it. Raises OutputError."""
    if outputs.label_table is None:
        return report
    content = label_file_bytes(outputs.label_table, read_card(report["model"]["card"]).output.table)
    with Download(Path(outputs.label_table)) as file:
        file.fill([content])
        file.commit()
        return {**report, "outputs": [*report["outputs"], file.entry()]}


def _card(details: Mapping[str, Any]) -> ModelCard:
    return read_card(dict(details["card"]))
