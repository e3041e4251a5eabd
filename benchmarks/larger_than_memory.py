"""Segment an OME-Zarr that is larger than memory: peak memory, time, and how often each chunk is read and written.

The volume has uint16 values in chunks of 128 x 128 x 128, most of them background. ``voxport segment`` runs as a
process of its own with a memory limit and a cheap model. Chunks are counted in zarr's store, so reads of the hash,
which take the files as they are, do not count; a chunk that is not stored, because it is all background, does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import zarr
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.domain.inference.patches import Tiling
from voxport.testing.affine import affine_card, write_affine_onnx

CHUNK, PATCH, OVERLAP = 128, 128, 0.125
# A process that counts calls of zarr's local store, and writes the counts by key.
COUNTING = """
import collections, json, os
from zarr.storage import LocalStore
counts = {"get": collections.Counter(), "set": collections.Counter()}
def counted(name):
    call = getattr(LocalStore, name)
    async def counting(self, key, *args, **named):
        counts[name][f"{self.root.name}/{key}"] += 1
        return await call(self, key, *args, **named)
    setattr(LocalStore, name, counting)
counted("get"), counted("set")
leave = os._exit  # which the command line ends with
def ending(code):
    with open("counts.json", "w") as file:
        json.dump(counts, file)
    leave(code)
os._exit = ending
from voxport.entrypoints.cli.main import run
run()
"""


def make_volume(path: Path, shape: tuple[int, int, int]) -> None:
    """Write a volume (z, y, x) of noise in every third chunk along each axis, and background elsewhere."""
    unit = {"type": "space", "unit": "micrometer"}
    scale = [{"type": "scale", "scale": [2.0, 0.5, 0.5]}]
    multiscale = {
        "axes": [{"name": axis, **unit} for axis in "zyx"],
        "datasets": [{"path": "0", "coordinateTransformations": scale}],
    }
    group = zarr.create_group(path, attributes={"ome": {"version": "0.5", "multiscales": [multiscale]}})
    array = group.create_array("0", shape=shape, dtype=np.uint16, chunks=[min(CHUNK, edge) for edge in shape])
    noise = np.random.default_rng(0).integers(0, 1000, array.chunks, np.uint16)
    for z in range(0, shape[0], 3 * CHUNK):
        for y in range(0, shape[1], 3 * CHUNK):
            for x in range(0, shape[2], 3 * CHUNK):
                place = tuple(slice(at, at + CHUNK) for at in (z, y, x))
                view = array.shape
                part = noise[tuple(slice(min(CHUNK, n - s.start)) for n, s in zip(view, place, strict=True))]
                array[place] = part


def make_model(path: Path) -> None:
    """Write a model that takes values above 500 for foreground."""
    write_affine_onnx(path, np.array([[0.0], [0.01]], np.float32), np.array([0.0, -5.0], np.float32))
    tiling = Tiling((PATCH, PATCH, PATCH), overlap=OVERLAP, blending="constant")
    OnnxModelFiles().write(path, affine_card(1, 2, tiling=tiling), path)


def main() -> None:
    """Make the volume, segment it, and print peak memory, time, and reads and writes of a chunk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 4096, 4096], help="along z, y and x")
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--folder", type=Path, help="for the volumes, which take 15 GB; default: a temporary one")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    with TemporaryDirectory(dir=wanted.folder) as name:
        folder = Path(name)
        make_volume(folder / "scan.zarr", tuple(wanted.shape))
        make_model(folder / "model.onnx")
        command = [sys.executable, "-c", COUNTING, "segment", "scan.zarr", "-m", "model.onnx", "-o", "mask.zarr"]
        began = time.perf_counter()
        process = subprocess.Popen([*command, "--memory", wanted.memory, "--quiet"], cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        if status:
            raise SystemExit(f"segment ended with {os.waitstatus_to_exitcode(status)}")
        counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
    # a patch reads a voxel once along each axis, and once more where patches overlap
    asked = 2 * 8
    reads = [n for key, n in counts["get"].items() if key.startswith("scan.zarr/0/c/")]
    writes = [n for key, n in counts["set"].items() if "/c/" in key]
    found = {
        "shape": wanted.shape,
        "memory": wanted.memory,
        "peak_gb": usage.ru_maxrss * 1024 / 1e9,
        "seconds": seconds,
        "chunks": len(reads),
        "mean_reads": float(np.mean(reads)),
        "most_reads": max(reads),
        "most_reads_allowed": asked,
        "most_writes": max(writes),
        "passed": max(reads) <= asked and max(writes) == 1,
    }
    for key, value in found.items():
        print(f"{key:20} {round(value, 3) if isinstance(value, float) else value}")
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if not found["passed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
