"""A real nginx before a server, on a free port, with files of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.rest.serving import PATIENCE, free_port

CONFIGURATION = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        {locations}
    }}
}}
"""


@contextmanager
def running_nginx(folder: Path, locations: str) -> Iterator[str]:
    """The URL of an nginx with these ``location`` blocks, once it answers; it ends with the block."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    assert program is not None, "install nginx-light"
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nginx.conf").write_text(
        CONFIGURATION.format(folder=folder, port=port, locations=locations), encoding="utf-8"
    )
    log = folder / "nginx.log"
    with log.open("wb") as output:
        command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        transport = httpx.HTTPTransport(retries=20)  # waits longer before each
        with httpx.Client(transport=transport, trust_env=False, timeout=PATIENCE) as http:
            http.get(f"http://127.0.0.1:{port}/")
        assert process.poll() is None, log.read_text(encoding="utf-8")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def proxied(path: str, upstream: str, *, headers: str = "") -> str:
    """A ``location`` that passes requests below ``path`` to ``upstream``; a path in ``upstream`` replaces it."""
    return f"location {path} {{ proxy_pass {upstream}; proxy_set_header Host $http_host; {headers} }}"
