"""``python -m voxport.entrypoints.up.tether PARENT COMMAND...``: run a command that ends when its parent dies.

Linux ensures this even if the parent is killed; on other systems the command just runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def tethered(command: Sequence[str]) -> list[str]:
    """Return the command line that runs ``command`` and ends with this process. Start it from a long-lived thread."""
    # -P: do not import modules of the current folder
    return [sys.executable, "-P", "-m", __name__, str(os.getpid()), *command]


def adopt_orphans(adopt: bool) -> None:
    """Become the parent of orphaned descendants, if the system supports it."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(adopt))


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _become(parent: int, command: list[str]) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before it could be watched
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
