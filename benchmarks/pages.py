"""What `--html` adds to a run of the bundled model on 512 x 512 x 32 voxels: whole processes, in turns."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from material import machine, tiled_sample
from voxport.application import Application

SHAPE = (512, 512, 32)


def main() -> None:
    """Print seconds and their ratio, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = _measured(Path(folder), wanted.repeats)
    print(f"without {found['seconds_without']:.3f} s, with --html {found['seconds_with']:.3f} s")
    print(f"fastest {found['fastest_without']:.3f} s and {found['fastest_with']:.3f} s")
    print(f"ratio {found['ratio']:.3f}, of processor time {found['processor_ratio']:.3f}")
    print(f"a page of {found['page_bytes'] / 1e6:.2f} MB")
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _measured(folder: Path, repeats: int) -> dict[str, Any]:
    volume = tiled_sample(folder / "volume.nii.gz", Application.build().sample, SHAPE)
    page = folder / "page.html"
    ways = {"without": [], "with": ["--html", str(page)]}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    worked: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        # the second of a pair may find the machine in another state than the first
        for name in list(ways) if turn % 2 else reversed(list(ways)):
            began, before = time.perf_counter(), _processor_seconds()
            command = ["segment", str(volume), "-o", str(folder / "mask.nii.gz"), "--quiet", *ways[name]]
            subprocess.run([sys.executable, "-m", "voxport", *command], check=True)
            taken[name].append(time.perf_counter() - began)
            worked[name].append(_processor_seconds() - before)
    without, with_page = taken["without"][1:], taken["with"][1:]  # the first pair warms up
    more = [b / a for a, b in zip(worked["without"][1:], worked["with"][1:], strict=True)]
    return {
        "machine": machine(),
        "repeats": repeats,
        "seconds_without": statistics.median(without),
        "seconds_with": statistics.median(with_page),
        "ratio": statistics.median(with_one / one for with_one, one in zip(with_page, without, strict=True)),
        "fastest_without": min(without),
        "fastest_with": min(with_page),
        "processor_ratio": statistics.median(more),
        "page_bytes": page.stat().st_size,
    }


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
