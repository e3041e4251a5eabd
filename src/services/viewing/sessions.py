"""Sessions of people at a page: each with its own folder, volume, result and run; swept when left."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...domain.errors import CancelledError, UsageError
from ...domain.geometry.grid import Box
from .volume_viewer import OpenVolume, ShownMask


@dataclass
class RunProgress:
    """How far a run is, for who looks at it from another thread; stops it when asked to. A ProgressListener."""

    state: str = "wait"
    tiles: int = 0
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    on_cancel: Callable[[], None] = lambda: None
    _stop: threading.Event = field(default_factory=threading.Event)

    def stage(self, name: str, tiles: int = 0) -> None:
        """See ProgressListener."""
        self.check()
        self.state, self.tiles, self.done, self.began = name, tiles, 0, time.monotonic()

    def advance(self, tiles: int) -> None:
        """See ProgressListener."""
        self.check()
        self.done += tiles

    def check(self) -> None:
        """Raise CancelledError if the run should stop."""
        if self._stop.is_set():
            raise CancelledError

    def cancel(self) -> None:
        """Have the run stop at its next tile."""
        self._stop.set()
        self.on_cancel()

    @property
    def cancelled(self) -> bool:
        """Whether the run was asked to stop."""
        return self._stop.is_set()


@dataclass(frozen=True)
class Result:
    """A finished run: its files by the names under which they are handed out, its report, and where the mask lies.

    ``box`` is the part of the volume that was looked at, None for all of it.
    """

    files: Mapping[str, Path]
    report: Mapping[str, Any]
    mask: ShownMask
    folder: Path
    box: Box | None = None

    def drop(self) -> None:
        """Close the mask, and delete the files."""
        self.mask.source.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Session:
    """What one person has open. Safe for several threads; everything of it is in ``folder``."""

    def __init__(self, token: str, folder: Path) -> None:
        self.token, self.folder = token, folder
        self.revision = 0
        self.volume: OpenVolume | None = None
        self.files: tuple[Path, ...] = ()
        self.result: Result | None = None
        self.last_used = time.monotonic()
        self.surfacing = threading.Lock()
        self._run: RunProgress | None = None
        self._lock = threading.Lock()
        self._closed = False

    def touch(self) -> None:
        """Note that somebody is there."""
        self.last_used = time.monotonic()

    def show(self, volume: OpenVolume, files: tuple[Path, ...]) -> None:
        """Take a volume in the place of the one before, whose files, run and result go."""
        with self._lock:
            self._refuse_if_closed(volume.close)
            old = self.files
            self._drop_result()
            self._cancel()
            if self.volume is not None:
                self.volume.close()
            self.volume, self.files = volume, files
            self.revision += 1
        for path in {path.parent for path in old}:
            shutil.rmtree(path, ignore_errors=True)

    def take_result(self, result: Result, volume: OpenVolume) -> None:
        """Show a result over the volume that it was made from; it is dropped if another is shown by now."""
        with self._lock:
            if self._closed or self.volume is not volume:
                result.drop()
                raise CancelledError
            self._drop_result()
            self.result = result
            self.revision += 1

    @contextmanager
    def running(self) -> Iterator[RunProgress]:
        """The one run of the session. Raises UsageError while there is another."""
        progress = RunProgress()
        with self._lock:
            self._refuse_if_closed()
            if self._run is not None and not self._run.cancelled:
                do = "wait for it, or cancel it"
                raise UsageError("run", expected="one at a time", got="a second one", do=do)
            self._run = progress
        try:
            yield progress
        finally:
            with self._lock:
                if self._run is progress:
                    self._run = None

    def cancel(self) -> bool:
        """Have the run stop; whether there is one."""
        with self._lock:
            return self._cancel()

    def new_folder(self) -> Path:
        """An empty folder in the session's own."""
        with self._lock:
            self._refuse_if_closed()
            path = self.folder / secrets.token_hex(8)
            path.mkdir()
            return path

    def close(self) -> None:
        """Stop what runs, and delete everything. Closing twice does nothing."""
        with self._lock:
            self._closed = True
            self._cancel()
            self._drop_result()
            if self.volume is not None:
                self.volume.close()
            self.volume = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _cancel(self) -> bool:
        if self._run is None:
            return False
        self._run.cancel()
        return True

    def _drop_result(self) -> None:
        if self.result is not None:
            self.result.drop()
        self.result = None

    def _refuse_if_closed(self, release: Callable[[], None] = lambda: None) -> None:
        if self._closed:
            release()
            raise CancelledError


class Sessions:
    """The sessions of one process, by a token that nobody can guess.

    Args:
        folder: where their folders are.
        idle_seconds: a session that nobody has used for so long is closed.
    """

    def __init__(self, folder: Path, idle_seconds: float) -> None:
        self._folder, self._idle_seconds = folder, idle_seconds
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self) -> Session:
        """A new session."""
        token = secrets.token_urlsafe(24)
        folder = self._folder / token
        folder.mkdir(mode=0o700)
        with self._lock:
            session = self._sessions[token] = Session(token, folder)
        return session

    def find(self, token: str | None) -> Session:
        """The session of a token. Raises UsageError where there is none any more."""
        with self._lock:
            session = self._sessions.get(token or "")
        if session is None:
            do = "load the page again"
            raise UsageError("session", expected="one that is open", got="one that has ended", do=do)
        session.touch()
        return session

    def end(self, token: str | None) -> None:
        """Close a session and delete its files; nothing if it has ended."""
        with self._lock:
            session = self._sessions.pop(token or "", None)
        if session is not None:
            session.close()

    def sweep(self) -> int:
        """End the sessions that nobody uses; how many."""
        with self._lock:
            now = time.monotonic()
            idle = [t for t, s in self._sessions.items() if now - s.last_used > self._idle_seconds]
        for token in idle:
            self.end(token)
        return len(idle)

    def close(self) -> None:
        """End all sessions."""
        for token in list(self._sessions):
            self.end(token)
