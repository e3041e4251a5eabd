"""Supervision of child processes: start, watch, restart, and stop with this process."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...domain.errors import OutputError, VoxportError
from .answering import answers
from .tether import adopt_orphans, tethered

_GLANCE_SECONDS = 0.1
_TAIL_LINES, _TAIL_BYTES = 20, 8192
_USAGE = 2


@dataclass(frozen=True)
class Child:
    """A supervised process.

    Args:
        name: display name; its log is ``NAME.log``.
        command: program and arguments.
        health_url: it is healthy once this URL answers with a status below 400; None: after ``settle_seconds``.
        environment: additional variables.
    """

    name: str
    command: Sequence[str]
    health_url: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Restarts:
    """Restart policy.

    A child is restarted after ``first_seconds``, doubled for each further end in a row up to ``longest_seconds``, and
    given up after ``most``. The count restarts after ``steady_seconds``. A stopped child has ``grace_seconds`` to end.
    """

    first_seconds: float = 0.5
    longest_seconds: float = 10.0
    most: int = 5
    steady_seconds: float = 30.0
    settle_seconds: float = 1.0
    grace_seconds: float = 20.0


class Supervisor:
    """Supervises children during its ``with`` block, and then ends them with their descendants.

    Use it in the main thread, one at a time, in a process without other children.

    Args:
        children: started together, in this order.
        logs: folder of log files.
        say: receives one line for each event.
        restarts: restart policy.
    """

    def __init__(
        self, children: Sequence[Child], logs: Path, say: Callable[[str], None], restarts: Restarts | None = None
    ) -> None:
        self._restarts = restarts or Restarts()
        self._say = say
        self._kept = [_Kept(child, logs / f"{child.name}.log") for child in children]
        self._logs = logs
        self._others: set[int] = set()
        self.hurry = False  # set to end children that do not end at once

    def __enter__(self) -> Supervisor:
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError.cannot_write(str(self._logs), error) from None
        self._others = _children()
        adopt_orphans(True)
        try:
            for kept in self._kept:
                kept.begin_log()
                kept.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    @property
    def waits_for(self) -> list[str]:
        """Names of the children that are not healthy."""
        return [kept.child.name for kept in self._kept if not kept.healthy]

    def watch(self, until: Callable[[], bool]) -> None:
        """Supervise the children until a condition holds.

        Raises:
            VoxportError: a child ended too often in a row, or its exit code reports a usage error.
        """
        while not until():
            for kept in self._kept:
                self._look_after(kept)
            time.sleep(_GLANCE_SECONDS)

    def _look_after(self, kept: _Kept) -> None:
        if kept.process is None:
            if time.monotonic() >= kept.due:
                kept.start()
            return
        code = kept.process.poll()
        if code is None:
            if not kept.healthy and self._is_healthy(kept):
                kept.healthy = True
                if kept.ends:
                    self._say(f"{kept.child.name} is back")
            return
        # its descendants may hold its port
        self._bury(kept)
        self._begin_again(kept, code)

    def _is_healthy(self, kept: _Kept) -> bool:
        url = kept.child.health_url
        return time.monotonic() - kept.started >= self._restarts.settle_seconds if url is None else answers(url)

    def _begin_again(self, kept: _Kept, code: int) -> None:
        restarts, name = self._restarts, kept.child.name
        now = time.monotonic()
        kept.ends = 1 if now - kept.started >= restarts.steady_seconds else kept.ends + 1
        how = _how_it_ended(code)
        if code == _USAGE or kept.ends >= restarts.most:
            self._say(f"the last lines of {kept.log}:\n{kept.tail()}")
            got = f"{how}, {kept.ends} times in a row" if kept.ends > 1 else how
            raise VoxportError(name, expected="a process that goes on", got=got, do=f"see {kept.log}")
        wait = min(restarts.first_seconds * 2 ** (kept.ends - 1), restarts.longest_seconds)
        self._say(f"{name} ended ({how}); it starts again in {wait:g} s; its log is {kept.log}")
        kept.process, kept.healthy, kept.due = None, False, now + wait

    def _bury(self, kept: _Kept) -> None:
        """End the remaining process group and orphans of an ended process."""
        process = kept.process
        assert process is not None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        known = {k.process.pid for k in self._kept if k.process is not None} | self._others
        while strays := _children() - known:  # again, as theirs are ours next
            for pid in strays:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _end(self) -> None:
        """Terminate all children, wait, and kill the remaining ones."""
        running = [(kept, kept.process) for kept in self._kept if kept.process is not None]
        for _, process in running:
            process.terminate()
        deadline = time.monotonic() + self._restarts.grace_seconds
        while time.monotonic() < deadline and not self.hurry and any(process.poll() is None for _, process in running):
            time.sleep(_GLANCE_SECONDS)
        for kept, process in running:
            if process.poll() is None:
                self._say(f"{kept.child.name} does not end; it is killed")
                process.kill()
                process.wait()
        for kept, _ in running:
            self._bury(kept)
            kept.process = None
        adopt_orphans(False)


class _Kept:
    """A child with its process and restart state."""

    def __init__(self, child: Child, log: Path) -> None:
        self.child, self.log = child, log
        self.process: subprocess.Popen[bytes] | None = None
        self.healthy = False
        self.started = self.due = 0.0
        self.ends = 0

    def begin_log(self) -> None:
        """Start an empty log; the previous one becomes ``NAME.log.1``."""
        with suppress(OSError):  # start() raises if no log can be written
            self.log.replace(f"{self.log}.1")

    def start(self) -> None:
        """Start the process. Raises OutputError if its log cannot be written."""
        try:
            log = self.log.open("ab")
        except OSError as error:
            raise OutputError.cannot_write(str(self.log), error) from None
        with log:
            self.process = subprocess.Popen(
                tethered(self.child.command),
                env={**os.environ, **self.child.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process only
            )
        self.started = time.monotonic()

    def tail(self) -> str:
        """Last lines of the log."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])


def _how_it_ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}, {signal.strsignal(-code)}"


def _children() -> set[int]:
    """Return this process's children, if the system lists them."""
    try:
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    except OSError:
        return set()
