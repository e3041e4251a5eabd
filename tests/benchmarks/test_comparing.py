"""What the speed benchmark makes of its contenders' answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from benchmarks.comparing import at_equal_dice, compared

MASK = np.zeros((4, 4, 4), np.uint8)
MASK[:2] = 1


def answer(seconds: float, **more: Any) -> dict[str, Any]:
    return {"seconds": seconds, "peak_bytes": 1000, **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    other = MASK.copy()
    other[2, 0, 0] = 1
    for name, values in (("onnx-fp32", MASK), ("openvino-bf16", other), ("monai-eager", MASK)):
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / f"{name}.nii.gz")
    return tmp_path


def voxport(name: str, seconds: float) -> dict[str, Any]:
    stages = {"read": 1.0, "score": seconds - 1.0}
    return answer(seconds, mask=f"{name}.nii.gz", stages=stages, network_seconds=seconds / 2, tiles=8, tile=[2, 2, 2])


@pytest.fixture
def told(folder: Path) -> dict[str, dict[str, Any]]:
    bare = {"tiles": 8, "tile": [2, 2, 2], "tiles_scored": 4}
    found = {
        "monai:eager": [answer(s, mask="monai-eager.nii.gz") for s in (30.0, 10.0, 12.0)],
        "voxport:onnx-fp32": [voxport("onnx-fp32", 8.0)],
        "voxport:openvino-bf16": [voxport("openvino-bf16", 4.0)],
        "bare:openvino-bf16": [answer(3.0, **bare)],
        "peak:bf16": [answer(1.0, gflops_per_second=16.0)],
        "flops:": [{"gflops_a_tile": 3.0}],
    }
    return compared(found, folder, {"patch": [2, 2, 2]})


def test_medians_count(told: dict[str, dict[str, Any]]) -> None:
    assert told["monai:eager"]["seconds"] == 12.0
    assert told["monai:eager"]["all_seconds"] == [30.0, 10.0, 12.0]


def test_ratios_are_to_monai(told: dict[str, dict[str, Any]]) -> None:
    assert told["monai:eager"]["ratio"] == 1.0
    assert told["voxport:openvino-bf16"]["ratio"] == 3.0


def test_labels_are_compared_with_those_of_fp32(told: dict[str, dict[str, Any]]) -> None:
    assert told["monai:eager"]["dice"] == {"1": 1.0}
    assert told["voxport:openvino-bf16"]["dice"] == {"1": pytest.approx(2 * 32 / (32 + 33))}
    assert told["voxport:openvino-bf16"]["label_agreement"] == pytest.approx(63 / 64)


def test_the_floor_is_the_bare_loop_of_the_same_way(told: dict[str, dict[str, Any]]) -> None:
    assert told["voxport:openvino-bf16"]["share_of_floor"] == 0.75
    assert told["voxport:openvino-bf16"]["share_outside_network"] == 0.5
    assert "share_of_floor" not in told["voxport:onnx-fp32"]


def test_a_bare_loop_is_beside_the_processors_peak(told: dict[str, dict[str, Any]]) -> None:
    assert told["bare:openvino-bf16"]["gflops_per_second"] == 8.0
    assert told["bare:openvino-bf16"]["share_of_peak"] == 0.5


def test_masks_without_labels_agree_wholly(folder: Path) -> None:
    for name in ("onnx-fp32", "monai-eager"):
        nib.save(nib.Nifti1Image(np.zeros_like(MASK), np.eye(4)), folder / f"{name}.nii.gz")
    found = {"monai:eager": [answer(1.0, mask="monai-eager.nii.gz")]}
    assert compared(found, folder, {"patch": [2, 2, 2]})["monai:eager"]["dice"] == {"1": 1.0}


def test_the_fastest_way_with_monais_dice_of_truth_is_found(folder: Path) -> None:
    truth = MASK.copy()
    truth[2, 0] = 1
    nib.save(nib.Nifti1Image(truth, np.eye(4)), folder / "truth.nii.gz")
    worse, better = MASK.copy(), MASK.copy()
    worse[1, 0, 0] = 0
    better[2, 0, :2] = 1
    ways = {"voxport:auto@0": worse, "voxport:auto@0.25": better, "voxport:auto": better}
    for seconds, mask in enumerate(ways.values(), start=1):
        nib.save(nib.Nifti1Image(mask, np.eye(4)), folder / f"{seconds}.nii.gz")
    found = {"monai:eager": [answer(9.0, mask="monai-eager.nii.gz")]}
    found |= {kind: [answer(n, mask=f"{n}.nii.gz")] for n, kind in enumerate(ways, start=1)}
    told = compared(found, folder, {"patch": [2, 2, 2], "truth": "truth.nii.gz"})
    assert told["monai:eager"]["dice_of_truth"] == pytest.approx(2 * 32 / (32 + 36))
    way = at_equal_dice(told)
    assert way is not None
    assert way[0] == "voxport:auto@0.25"


def test_without_truth_no_way_is_as_good(told: dict[str, dict[str, Any]]) -> None:
    assert at_equal_dice(told) is None
