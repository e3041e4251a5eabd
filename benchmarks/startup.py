"""How long it takes to import voxport and to print its help: medians over fresh processes."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

CASES = {
    "python -c pass": ["-c", "pass"],
    "import voxport": ["-c", "import voxport"],
    "voxport --help": ["-m", "voxport", "--help"],
    "voxport models list": ["-m", "voxport", "models", "list"],
}


def main() -> None:
    """Print the median seconds of each case, and how many times those of a bare interpreter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    found = {name: _median_seconds(arguments, wanted.repeats) for name, arguments in CASES.items()}
    bare = found["python -c pass"]
    for name, seconds in found.items():
        print(f"{name:22} {seconds:6.3f} s  {seconds / bare:5.1f} x")
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(found, indent=2) + "\n")


def _median_seconds(arguments: list[str], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
