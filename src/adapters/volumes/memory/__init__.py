"""Volumes kept in memory, for programs that embed voxport and for tests."""

from .store import MemoryStore

__all__ = ["MemoryStore"]
