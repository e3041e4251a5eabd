"""Measure smaller overlaps and volumes that are mostly background.

Overlaps: compares labels with those at the largest overlap, for two models: the bundled one on its mirrored sample, and
a small convolutional network on smooth noise, whose receptive field fits in the halo of half an overlap. Halo blending
of the second gives equal labels at every sufficient overlap. The bundled model normalises over the whole tile, so its
labels differ slightly at each overlap.

Background: the same volume, zero except for a part. Constant tiles are not inferred again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import yaml
from comparing import same_labels
from material import saved, smooth_noise
from numpy.typing import NDArray
from voxport.application import Application
from voxport.domain.run import Outputs, RunOptions
from voxport.services.models.loading import LoadedModel
from voxport.testing.convolution import write_convolution_onnx
from voxport.testing.progress import RecordingProgress

OVERLAPS = (0.0, 0.25, 0.375, 0.5, 0.625, 0.75)
SHAPE = (1024, 1024, 16)
KEPT = (320, 320)
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
    parser.add_argument("--volume", type=Path, help="volume for the bundled model instead of its mirrored sample")
    parser.add_argument("--quick", action="store_true", help="a small volume, as a test")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    with TemporaryDirectory() as name:
        bench = Bench(Path(name))
        write_convolution_onnx(bench.folder / "convolution.onnx", radius=3)
        (bench.folder / "convolution.card.yaml").write_text(yaml.safe_dump(CARD), encoding="utf-8")
        bundled = bench.load(None, wanted.runtime, wanted.precision)
        plain = bench.load(str(bench.folder / "convolution.onnx"), wanted.runtime, wanted.precision)
        noise = saved(bench.folder / "noise.nii.gz", smooth_noise((192, 160, 96)))
        values = mirrored((512, 512, 16) if wanted.quick else SHAPE)
        volume = wanted.volume or saved(bench.folder / "mirrored.nii.gz", values)
        overlaps = sorted(wanted.overlaps, reverse=True)
        found: dict[str, Any] = {
            "overlaps": [
                bench.overlaps(bundled, volume, "gaussian", overlaps),
                bench.overlaps(plain, noise, "gaussian", overlaps),
                bench.overlaps(plain, noise, "halo", [overlap for overlap in overlaps if overlap > 0]),
            ],
            "background": bench.background(bundled, values),
        }
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def mirrored(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return the bundled sample extended by its mirror images."""
    values = np.asarray(nib.load(Application.build().sample).dataobj)[:, :, : shape[2]]
    more = [(0, max(0, edge - known)) for edge, known in zip(shape, values.shape, strict=True)]
    return np.pad(values, more, mode="reflect")


class Bench:
    """Segments volumes with resident models; writes files to a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._application = Application.build()

    def load(self, model: str | None, runtime: str, precision: str) -> LoadedModel:
        """Load a model by name or path; None is the bundled one."""
        found = self._application.find_model(model)
        return self._application.load_model(found, runtime=runtime, precision=precision)

    def overlaps(self, loaded: LoadedModel, volume: Path, blending: str, overlaps: list[float]) -> dict[str, Any]:
        """Return a row for each overlap, compared with the first, the largest."""
        description = _description(loaded) | {"blending": blending, "shape": list(nib.load(volume).shape)}
        print(f"\n{description}\n{'overlap':>8}{'tiles':>7}{'seconds':>9}{'agreement':>11}{'Dice':>9}{'differ':>10}")
        rows: list[dict[str, Any]] = []
        reference = None
        for overlap in overlaps:
            row, labels = self._run(loaded, volume, overlap=overlap, blending=blending)
            reference = labels if reference is None else reference
            differ, same = int(np.sum(labels != reference)), same_labels(reference, labels)
            agreement, dice = same["label_agreement"], min(same["dice"].values())
            found = {"overlap": overlap, "label_agreement": agreement, "dice": dice, "voxels_that_differ": differ}
            rows.append(row | found)
            print(f"{overlap:8.3f}{row['tiles']:7}{row['seconds']:9.2f}", end="")
            print(f"{agreement:11.6f}{dice:9.5f}{differ:10}", flush=True)
        return description | {"rows": rows}

    def background(self, loaded: LoadedModel, values: NDArray[np.uint8]) -> dict[str, Any]:
        """Return tiles, repeated tiles and seconds of a full volume and of one that is zero except for a corner."""
        empty = np.zeros_like(values)
        empty[: KEPT[0], : KEPT[1]] = values[: KEPT[0], : KEPT[1]]
        kept = KEPT[0] * KEPT[1] / (values.shape[0] * values.shape[1])
        rows = {}
        for name, array in (("full", values), ("mostly background", empty)):
            row, _ = self._run(loaded, saved(self.folder / "volume.nii.gz", array), overlap=0.5, blending="gaussian")
            rows[name] = row
            print(f"{name}: {row}", flush=True)
        return _description(loaded) | {"shape": list(values.shape), "overlap": 0.5, "kept": kept, "rows": rows}

    def _run(
        self, loaded: LoadedModel, volume: Path, *, overlap: float, blending: str
    ) -> tuple[dict[str, Any], NDArray[Any]]:
        mask = self.folder / "mask.nii.gz"
        # The card's patch explicitly, not a tuned one.
        options = RunOptions(overlap=overlap, patch=loaded.model.card.tiling.patch, blending=blending)  # type: ignore[arg-type]
        began = time.perf_counter()
        done = self._application.segment([str(volume)], loaded, Outputs(str(mask)), options, RecordingProgress())
        seconds = time.perf_counter() - began
        row = {"tiles": done.prepared.plan.tile_count, "repeated": done.repeated_tiles, "seconds": seconds}
        return row, np.asarray(nib.load(mask).dataobj)


def _description(loaded: LoadedModel) -> dict[str, str]:
    runtime = loaded.runtime
    return {"model": loaded.model.card.reference, "runtime": runtime.name, "precision": runtime.precision}


if __name__ == "__main__":
    main()
