"""Folders for the files of a run, each locked by its process."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ....domain.errors import OutputError
from ....ports.folders import WorkFolders
from ....ports.locks import Locks

_PREFIX, _LOCK = "voxport-run-", ".lock"


class ScratchFolders(WorkFolders):
    """`WorkFolders` below ``parent``, by default the system's temporary folder."""

    def __init__(self, parent: Path | None, locks: Locks) -> None:
        self._parent, self._locks = parent, locks

    @contextmanager
    def new(self) -> Iterator[Path]:
        with ExitStack() as stack:
            try:
                folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                stack.enter_context(self._locks.hold(folder / _LOCK))
                folder.chmod(0o700)  # a new folder if ``clear`` deleted the first before it was locked
            except OSError as error:
                raise OutputError.cannot_write("scratch folder", error) from None
            yield folder

    def clear(self) -> int:
        cleared = 0
        for lock in Path(self._parent or tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
            with suppress(OSError), self._locks.hold(lock, wait=False) as held:
                if held:
                    shutil.rmtree(lock.parent, ignore_errors=True)
                    cleared += 1
        return cleared
