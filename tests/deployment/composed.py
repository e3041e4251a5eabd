"""The deployment's files, read as Docker reads them, and their services run as plain processes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cli.conftest import environment

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENT = ROOT / "deployment"
COMPOSE = (DEPLOYMENT / "compose.yaml").read_text(encoding="utf-8")
DOCKERFILE = (DEPLOYMENT / "Dockerfile").read_text(encoding="utf-8")
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
# where a container's files are, outside of its root file system
_PLACE = re.compile(r"/(data|models|scratch|run/secrets|tmp)(?=[/:\s]|$)")


def variables(text: str = COMPOSE) -> dict[str, str]:
    """Variables that the text takes from the environment, with their defaults."""
    return dict(_VARIABLE.findall(text))


def interpolated(values: Mapping[str, str] | None = None) -> str:
    """The compose file with its variables filled in."""
    return _VARIABLE.sub(lambda found: (values or {}).get(found[1], found[2]), COMPOSE)


def services(values: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Each service of the compose file by its name."""
    found: dict[str, Any] = yaml.safe_load(interpolated(values))["services"]
    return found


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each with its arguments, comments left out."""
    lines = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def image_environment() -> dict[str, str]:
    """The variables that the image sets, but for PATH."""
    found = " ".join(rest for name, rest in instructions() if name == "ENV")
    return {name: value for name, value in re.findall(r"(\w+)=(\S+)", found) if name != "PATH"}


@dataclass(frozen=True)
class Host:
    """A folder that stands for the machine: a copy of the deployment's folder, and the places that are mounted."""

    folder: Path

    @property
    def deployment(self) -> Path:
        """The copy of the deployment's folder."""
        return self.folder / "deployment"

    def prepare(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the script that makes secrets."""
        if not self.deployment.exists():
            shutil.copytree(DEPLOYMENT, self.deployment, ignore=shutil.ignore_patterns("secrets", "models", ".env"))
        command = [str(self.deployment / "prepare"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)

    def secret(self, name: str) -> str:
        """What is in a file of secrets."""
        return (self.deployment / "secrets" / name).read_text(encoding="utf-8").strip()

    def mount(self, name: str) -> None:
        """Put a service's secrets where its processes look for them."""
        for secret in services()[name].get("secrets", []):
            place = self.folder / name / "run" / "secrets" / secret
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(self._inside(name, self.secret(secret)), encoding="utf-8")
        for folder in ("scratch", "tmp"):
            (self.folder / name / folder).mkdir(parents=True, exist_ok=True)
        (self.folder / "data" / "jobs").mkdir(parents=True, exist_ok=True)

    def environment(self, name: str, values: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables of a service's processes: the image's and the compose file's."""
        inside = image_environment() | services(values)[name].get("environment", {})
        return environment(self.folder) | {key: self._inside(name, str(value)) for key, value in inside.items()}

    def command(self, name: str, port: int | None = None) -> list[str]:
        """The command of a service, on a port of its own, in a file system that is read-only outside of its mounts."""
        (entrypoint,) = (yaml.safe_load(rest) for kind, rest in instructions() if kind == "ENTRYPOINT")
        command = [*entrypoint, *services()[name]["command"]]
        assert command[0] == "voxport"
        return self.confined([sys.executable, "-m", *command, *([] if port is None else ["--port", str(port)])])

    def confined(self, command: list[str]) -> list[str]:
        """A command that can write into this folder only."""
        mounts = f"mount --bind {self.folder} {self.folder} && mount -o remount,ro,bind / && cd {self.folder}/data"
        return ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh", *command]

    def is_healthy(self, name: str, port: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run a service's health check as it is written, on its port."""
        kind, program, *arguments = services()[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "python")
        if port is not None:
            arguments[-1] = re.sub(r":\d+/", f":{port}/", arguments[-1])
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment(name),
            cwd=self.folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )

    def _inside(self, name: str, value: str) -> str:
        """Paths of the container as those of this machine; data and models are shared, the rest is each one's own."""

        def place(found: re.Match[str]) -> str:
            shared = {"data": "data", "models": "deployment/models"}
            return str(self.folder / shared.get(found[1], f"{name}/{found[1]}"))

        return _PLACE.sub(place, value)
