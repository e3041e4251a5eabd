"""Cases that appear in a folder while a batch runs: each is taken when its files have stayed as they are."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...domain.cases import CaseFiles
from ...domain.errors import InputError

# Number of files, their bytes, and the latest change in nanoseconds.
_State = tuple[int, int, int]
_LOOK_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0  # and no less than a case has to settle


@dataclass
class Watch:
    """Gives each case once it is whole: all its channels are there, and no file changed for ``settle_seconds``.

    A case whose files change later is given again. Files are looked at once a second at most. A folder that is missing
    at the beginning is an InputError; later on it counts as empty.

    Args:
        find: finds the cases; InputError where there are none.
        volumes: the folder that their files lie below.
        say: called once with a line about a case that has not been whole for a minute: a channel is missing, a link
            leads to nothing.
    """

    find: Callable[[], Sequence[CaseFiles]]
    volumes: Path
    settle_seconds: float
    now: Callable[[], float] = time.monotonic
    say: Callable[[str], None] = lambda _: None
    _seen: dict[str, tuple[_State, float]] = field(default_factory=dict)
    _given: dict[str, _State] = field(default_factory=dict)
    _waiting: dict[str, float] = field(default_factory=dict)
    _looked: float = -_LOOK_SECONDS

    def __post_init__(self) -> None:
        if not self.volumes.is_dir():
            self.find()

    def __call__(self) -> list[CaseFiles]:
        """Return the cases that have become whole since the last call."""
        if self.now() - self._looked < min(_LOOK_SECONDS, self.settle_seconds):
            return []
        self._looked = self.now()
        whole = []
        for case in self._found():
            state = None if case.problem is not None else self._state(case)
            if state is None:
                self._wait(case)
                continue
            self._waiting.pop(case.name, None)
            seen, since = self._seen.setdefault(case.name, (state, self.now()))
            if seen != state:
                self._seen[case.name] = (state, self.now())
            elif self._given.get(case.name) != state and self.now() - since >= self.settle_seconds:
                self._given[case.name] = state
                whole.append(case)
        return whole

    def _found(self) -> Sequence[CaseFiles]:
        try:
            return self.find()
        except InputError:
            return []

    def _wait(self, case: CaseFiles) -> None:
        since = self._waiting.setdefault(case.name, self.now())
        if self.now() - since >= max(_PATIENCE_SECONDS, self.settle_seconds):
            self._waiting[case.name] = math.inf
            lacks = case.problem
            why = "one of its files cannot be read" if lacks is None else f"expected {lacks.expected}, got {lacks.got}"
            self.say(f"{case.name} waits: {why}")

    def _state(self, case: CaseFiles) -> _State | None:
        """Return the state of a case's files; None while one of them is on its way."""
        try:
            known = [stat for name in case.files for stat in _stats(self.volumes / name)]
        except OSError:
            return None
        return len(known), sum(stat.st_size for stat in known), max((stat.st_mtime_ns for stat in known), default=0)


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Yield the state of a file, or of every file of a folder."""
    if path.is_dir():
        for folder, _, names in os.walk(path):
            for name in names:
                yield (Path(folder) / name).stat()
    else:
        yield path.stat()
