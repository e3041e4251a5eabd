"""The processes of ``voxport up``: commands, addresses and settings."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

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
        ports = {"service": self.port} | ({} if self.demo_port is None else {"demo": self.demo_port})
        return {name: f"http://{self._near}:{port}" for name, port in ports.items()}

    @property
    def _near(self) -> str:
        address = ip_address(self.address)
        if address.is_unspecified:  # all addresses include loopback
            return "127.0.0.1" if address.version == 4 else "[::1]"
        return self.address if address.version == 4 else f"[{self.address}]"


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
    place = folder.expanduser().absolute()
    return {
        "VOXPORT_MODELS_DIR": str(place / "models"),
        "VOXPORT_JOBS__DATABASE": f"sqlite:///{place / 'jobs' / 'jobs.sqlite'}",
        "VOXPORT_JOBS__BLOBS": str(place / "jobs" / "blobs"),
    }


def logs_folder(folder: Path | None, port: int) -> Path:
    """Return the folder of logs, one for each port: two of a user do not share it."""
    from ...settings import data_home

    return (data_home() if folder is None else folder.expanduser().absolute()) / "logs" / str(port)


def _keys() -> tuple[dict[str, str], dict[str, str]]:
    """Return variables with a further key for the demo, if the service has keys; hashes alone cannot be sent."""
    from ...settings import load_settings

    keys = [key.get_secret_value() for key in load_settings().api_keys]
    if not keys:
        return {}, {}
    own = secrets.token_hex(32)
    taken = ",".join([*keys, f"sha256:{sha256(own.encode()).hexdigest()}"])
    return {"VOXPORT_API_KEYS": taken}, {"VOXPORT_API_KEY": own}
