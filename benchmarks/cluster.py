"""Measure ``voxport segment --cluster`` beside one process: seconds, memory of a worker, bytes, and what blocks cost.

A synthetic OME-Zarr is segmented by a small network, or by one convolution, so that voxport's own work dominates. All
runs are separate processes, in turns; medians are compared. ``--json docs/cluster.json`` also writes the numbers into
docs/cluster.md, with a calculation for a volume of 10^12 voxels that uses them; ``--write-only`` does that alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import psutil
from material import blobs, machine
from onnx import TensorProto, helper, numpy_helper
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.adapters.schedulers.dask import DaskScheduler
from voxport.adapters.volumes.ome_zarr import OmeZarrStore
from voxport.adapters.volumes.ome_zarr.blocks import OmeZarrBlocks
from voxport.domain.geometry.grid import Box, Grid, Shape3
from voxport.domain.inference.patches import Tiling, plan_tiles
from voxport.domain.inference.tile_blocks import TileBlocks
from voxport.ports.block_scheduler import Workbench
from voxport.services.cluster.tasks import boxes_within
from voxport.testing.affine import affine_card
from voxport.testing.convolution import write_convolution_onnx

PATCH, OVERLAP, CLASSES = 64, 0.25, 2
CHUNK = OmeZarrBlocks.chunk
_BEGIN, _END = "<!-- measured -->", "<!-- end of measured -->"
_SAMPLED_SECONDS = 0.1
_TASKS = 300
_SHARED = {"survey": "prepare", "measure": "measure"}  # stages that workers share
# The volume and the cluster of the calculation.
_EDGE, _WORKERS, _BLOCK, _STORE_BYTES_A_SECOND = 10_000, 100, 512, 1e9


def main() -> None:
    """Measure, print, and write JSON and the page beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=_numbers, default=(1024, 1024, 512), help="along x, y and z: 1024,1024,512")
    parser.add_argument("--workers", type=_numbers, default=(1, 2), help="their numbers")
    parser.add_argument("--blocks", type=_numbers, default=(256, 512), help="edges of blocks")
    parser.add_argument("--width", type=int, default=8, help="channels of the network; 0: one convolution")
    parser.add_argument("--memory", default="1GB", help="of a worker, where blocks are not stated")
    parser.add_argument("--minutes", type=float, default=11, help="repeat all runs as often as fits")
    parser.add_argument("--folder", type=Path, help="for the volumes; default: a temporary one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write-only", action="store_true", help="write the page from the existing JSON")
    wanted = parser.parse_args()
    if not wanted.write_only:
        with TemporaryDirectory(dir=wanted.folder) as name:
            limit = 60 * wanted.minutes
            runs = tuple(product(wanted.workers, wanted.blocks))
            found = _measured(Path(name), wanted.shape, runs, wanted.memory, limit, wanted.width)
        print(section(found))
        if wanted.json is not None:
            wanted.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if wanted.json is not None and (page := wanted.json.with_suffix(".md")).exists():
        before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
        numbers = json.loads(wanted.json.read_text(encoding="utf-8"))
        text = f"{before}{_BEGIN}\n{section(numbers)}\n{_END}{rest.partition(_END)[2]}"
        page.write_text(text, encoding="utf-8")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _measured(
    folder: Path, shape: Shape3, blocked: Sequence[tuple[int, int]], memory: str, limit: float, width: int
) -> dict[str, Any]:
    processors = len(os.sched_getaffinity(0))
    half, eighth = (shape[0] // 2, shape[1], shape[2]), (shape[0] // 2, shape[1] // 2, shape[2] // 2)
    for name, size in {"whole": shape, "half": half, "eighth": eighth}.items():
        make_volume(folder / f"{name}.ome.zarr", size)
    make_model(folder / "model.onnx", width)
    names = {f"{n} worker{'' if n == 1 else 's'}, blocks of {edge}": (n, edge) for n, edge in blocked}
    most = max(count for count, _ in blocked)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ("one process", "two processes", *names)}
    began, rounds = time.monotonic(), 0
    while rounds == 0 or (time.monotonic() - began) * (rounds + 1) / rounds < limit:
        rounds += 1
        runs["one process"].append(_run(folder, "one", "whole", "--threads", processors))
        for name, (count, edge) in names.items():
            runs[name].append(_run(folder, "blocks", "whole", "--cluster", f"local:{count}", "--block", edge))
            runs[name][-1]["same"] = _same(folder / "one", folder / "blocks")
        share = ("--threads", max(1, processors // 2))
        runs["two processes"].append(_together(folder, [("a", "half", *share), ("b", "half", *share)]))
    sizes = []
    for name, size in (("eighth", eighth), ("half", half)):
        one = _run(folder, "memory", name, "--cluster", f"local:{most}", "--memory", memory)
        sizes.append({"shape": size, **{key: one[key] for key in ("worker_bytes", "client_bytes", "stages")}})
    plan = plan_tiles(shape, _tiling())
    found = {
        "machine": machine(),
        "shape": shape,
        "patch": PATCH,
        "overlap": OVERLAP,
        "repeats": rounds,
        "width": width,
        "processors": processors,
        "tiles": plan.tile_count,
        "runs": {name: _median(each) for name, each in runs.items()},
        "memory": {"limit": memory, "workers": most, "sizes": sizes},
        "seconds_a_task": _seconds_a_task(),
    }
    for name, (_, edge) in names.items():
        cut = TileBlocks.of_edge(plan, edge)
        found["runs"][name] |= {"blocks": cut.count, "twice": _twice(cut)}
    return {**found, "passed": all(run.get("same", True) for run in found["runs"].values())}


def _network(found: Mapping[str, Any]) -> str:
    width = found.get("width", 0)
    return f"three convolutions with {width} channels between" if width else "a network of one convolution"


def _tiling() -> Tiling:
    return Tiling((PATCH, PATCH, PATCH), overlap=OVERLAP)


def make_volume(path: Path, shape: Shape3) -> None:
    """Write an OME-Zarr of uint8 with repeated blobs, slab by slab."""
    block, _ = blobs((128, 128, 128), seed=0)
    across = np.tile(block, (*(-(-edge // 128) for edge in shape[:2]), 1))[: shape[0], : shape[1]]
    with OmeZarrStore().create(str(path), Grid(shape, np.diag([0.5, 0.5, 0.5, 1.0]), "um"), np.dtype(np.uint8)) as sink:
        for begin in range(0, shape[2], 128):
            end = min(begin + 128, shape[2])
            sink.write(Box((0, 0, begin), (shape[0], shape[1], end)), across[:, :, : end - begin])
        sink.commit()


def make_model(path: Path, width: int) -> None:
    """Write a network of three convolutions with so many channels between them, or of one for 0, with its card."""
    if width:
        _write_convolutions(path, [1, width, width, CLASSES])
    else:
        write_convolution_onnx(path, classes=CLASSES)
    OnnxModelFiles().write(path, affine_card(1, CLASSES, tiling=_tiling()), path)


def _write_convolutions(path: Path, channels: Sequence[int]) -> None:
    """Write zero-padded convolutions of 3 x 3 x 3 voxels, with ReLU between them, as ONNX."""
    random, nodes, weights, name = np.random.RandomState(7), [], [], "image"
    for number, (given, made) in enumerate(pairwise(channels)):
        kernel = random.standard_normal((made, given, 3, 3, 3)).astype(np.float32) / np.sqrt(27 * given)
        kernel -= kernel.mean(axis=(1, 2, 3, 4), keepdims=True)
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"kernel{number}"))
        last = number == len(channels) - 2
        out = "scores" if last else f"sum{number}"
        nodes.append(helper.make_node("Conv", [name, f"kernel{number}"], [out], pads=[1] * 6))
        if not last:
            name = f"positive{number}"
            nodes.append(helper.make_node("Relu", [out], [name]))
    ends = [(end, ["n", count, "i", "j", "k"]) for end, count in (("image", channels[0]), ("scores", channels[-1]))]
    image, scores = (helper.make_tensor_value_info(end, TensorProto.FLOAT, shape) for end, shape in ends)
    graph = helper.make_graph(nodes, "convolutions", [image], [scores], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def _command(folder: Path, to: str, volume: str, *options: object) -> list[str]:
    (folder / to).mkdir(exist_ok=True)
    outputs = ("-o", f"{to}/mask.ome.zarr", "--statistics", f"{to}/labels.json", "--report", f"{to}/report.json")
    given = (f"{volume}.ome.zarr", *outputs, "-m", "model.onnx", "--runtime", "onnx", "--precision", "fp32", "--quiet")
    return [sys.executable, "-m", "voxport", "segment", *given, *map(str, options)]


def _run(folder: Path, to: str, volume: str, *options: object) -> dict[str, Any]:
    """Return seconds, stages, bytes and tiles of a run into a new folder. SystemExit if it fails."""
    return _together(folder, [(to, volume, *options)])


def _together(folder: Path, each: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """Run commands at the same time; the numbers are of the last, the seconds of all."""
    print(*(f"{volume} {' '.join(map(str, options))}" for _, volume, *options in each), sep="; ", file=sys.stderr)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VOXPORT_")}
    environment["VOXPORT_ONNX__ARENA"] = "true"  # else ONNX Runtime asks the system for memory at each tile
    for to, *_ in each:
        subprocess.run(["rm", "-rf", str(folder / to)], check=True)
    began = time.perf_counter()
    processes = [subprocess.Popen(_command(folder, *one), cwd=folder, env=environment) for one in each]
    to = folder / str(each[-1][0])
    seen = _Seen(to / "mask.ome.zarr.blocks")
    while any(process.poll() is None for process in processes):
        seen.look(processes[-1].pid)
        time.sleep(_SAMPLED_SECONDS)
    seconds = time.perf_counter() - began
    if any(process.returncode for process in processes):
        raise SystemExit("a run failed")
    report = json.loads((to / "report.json").read_text(encoding="utf-8"))
    tiles = seen.tiles if "--cluster" in each[-1] else report["tiles"]["count"]
    own = {"client_bytes": seen.client_bytes, "worker_bytes": seen.worker_bytes, "tiles": tiles}
    return {"seconds": seconds, "stages": report["seconds"], **own}


class _Seen:
    """What is seen of a run while it runs: peaks of resident memory, and tiles in the records of finished blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._records = folder / "inferred", dict[str, int]()
        self.client_bytes = self.worker_bytes = 0

    def look(self, pid: int) -> None:
        """Look at a process, its children and its folder now."""
        with suppress(psutil.Error):
            self.client_bytes = max(self.client_bytes, _peak_bytes(pid))
            children = [child.pid for child in psutil.Process(pid).children(recursive=True)]
            self.worker_bytes = max([self.worker_bytes, *map(_peak_bytes, children)])
        for path in self._folder.glob("*.json"):
            if path.name not in self._records:
                with suppress(OSError):
                    self._records[path.name] = json.loads(path.read_text(encoding="utf-8"))["tiles"]

    @property
    def tiles(self) -> int:
        """Tiles of all blocks."""
        return sum(self._records.values())


def _peak_bytes(pid: int) -> int:
    """Return the peak of resident memory of a process, 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _same(one: Path, other: Path) -> bool:
    """Return whether masks and statistics have the same bytes."""
    files = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (one / "mask.ome.zarr", other / "mask.ome.zarr")
    ]
    return files[0] == files[1] and (one / "labels.json").read_bytes() == (other / "labels.json").read_bytes()


def _median(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    stages = {name: statistics.median(run["stages"][name] for run in runs) for name in runs[0]["stages"]}
    found: dict[str, Any] = {
        "seconds": statistics.median(run["seconds"] for run in runs),
        "all_seconds": [run["seconds"] for run in runs],
        "stages": stages,
        "tiles": max(run["tiles"] for run in runs),
        "client_bytes": max(run["client_bytes"] for run in runs),
        "worker_bytes": max(run["worker_bytes"] for run in runs),
    }
    return found | ({"same": all(run["same"] for run in runs)} if "same" in runs[0] else {})


def _nothing(bench: Workbench, block: int) -> int:  # noqa: ARG001 - a BlockTask
    return block


def _seconds_a_task() -> float:
    """Return the seconds that the scheduler takes for a task that does nothing."""
    with DaskScheduler("local:1", 1) as scheduler:
        list(scheduler.map(_nothing, range(10)))
        began = time.perf_counter()
        list(scheduler.map(_nothing, range(_TASKS)))
        return (time.perf_counter() - began) / _TASKS


def _twice(blocks: TileBlocks) -> int:
    """Return the tiles more that are inferred where each block infers all tiles that reach its voxels."""
    plan, total = blocks.plan, 0
    for number in range(blocks.count):
        own, along = blocks.own(number), []
        for axis in range(3):
            starts = [start - plan.pad_before[axis] for start in plan.starts[axis]]
            along.append(sum(start < own.stop[axis] and start + plan.tile[axis] > own.start[axis] for start in starts))
        total += math.prod(along)
    return total - plan.tile_count


def calculated(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return what a volume of 10^12 voxels takes, as rows: what, how it is calculated, how much."""
    voxels, tile = _EDGE**3, _seconds_a_tile(found)
    grid = Grid((_EDGE, _EDGE, _EDGE), np.eye(4), "um")
    blocks = TileBlocks.of_edge(plan_tiles(grid.shape, _tiling()), _BLOCK)
    parts = [blocks.part(number)[1] for number in range(blocks.count)]
    shared = sum(
        math.prod(cell.box.shape)
        for number in range(blocks.count)
        for cell in blocks.cells(number)
        if len(cell.blocks) > 1
    )
    edge, whole = blocks.own(0).shape[0], Box.whole(grid.shape)
    surveyed, written = len(boxes_within(whole, CHUNK, 1024)), len(boxes_within(whole, CHUNK, edge))
    tasks, tiles = surveyed + 2 * (blocks.count + written), blocks.plan.tile_count
    read = sum(_whole_chunks(part) for part in parts)
    sums, pieces = 8 * CLASSES * shared, (voxels + shared) / 8
    own = {"hash the volume": _rate(found, "read"), "pyramid and hash of the mask": _rate(found, "write")}
    each = {name: _rate(found, key) / found["memory"]["workers"] for name, key in _SHARED.items()}
    parallel = tiles * tile / _WORKERS / 3600
    alone = {name: voxels / rate / 3600 for name, rate in own.items()}
    together = {name: voxels / rate / _WORKERS / 3600 for name, rate in each.items()}
    moved = (3 * voxels + read + 2 * sums + 2 * pieces + voxels) / _STORE_BYTES_A_SECOND / 3600
    total = parallel + sum(together.values()) + sum(alone.values()) + tasks * found["seconds_a_task"] / 3600
    return [
        ("blocks", f"{blocks.shape[0]} along each axis", f"{blocks.count}"),
        ("tiles", f"{len(blocks.plan.starts[0])} along each axis", f"{tiles / 1e6:.1f} million"),
        (
            "tasks of the scheduler",
            f"{surveyed} surveyed, {blocks.count} inferred, {blocks.count} joined, {written} written and measured",
            f"{tasks}, {tasks * found['seconds_a_task'] / 60:.0f} minutes at {1e3 * found['seconds_a_task']:.1f} ms",
        ),
        ("read by workers", "survey, blocks in whole chunks, measure", f"{(3 * voxels + read) / 1e12:.2f} TB"),
        ("read by the command", "hash, and pyramid of the mask", f"{2 * voxels / 1e12:.2f} TB"),
        (
            "sums between blocks",
            f"8 bytes x {CLASSES} classes x {shared / voxels:.3f} of the voxels, written and read once",
            f"{sums / 1e12:.2f} TB",
        ),
        ("labels between blocks", "a bit a voxel, inferred, and joined in seams", f"{pieces / 1e12:.2f} TB"),
        ("space beside the mask", "sums and labels", f"{(sums + pieces) / 1e12:.2f} TB"),
        (
            "the shared folder, at 1 GB/s",
            "all that workers read and write, before compression",
            f"{moved:.1f} h",
        ),
        (
            f"inference, {_WORKERS} workers of one processor",
            f"{tile:.3f} s a tile and processor",
            f"{parallel:.1f} h",
        ),
        *(
            (f"{name}, {_WORKERS} workers", f"{each[name] / 1e6:.0f} megavoxels a second and worker", f"{hours:.1f} h")
            for name, hours in together.items()
        ),
        *(
            (f"the command: {name}", f"{own[name] / 1e6:.0f} megavoxels a second", f"{hours:.1f} h")
            for name, hours in alone.items()
        ),
        ("in all", f"of it {sum(alone.values()) / total:.0%} in the command alone", f"{total:.1f} h"),
    ]


def _whole_chunks(box: Box) -> int:
    """Return the voxels of all chunks that a box meets."""
    ends = zip(box.start, box.stop, CHUNK, strict=True)
    return math.prod((-(-stop // chunk) - start // chunk) * chunk for start, stop, chunk in ends)


def _seconds_a_tile(found: Mapping[str, Any]) -> float:
    """Return the seconds of a tile in blocks, with its share of joining and writing, times processors."""
    runs = [run for name, run in found["runs"].items() if name.startswith("1 worker")]
    return float(runs[-1]["stages"]["score"] * found["processors"] / found["tiles"])


def _rate(found: Mapping[str, Any], stage: str) -> float:
    """Return the voxels a second of a stage, from two volumes: without its start, which is 95 % of it at most."""
    small, large = found["memory"]["sizes"]
    voxels = math.prod(large["shape"]) - math.prod(small["shape"])
    return voxels / float(max(large["stages"][stage] - small["stages"][stage], 0.05 * large["stages"][stage]))


def _blocked(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: run for name, run in found["runs"].items() if "worker" in name}


def section(found: Mapping[str, Any]) -> str:
    """Return the measurements and the calculation as Markdown."""
    x, y, z = found["shape"]
    one, loop = found["runs"]["one process"]["seconds"], found["runs"]["two processes"]["seconds"]
    rows = [("one process, without blocks", f"{one:.1f}", "", "", "", "", "")]
    for name, run in _blocked(found).items():
        per = {"1": one, "2": loop}.get(name[0])
        rows.append(
            (
                name,
                f"{run['seconds']:.1f}",
                "" if per is None else f"{run['seconds'] / per:.2f}",
                f"{run['blocks']}",
                f"{run['tiles'] - found['tiles']}",
                f"{run['twice'] / found['tiles']:.0%}",
                f"{run['worker_bytes'] / 1e9:.2f}",
            )
        )
    rows.append(("two processes, half of the volume each", f"{loop:.1f}", "", "", "", "", ""))
    heads = ("", "seconds", "ratio", "blocks", "tiles too many", "if inferred twice", "GB of a worker")
    sizes = " and ".join(
        f"{size['worker_bytes'] / 1e9:.2f} GB for {' x '.join(map(str, size['shape']))}"
        for size in found["memory"]["sizes"]
    )
    quick = "" if x * y * z >= 2**29 else "**A small volume: a test that all parts run, not how fast.**\n\n"
    equal = "All masks and statistics are equal" if found["passed"] else "**Masks or statistics differ**"
    return "\n\n".join(
        (
            f"{quick}{x} x {y} x {z} voxels of uint8, {found['tiles']} tiles of {found['patch']}, overlap "
            f"{found['overlap']:g}, {_network(found)}; {found['machine']['processors']}, medians of "
            f"{found['repeats']} (`python benchmarks/cluster.py`; [cluster.json](cluster.json)). All runs have the "
            "same processors. The ratio is to one process for one worker, and to two processes for two. *Inferred "
            "twice* is what blocks that do not exchange sums would infer more.",
            _table(heads, rows),
            f"{equal}, byte for byte. With `--memory {found['memory']['limit']}` a worker took {sizes} voxels.",
            "## A volume of 10^12 voxels on 100 workers, on paper\n"
            f"{_EDGE}^3 voxels of uint8 in chunks of {' x '.join(map(str, CHUNK))}, `--block {_BLOCK}`, and the "
            "network, seconds and rates measured above; a larger network takes longer in inference alone.",
            _table(("", "from", ""), calculated(found)),
        )
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *("---:" for _ in heads[1:])] if len(heads) > 3 else ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
