"""``voxport up --check``: start everything once and test it."""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from ...domain.errors import OutputError, VoxportError
from ...domain.run import Outputs, RunOptions
from ...domain.volume_names import PACKED
from ..cli.console import build_application, progress_bar, warn
from ..cli.segmenting import show_outcome
from .children import Place, children_of, data_variables
from .supervisor import Supervisor

_PATIENCE_SECONDS = 300.0


def check_everything(workers: int, demo: bool) -> None:
    """Start all processes on free ports in a temporary folder, segment the bundled sample as a job, and display it.

    The folder is deleted after success, and kept with its logs after a failure.

    Raises:
        VoxportError: what failed.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="voxport-check-"))
    except OSError as error:
        raise OutputError.cannot_write("temporary folder", error) from None
    port, demo_port = _free_ports(2)
    place = Place("127.0.0.1", port, demo_port if demo else None)
    supervisor = Supervisor(children_of(place, workers, _variables(folder)), folder / "logs", lambda _: None)
    with supervisor:
        _watch(supervisor, lambda: not supervisor.waits_for, lambda: ", ".join(supervisor.waits_for), folder)
        job = ThreadPoolExecutor(1).submit(_segment_sample, place.urls["service"], folder)
        _watch(supervisor, job.done, lambda: "job", folder)
        report = job.result()
    warn(report["warnings"])
    show_outcome(report, f"sample_mask{PACKED}", as_json=False)
    typer.echo(f"service, {'worker' if workers == 1 else f'{workers} workers'}{' and demo' if demo else ''}: all well")
    shutil.rmtree(folder, ignore_errors=True)


def _watch(supervisor: Supervisor, until: Callable[[], bool], late: Callable[[], str], folder: Path) -> None:
    """Supervise the processes until a condition holds. Raises VoxportError if it takes too long."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    supervisor.watch(until=lambda: until() or time.monotonic() > deadline)
    if not until():
        expected = f"an answer within {_PATIENCE_SECONDS:g} s"
        raise VoxportError(late(), expected=expected, got="none", do=f"see {folder / 'logs'}")


def _variables(folder: Path) -> dict[str, str]:
    """Return default settings, independent of the user's."""
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
    """Return the report of a job on the bundled sample."""
    application = build_application()
    outputs = Outputs(str(folder / f"sample_mask{PACKED}"))
    with progress_bar(quiet=True) as progress:
        return application.remote_segmenter(url).segment([application.sample], None, outputs, RunOptions(), progress)


def _free_ports(count: int) -> list[int]:
    """Return unused ports."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
