"""Measure ``voxport segment`` in each runtime and precision, beside MONAI's sliding window and nnU-Net's predictor.

All read and write a ``.nii.gz``, with overlap 0.5, gaussian blending and equal threads. Each contender is a process
that has loaded its network and segmented a small part of the volume. Contenders run in turns, so load on the machine
affects all, and medians are compared. Ratios are to MONAI in eager mode. Nothing is downloaded. Networks other than the
bundled model are first trained for some minutes on images like the volume.

Tiles are identical if each edge is a patch plus a number of half patches, as by default. Otherwise MONAI shifts its
last tile, voxport spaces all evenly, and labels differ.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
from comparing import REFERENCE, Found, compared
from material import AVX2_ALONE, blobs, machine, saved
from networks import NETWORKS, export
from voxport.adapters.resources.local import LocalResources
from voxport.application import Application

HERE = Path(__file__).resolve().parent
_SMALLER_OVERLAPS = (0.0, 0.25)
WAYS = ("onnx-fp32", "openvino-fp32", "openvino-bf16", "openvino-int8")


def main() -> None:
    """Prepare, run all in turns, compare, print."""
    wanted = _arguments()
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"XDG_DATA_HOME": str(folder / "data"), **(AVX2_ALONE if wanted.avx2 else {})}
        spec = _prepared(folder, wanted)
        if wanted.tune:
            print("tuning ...", file=sys.stderr)
            subprocess.run(
                [sys.executable, "-m", "voxport", "tune", spec["model"], "--volume", "tuned.nii.gz", "--quiet"],
                check=True,
                cwd=folder,
            )
        kinds = [REFERENCE, "monai:channels_last", *(["monai:compile"] if wanted.compile else []), "nnunet:"]
        kinds += ["nnunet:mirrored"] if wanted.mirrored else []
        kinds += [f"voxport:{way}" for way in WAYS]
        kinds += ["voxport:auto"]
        # where the truth is known: the fastest with a Dice as good as MONAI's is found
        kinds += [f"voxport:auto@{overlap:g}" for overlap in _SMALLER_OVERLAPS if "truth" in spec]
        # without its instructions, PyTorch takes minutes for a product in bf16
        kinds += [f"bare:{way}" for way in WAYS] + ["peak:fp32", *([] if wanted.avx2 else ["peak:bf16"]), "flops:"]
        kinds = [kind for kind in kinds if kind in (REFERENCE, "flops:") or kind not in wanted.without]
        found, missing = _measured(kinds, folder / "spec.json", wanted.repeats)
        result = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine(),
            "network": wanted.network,
            "shape": list(spec["shape"]),
            "patch": spec["patch"],
            "overlap": spec["overlap"],
            "threads": spec["threads"],
            "repeats": wanted.repeats,
            "contenders": compared(found, folder, spec),
            "missing": missing,
        }
    _show(result)
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=(*NETWORKS, "bundled"), default="segresnet")
    parser.add_argument(
        "--shape", type=int, nargs=3, default=None, help="512 512 64, or 512 512 32 for the bundled model"
    )
    parser.add_argument("--threads", type=int, default=LocalResources().processors())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120, help="steps of training the network")
    parser.add_argument("--compile", action="store_true", help="also MONAI with torch.compile")
    parser.add_argument(
        "--mirrored", action="store_true", help="also nnU-Net's predictor with mirroring: 8 times as long"
    )
    parser.add_argument("--tune", action="store_true", help="run voxport tune first; int8 too if accepted")
    parser.add_argument("--without", nargs="+", default=[], metavar="KIND", help="leave out, such as nnunet:")
    parser.add_argument(
        "--avx2", action="store_true", help="let oneDNN and PyTorch use AVX2 alone; ONNX Runtime cannot be limited"
    )
    parser.add_argument("--quick", action="store_true", help="a small volume once, as a test")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    if wanted.quick:
        wanted.shape = wanted.shape or ([256, 256, 16] if wanted.network == "bundled" else [192, 128, 64])
        wanted.repeats, wanted.steps = 1, 20
    wanted.shape = wanted.shape or ([512, 512, 32] if wanted.network == "bundled" else [512, 512, 64])
    return wanted


def _prepared(folder: Path, wanted: argparse.Namespace) -> dict[str, Any]:
    """Write a volume and a model, and return the specification for contenders."""
    spec: dict[str, Any] = {"folder": str(folder), "network": wanted.network, "shape": wanted.shape, "overlap": 0.5}
    spec |= {"threads": wanted.threads, "volume": "volume.nii.gz", "small": "small.nii.gz"}
    if wanted.network == "bundled":
        sample = np.asarray(nib.load(Application.build().sample).dataobj)
        tiles = [-(-n // m) for n, m in zip(wanted.shape, sample.shape, strict=True)]
        values = np.tile(sample, tiles)[tuple(slice(n) for n in wanted.shape)]
        model = Application.build().find_model()
        spec |= {"model": model.card.reference, "model_file": str(model.path), "intensity": "percentiles"}
        spec |= {"patch": list(model.card.tiling.patch), "padding": "replicate"}
    else:
        values, inside = blobs(tuple(wanted.shape), seed=0)
        saved(folder / "truth.nii.gz", inside.astype(np.uint8))
        patch = [128, 128, 64]
        export(wanted.network, patch, folder, wanted.steps, wanted.threads)
        spec |= {"model": "network.onnx", "checkpoint": "network.pt", "intensity": "scale"}
        spec |= {"patch": patch, "padding": "constant", "truth": "truth.nii.gz"}
    saved(folder / spec["volume"], values)
    saved(folder / "tuned.nii.gz", values[: wanted.shape[0] // 2, : wanted.shape[1] // 2])
    saved(folder / spec["small"], values[tuple(slice(edge) for edge in spec["patch"])])
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    return spec


def _measured(kinds: list[str], file: Path, repeats: int) -> tuple[Found, dict[str, str]]:
    """Return the answers of each contender without the warm-up, and the reason for each that is missing."""
    spec = json.loads(file.read_text(encoding="utf-8"))
    processes = {kind: _started(kind, file) for kind in kinds}
    found: Found = {}
    missing: dict[str, str] = {}
    try:
        for kind, process in processes.items():
            answer = _answer(process)
            if "missing" in answer:
                missing[kind] = answer["missing"]
            else:
                found[kind] = []
        for turn in range(repeats + 1):
            for kind in found:
                print(f"{'warm-up' if turn == 0 else f'turn {turn} of {repeats}'}: {kind}", file=sys.stderr)
                process = processes[kind]
                assert process.stdin is not None
                process.stdin.write(spec["volume" if turn else "small"] + "\n")
                process.stdin.flush()
                answer = _answer(process)
                if turn:
                    found[kind].append(answer)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return found, missing


def _started(kind: str, spec: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", str(HERE / "contenders.py"), kind, str(spec)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a contender ended with {process.wait()}: {process.args}")
    read: dict[str, Any] = json.loads(line)
    return read


def _show(result: dict[str, Any]) -> None:
    print(f"{result['network']}, {'x'.join(map(str, result['shape']))} voxels, tiles of {result['patch']}, ", end="")
    print(f"overlap {result['overlap']}, {result['threads']} threads, medians of {result['repeats']}")
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    heads = (
        "seconds",
        "x MONAI",
        "peak GB",
        "Dice",
        "of truth",
        "agreement",
        "of floor",
        "outside",
        "GFLOP/s",
        "of peak",
    )
    print(f"{'':24}" + "".join(f"{head:>11}" for head in heads))
    for kind, entry in result["contenders"].items():
        dice = min(entry["dice"].values()) if "dice" in entry else None
        cells = (
            (entry.get("seconds"), "{:.3f}"),
            (entry.get("ratio"), "{:.2f}"),
            (entry["peak_bytes"] / 1e9 if "peak_bytes" in entry else None, "{:.2f}"),
            (dice, "{:.5f}"),
            (entry.get("dice_of_truth"), "{:.5f}"),
            (entry.get("label_agreement"), "{:.6f}"),
            (entry.get("share_of_floor"), "{:.0%}"),
            (entry.get("share_outside_network"), "{:.0%}"),
            (entry.get("gflops_per_second"), "{:.0f}"),
            (entry.get("share_of_peak"), "{:.0%}"),
        )
        if kind != "flops:":
            print(f"{kind:24}" + "".join(f"{'' if v is None else form.format(v):>11}" for v, form in cells))
    for kind, entry in result["contenders"].items():
        if "stages" in entry:
            stages = ", ".join(f"{name} {seconds:.3f}" for name, seconds in entry["stages"].items())
            print(f"{kind}: {stages}; the network {entry['network_seconds']:.3f}")
    for kind, reason in result["missing"].items():
        print(f"{kind}: not here ({reason})")


if __name__ == "__main__":
    main()
