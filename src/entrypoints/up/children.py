"""The processes of ``voxport up``: commands, addresses and settings."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ..public_address import url_of
from .supervisor import Child


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
    return as_environment(models_dir=folder / "models", jobs__database=database, jobs__blobs=jobs / "blobs")


def as_environment(**settings: object) -> dict[str, str]:
    """Return the environment variables of settings, with ``__`` between levels; those that are None are left out."""
    return {f"VOXPORT_{name.upper()}": str(value) for name, value in settings.items() if value is not None}


def _keys() -> tuple[dict[str, str], dict[str, str]]:
    """Return variables with a further key for the demo, if the service has keys; hashes alone cannot be sent."""
    from ...settings import load_settings

    keys = [key.get_secret_value() for key in load_settings().api_keys]
    if not keys:
        return {}, {}
    own = secrets.token_hex(32)
    taken = ",".join([*keys, f"sha256:{sha256(own.encode()).hexdigest()}"])
    return {"VOXPORT_API_KEYS": taken}, {"VOXPORT_API_KEY": own}
