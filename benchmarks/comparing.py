"""Evaluate the answers of speed.py's contenders: medians, ratios, agreement with fp32, shares of the bare loop."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

REFERENCE = "monai:eager"
# labels are compared with those of the first of these masks that is there
FULL_PRECISION = ("onnx-fp32.nii.gz", "openvino-fp32.nii.gz")
# differences of the Dice against truth up to this are none
EQUAL_DICE = 0.0005
Found = dict[str, list[dict[str, Any]]]


def compared(found: Found, folder: Path, spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return medians, ratios to MONAI, label agreement with voxport in fp32, and shares of the bare loop.

    Where the truth is known, also the Dice against it.
    """
    medians = {
        kind: statistics.median(a["seconds"] for a in answers) for kind, answers in found.items() if kind != "flops:"
    }
    gflops = found["flops:"][0]["gflops_a_tile"] if "flops:" in found else None
    results: dict[str, dict[str, Any]] = {}
    exact = next(_labels(folder / name) for name in FULL_PRECISION if (folder / name).exists())
    truth = _labels(folder / spec["truth"]) if "truth" in spec else None
    for kind, answers in found.items():
        if kind == "flops:":
            results[kind] = {"gflops_a_tile": gflops}
            continue
        last = answers[-1]
        entry: dict[str, Any] = {"seconds": medians[kind], "all_seconds": [a["seconds"] for a in answers]}
        entry |= {
            name: last[name] for name in ("peak_bytes", "tiles", "tiles_scored", "tile", "scored_with") if name in last
        }
        if "mask" in last:
            entry["ratio"] = medians[REFERENCE] / medians[kind]
            labels = _labels(folder / last["mask"])
            entry |= same_labels(exact, labels)
            if truth is not None:
                entry["dice_of_truth"] = min(same_labels(truth, labels)["dice"].values())
        floor = kind.replace("voxport:", "bare:")
        if kind != floor and floor in medians:
            entry["share_of_floor"] = medians[floor] / medians[kind]
            entry["stages"] = _medians([a["stages"] for a in answers])
            network = statistics.median(a["network_seconds"] for a in answers)
            entry |= {"network_seconds": network, "share_outside_network": 1 - network / medians[kind]}
        if kind.startswith("bare:") and gflops:
            entry["gflops_per_second"] = gflops * last["tiles"] / medians[kind]
            entry["mvoxels_per_second"] = float(np.prod(last["tile"])) * last["tiles"] / medians[kind] / 1e6
            best = max((a["gflops_per_second"] for a in found.get(f"peak:{_peak_of(kind)}", [])), default=None)
            if best and spec["patch"] == last["tile"]:
                entry["share_of_peak"] = entry["gflops_per_second"] / best
        if kind.startswith("peak:"):
            entry["gflops_per_second"] = max(a["gflops_per_second"] for a in answers)
        results[kind] = entry
    return results


def at_equal_dice(contenders: dict[str, dict[str, Any]]) -> tuple[str, dict[str, Any]] | None:
    """Return the fastest run of voxport whose Dice against truth is MONAI's or better, if truth is known."""
    least = contenders.get(REFERENCE, {}).get("dice_of_truth")
    if least is None:
        return None
    ways = [
        (kind, entry)
        for kind, entry in contenders.items()
        if kind.startswith("voxport:") and entry["dice_of_truth"] >= least - EQUAL_DICE
    ]
    return min(ways, key=lambda way: float(way[1]["seconds"]), default=None)


def _peak_of(kind: str) -> str:
    return "fp32" if kind.endswith("fp32") else "bf16"


def _medians(stages: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(s[name] for s in stages) for name in stages[0]}


def _labels(mask: Path) -> NDArray[Any]:
    return np.asarray(nib.load(mask).dataobj)


def same_labels(one: NDArray[Any], other: NDArray[Any]) -> dict[str, Any]:
    """Return the share of voxels with equal labels, and the Dice of each label."""
    dice = {}
    for label in range(1, 1 + int(max(one.max(), other.max(), 1))):
        both, size = np.sum((one == label) & (other == label)), np.sum(one == label) + np.sum(other == label)
        dice[str(label)] = float(2 * both / size) if size else 1.0
    return {"label_agreement": float((one == other).mean()), "dice": dice}
