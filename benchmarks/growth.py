"""Measure memory and time of ``voxport segment`` from 256^3 to 1024x1024x512 voxels at one ``--memory``.

The network is two small convolutions, so voxport's own work dominates. Each run is a separate process, from a uint8
``.nii.gz`` to a ``.nii.gz``; small volumes run several times. Peak memory is ``ru_maxrss``, the largest of all runs. It
includes mapped files; anonymous memory, sampled fifty times a second, does not. This script stays small, because a
process inherits the peak of its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
SHAPES = ((256, 256, 256), (512, 512, 256), (512, 512, 512), (1024, 1024, 256), (1024, 1024, 512))
QUICK = ((128, 128, 128), (256, 256, 128), (256, 256, 256))
# With these edges the shapes above have equal numbers of tiles per voxel within 10 %.
CARD = {
    "schema": "voxport/model-card/1",
    "name": "two-convolutions",
    "version": "1.0.0",
    "input": {"channels": [{"name": "image"}], "intensity": [{"shift_scale": [0, 1 / 255]}]},
    "tiling": {"patch": [64, 64, 32], "divisor": 1, "overlap": 0.25, "blending": "gaussian"},
    "output": {"activation": "softmax", "labels": [{"value": 1, "name": "bright"}]},
}
FLAT_WITHIN, LINEAR_WITHIN = 0.10, 0.10
_SAMPLED_SECONDS = 0.02
_MAKE = "import sys; from material import streamed; streamed(sys.argv[1], tuple(int(n) for n in sys.argv[2:]))"
_NETWORK = """
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
two = np.zeros((2, 4, 3, 3, 3), np.float32)
two[1] = 1 / 108
weights = {"one": np.full((4, 1, 3, 3, 3), 1 / 27, np.float32), "two": two, "bias": np.array([0.4, 0], np.float32)}
nodes = [
    helper.make_node("Conv", ["image", "one"], ["blurred"], pads=[1] * 6),
    helper.make_node("Relu", ["blurred"], ["positive"]),
    helper.make_node("Conv", ["positive", "two", "bias"], ["scores"], pads=[1] * 6),
]
image, scores = (
    helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "i", "j", "k"])
    for name, channels in (("image", 1), ("scores", 2))
)
tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
graph = helper.make_graph(nodes, "blurs", [image], [scores], tensors)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), "network.onnx")
"""


def main() -> None:
    """Measure each size, fit a line through the times, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--repeats", type=int, default=5, help="maximum runs of each size")
    parser.add_argument("--each", type=float, default=60, help="stop repeating a size after so many seconds")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="small volumes once, as a test")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    repeats = 1 if wanted.quick else wanted.repeats
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_network(folder)
        sizes = [_measured(folder, shape, wanted, repeats) for shape in (QUICK if wanted.quick else SHAPES)]
    result = {"memory": wanted.memory, "threads": wanted.threads, "tiling": CARD["tiling"], **summary(sizes)}
    _show(result)
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def write_network(folder: Path) -> None:
    """Write two blurs and a threshold as ONNX with a card, in a separate process to keep this one small."""
    subprocess.run([sys.executable, "-c", _NETWORK], cwd=folder, check=True)
    (folder / "card.yaml").write_text(json.dumps(CARD), encoding="utf-8")


def _measured(folder: Path, shape: tuple[int, int, int], wanted: argparse.Namespace, repeats: int) -> dict[str, Any]:
    volume = folder / "volume.nii.gz"
    print(f"{'x'.join(map(str, shape))}: making it", file=sys.stderr)
    subprocess.run([sys.executable, "-c", _MAKE, str(volume), *map(str, shape)], cwd=HERE, check=True)
    command = [sys.executable, "-m", "voxport", "segment", volume.name, "-m", "network.onnx", "--card", "card.yaml"]
    command += ["-o", "mask.nii.gz", "--runtime", "onnx", "--precision", "fp32", "--threads", str(wanted.threads)]
    command += ["--memory", wanted.memory, "--report", "report.json", "--quiet"]
    runs: list[dict[str, Any]] = []
    while len(runs) < repeats and sum(run["seconds"] for run in runs) < wanted.each:
        print(f"{'x'.join(map(str, shape))}: run {len(runs) + 1}", file=sys.stderr)
        runs.append(_run(command, folder))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    voxels = shape[0] * shape[1] * shape[2]
    return {
        "shape": list(shape),
        "voxels": voxels,
        "seconds": statistics.median(run["seconds"] for run in runs),
        "all_seconds": [run["seconds"] for run in runs],
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "anonymous_bytes": max(run["anonymous_bytes"] for run in runs),
        "tiles": report["tiles"]["count"],
        "blending": report["tiles"]["blending"],
        "stages": report["seconds"],
    }


def _run(command: Sequence[str], folder: Path) -> dict[str, Any]:
    """Return seconds and bytes of a run. SystemExit if it fails."""
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder)
    anonymous: list[int] = [0]
    watched = threading.Thread(target=_watch, args=(process.pid, anonymous), daemon=True)
    watched.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    watched.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"voxport ended with {process.returncode}")
    return {"seconds": seconds, "peak_bytes": usage.ru_maxrss * 1024, "anonymous_bytes": max(anonymous)}


def _watch(pid: int, anonymous: list[int]) -> None:
    """Record the largest anonymous memory of a process until it ends."""
    status = Path(f"/proc/{pid}/status")
    while True:
        try:
            lines = status.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        found = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), None)
        if found is None:
            return
        anonymous[0] = max(anonymous[0], found)
        time.sleep(_SAMPLED_SECONDS)


def summary(sizes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the sizes, the spread of peaks, and the deviation of times from the fitted line.

    The fit minimises squared relative deviations, because a plain fit would follow the largest volume only.
    """
    points = [(size["voxels"] / 1e6, size["seconds"]) for size in sizes]
    begin, slope = line(points)
    away = [abs(begin + slope * millions - seconds) / seconds for millions, seconds in points]
    peaks = [size["peak_bytes"] for size in sizes]
    return {
        "sizes": list(sizes),
        "peak_spread": max(peaks) / min(peaks) - 1,
        "flat": max(peaks) <= (1 + FLAT_WITHIN) * min(peaks),
        "start_seconds": begin,
        "seconds_a_megavoxel": slope,
        "largest_deviation": max(away),
        "linear": max(away) <= LINEAR_WITHIN,
    }


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return ``a`` and ``b`` of ``y = a + b x`` that minimise the sum of squares of ``(a + b x - y) / y``."""
    ones = [1 / y for _, y in points]
    rises = [x / y for x, y in points]
    aa, bb = sum(v * v for v in ones), sum(v * v for v in rises)
    ab, a, b = sum(v * w for v, w in zip(ones, rises, strict=True)), sum(ones), sum(rises)
    determinant = aa * bb - ab * ab
    return (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant


def _show(result: dict[str, Any]) -> None:
    print(f"--memory {result['memory']}, {result['threads']} threads")
    print(f"{'voxels':>16} {'seconds':>9} {'s/Mvoxel':>9} {'peak GB':>9} {'anonymous':>9}")
    for size in result["sizes"]:
        each = size["seconds"] / size["voxels"] * 1e6
        print(f"{'x'.join(map(str, size['shape'])):>16} {size['seconds']:9.2f} {each:9.4f} ", end="")
        print(f"{size['peak_bytes'] / 1e9:9.3f} {size['anonymous_bytes'] / 1e9:9.3f}")
    print(f"peaks are {result['peak_spread']:.1%} apart; ", end="")
    print(f"{result['seconds_a_megavoxel']:.4f} s a megavoxel, at most {result['largest_deviation']:.1%} off the line")


if __name__ == "__main__":
    main()
