"""Compare two model files of one kind on one volume, from .nii.gz to .nii.gz: seconds in each runtime, and as tuned.

Models stay loaded, and run in turns; medians are compared. The second edition of the bundled model is in the history:
``git show 759393a:src/bundled/two-photon-vessels-0.2.1.onnx > old.onnx``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from material import machine, tiled_sample
from voxport.application import Application
from voxport.domain.errors import UsageError
from voxport.domain.run import Outputs, RunOptions
from voxport.services.models.loading import LoadedModel
from voxport.testing.progress import RecordingProgress

WAYS = {"onnx fp32": ("onnx", "fp32"), "openvino fp32": ("openvino", "fp32"), "openvino bf16": ("openvino", "bf16")}
SHAPE = (512, 512, 32)


def main() -> None:
    """Print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="?", help="the bundled model by default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = _measured(Path(folder), wanted.old, wanted.new, wanted.repeats)
    for way, seconds in found["seconds"].items():
        print(f"{way:24}" + "".join(f"{name} {value:8.3f} s   " for name, value in seconds.items()))
    for way, ratio in found["ratios"].items():
        print(f"{way:40}{ratio:6.2f} times as fast")
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _measured(folder: Path, old: Path, new: Path | None, repeats: int) -> dict[str, Any]:
    application = Application.build(tunings_dir=folder / "tunings")
    volume = tiled_sample(folder / "volume.nii.gz", application.sample, SHAPE)
    models = {"old": application.find_model(str(old)), "new": application.find_model(None if new is None else str(new))}
    tuned = {name: application.tune(model, [application.sample], RecordingProgress()) for name, model in models.items()}
    loaded: dict[tuple[str, str], LoadedModel] = {}
    for name, model in models.items():
        for way, (runtime, precision) in WAYS.items():
            try:
                loaded[(way, name)] = application.load_model(model, runtime=runtime, precision=precision)
            except UsageError:  # this processor lacks the precision
                continue
        loaded[("as tuned", name)] = application.load_model(model)
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in loaded}
    for _ in range(repeats + 1):
        for key, one in loaded.items():
            began = time.perf_counter()
            outputs = Outputs(str(folder / "mask.nii.gz"))
            application.segment([str(volume)], one, outputs, RunOptions(), RecordingProgress())
            taken[key].append(time.perf_counter() - began)
    seconds: dict[str, dict[str, float]] = {}
    for (way, name), values_taken in taken.items():  # the first run warms up
        seconds.setdefault(way, {})[name] = statistics.median(values_taken[1:])
    best = min(found["new"] for found in seconds.values())
    ratios = {f"new in {way}, old in {way}": found["old"] / found["new"] for way, found in seconds.items()}
    ratios["new in its fastest way, old in openvino fp32"] = seconds["openvino fp32"]["old"] / best
    choices = {name: str(one.choice) for name, one in tuned.items()}
    return {"machine": machine(), "seconds": seconds, "ratios": ratios, "tuned": choices}
