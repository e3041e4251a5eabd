"""``voxport up``: run the service, its workers and the demo together."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ...domain.errors import UsageError
from ..up.children import Place, children_of, data_variables, logs_folder
from ..up.supervisor import Child, Restarts, Supervisor
from . import options as opt
from .console import on_stop
from .serving import absolute_if_file, check_free, checked_address, needs_package, opening_keys

_STOPPING_SECONDS = 15.0  # time a service needs to stop after its last request


def up_command(
    host: opt.Host = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of the service.")] = 3000,
    demo_port: Annotated[int, typer.Option("--demo-port", min=1, max=65535, help="Port of the demo.")] = 7860,
    models: opt.ModelsFolder = None,
    model: opt.DefaultModel = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that run jobs.")] = 1,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder for models, jobs and logs.", show_default="~/.local/share/voxport"),
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
        from ..up.check import check_everything

        check_everything(workers, demo)
        return
    address = checked_address(host)
    opening_keys(address, insecure=False)
    if demo and port == demo_port:
        raise UsageError("--demo-port", expected="another port than --port", got=str(port), do="choose two")
    check_free(address, port)
    if demo:
        check_free(address, demo_port, "--demo-port")
    place = Place(address, port, demo_port if demo else None)
    variables = data_variables(data)
    if models is not None:
        variables["VOXPORT_MODELS_DIR"] = str(models.expanduser().absolute())
    if model is not None:
        variables["VOXPORT_MODEL"] = absolute_if_file(model)
    if data is not None and models is None:
        Path(variables["VOXPORT_MODELS_DIR"]).mkdir(parents=True, exist_ok=True)
    _keep_up(children_of(place, workers, variables), place, logs_folder(data, port))


def say(line: str) -> None:
    """Print a line on stderr."""
    sys.stderr.write(f"voxport: {line}\n")
    sys.stderr.flush()


def _keep_up(children: Sequence[Child], place: Place, logs: Path) -> None:
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
        supervisor.watch(until=stop.is_set)
        say("ending")
