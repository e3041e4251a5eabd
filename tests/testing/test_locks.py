"""Locks within one process keep the contract."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path

import pytest
from voxport.ports.locks import Locks
from voxport.testing.locks import LocksContract, MemoryLocks


class TestMemoryLocks(LocksContract):
    @pytest.fixture(autouse=True)
    def _shared(self) -> None:
        self.shared: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)

    def make_locks(self) -> Locks:
        return MemoryLocks(self.shared)
