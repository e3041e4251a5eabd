"""``voxport demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as opt
from .serving import application_to_infer, check_free, checked_address, needs_package, opening_keys

if TYPE_CHECKING:
    import socket

    import uvicorn


def demo_command(
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 7860,
    server: opt.Server = None,
    models: opt.ModelsFolder = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="The model that is chosen at first: a name, or an ONNX file.")
    ] = None,
    store: opt.StoreName = None,
    threads: opt.Threads = None,
    scratch: Annotated[
        Path | None,
        typer.Option("--scratch", help="Folder for the files of open sessions.", show_default="the temporary folder"),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen to other machines without a key.")] = False,
) -> None:
    """Serve a page to view and segment volumes, until stopped."""
    needs_package("voxport demo", "gradio", "demo")
    address = checked_address(host)
    keys = opening_keys(address, insecure)
    check_free(address, port)
    import uvicorn

    from ..demo.app import create_app
    from ..json_log import announce, check_models_folder, log_as_json
    from ..rest.connections import timed_protocol

    application = application_to_infer(models, model, store, threads, scratch)
    log_as_json()
    if server is None:
        check_models_folder(application.settings)
    application.work_folders.clear()
    with application.work_folders.new() as folder:
        segmenter = application.segmenter if server is None else application.remote_segmenter(server)
        if server is None:
            application.served_models.start()
        try:
            app = create_app(application, segmenter, folder, keys)
            shown = f"[{host}]" if ":" in host else host
            announce(f"demo on http://{shown}:{port}, segmented {app.state.controller.place}")
            settings = uvicorn.Config(
                app,
                host=address,
                port=port,
                http=timed_protocol(application.settings.serving.silence_seconds),
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=2,
            )
            _server(settings).run()
        finally:
            application.served_models.close()


def _server(settings: uvicorn.Config) -> uvicorn.Server:
    """A server that ends the streams of open pages when it is stopped, where it would wait for them, and complain."""
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            self.config.app.state.end_streams()  # type: ignore[union-attr]
            await super().shutdown(sockets)

    return Server(settings)
