"""Measure start-up: ``import voxport``, ``voxport --help``, and ``voxport segment --sample`` to its first tile.

Medians over fresh processes, from the start of the interpreter. A segmenting process ends when its network receives the
first tile, or has inferred it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

UNTIL_FIRST_TILE = """
import os, sys
from voxport.services.segmentation.inference import Scorer
scored = Scorer._score
def first(self, batch):
    {scored}
    os._exit(0)
Scorer._score = first
sys.argv = ["voxport", "segment", "--sample", *{options}]
from voxport.entrypoints.cli.main import run
run()
"""
OPENVINO = ["--runtime", "openvino", "--precision", "bf16"]


def _until(*, inferred: bool, options: list[str]) -> list[str]:
    return ["-c", UNTIL_FIRST_TILE.format(inferred="scored(self, batch)" if inferred else "pass", options=options)]


CASES = {
    "python -c pass": ["-c", "pass"],
    "import voxport": ["-c", "import voxport"],
    "voxport --help": ["-m", "voxport", "--help"],
    "voxport models list": ["-m", "voxport", "models", "list"],
    "to the first tile, onnx fp32": _until(inferred=False, options=[]),
    "to the first tile, openvino bf16": _until(inferred=False, options=OPENVINO),
    "first tile scored, onnx fp32": _until(inferred=True, options=[]),
    "first tile scored, openvino bf16": _until(inferred=True, options=OPENVINO),
}


def main() -> None:
    """Print the median seconds of each case, and the ratio to a bare interpreter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    found = {name: _median_seconds(arguments, wanted.repeats) for name, arguments in CASES.items()}
    bare = found["python -c pass"]
    for name, seconds in found.items():
        print(f"{name:34} {seconds:6.3f} s  {seconds / bare:5.1f} x")
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _median_seconds(arguments: list[str], repeats: int) -> float:
    taken = []
    with TemporaryDirectory() as folder:
        for _ in range(repeats):
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=folder)
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
