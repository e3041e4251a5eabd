"""Sessions of a page's users: each has a folder, a volume, a result and a run, and expires when idle."""

from __future__ import annotations

import hmac
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...domain.errors import CancelledError, UsageError
from ...domain.geometry.grid import Box
from ...domain.run import RunOptions
from .correction import Correction
from .volume_viewer import OpenVolume, ShownMask


@dataclass
class RunProgress:
    """A `ProgressListener` whose state other threads can read, and which can be cancelled."""

    state: str = "wait"
    tiles: int = 0
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    _stop: threading.Event = field(default_factory=threading.Event)

    def stage(self, name: str, tiles: int = 0) -> None:
        """See ProgressListener."""
        self.advance(0)
        self.state, self.tiles, self.done, self.began = name, tiles, 0, time.monotonic()

    def advance(self, tiles: int) -> None:
        """See ProgressListener."""
        if self._stop.is_set():
            raise CancelledError
        self.done += tiles

    def cancel(self) -> None:
        """Cancel the run at its next tile."""
        self._stop.set()

    @property
    def cancelled(self) -> bool:
        """Whether the run is cancelled."""
        return self._stop.is_set()


class Run:
    """Work in a thread of its own, and its progress."""

    def __init__(self, work: Callable[[RunProgress], None]) -> None:
        self.progress = RunProgress()
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._do, name="voxport-demo-run", daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end, at most so long; whether the run has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def check(self) -> None:
        """Raise the error that ended the run."""
        if self._error is not None:
            raise self._error

    def _do(self) -> None:
        try:
            self._work(self.progress)
        except BaseException as error:  # noqa: BLE001 - check() raises it again
            # Closing a session deletes its files at once: its run may meet their absence before it sees that it ends.
            self._error = CancelledError() if self.progress.cancelled else error


@dataclass(frozen=True)
class Result:
    """A finished run: its files by download name, its report, and its mask.

    ``box`` is the part of the volume that was segmented; None for all of it. ``correction`` is a copy of the mask that
    a person has changed.
    """

    files: Mapping[str, Path]
    report: Mapping[str, Any]
    mask: ShownMask
    folder: Path
    box: Box | None = None
    correction: Correction | None = None

    @property
    def shown(self) -> ShownMask:
        """The mask with its corrections."""
        return self.mask if self.correction is None else replace(self.mask, source=self.correction)

    def drop(self) -> None:
        """Close the mask and delete the files."""
        if self.correction is not None:
            self.correction.close()
        self.mask.source.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Session:
    """State of one user, with all files in ``folder``. Thread-safe."""

    def __init__(self, id: str, token: str, folder: Path, idle_seconds: float) -> None:
        self.id, self.token, self.folder = id, token, folder
        self.revision, self.openings = 0, 0
        self.pages, self.left = 0, False
        self.model = ""
        self.volume: OpenVolume | None = None
        self.files: tuple[Path, ...] = ()
        self.options = RunOptions()  # how the open volume is read
        self.dropped: tuple[Path, ...] = ()  # the latest files, which may lack what they do not state
        self.result: Result | None = None
        self.surfacing, self.correcting = threading.Lock(), threading.Lock()
        self._idle_seconds = idle_seconds
        self.run: Run | None = None  # the latest, which may have ended
        self._lock = threading.Lock()
        self._closed = False
        self.touch()

    def touch(self) -> None:
        """Record that the session is in use."""
        if not self.left:
            self.ends = time.monotonic() + self._idle_seconds

    def wait_for_reading(self, files: tuple[Path, ...]) -> None:
        """Keep files that cannot be opened before the user states how they are stored, in place of earlier ones."""
        with self._lock:
            self._refuse_if_closed()
            old, self.dropped = self.dropped, files
            kept = {path.parent for path in (*files, *self.files)}
        _delete({path.parent for path in old} - kept)

    def show(self, volume: OpenVolume, files: tuple[Path, ...], options: RunOptions) -> None:
        """Replace the volume; deletes the run and the result of the previous one, and all files but the given ones."""
        with self._lock:
            self._refuse_if_closed(volume.close)
            old = (*self.files, *self.dropped)
            self._drop_result()
            self._cancel()
            if self.volume is not None:
                self.volume.close()
            self.volume, self.files, self.dropped, self.options = volume, files, files, options
            self.openings += 1
            self.revision += 1
        _delete({path.parent for path in old} - {path.parent for path in files})

    def take_result(self, result: Result, volume: OpenVolume) -> None:
        """Show a result over its volume; drops it if another volume is shown."""
        with self._lock:
            if self._closed or self.volume is not volume:
                result.drop()
                raise CancelledError
            self._drop_result()
            self.result = result
            self.revision += 1

    def offer(self, files: Mapping[str, Path], result: Result) -> None:
        """Offer other files of the result that is shown; CancelledError if another one is."""
        with self._lock:
            if self._closed or self.result is not result:
                raise CancelledError
            self.result = replace(result, files=files)

    def show_correction(self, correction: Correction, result: Result) -> int:
        """Show the correction of a result, as it is now; return the new revision.

        Closes it and raises CancelledError if another result is shown.
        """
        with self._lock:
            shown = self.result
            if self._closed or shown is None or shown.mask is not result.mask:
                correction.close()
                raise CancelledError
            self.result = replace(shown, correction=correction)
            self.revision += 1
            return self.revision

    def start(self, work: Callable[[RunProgress], None]) -> Run:
        """Start a run. Raises UsageError while another one goes on."""
        with self._lock:
            self._refuse_if_closed()
            if self.run is not None and not self.run.progress.cancelled and not self.run.wait(0):
                do = "wait for it, or cancel it"
                raise UsageError("run", expected="one at a time", got="a second one", do=do)
            self.run = Run(work)
            return self.run

    def cancel(self) -> bool:
        """Cancel the run; return whether there is one."""
        with self._lock:
            return self._cancel()

    def new_folder(self) -> Path:
        """Create an empty folder in the session's folder."""
        with self._lock:
            self._refuse_if_closed()
            path = self.folder / secrets.token_hex(8)
            path.mkdir()
            return path

    def close(self) -> None:
        """Cancel the run and delete all files. Closing twice does nothing."""
        with self._lock:
            self._closed = True
            self._cancel()
            self._drop_result()
            if self.volume is not None:
                self.volume.close()
            self.volume = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _cancel(self) -> bool:
        if self.run is None or self.run.wait(0):
            return False
        self.run.progress.cancel()
        return True

    def _drop_result(self) -> None:
        if self.result is not None:
            self.result.drop()
        self.result = None

    def _refuse_if_closed(self, release: Callable[[], None] = lambda: None) -> None:
        if self._closed:
            release()
            raise CancelledError


def _delete(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


class Sessions:
    """The sessions of one process, by secret token; one is closed after ``idle_seconds`` without use."""

    def __init__(self, folder: Path, idle_seconds: float, keep_seconds: float = 0.0) -> None:
        self._folder, self._idle_seconds, self._keep_seconds = folder, idle_seconds, keep_seconds
        self._sessions: dict[str, Session] = {}  # by id
        self._lock = threading.Lock()

    def open(self) -> Session:
        """Create a session."""
        id, token = secrets.token_hex(8), secrets.token_urlsafe(24)
        folder = self._folder / id
        folder.mkdir(mode=0o700)
        with self._lock:
            session = self._sessions[id] = Session(id, token, folder, self._idle_seconds)
        return session

    def find(self, token: str | None, id: str | None = None) -> Session:
        """Return the session of a token. Raises UsageError if it has ended."""
        with self._lock:
            known = [s for s in self._sessions.values() if id in (None, s.id)]
        session = next((s for s in known if hmac.compare_digest(s.token.encode(), (token or "").encode())), None)
        if session is None:
            do = "load the page again"
            raise UsageError("session", expected="one that is open", got="one that has ended", do=do)
        session.touch()
        return session

    def enter(self, token: str | None) -> Session:
        """Take up a session for a page that is loaded: the token's, else a new one."""
        try:
            session = self.find(token)
        except UsageError:
            session = self.open()
        with self._lock:
            session.pages += 1
            session.left = False
        session.touch()
        return session

    def leave(self, token: str | None) -> None:
        """Note that a page of the session is gone."""
        with self._lock:
            session = next((s for s in self._sessions.values() if s.token == token), None)
            if session is None:
                return
            session.pages -= 1
            if session.pages < 1:
                session.left = True
                session.ends = min(session.ends, time.monotonic() + self._keep_seconds)

    def end(self, session: Session) -> None:
        """Close a session and delete its files, if it exists."""
        with self._lock:
            self._sessions.pop(session.id, None)
        session.close()

    def sweep(self) -> int:
        """End idle sessions; return their number."""
        with self._lock:
            now = time.monotonic()
            over = [s for s in self._sessions.values() if s.ends <= now]
        for session in over:
            self.end(session)
        return len(over)

    def public(self, text: str) -> str:
        """The text with the folders of sessions and uploads cut off their files."""
        return re.sub(re.escape(f"{self._folder}/") + "(uploads/)?([0-9a-f]{16,}/)*", "", text)

    def close(self) -> None:
        """End all sessions."""
        for session in list(self._sessions.values()):
            self.end(session)
