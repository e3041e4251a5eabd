"""``voxport serve``."""

from __future__ import annotations

import os
import socket
import sys
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...domain.errors import UsageError
from . import options as opt

if TYPE_CHECKING:
    from ...application import Application
    from ..rest.keys import KeyHash

_SERVICE = "voxport.entrypoints.rest.service:service"


def serve_command(
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 3000,
    models: opt.ModelsFolder = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="The default model: a name, or an ONNX file.")
    ] = None,
    store: opt.StoreName = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Server processes.", show_default="1")] = None,
    worker: Annotated[
        bool | None, typer.Option("--worker/--no-worker", help="Run jobs too, beside requests.", show_default="worker")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen to other machines without a key.")] = False,
) -> None:
    """Serve models over HTTP, until stopped."""
    given = {
        "VOXPORT_MODELS_DIR": None if models is None else models.expanduser().absolute(),
        "VOXPORT_MODEL": None if model is None else absolute_if_file(model),
        "VOXPORT_STORE": store,
        "VOXPORT_SERVING__WORKERS": workers,
        "VOXPORT_JOBS__WORKER": worker,
        "VOXPORT_SERVING__INSECURE": True if insecure else None,
    }
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})
    address = checked_address(host)
    opening_keys(address, insecure)
    needs_package("voxport serve", "bentoml")
    check_free(address, port)
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    from ..json_log import announce

    announce(f"serving on http://{host if ':' not in host else f'[{host}]'}:{port}")
    command = [sys.executable, "-m", "bentoml", "serve", _SERVICE, "--host", address, "--port", str(port)]
    os.execv(sys.executable, command)


def absolute_if_file(model: str) -> str:
    """A model's file by its whole path, as another folder may be the current one later; a name as it is."""
    path = Path(model).expanduser()
    return str(path.absolute()) if path.is_file() else model


def application_to_infer(
    models: Path | None, model: str | None, store: str | None, threads: int | None, scratch: Path | None, **further: Any
) -> Application:
    """An application for a process that keeps models loaded, with what its command line says."""
    from ...application import Application

    named = None if model is None else absolute_if_file(model)
    return Application.build(
        models_dir=models, model=named, store=store, threads=threads, scratch_dir=scratch, **further
    )


def needs_package(command: str, package: str, extra: str = "serving") -> None:
    """UsageError where a package of an extra is missing."""
    if find_spec(package) is None:
        do = f"pip install 'voxport[{extra}]'"
        raise UsageError(command, expected=f"the package {package}", got="an installation without it", do=do)


def checked_address(host: str) -> str:
    """The IP address of a host. Raises UsageError."""
    try:
        return str(ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        do = "127.0.0.1 for this machine only, 0.0.0.0 for all"
        raise UsageError("--host", expected="an IP address", got=host, do=do) from None


def opening_keys(address: str, insecure: bool) -> tuple[KeyHash, ...]:
    """The keys that open the service.

    UsageError for wrong settings, and for an address that others can reach while no key is asked for.
    """
    from ...settings import load_settings
    from ..rest.keys import parse_keys

    settings = load_settings()
    keys = parse_keys([key.get_secret_value() for key in settings.api_keys])
    if not (ip_address(address).is_loopback or keys or insecure or settings.serving.insecure):
        raise UsageError(
            f"--host {address}",
            expected="VOXPORT_API_KEYS, so that not everyone may ask",
            got="no key",
            do="set one, or say --insecure where another guard stands before the service",
        )
    return keys


def check_free(address: str, port: int, option: str = "--port") -> None:
    """UsageError where something listens there already."""
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            got = (error.strerror or "an error").lower()
            do = f"stop what listens there, or choose another with {option}"
            raise UsageError(f"{address}:{port}", expected="an address to listen on", got=got, do=do) from None
