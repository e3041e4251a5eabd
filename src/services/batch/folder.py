"""The folder that a batch writes to: where results go, and what outlives a kill until all cases are done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...domain.errors import OutputError, UsageError
from ...ports.locks import Locks

# what a result is called behind the case's name
ENDINGS = {
    "mask": ".nii.gz",
    "probabilities": ".probabilities.nii.gz",
    "preview": ".preview.png",
    "report": ".report.json",
}
TABLE = "statistics.csv"
STATE = ".voxport"
_LOCK, _RUN = "lock", "run.json"


@dataclass(frozen=True)
class BatchFolder:
    """A folder of results, as it was named and by its whole path."""

    name: Path
    path: Path

    @property
    def state(self) -> Path:
        """What is kept until all cases are done: the lock, the queue, its files, results that are on their way."""
        return self.path / STATE

    @property
    def database(self) -> str:
        """URL of the batch's own queue."""
        path = str(self.state / "jobs.sqlite").replace("%", "%25").replace("?", "%3F")
        return f"sqlite:///{path}"

    @property
    def blobs(self) -> str:
        """Where that queue's files are."""
        return str(self.state / "blobs")

    def place(self, case: str, output: str) -> Path:
        """Where a case's mask, probabilities, preview or report is."""
        return self.path / f"{case}{ENDINGS[output]}"

    def token(self, work: str) -> str:
        """Names the run that is under way here: the same until all cases are done, for the same work.

        Jobs of other work are of no use to this one, and are dropped. ``work`` is a hash of what is to be done.

        Raises:
            OutputError
        """
        known = read_json(self._run_file)
        if known.get("work") == work and isinstance(known.get("token"), str):
            return str(known["token"])
        with writing(self.state):
            self._run_file.unlink(missing_ok=True)  # first, as what is half deleted is of no use to anybody
            for path in self.state.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != _LOCK:
                    path.unlink()
        run = {"work": work, "token": uuid.uuid4().hex}
        self.land(self._run_file, lambda path: path.write_text(json.dumps(run)))
        return run["token"]

    def land(self, destination: Path, write: Callable[[Path], object]) -> None:
        """Make a file appear whole, by what ``write`` puts at another path. Raises OutputError."""
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
        """Delete what was kept for another run."""
        with suppress(OSError):
            self._run_file.unlink(missing_ok=True)
            shutil.rmtree(self.state)

    @property
    def _run_file(self) -> Path:
        return self.state / _RUN


def batch_folder(name: Path) -> BatchFolder:
    """The folder of this name; it need not exist yet. Raises UsageError for a name that cannot be used."""
    folder = BatchFolder(name, Path(os.path.realpath(name)))
    if "::" in str(folder.path):
        raise UsageError(f"-o {name}", expected="a path without ::", got=str(folder.path), do="choose another folder")
    return folder


@contextmanager
def held(folder: BatchFolder, locks: Locks) -> Iterator[None]:
    """Make the folder, and keep other batches away from it.

    Raises:
        UsageError: another batch writes to it now.
        OutputError: it cannot be written.
    """
    with ExitStack() as stack:
        with writing(folder.name):
            is_held = stack.enter_context(locks.hold(folder.state / _LOCK, wait=False))
        if not is_held:
            expected, got = "a folder that no other batch writes to", "one that another writes to now"
            raise UsageError(f"-o {folder.name}", expected=expected, got=got, do="wait until it ends, or name another")
        yield


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is none, or something else."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """The system's errors as OutputErrors that name the place."""
    try:
        yield
    except OSError as error:
        raise OutputError.cannot_write(str(place), error) from None
