"""Contract suite of `Resources`, and a fake."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..domain.tuning import Machine
from ..ports.resources import Resources


class ResourcesContract:
    """Subclass and implement the hook."""

    def make_resources(self) -> Resources:
        """Return the adapter."""
        raise NotImplementedError

    def test_there_is_a_processor_at_least(self) -> None:
        assert self.make_resources().processors() >= 1

    def test_memory_is_never_below_zero(self) -> None:
        assert self.make_resources().available_bytes() >= 0

    def test_the_peak_is_at_least_what_is_held_now(self) -> None:
        resources = self.make_resources()
        held = resources.resident_bytes()
        assert resources.peak_resident_bytes() >= held * 0.95

    def test_a_machine_is_described_the_same_each_time(self) -> None:
        resources = self.make_resources()
        assert resources.describe() == resources.describe()

    def test_a_machine_is_described_with_its_processors_or_with_the_threads_that_are_given(self) -> None:
        resources = self.make_resources()
        assert resources.describe().threads == resources.processors()
        assert resources.describe(3).threads == 3


@dataclass
class FixedResources:
    """`Resources` with settable values."""

    processor_count: int = 2
    available: int = 2**34
    resident: int = 0
    peak: int = 0
    versions: tuple[tuple[str, str], ...] = field(default=())

    def processors(self) -> int:
        return self.processor_count

    def available_bytes(self) -> int:
        return self.available

    def resident_bytes(self) -> int:
        return self.resident

    def peak_resident_bytes(self) -> int:
        return max(self.peak, self.resident)

    def describe(self, threads: int | None = None) -> Machine:
        return Machine("a processor", threads or self.processor_count, self.versions)
