"""The smallest overlap whose labels do not change: labels at each overlap against those at the largest.

Two models: the bundled one on its sample, and a small convolutional network, whose context is no wider than the halo
that half an overlap leaves it, on smooth noise: there, labels in halo blending are the same at any overlap that is wide
enough. Where a tile's normalisation sees the whole tile, as the bundled model's does, they differ a little at each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import yaml
from material import machine, saved, smooth_noise
from voxport.container import wired
from voxport.services.prepare import RunOptions
from voxport.services.segment import Outputs
from voxport.testing.convolution import write_convolution_onnx
from voxport.testing.progress import RecordingProgress

OVERLAPS = (0.25, 0.375, 0.5, 0.625, 0.75)
CARD = {
    "schema": "voxport/model-card/1",
    "name": "convolution",
    "version": "1.0.0",
    "input": {"channels": [{"name": "image"}], "intensity": [{"shift_scale": [0, 1 / 255]}]},
    "tiling": {"patch": [64, 64, 32]},
    "output": {"activation": "softmax", "labels": [{"value": 1, "name": "bright"}]},
}


def main() -> None:
    """Measure each network, and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--overlaps", type=float, nargs="+", default=OVERLAPS)
    parser.add_argument("--volume", type=Path, help="for the bundled model, in place of its sample")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    found: dict[str, Any] = {"machine": machine()}
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_convolution_onnx(folder / "convolution.onnx", radius=3)
        (folder / "convolution.card.yaml").write_text(yaml.safe_dump(CARD))
        noise = saved(folder / "noise.nii.gz", smooth_noise((192, 160, 96)))
        sample = wanted.volume or Path(wired().sample())
        found["bundled, gaussian"] = measured(folder, sample, None, "gaussian", wanted)
        found["convolution, gaussian"] = measured(folder, noise, str(folder / "convolution.onnx"), "gaussian", wanted)
        found["convolution, halo"] = measured(folder, noise, str(folder / "convolution.onnx"), "halo", wanted)
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(found, indent=2) + "\n")


def measured(
    folder: Path, volume: Path, model: str | None, blending: str, wanted: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row an overlap, the largest first, as the others are compared with its labels."""
    container = wired()
    opener, segment = container.open_model(), container.segment()
    loaded = opener.load(opener.find(model), wanted.runtime, wanted.precision)
    print(f"\n{loaded.model.card.reference}, {blending}, {loaded.runtime.name} {loaded.runtime.precision}")
    print(f"{'overlap':>8}{'tiles':>7}{'seconds':>9}{'agreement':>11}{'Dice':>9}{'voxels that differ':>20}")
    rows: list[dict[str, Any]] = []
    reference = None
    for overlap in sorted(wanted.overlaps, reverse=True):
        mask = folder / "mask.nii.gz"
        # the card's tile, named: a tuned one is another
        patch = loaded.model.card.tiling.patch
        options = RunOptions(overlap=overlap, patch=patch, blending=blending)  # type: ignore[arg-type]
        began = time.perf_counter()
        done = segment([str(volume)], loaded, Outputs(str(mask)), options, RecordingProgress())
        seconds = time.perf_counter() - began
        labels = np.asarray(nib.load(mask).dataobj)
        reference = labels if reference is None else reference
        differ, both = int(np.sum(labels != reference)), int(np.sum((labels > 0) & (labels == reference)))
        size = int(np.sum(labels > 0) + np.sum(reference > 0))
        rows.append(
            {
                "overlap": overlap,
                "tiles": done.prepared.plan.tile_count,
                "seconds": seconds,
                "label_agreement": 1 - differ / labels.size,
                "dice": 2 * both / size if size else 1.0,
                "voxels_that_differ": differ,
            }
        )
        row = rows[-1]
        print(
            f"{overlap:8.3f}{row['tiles']:7}{seconds:9.2f}{row['label_agreement']:11.6f}{row['dice']:9.5f}{differ:20}"
        )
        sys.stdout.flush()
    return rows


if __name__ == "__main__":
    main()
