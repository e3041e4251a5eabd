"""Resources of this machine, on Linux and macOS."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path

from ....domain.tuning import Machine
from ....ports.resources import Resources
from ...instructions import instruction_limits

# libraries on which the speed and the last bits of logits depend
_LIBRARIES = ("voxport", "onnxruntime", "onnxruntime-gpu", "openvino")


class LocalResources(Resources):
    """The resources of this process."""

    def processors(self) -> int:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        quota = _first_line("/sys/fs/cgroup/cpu.max").split()
        if len(quota) == 2 and quota[0].isdigit():
            count = min(count, max(1, int(quota[0]) // int(quota[1])))
        return count

    def available_bytes(self) -> int:
        meminfo = Path("/proc/meminfo")
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if meminfo.exists():
            lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines())
            free = int(lines["MemAvailable"].split()[0]) * 1024
        limit = _first_line("/sys/fs/cgroup/memory.max")
        if limit.isdigit():
            used = _first_line("/sys/fs/cgroup/memory.current")
            free = min(free, int(limit) - (int(used) if used.isdigit() else 0))
        return max(free, 0)

    def resident_bytes(self) -> int:
        pages = _first_line("/proc/self/statm").split()
        return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else self.peak_resident_bytes()

    def peak_resident_bytes(self) -> int:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def describe(self, threads: int | None = None) -> Machine:
        versions = []
        for name in _LIBRARIES:
            try:
                versions.append((name, metadata.version(name)))
            except metadata.PackageNotFoundError:
                continue
        processor = " ".join([_processor(), *sorted(instruction_limits())])
        return Machine(processor, threads or self.processors(), tuple(versions))


def _processor() -> str:
    """Return the processor's name and a digest of its flags, as virtual machines may hide the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = " ".join(sorted(values.get("flags", values.get("Features", "")).split()))
    return f"{values.get('model name', platform.machine())} {hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
