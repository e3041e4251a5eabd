"""Measure whether the places of most uncertainty hold the errors of a model, and what ``--uncertainty`` costs.

Volumes are pairs NAME_image.nii.gz and NAME_label.nii.gz. All their places are ranked, and the first tenth of their
voxels taken: which share of the wrong voxels is in it? A tenth by chance. Beside it: places ranked by margin, slices,
single voxels by entropy, places ranked by how much border the mask has in them, and the best ranking that there is,
which knows the truth. A coarse error is more than one voxel in plane away from the border of the truth.

Time is that of a run on 512 x 512 x 32 voxels, from .nii.gz to .nii.gz, with and without, in turns.
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
from typing import Any

import nibabel as nib
import numpy as np
from accuracy import pairs_in
from material import machine, tiled_sample
from numpy.typing import NDArray
from scipy import ndimage
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.application import Application
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.labels.ranking import UncertaintyRanking
from voxport.domain.run import Outputs, RunOptions
from voxport.testing.progress import RecordingProgress

SHARE = 0.1
SHAPE = (512, 512, 32)
Mask = NDArray[np.bool_]


def main() -> None:
    """Print tables, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default="two-photon-vessels")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "errors": {}}
    for folder in wanted.folders:
        cases = {name: _errors(*files, wanted.model) for name, files in pairs_in(folder).items()}
        cases["mean"] = {
            key: float(np.mean([case[key] for case in cases.values()])) for key in next(iter(cases.values()))
        }
        found["errors"][folder.name] = cases
        for name, case in cases.items():
            print(f"{name:34}" + "".join(f"  {key} {value:.3f}" for key, value in case.items()), flush=True)
    found["seconds"] = _seconds(wanted.model, wanted.repeats)
    for way, taken in found["seconds"].items():
        print(f"{way:10}" + "".join(f"  {key} {value:.3f}" for key, value in taken.items()))
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _errors(image: Path, label: Path, model: str) -> dict[str, float]:
    """Return the share of wrong voxels, and how much of them the first tenth of each ranking holds."""
    mask, (entropy, margin, _), report = _segmented(image, model)
    overlapping, (_, _, disagreement), _ = _segmented(image, model, "--blending", "gaussian")
    with NiftiStore().open(str(label)) as source:
        truth, grid = source.read(Box.whole(source.grid.shape))[0] > 0, source.grid
    wrong = mask != truth
    coarse = wrong & ~_border(truth)
    places = _places(entropy, grid)
    listed = [_place_of(spot["voxel"], places) for spot in report["statistics"]["uncertainty"]["places"]]
    slices = [Box.whole(grid.shape).with_range(2, k, k + 1) for k in np.argsort(-entropy.mean(axis=(0, 1)))]
    by_voxel = np.argsort(100 - entropy, axis=None, kind="stable")
    best = sorted(places, key=lambda box: -wrong[box.slices].mean())
    return {
        "wrong": float(wrong.mean()),
        "places": _first(places, wrong),
        "by margin": _first(_places((100 - margin).astype(np.uint8), grid), wrong),
        "by disagreement, gaussian": _first(_places(disagreement, grid), overlapping != truth),
        "by mask border": _first(_places(100 * _border(mask).astype(np.uint8), grid), wrong),
        "slices": _first(slices, wrong),
        "voxels": float(wrong.ravel()[by_voxel[: wrong.size // 10]].sum() / wrong.sum()),
        "best places": _first(best, wrong),
        "coarse": float(coarse.mean()),
        "coarse, places": _first(places, coarse),
        "coarse, by mask border": _first(_places(100 * _border(mask).astype(np.uint8), grid), coarse),
        "wrong in the 20 listed": float(np.mean([wrong[box.slices].mean() for box in listed])),
    }


def _segmented(image: Path, model: str, *more: str) -> tuple[Mask, NDArray[np.uint8], dict[str, Any]]:
    """Return mask, map and report of a run."""
    with TemporaryDirectory() as folder:
        names = {name: str(Path(folder) / f"{name}.nii") for name in ("mask", "uncertainty", "report")}
        options = ["-o", names["mask"], "--uncertainty", names["uncertainty"], "--report", f"{names['report']}.json"]
        command = [sys.executable, "-m", "voxport", "segment", str(image), "-m", model, *options, "--quiet", *more]
        subprocess.run(command, check=True)
        mask: Mask = np.asarray(nib.load(names["mask"]).dataobj) > 0
        levels = np.moveaxis(np.asarray(nib.load(names["uncertainty"]).dataobj), -1, 0)
        return mask, levels, json.loads(Path(f"{names['report']}.json").read_text(encoding="utf-8"))


def _places(levels: NDArray[np.uint8], grid: Grid) -> list[Box]:
    ranking = UncertaintyRanking(grid)
    ranking.add(Box.whole(grid.shape), levels[np.newaxis])
    return [box for box, _ in ranking.places()]


def _place_of(voxel: list[int], places: list[Box]) -> Box:
    inside = (box for box in places if all(a <= at < b for a, at, b in zip(box.start, voxel, box.stop, strict=True)))
    return next(inside)


def _first(boxes: list[Box], wrong: Mask) -> float:
    """Return the share of wrong voxels in the first tenth of the voxels; of the last box, so much as belongs to it."""
    left, found = SHARE * wrong.size, 0.0
    for box in boxes:
        inside = wrong[box.slices]
        found += min(1.0, left / inside.size) * float(inside.sum())
        if (left := left - inside.size) <= 0:
            break
    return found / float(wrong.sum())


def _border(mask: Mask) -> Mask:
    """Return the voxels within one voxel in plane of a border of the mask, on both sides."""
    plane = np.ones((3, 3, 1), bool)
    border: Mask = ndimage.binary_dilation(mask, plane) & ~ndimage.binary_erosion(mask, plane, border_value=1)
    return border


def _seconds(model: str, repeats: int) -> dict[str, dict[str, float]]:
    """Return seconds without and with ``--uncertainty``, of the command and of a model that stays loaded."""
    application = Application.build()
    ways: dict[str, dict[str, list[float]]] = {way: {"without": [], "with": []} for way in ("command", "loaded")}
    with TemporaryDirectory() as name, application.loaded_segmenter(model) as segmenter:
        folder = Path(name)
        volume = tiled_sample(folder / "volume.nii.gz", application.sample, SHAPE)
        mask, map_file = str(folder / "mask.nii.gz"), str(folder / "uncertainty.nii.gz")
        for _ in range(repeats + 1):
            for case, more in (("without", None), ("with", map_file)):
                command = [sys.executable, "-m", "voxport", "segment", str(volume), "-m", model, "-o", mask, "--quiet"]
                began = time.perf_counter()
                subprocess.run([*command, *(() if more is None else ("--uncertainty", more))], check=True)
                ways["command"][case].append(time.perf_counter() - began)
                began = time.perf_counter()
                outputs = Outputs(mask, uncertainty=more)
                segmenter.run([str(volume)], outputs, RunOptions(), RecordingProgress())
                ways["loaded"][case].append(time.perf_counter() - began)
    found = {}
    for way, taken in ways.items():  # the first turn warms up
        medians, least = (
            {case: choose(seconds[1:]) for case, seconds in taken.items()} for choose in (statistics.median, min)
        )
        ratios = {"ratio": medians["with"] / medians["without"], "ratio of least": least["with"] / least["without"]}
        found[way] = {**medians, **{f"{case}, least": value for case, value in least.items()}, **ratios}
    return found


if __name__ == "__main__":
    main()
