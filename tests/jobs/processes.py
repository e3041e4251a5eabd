"""Starting workers and database servers as processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Workers:
    """Worker processes on one queue; what they noted is in ``folder``."""

    url: str
    folder: Path
    lease_seconds: float = 2.0
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, slots: int = 1) -> subprocess.Popen[bytes]:
        """One more; its log is in the folder."""
        command = [sys.executable, "-m", "tests.jobs.worker", self.url, str(self.folder)]
        with (self.folder / f"log-{len(self.processes)}").open("wb") as log:
            process = subprocess.Popen(
                [*command, str(self.lease_seconds), str(slots)], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )
        self.processes.append(process)
        return process

    def notes(self, what: str) -> list[tuple[str, int, int]]:
        """Job, attempt and process id of all that was noted so."""
        path = self.folder / "notes"
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        return [(job, int(attempt), int(pid)) for kind, job, attempt, pid in lines if kind == what]

    def logs(self) -> str:
        """What all of them said."""
        return "\n".join(path.read_text(encoding="utf-8") for path in sorted(self.folder.glob("log-*")))


@contextmanager
def workers_on(url: str, folder: Path, lease_seconds: float = 2.0) -> Iterator[Workers]:
    """Workers that are gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    workers = Workers(url, folder, lease_seconds)
    try:
        yield workers
    finally:
        for process in workers.processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


def postgres_folder() -> Path | None:
    """The folder of Debian's, or anybody's, Postgres programs; None where there are none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


class Postgres:
    """A Postgres server of its own in a folder, on a free port of the loopback interface."""

    def __init__(self, folder: Path) -> None:
        programs = postgres_folder()
        assert programs is not None
        self._programs, self._data = programs, folder / "data"
        # the server refuses to run as root
        self._user = "postgres" if os.getuid() == 0 else None
        folder.mkdir()
        if self._user:
            shutil.chown(folder, self._user)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._run("initdb", "-D", str(self._data), "-U", "voxport", "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", "voxport", "jobs")

    @property
    def url(self) -> str:
        """Where the database ``jobs`` is."""
        return f"postgresql://voxport@127.0.0.1:{self._port}/jobs"

    def new_database(self, name: str) -> str:
        """The URL of one more database."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", "voxport", name)
        return f"postgresql://voxport@127.0.0.1:{self._port}/{name}"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-p {self._port} -h 127.0.0.1 -k {self._data} -F"
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", str(self._data / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stop it as a crash would."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        subprocess.run(
            command, user=self._user, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
