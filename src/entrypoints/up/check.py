"""``voxport up --check``: everything started for once, and asked for what it is there for."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from ...domain.errors import OutputError, VoxportError
from ...domain.volume_names import PACKED
from ..cli.outcome import show_outcome
from .children import Place, children_of, data_variables
from .supervisor import Supervisor

_PATIENCE_SECONDS = 300.0


def check_everything(workers: int, demo: bool) -> None:
    """Start all on free ports and in a folder of its own, have the bundled sample segmented as a job, and show it.

    The folder is deleted where all went well, and kept with its logs where not.

    Raises:
        VoxportError: what did not go well.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="voxport-check-"))
    except OSError as error:
        raise OutputError.cannot_write("temporary folder", error) from None
    port, demo_port = _free_ports(2)
    place = Place("127.0.0.1", port, demo_port if demo else None)
    supervisor = Supervisor(children_of(place, workers, _variables(folder)), folder / "logs", lambda _: None)
    with supervisor:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        supervisor.watch(until=lambda: not supervisor.waits_for or time.monotonic() > deadline)
        if late := supervisor.waits_for:
            expected, got = f"an answer within {_PATIENCE_SECONDS:g} s", "none"
            raise VoxportError(", ".join(late), expected=expected, got=got, do=f"see {folder / 'logs'}")
        errand = _beside(lambda: _segment_sample(place.urls["service"], folder))
        supervisor.watch(until=errand.done)
        report = errand.result()
    show_outcome(report, f"sample_mask{PACKED}", as_json=False)
    typer.echo(f"service, {'worker' if workers == 1 else f'{workers} workers'}{' and demo' if demo else ''}: all well")
    shutil.rmtree(folder, ignore_errors=True)


def _variables(folder: Path) -> dict[str, str]:
    """The embedded defaults, whatever this user has set for everyday use."""
    return {
        **data_variables(folder),
        "VOXPORT_SETTINGS_FILE": str(folder / "none.yaml"),
        "VOXPORT_SECRETS_DIR": "",
        "VOXPORT_STORE": "folder",
        "VOXPORT_MODEL": "two-photon-vessels",
        "VOXPORT_API_KEYS": "",
        "VOXPORT_API_KEY": "",
    }


def _segment_sample(url: str, folder: Path) -> Mapping[str, Any]:
    """The report of a job on the bundled sample."""
    from ...application import Application
    from ...client import Client

    with Client(url) as client:
        job = client.jobs.submit(Application.build().sample)
        client.jobs.wait(job, timeout_seconds=_PATIENCE_SECONDS)
        return client.jobs.download(job, folder / f"sample_mask{PACKED}")


def _beside(work: Callable[[], Mapping[str, Any]]) -> Future[Mapping[str, Any]]:
    """Do work in a thread that holds up nobody; its result."""
    future: Future[Mapping[str, Any]] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
