"""``voxport up``: run the service, its workers and the demo together."""

from __future__ import annotations

import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

from ...domain.errors import OutputError, UsageError, VoxportError
from ...domain.run import Outputs, RunOptions
from ...domain.volume_names import PACKED
from ..public_address import url_of
from ..up.supervisor import Child, Restarts, Supervisor
from . import options as opt
from .console import build_application, on_stop, progress_bar, say, warn
from .segmenting import show_outcome
from .serving import check_free, needs_package, opened_address

_STOPPING_SECONDS = 15.0  # time a service needs to stop after its last request
_PATIENCE_SECONDS = 300.0


def up_command(
    host: opt.Host = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of the service.")] = 3000,
    demo_port: Annotated[int, typer.Option("--demo-port", min=1, max=65535, help="Port of the demo.")] = 7860,
    models: opt.ModelsFolder = None,
    model: opt.DefaultModel = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that run jobs.")] = 1,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="PATH",
            parser=opt.absolute,
            help="Folder for models, jobs and logs.",
            show_default="~/.local/share/voxport",
        ),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Open the demo too.")] = True,
    check: Annotated[
        bool,
        typer.Option("--check", help="Start all on free ports, segment the sample as a job, show the result, and end."),
    ] = False,
) -> None:
    """Start the service, a worker and the demo, and restart what fails, until stopped."""
    needs_package("voxport up", "bentoml")
    if demo:
        needs_package("voxport up", "gradio", "demo")
    if check:
        check_everything(workers, demo)
        return
    if demo and port == demo_port:
        raise UsageError("--demo-port", expected="another port than --port", got=str(port), do="choose two")
    address, _ = opened_address(host, port)
    if demo:
        check_free(address, demo_port, "--demo-port")
    from ...settings import data_home

    place = Place(address, port, demo_port if demo else None)
    variables = data_variables(data) | opt.as_environment(models_dir=models, model=model)
    if data is not None and models is None:
        Path(variables["VOXPORT_MODELS_DIR"]).mkdir(parents=True, exist_ok=True)
    logs = (data or data_home()) / "logs" / str(port)  # two services of a user do not share a folder
    named = {"models_dir": variables.get("VOXPORT_MODELS_DIR"), "model": model}
    given = {name: value for name, value in named.items() if value is not None}
    _keep_up(children_of(place, workers, variables), place, logs, lambda: build_application(**given).tuning_hint())


def _keep_up(children: Sequence[Child], place: Place, logs: Path, tuning_hint: Callable[[], str | None]) -> None:
    from ...settings import load_settings

    stop = threading.Event()
    grace = Restarts(grace_seconds=load_settings().serving.drain_seconds + _STOPPING_SECONDS)
    supervisor = Supervisor(children, logs, say, grace)

    def end() -> None:
        supervisor.hurry = stop.is_set()  # a second signal ends the children at once
        stop.set()

    on_stop(end)
    say(f"starting {', '.join(child.name for child in children)}; logs are in {logs}")
    with supervisor:
        supervisor.watch(until=lambda: stop.is_set() or not supervisor.waits_for)
        if not stop.is_set():
            say(f"healthy: {', '.join(child.name for child in children)}; Ctrl-C ends all")
            typer.echo("\n".join(f"{name:<8}{url}" for name, url in place.urls.items()))
            if (hint := tuning_hint()) is not None:
                say(hint)
        supervisor.watch(until=stop.is_set)
        say("ending")


@dataclass(frozen=True)
class Place:
    """Bind address and ports; ``demo_port`` is None without demo."""

    address: str
    port: int
    demo_port: int | None

    @property
    def urls(self) -> dict[str, str]:
        """URLs of the service and the demo on this machine."""
        # all addresses include loopback
        near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.address, self.address)
        ports = {"service": self.port} | ({} if self.demo_port is None else {"demo": self.demo_port})
        return {name: url_of(near, port) for name, port in ports.items()}


def children_of(place: Place, workers: int, variables: Mapping[str, str]) -> list[Child]:
    """Return service, workers and demo, with additional environment variables."""
    voxport = [sys.executable, "-P", "-m", "voxport"]
    for_service, for_demo = _keys()
    url = place.urls["service"]
    # only workers run jobs, so a restarted service interrupts none
    without_jobs = {"VOXPORT_JOBS__WORKER": "false"}
    serve = [*voxport, "serve", "--host", place.address, "--port", str(place.port)]
    children = [Child("service", serve, f"{url}/readyz", {**variables, **for_service, **without_jobs})]
    for number in range(1, workers + 1):
        name = "worker" if workers == 1 else f"worker-{number}"
        children.append(Child(name, [*voxport, "worker"], None, variables))
    if place.demo_port is not None:
        demo = [*voxport, "demo", "--host", place.address, "--port", str(place.demo_port), "--server", url]
        children.append(Child("demo", demo, f"{place.urls['demo']}/", {**variables, **for_demo}))
    return children


def data_variables(folder: Path | None) -> dict[str, str]:
    """Return variables that place models, jobs and their files in a folder; none without one."""
    if folder is None:
        return {}
    jobs = folder / "jobs"
    database = f"sqlite:///{jobs / 'jobs.sqlite'}"
    return opt.as_environment(models_dir=folder / "models", jobs__database=database, jobs__blobs=jobs / "blobs")


def _keys() -> tuple[dict[str, str], dict[str, str]]:
    """Return variables with a further key for the demo, if the service has keys; hashes alone cannot be sent."""
    from ...settings import load_settings

    keys = [key.get_secret_value() for key in load_settings().api_keys]
    if not keys:
        return {}, {}
    own = secrets.token_hex(32)
    taken = ",".join([*keys, f"sha256:{sha256(own.encode()).hexdigest()}"])
    return {"VOXPORT_API_KEYS": taken}, {"VOXPORT_API_KEY": own}


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
    host = "127.0.0.1"
    with socket.create_server((host, 0)) as one, socket.create_server((host, 0)) as other:
        place = Place(host, one.getsockname()[1], other.getsockname()[1] if demo else None)
    supervisor = Supervisor(children_of(place, workers, _default_settings(folder)), folder / "logs", lambda _: None)
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


def _default_settings(folder: Path) -> dict[str, str]:
    """Return default settings, independent of the user's."""
    own = opt.as_environment(
        settings_file=folder / "none.yaml", secrets_dir="", store="folder", api_keys="", api_key=""
    )
    return data_variables(folder) | own | opt.as_environment(model="two-photon-vessels")


def _segment_sample(url: str, folder: Path) -> Mapping[str, Any]:
    """Return the report of a job on the bundled sample."""
    application = build_application()
    outputs = Outputs(str(folder / f"sample_mask{PACKED}"))
    with progress_bar(quiet=True) as progress:
        return application.remote_segmenter(url).segment([application.sample], None, outputs, RunOptions(), progress)
