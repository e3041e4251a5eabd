"""The folder of a batch: its results, and the state that survives a kill until all cases are done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ...domain.cases import CaseFiles
from ...domain.errors import OutputError, UsageError
from ...ports.locks import Locks
from .layouts import Layout

TABLE = "statistics.csv"
STATE = ".voxport"
_LOCK, _RUN = "lock", "run.json"


class BatchFolder:
    """A folder of results, which need not exist: ``name`` as the user gave it, ``path`` absolute.

    ``layout`` names the results.
    ``state`` has the lock, the queue, its files and unfinished results; it is deleted when all cases are done.

    Raises:
        UsageError: a name that cannot be used.
    """

    def __init__(self, name: Path, layout: Layout | None = None) -> None:
        self.name, self.path, self.layout = name, Path(os.path.realpath(name)), layout or Layout()
        self.state = self.path / STATE
        if "::" in str(self.path):
            raise UsageError(f"-o {name}", expected="a path without ::", got=str(self.path), do="choose another folder")

    def queue_settings(self, at_once: int, cluster: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Settings of the batch's own queue, which runs ``at_once`` jobs and keeps them without limit.

        The workers of a cluster, if there is one, reach the folder of results: the files of runs are in it.
        """
        path = str(self.state / "jobs.sqlite").replace("%", "%25").replace("?", "%3F")
        jobs = {
            "database": f"sqlite:///{path}",
            "blobs": str(self.state / "blobs"),
            "concurrency": at_once,
            "length": 1_000_000,
            "retention_seconds": 1e9,
        }
        found: dict[str, Any] = {"jobs": jobs, "serving": {"slots": at_once}}
        if cluster:
            found |= {"cluster": {**cluster, "folder": str(self.state)}, "scratch_dir": str(self.state)}
        return found

    def place(self, case: CaseFiles, output: str) -> Path:
        """Path of a case's mask, probabilities, preview or report."""
        return self.path / self.layout.place(case, output)

    def token(self, work: str) -> str:
        """Token of the unfinished run: the same for the same work until all cases are done.

        ``work`` is a hash of model, options and outputs. State of other work is deleted.

        Raises:
            OutputError
        """
        run_file = self.state / _RUN
        known = read_json(run_file)
        if known.get("work") == work and isinstance(known.get("token"), str):
            return str(known["token"])
        with writing(self.state):
            run_file.unlink(missing_ok=True)  # first: a half deleted state is of no use
            for path in self.state.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != _LOCK:
                    path.unlink()
        run = {"work": work, "token": uuid.uuid4().hex}
        self.land(run_file, lambda path: path.write_text(json.dumps(run), encoding="utf-8"))
        return run["token"]

    def land(self, destination: Path, write: Callable[[Path], object]) -> None:
        """Write a file at another path with ``write``, then move it into place. Raises OutputError."""
        part = self.state / "landing" / uuid.uuid4().hex
        with writing(destination):
            part.parent.mkdir(exist_ok=True)
            destination.parent.mkdir(parents=True, exist_ok=True)
            try:
                write(part)
                part.replace(destination)
            finally:
                part.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete the state of the run."""
        with suppress(OSError):
            (self.state / _RUN).unlink(missing_ok=True)
            shutil.rmtree(self.state)


@contextmanager
def held(folder: BatchFolder, locks: Locks) -> Iterator[None]:
    """Create and lock the folder. Raises UsageError if another batch writes to it, or OutputError."""
    with ExitStack() as stack:
        with writing(folder.name):
            is_held = stack.enter_context(locks.hold(folder.state / _LOCK, wait=False))
        if not is_held:
            expected, got = "a folder that no other batch writes to", "one that another batch writes to"
            raise UsageError(f"-o {folder.name}", expected=expected, got=got, do="wait until it ends, or name another")
        yield


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where the file is missing or holds something else."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Raise the system's errors as OutputErrors that name the place."""
    try:
        yield
    except OSError as error:
        raise OutputError.cannot_write(str(place), error) from None
