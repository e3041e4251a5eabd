"""Measure where the time of a network goes in OpenVINO, layer by layer, and how much of the processor it uses.

Each network is exported with almost random weights, on which its speed does not depend, and infers one patch: in fp32
as its file has it, then as voxport loads it in fp32, bf16 and int8; and two at once in fp32, each with half of the
threads. Seconds are medians of a patch without counters, in turns; shares are of OpenVINO's counters in one more run.
``--json docs/layers/PROCESSOR.json`` adds tables to docs/performance.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from contenders import flops, peak
from material import AVX2_ALONE, blobs, machine
from networks import NETWORKS, export
from voxport.adapters.group_norms import read_without_reshapes
from voxport.adapters.quantisers.onnx import OnnxQuantiser
from voxport.adapters.resources.local import LocalResources
from voxport.adapters.runtimes.openvino import openvino
from voxport.application import Application

BUNDLED = "bundled"
# OpenVINO's names of layers whose operations are counted
_COUNTED = ("Convolution", "ConvolutionBackpropData", "FullyConnected", "MatMul", "ScaledDotProductAttention")
_LEAST_SHARE = 0.02


def main() -> None:
    """Measure each network and print a table."""
    wanted = _arguments()
    if wanted.avx2:
        os.environ |= AVX2_ALONE
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "patch": wanted.patch,
        "threads": wanted.threads,
        "repeats": wanted.repeats,
        "networks": {},
    }
    precisions = ["fp32"] if wanted.avx2 else ["fp32", "bf16"]
    found["peak"] = {name: peak({"threads": wanted.threads}, name)("")["gflops_per_second"] for name in precisions}
    for name in wanted.networks:
        with TemporaryDirectory() as folder:
            found["networks"][name] = _measured(name, Path(folder), found)
        _show(name, found["networks"][name])
        if wanted.json is not None:
            wanted.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=(*NETWORKS, BUNDLED), default=[*NETWORKS, BUNDLED])
    parser.add_argument("--patch", type=int, nargs=3, default=[96, 96, 64])
    parser.add_argument("--threads", type=int, default=LocalResources().processors())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--avx2", action="store_true", help="let oneDNN and PyTorch use AVX2 alone")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _measured(name: str, folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Return GFLOP of a patch, and each way's seconds and shares of layers."""
    application = Application.build(models_dir=folder)
    if name != BUNDLED:
        export(name, found["patch"], folder, steps=2, threads=found["threads"])
    model = application.find_model(None if name == BUNDLED else str(folder / "network.onnx"))
    spec = {"network": name, "patch": found["patch"], "checkpoint": str(folder / "network.pt")}
    spec |= {"model_file": str(model.path)}
    image = blobs(tuple(found["patch"]), seed=0)[0].astype(np.float32)[None, None] / np.float32(255)
    stored = model.path.read_bytes()
    loaded = read_without_reshapes(model.path) or stored
    graphs = {
        "fp32, as stored": (stored, "f32", 1),
        "fp32": (loaded, "f32", 1),
        "fp32, two at once": (loaded, "f32", 2),
    }
    graphs |= {"bf16": (stored, "bf16", 1)} if "bf16" in found["peak"] else {}
    if name != BUNDLED:  # that is stored in integers
        next(iter(OnnxQuantiser().quantise(model, [image], folder / "int8.onnx")))
        graphs["int8"] = (folder / "int8.onnx").read_bytes(), "f32", 1
    seconds = _seconds({way: _compiled(*graph, found["threads"]) for way, graph in graphs.items()}, image, found)
    return {
        "gflops": flops(spec, "")("")["gflops_a_tile"],
        "ways": {
            way: {"seconds": seconds[way], "layers": _layers(_compiled(*graph, found["threads"], count=True), image)}
            for way, graph in graphs.items()
        },
    }


def _compiled(graph: bytes, hint: str, streams: int, threads: int, *, count: bool = False) -> list[Any]:
    """Return a request for each of the streams, which share the threads."""
    core = openvino().Core()
    config = {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": str(streams), "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(core.read_model(graph), "CPU", config | {"PERF_COUNT": count})
    return [compiled.create_infer_request() for _ in range(streams)]


def _seconds(requests: dict[str, list[Any]], image: Any, found: dict[str, Any]) -> dict[str, float]:
    taken: dict[str, list[float]] = {way: [] for way in requests}
    for turn in range(found["repeats"] + 1):
        for way, at_once in requests.items():
            began = time.perf_counter()
            for request in at_once:
                request.start_async([image])
            for request in at_once:
                request.wait()
            if turn:
                taken[way].append((time.perf_counter() - began) / len(at_once))
    return {way: statistics.median(each) for way, each in taken.items()}


def _layers(requests: list[Any], image: Any) -> dict[str, float]:
    """Return the share of the time of each kind of layer, the largest first; small ones together."""
    request = requests[0]
    for _ in range(2):
        request.infer([image])
    times: Counter[str] = Counter()
    for layer in request.profiling_info:
        times["products" if layer.node_type in _COUNTED else layer.node_type] += layer.real_time.total_seconds()
    whole = sum(times.values())
    shares = {kind: seconds / whole for kind, seconds in times.most_common() if seconds / whole >= _LEAST_SHARE}
    return shares | {"other": 1 - sum(shares.values())}


def _show(name: str, entry: dict[str, Any]) -> None:
    for way, measured in entry["ways"].items():
        shares = ", ".join(f"{kind} {share:.0%}" for kind, share in measured["layers"].items())
        print(f"{name}, {way}: {measured['seconds']:.3f} s; {shares}", flush=True)


if __name__ == "__main__":
    main()
