"""Port for the resources of this machine and process."""

from __future__ import annotations

from typing import Protocol

from ..domain.tuning import Machine


class Resources(Protocol):
    """Processors and memory, a container's limits included. Safe for concurrent callers; never raises."""

    def processors(self) -> int:
        """Processors that this process may use; at least 1."""

    def available_bytes(self) -> int:
        """Memory that this process can still take without swapping."""

    def resident_bytes(self) -> int:
        """Memory that this process holds now."""

    def peak_resident_bytes(self) -> int:
        """The most memory that this process has held so far."""

    def describe(self, threads: int | None = None) -> Machine:
        """The machine as a tuning depends on it; ``threads`` where inference uses fewer than all processors."""
