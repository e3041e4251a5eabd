"""Measure peak memory of segmenting a large volume, beside MONAI's sliding window on the same network.

Both run as separate processes with the same tiles and threads, from a NIfTI file to a mask file. The peak is the
system's figure for the process. Preparation and comparison run in other processes, because a process inherits the
peak of its parent.
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

NETWORK = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [8, 16], "strides": [2]}
# With these edges, and shapes of 128 + 112 n and 32 + 28 n voxels, both use identical tiles.
PATCH, OVERLAP = [128, 128, 32], 0.125
CARD = {
    "schema": "voxport/model-card/1",
    "name": "benchmark",
    "version": "1.0.0",
    "input": {"channels": [{"name": "image"}], "intensity": [{"shift_scale": [0, 1 / 255]}]},
    "tiling": {"patch": PATCH, "divisor": 2, "overlap": OVERLAP, "blending": "gaussian"},
    "output": {"activation": "softmax", "labels": [{"value": 1, "name": "foreground"}]},
}
# Writes smooth noise as a volume, and a random network as a checkpoint.
PREPARE = f"""
import sys, nibabel as nib, numpy as np, torch
from monai.networks.nets import UNet
shape = [int(n) for n in sys.argv[1:]]
coarse = np.random.default_rng(0).integers(0, 256, [n // 16 + 1 for n in shape], np.uint8)
fine = np.kron(coarse, np.ones((16, 16, 16), np.uint8))[tuple(slice(n) for n in shape)]
nib.save(nib.Nifti1Image(fine, np.diag([1.0, 1.0, 2.0, 1.0])), "volume.nii")
torch.manual_seed(0)
torch.save(UNet(**{NETWORK!r}).state_dict(), "network.pt")
"""
COMPARE = """
import nibabel as nib, numpy as np
masks = [np.asarray(nib.load(name).dataobj) for name in ("mask.nii.gz", "monai.nii.gz")]
print((masks[0] == masks[1]).mean())
"""
MONAI = f"""
import nibabel as nib, numpy as np, torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
torch.set_num_threads({os.cpu_count()})
network = UNet(**{NETWORK!r})
network.load_state_dict(torch.load("network.pt", weights_only=True))
network.eval()
image = nib.load("volume.nii")
batch = torch.from_numpy(np.asarray(image.dataobj).astype(np.float32) / 255)[None, None]
with torch.inference_mode():
    scores = sliding_window_inference(batch, {PATCH!r}, 1, network, overlap={OVERLAP}, mode="gaussian")
labels = scores.argmax(dim=1)[0].to(torch.uint8).numpy()
nib.save(nib.Nifti1Image(labels, image.affine), "monai.nii.gz")
"""


def main() -> None:
    """Run both and print peak memory, time, ratios and the agreement of the masks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=[1024, 1024, 256])
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-c", PREPARE, *map(str, wanted.shape)], cwd=folder, check=True)
        (folder / "card.yaml").write_text(json.dumps(CARD), encoding="utf-8")
        export = ["export", "network.pt", "--card", "card.yaml", "-o", "network.onnx", "--quiet"]
        options = ["--network", "UNet", "--network-args", json.dumps(NETWORK)]
        subprocess.run([sys.executable, "-m", "voxport", *export, *options], cwd=folder, check=True)
        segment = ["segment", "volume.nii", "-m", "network.onnx", "-o", "mask.nii.gz", "--quiet"]
        voxport = _measured([sys.executable, "-m", "voxport", *segment], folder)
        monai = _measured([sys.executable, "-W", "ignore", "-c", MONAI], folder)
        compared = subprocess.run(
            [sys.executable, "-c", COMPARE], cwd=folder, check=True, capture_output=True, text=True, encoding="utf-8"
        )
    found = {
        "shape": wanted.shape,
        "voxport": voxport,
        "monai": monai,
        "memory_ratio": monai["peak_gb"] / voxport["peak_gb"],
        "time_ratio": monai["seconds"] / voxport["seconds"],
        "label_agreement": float(compared.stdout),
    }
    print(f"{'':10} {'peak memory':>12} {'time':>9}")
    for who, measured in (("voxport", voxport), ("monai", monai)):
        print(f"{who:10} {measured['peak_gb']:9.2f} GB {measured['seconds']:7.1f} s")
    print(
        f"MONAI takes {found['memory_ratio']:.2f} times the memory and {found['time_ratio']:.2f} times the time; "
        f"labels agree on {found['label_agreement']:.6f} of the voxels"
    )
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _measured(command: list[str], folder: Path) -> dict[str, float]:
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    return {"peak_gb": usage.ru_maxrss * 1024 / 1e9, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    main()
