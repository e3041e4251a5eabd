"""``voxport serve``, ``worker`` and ``demo``: the processes of a service."""

from __future__ import annotations

import os
import socket
import sys
import threading
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...domain.errors import UsageError
from ..public_address import url_of
from . import options as opt
from .console import build_application, on_stop

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from ...settings import Settings
    from ..rest.keys import KeyHash

_SERVICE = "voxport.entrypoints.rest.service:service"


def serve_command(
    host: opt.Host = "127.0.0.1",
    port: opt.Port = 3000,
    models: opt.ModelsFolder = None,
    model: opt.DefaultModel = None,
    store: opt.StoreName = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Server processes.", show_default="1")] = None,
    worker: Annotated[
        bool | None, typer.Option("--worker/--no-worker", help="Run jobs too, beside requests.", show_default="worker")
    ] = None,
    monailabel: Annotated[bool, typer.Option("--monailabel", help="Serve 3D Slicer and MITK too.")] = False,
    insecure: opt.Insecure = False,
) -> None:
    """Serve models over HTTP, until stopped."""
    given = opt.as_environment(
        models_dir=models,
        model=model,
        store=store,
        serving__workers=workers,
        serving__monailabel=monailabel or None,
        jobs__worker=worker,
    )
    os.environ.update(given | opt.as_environment(serving__insecure=insecure or None))
    address, _ = opened_address(host, port, insecure=insecure)
    needs_package("voxport serve", "bentoml")
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    from ..json_log import announce

    announce(f"serving on {url_of(host, port)}")
    command = [sys.executable, "-m", "bentoml", "serve", _SERVICE, "--host", address, "--port", str(port)]
    os.execv(sys.executable, command)


def worker_command(
    models: opt.ModelsFolder = None,
    model: opt.DefaultModel = None,
    store: opt.StoreName = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, help="Jobs to run at a time.", show_default="1")
    ] = None,
    threads: opt.Threads = None,
    scratch: opt.Scratch = None,
) -> None:
    """Run jobs of the queue until stopped; any number of workers share a queue.

    VOXPORT_JOBS__DATABASE and VOXPORT_JOBS__BLOBS name the queue and its files.
    """
    needs_package("voxport worker", "dbos")
    from ...services.jobs.worker import wait_for_models
    from ..json_log import check_models_folder, log_as_json

    stop = threading.Event()
    on_stop(stop.set)
    log_as_json()
    jobs = None if concurrency is None else {"concurrency": concurrency}
    application = build_application(
        models_dir=models, model=model, store=store, threads=threads, scratch_dir=scratch, jobs=jobs
    )
    _needs_signing(application.settings)
    served, queue = application.served_models, application.job_queue
    check_models_folder(application.settings)
    served.start()
    try:
        wait_for_models(served, stop)
        application.work_on_jobs(application.settings.jobs.concurrency, stop, handler=application.run_job)
    finally:
        served.close()
        queue.close()


def demo_command(
    host: opt.Host = "127.0.0.1",
    port: opt.Port = 7860,
    server: opt.Server = None,
    models: opt.ModelsFolder = None,
    model: opt.DefaultModel = None,
    store: opt.StoreName = None,
    threads: opt.Threads = None,
    scratch: opt.Scratch = None,
    export_training: Annotated[
        Path | None,
        typer.Option(
            "--export-training", help="Folder in which the page keeps corrected cases, as nnU-Net and MONAI read them."
        ),
    ] = None,
    insecure: opt.Insecure = False,
) -> None:
    """Serve a page to view and segment volumes, until stopped."""
    needs_package("voxport demo", "gradio", "demo")
    address, keys = opened_address(host, port, insecure=insecure)
    from ..demo.app import create_app
    from ..json_log import announce, check_models_folder, log_as_json

    application = build_application(models_dir=models, model=model, store=store, threads=threads, scratch_dir=scratch)
    log_as_json()
    if server is None:
        check_models_folder(application.settings)
    application.work_folders.clear()
    with application.work_folders.new() as folder:
        segmenter = application.segmenter if server is None else application.remote_segmenter(server)
        if server is None:
            application.served_models.start()
        try:
            app = create_app(application, segmenter, folder, keys, export_training)
            announce(f"demo on {url_of(host, port)}, segmented {app.state.controller.place}")
            _server(app, address, port, application.settings.serving.silence_seconds).run()
        finally:
            application.served_models.close()


def _server(app: FastAPI, address: str, port: int, silence_seconds: float) -> uvicorn.Server:
    """A server that ends the event streams of open pages when it stops; uvicorn would wait for them."""
    import uvicorn

    from ..rest.connections import timed_protocol

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.end_streams()
            await super().shutdown(sockets)

    http = timed_protocol(silence_seconds)
    quiet: dict[str, Any] = {"log_config": None, "access_log": False}
    return Server(uvicorn.Config(app, host=address, port=port, http=http, timeout_graceful_shutdown=2, **quiet))


def needs_package(command: str, package: str, extra: str = "serving") -> None:
    """Raise UsageError if a package of an extra is missing."""
    if find_spec(package) is None:
        do = f"pip install 'voxport[{extra}]'"
        raise UsageError(command, expected=f"the package {package}", got="an installation without it", do=do)


def _needs_signing(settings: Settings) -> None:
    """Raise UsageError where models must be signed and the package that checks signatures is missing."""
    if settings.require_signed is not None:
        needs_package("VOXPORT_REQUIRE_SIGNED", "model_signing", "signing")


def opened_address(host: str, port: int, *, insecure: bool = False) -> tuple[str, tuple[KeyHash, ...]]:
    """Return the IP address of a host, and the keys that open the service.

    Raises:
        UsageError: a wrong setting, an address in use, or one that other machines can reach without a key.
    """
    from ...settings import load_settings
    from ..rest.keys import parse_keys

    address = ip_of(host)
    settings = load_settings()
    _needs_signing(settings)
    keys = parse_keys([key.get_secret_value() for key in settings.api_keys])
    if not (ip_address(address).is_loopback or keys or insecure or settings.serving.insecure):
        raise UsageError(
            f"--host {address}",
            expected="VOXPORT_API_KEYS, so that not everyone may ask",
            got="no key",
            do="set one, or say --insecure where another guard stands before the service",
        )
    check_free(address, port)
    return address, keys


def ip_of(host: str) -> str:
    """Return the IP address of a host. Raises UsageError for a name."""
    try:
        return str(ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        do = "127.0.0.1 for this machine only, 0.0.0.0 for all"
        raise UsageError("--host", expected="an IP address", got=host, do=do) from None


def check_free(address: str, port: int, option: str = "--port") -> None:
    """Raise UsageError if the address is in use."""
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            got = (error.strerror or "an error").lower()
            do = f"stop what listens there, or choose another with {option}"
            raise UsageError(f"{address}:{port}", expected="an address to listen on", got=got, do=do) from None
