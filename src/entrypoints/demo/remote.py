"""Cases scored by a voxport server, asked through the client."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from ...client import Client, RemoteJob
from ...contract.card import read_card
from ...domain.cards.model_card import ModelCard
from ...domain.errors import CancelledError, VoxportError
from ...domain.run import RESULT_FILES, RunOptions
from ...services.segmentation.report import curl_line, same_again_there
from .engines import Commands, Offer, RunEstimate, result_files

if TYPE_CHECKING:
    from ...services.viewing.sessions import RunProgress

_LONGEST_SILENCE_SECONDS = 6 * 3600.0
_PATIENCE_SECONDS = 30.0


class RemoteEngine:
    """Has a server score; volumes go there and nowhere else.

    Args:
        url: of the server.
        api_key: where it wants one; ``VOXPORT_API_KEY`` where it is not given.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        with Client(url, api_key=api_key) as client:
            self._url = client.url
        self._key = api_key
        self.place = f"on {self._url}"

    def offers(self) -> Sequence[Offer]:
        """See Engine."""
        with self._client(_PATIENCE_SECONDS) as client:
            listed = client.models()
            ready = [m for m in listed["models"] if m["status"] == "ready"]
            ready.sort(key=lambda m: m["reference"] != listed["default"])
            cards = [read_card(dict(client.model(m["reference"])["card"])) for m in ready]
        return [Offer(card, card.reference == listed["default"]) for card in cards]

    def card(self, model: str) -> ModelCard:
        """See Engine."""
        with self._client(_PATIENCE_SECONDS) as client:
            return read_card(dict(client.model(model)["card"]))

    def estimate(self, inputs: Sequence[Path], model: str, progress: RunProgress) -> RunEstimate:
        """See Engine. The volumes are sent to the server for it."""
        with self._interruptible(progress) as client:
            told = client.plan(list(inputs), model=model, hear=_heard(progress))
        return RunEstimate(int(told["tiles"]), float(told["seconds"]), int(told["peak_bytes"]), tuple(told["warnings"]))

    def run(self, inputs: Sequence[Path], model: str, folder: Path, progress: RunProgress) -> Mapping[str, Any]:
        """See Engine. The server's copy of the volumes and results goes once they are here."""
        places = result_files(folder)
        further = {"statistics": str(places.statistics)}
        with self._interruptible(progress) as client:
            job = client.jobs.submit(list(inputs), model=model, outputs=further, hear=_heard(progress))
        with self._client(_PATIENCE_SECONDS) as client, self._followed(client, job, progress):
            client.jobs.wait(job, hear=_told(progress))
            answered = client.jobs.download(job, places.mask, outputs=further)
        bare = {
            name: [{**entry, "name": Path(entry["name"]).name} for entry in answered[name]]
            for name in ("inputs", "outputs")
        }
        names = [path.name for path in inputs]
        command = same_again_there(self._url, names, RESULT_FILES["mask"], answered, RunOptions())
        return {**answered, **bare, "command": command}

    def commands(self, inputs: Sequence[Path], report: Mapping[str, Any]) -> Commands:
        """See Engine."""
        names = [path.name for path in inputs]
        curl = curl_line(self._url, names, RESULT_FILES["mask"], report, with_key=self._key is not None)
        return Commands(str(report["command"]), curl)

    def _client(self, seconds: float, transport: httpx.BaseTransport | None = None) -> Client:
        return Client(self._url, api_key=self._key, timeout_seconds=seconds, transport=transport)

    @contextmanager
    def _followed(self, client: Client, job: RemoteJob, progress: RunProgress) -> Iterator[None]:
        """A job that is cancelled with the run, and of which nothing is left on the server afterwards."""

        def cancel() -> None:
            with suppress(VoxportError):
                client.jobs.cancel(job)

        progress.on_cancel = cancel
        try:
            progress.check()
            yield
        finally:
            progress.on_cancel = lambda: None
            cancel()
            with suppress(VoxportError):
                client.jobs.wait(job, timeout_seconds=_PATIENCE_SECONDS)
            with suppress(VoxportError):
                client.jobs.delete(job)

    @contextmanager
    def _interruptible(self, progress: RunProgress) -> Iterator[Client]:
        """A client whose connection is cut when the run is cancelled, which stops the server at its next tile."""
        transport = Breakable(self._url)
        progress.on_cancel = transport.cut
        try:
            with self._client(_LONGEST_SILENCE_SECONDS, transport) as client:
                progress.check()
                yield client
        except VoxportError:
            if progress.cancelled:
                raise CancelledError from None
            raise
        finally:
            progress.on_cancel = lambda: None


class Breakable(httpx.BaseTransport):
    """A transport whose connections another thread can cut, also while one is waited on in silence."""

    def __init__(self, url: str) -> None:
        verify = ssl.create_default_context() if url.startswith("https:") else False
        self._inner = httpx.HTTPTransport(verify=verify)
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._is_cut = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; its connection is remembered."""
        request.extensions["trace"] = self._remember
        return self._inner.handle_request(request)

    def cut(self) -> None:
        """Shut every connection, now and as soon as there is one."""
        with self._lock:
            self._is_cut = True
            for open_socket in self._sockets:
                _shut(open_socket)

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()

    def _remember(self, event: str, info: Mapping[str, Any]) -> None:
        if event not in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            return
        found = info["return_value"].get_extra_info("socket")
        with self._lock:
            self._sockets.append(found)
            if self._is_cut:
                _shut(found)


def _shut(open_socket: socket.socket) -> None:
    with suppress(OSError):  # gone already, or handed over to TLS
        open_socket.shutdown(socket.SHUT_RDWR)


def _told(progress: RunProgress) -> Callable[[RemoteJob], None]:
    """Tells a run's progress of what a job's follower hears: that it waits in line, and its tiles."""

    def hear(job: RemoteJob) -> None:
        progress.check()
        stage = "score" if job.state == "running" else "wait"
        if (stage, job.tiles_total) != (progress.state, progress.tiles):
            progress.stage(stage, job.tiles_total)
        progress.done = job.tiles_done

    return hear


def _heard(progress: RunProgress) -> Callable[[str, int, int], None]:
    """Tells a run's progress of what a client hears: the stage, and megabytes while files travel."""

    def hear(stage: str, done: int, total: int) -> None:
        if stage != progress.state:
            progress.stage(stage, -(-total // 10**6))
        progress.check()
        progress.done = -(-done // 10**6)

    return hear
