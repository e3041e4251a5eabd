"""Where a process runs, so that another on the same machine can tell at once that it is gone."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path


def place() -> str:
    """This machine since it was started, and the space in which process ids mean the same."""
    known = [socket.gethostname()]
    with suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        known.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(known)


def is_gone(worker_place: str, pid: int) -> bool:
    """Whether a process is seen to have ended; False for one that cannot be seen from here."""
    if worker_place != place():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
