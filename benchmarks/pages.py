"""What `--html` adds to a run of the bundled model on 512 x 512 x 32 voxels: whole processes, in turns."""

from __future__ import annotations

import argparse
import json
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
    print(f"ratio {found['ratio']:.3f}, of a page of {found['page_bytes'] / 1e6:.2f} MB")
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _measured(folder: Path, repeats: int) -> dict[str, Any]:
    volume = tiled_sample(folder / "volume.nii.gz", Application.build().sample, SHAPE)
    page = folder / "page.html"
    ways = {"without": [], "with": ["--html", str(page)]}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        # the second of a pair may find the machine in another state than the first
        for name in list(ways) if turn % 2 else reversed(list(ways)):
            began = time.perf_counter()
            command = ["segment", str(volume), "-o", str(folder / "mask.nii.gz"), "--quiet", *ways[name]]
            subprocess.run([sys.executable, "-m", "voxport", *command], check=True)
            taken[name].append(time.perf_counter() - began)
    without, with_page = taken["without"][1:], taken["with"][1:]  # the first pair warms up
    return {
        "machine": machine(),
        "repeats": repeats,
        "seconds_without": statistics.median(without),
        "seconds_with": statistics.median(with_page),
        "ratio": statistics.median(with_one / one for with_one, one in zip(with_page, without, strict=True)),
        "page_bytes": page.stat().st_size,
    }


if __name__ == "__main__":
    main()
