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


@dataclass(eq=False)
class Child:
    """A supervised process.

    Args:
        name: display name; its log is ``NAME.log``.
        command: program and arguments.
        health_url: it is healthy once this URL answers with a status below 400; None: after ``settle_seconds``.
        environment: additional variables.

    Attributes:
        due: when it starts again, after ``ends`` ends in a row.
    """

    name: str
    command: Sequence[str]
    health_url: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    healthy: bool = field(default=False, init=False)
    started: float = field(default=0.0, init=False)
    due: float = field(default=0.0, init=False)
    ends: int = field(default=0, init=False)

    def start(self, log: Path) -> None:
        """Start the process. Raises OutputError if its log cannot be written."""
        try:
            output = log.open("ab")
        except OSError as error:
            raise OutputError.cannot_write(str(log), error) from None
        with output:
            self.process = subprocess.Popen(
                tethered(self.command),
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process only
            )
        self.started = time.monotonic()


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
        self._children, self._logs, self._say = children, logs, say
        self._restarts = restarts or Restarts()
        self._others: set[int] = set()
        self.hurry = False  # set to end children that do not end at once

    def __enter__(self) -> Supervisor:
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError.cannot_write(str(self._logs), error) from None
        self._others = _processes()
        adopt_orphans(True)
        try:
            for child in self._children:
                with suppress(OSError):  # start() raises if no log can be written
                    self._log(child).replace(f"{self._log(child)}.1")
                child.start(self._log(child))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    @property
    def waits_for(self) -> list[str]:
        """Names of the children that are not healthy."""
        return [child.name for child in self._children if not child.healthy]

    def watch(self, until: Callable[[], bool]) -> None:
        """Supervise the children until a condition holds.

        Raises:
            VoxportError: a child ended too often in a row, or its exit code reports a usage error.
        """
        while not until():
            for child in self._children:
                self._look_after(child)
            time.sleep(_GLANCE_SECONDS)

    def _log(self, child: Child) -> Path:
        return self._logs / f"{child.name}.log"

    def _look_after(self, child: Child) -> None:
        if child.process is None:
            if time.monotonic() >= child.due:
                child.start(self._log(child))
        elif (code := child.process.poll()) is not None:
            self._bury(child.process)  # its descendants may hold its port
            self._begin_again(child, code)
        elif not child.healthy and self._is_healthy(child):
            child.healthy = True
            if child.ends:
                self._say(f"{child.name} is back")

    def _is_healthy(self, child: Child) -> bool:
        if child.health_url is not None:
            return answers(child.health_url)
        return time.monotonic() - child.started >= self._restarts.settle_seconds

    def _begin_again(self, child: Child, code: int) -> None:
        restarts, log, now = self._restarts, self._log(child), time.monotonic()
        child.ends = 1 if now - child.started >= restarts.steady_seconds else child.ends + 1
        how = f"exit code {code}" if code >= 0 else f"signal {-code}, {signal.strsignal(-code)}"
        if code == _USAGE or child.ends >= restarts.most:
            self._say(f"the last lines of {log}:\n{_tail(log)}")
            got = f"{how}, {child.ends} times in a row" if child.ends > 1 else how
            raise VoxportError(child.name, expected="a process that goes on", got=got, do=f"see {log}")
        wait = min(restarts.first_seconds * 2 ** (child.ends - 1), restarts.longest_seconds)
        self._say(f"{child.name} ended ({how}); it starts again in {wait:g} s; its log is {log}")
        child.process, child.healthy, child.due = None, False, now + wait

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        """End the remaining process group and orphans of an ended process."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        known = {child.process.pid for child in self._children if child.process is not None} | self._others
        while strays := _processes() - known:  # again, as theirs are ours next
            for pid in strays:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _end(self) -> None:
        """Terminate all children, wait, and kill the remaining ones."""
        running = [(child, child.process) for child in self._children if child.process is not None]
        for _, process in running:
            process.terminate()
        deadline = time.monotonic() + self._restarts.grace_seconds
        while time.monotonic() < deadline and not self.hurry and any(process.poll() is None for _, process in running):
            time.sleep(_GLANCE_SECONDS)
        for child, process in running:
            if process.poll() is None:
                self._say(f"{child.name} does not end; it is killed")
                process.kill()
                process.wait()
        for child, process in running:
            self._bury(process)
            child.process = None
        adopt_orphans(False)


def _tail(log: Path) -> str:
    """Return the last lines of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])


def _processes() -> set[int]:
    """Return the ids of this process's children, if the system lists them."""
    try:
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()}
    except OSError:
        return set()
