"""Results on their way to disk: written beside their destination, made safe, renamed; nothing is left of a failure."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..domain.errors import OutputError, UsageError
from ..domain.volume_names import NIFTI

# What a destination's name may end in, by output.
_ENDINGS = {
    "mask": NIFTI.single,
    "probabilities": NIFTI.single,
    "statistics": (".json", ".csv"),
    "preview": (".png",),
    "report": (".json",),
}


def check_destinations(destinations: dict[str, Path], inputs: Iterable[Path]) -> None:
    """Find out before anything is sent what would fail once it is scored.

    Args:
        destinations: where each output goes.
        inputs: the volumes.

    Raises:
        UsageError: an output that there is not, a name of the wrong kind, one used twice, or an input's.
        OutputError: a folder that is missing or cannot be written.
    """
    check_outputs(destinations)
    taken = {path.resolve(): "an input" for path in inputs}
    for output, path in destinations.items():
        if not path.name.endswith(_ENDINGS[output]):
            endings = " or ".join(_ENDINGS[output])
            raise UsageError(str(path), expected=f"a name in {endings} for the {output}", got="another", do="rename it")
        if path.resolve() in taken:
            got = taken[path.resolve()]
            raise UsageError(str(path), expected="a name of its own for each output", got=got, do="rename one")
        taken[path.resolve()] = "another output"
    for path in destinations.values():
        check_place(path)


def check_outputs(outputs: Iterable[str]) -> None:
    """UsageError for an output that there is not."""
    for output in outputs:
        if output not in _ENDINGS:
            raise UsageError("outputs", expected=f"some of {', '.join(_ENDINGS)}", got=str(output), do="correct it")


@contextmanager
def spool(folder: Path) -> Iterator[BinaryIO]:
    """A file with no name in a folder, so that nothing is left of it however the process ends. Raises OutputError."""
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed below, whatever its last write says
    except OSError as error:
        raise OutputError.cannot_write(str(folder), error) from None
    try:
        yield file
    finally:
        # what a failed write left in the buffer fails again
        with suppress(OSError):
            file.close()


class Download:
    """A file under a hidden name until it is committed. Use as a context manager.

    Args:
        destination: where it goes; its folder is made when it does.
        folder: where it is until then, on the same file system; the destination's where that exists.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, destination: Path, folder: Path | None = None) -> None:
        self.destination = destination
        self._sha256 = hashlib.sha256()
        try:
            place = destination.parent if folder is None else folder
            descriptor, name = tempfile.mkstemp(dir=place, prefix=f".{destination.name}.", suffix=".part")
        except OSError as error:
            raise OutputError.cannot_write(str(destination), error) from None
        self._file, self._path = os.fdopen(descriptor, "wb"), Path(name)

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *error: object) -> None:
        self._path.unlink(missing_ok=True)
        # what was to be kept is on the disk; the rest of a failed write may fail again
        with suppress(OSError):
            self._file.close()

    def fill(self, content: Iterable[bytes]) -> None:
        """Write it, through to the disk. Raises OutputError, and what ``content`` raises."""
        for chunk in content:
            self._sha256.update(chunk)
            try:
                self._file.write(chunk)
            except OSError as error:
                raise OutputError.cannot_write(str(self.destination), error) from None
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError.cannot_write(str(self.destination), error) from None

    def entry(self) -> dict[str, str]:
        """Name and sha256, as a report lists them."""
        return {"name": str(self.destination), "sha256": self._sha256.hexdigest()}

    def commit(self) -> None:
        """Give it its name. Raises OutputError."""
        try:
            self.destination.parent.mkdir(exist_ok=True)
            self._path.chmod(0o644)
            self._path.replace(self.destination)
        except OSError as error:
            raise OutputError.cannot_write(str(self.destination), error) from None


def commit_all(downloads: Iterable[Download], last: Path) -> None:
    """Give all of them their names, to one of them last: who sees it finds the others. Raises OutputError."""
    for download in sorted(downloads, key=lambda d: d.destination == last):
        download.commit()


def check_place(path: Path) -> None:
    """OutputError unless a file of this name can be written."""
    if not path.parent.is_dir():
        raise OutputError.cannot_write(str(path), "no such folder")
    if path.is_dir():
        raise OutputError.cannot_write(str(path), "a folder of that name")
    # opening a file is the one test that sees read-only mounts and full quotas too
    with spool(path.parent):
        pass
