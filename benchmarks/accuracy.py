"""Measure the accuracy of a model on labelled volumes, beside Otsu's threshold and Frangi's filter.

Volumes are pairs NAME_image.nii.gz and NAME_label.nii.gz, segmented with the command line. --robustness also stores
each volume in other types, scalings and axis orders. --reliability compares the probabilities with the share of true
voxels. --pictures writes a picture of each case.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from voxport.adapters.skeletons.skimage import SkimageSkeletoniser
from voxport.domain.labels.comparison import agreement

from recipes.two_photon_vessels.metrics import Mask, frangi_mask, otsu_mask

MEASURES = {"dice": "dice", "cldice": "cl_dice", "surface_dice_1": "surface_dice"}
Values = NDArray[np.float32]
Table = dict[str, dict[str, dict[str, float]]]


def main() -> None:
    """Print a table for each folder, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default="two-photon-vessels")
    parser.add_argument("--robustness", action="store_true")
    parser.add_argument("--reliability", action="store_true")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    found: dict[str, Any] = {}
    for folder in wanted.folders:
        pairs = pairs_in(folder)
        found[folder.name] = table = _table(pairs, wanted.model, wanted.pictures)
        _print(folder.name, table)
        if wanted.robustness:
            found[f"{folder.name}, stored otherwise"] = _robustness(pairs, wanted.model)
        if wanted.reliability:
            found[f"{folder.name}, reliability"] = _reliability(pairs, wanted.model)
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def pairs_in(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Return the image and the label file of each case of a folder."""
    images = sorted(folder.glob("*_image.nii.gz"))
    return {
        image.name.removesuffix("_image.nii.gz"): (image, image.with_name(image.name.replace("_image", "_label")))
        for image in images
    }


def _table(pairs: dict[str, tuple[Path, Path]], model: str, pictures: Path | None) -> Table:
    table: Table = {}
    for name, (image_file, label_file) in pairs.items():
        image = np.asarray(nib.load(image_file).dataobj).astype(np.float32)
        truth = np.asarray(nib.load(label_file).dataobj) > 0
        masks = {"voxport": _segment(image_file, model), "otsu": otsu_mask(image), "frangi": frangi_mask(image)}
        table[name] = {who: _agreement(mask, truth) for who, mask in masks.items()}
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            _picture(image, truth, masks["voxport"]).save(pictures / f"{name}.png")
    whos = ("voxport", "otsu", "frangi")
    table["mean"] = {who: {m: float(np.mean([table[n][who][m] for n in pairs])) for m in MEASURES} for who in whos}
    return table


def _agreement(mask: Mask, truth: Mask) -> dict[str, float]:
    """Return the measures of ``voxport compare``, with distances in voxels."""
    thin = SkimageSkeletoniser().skeleton
    found = agreement(mask.astype(np.uint8), truth.astype(np.uint8), (1, 1, 1), 1, "", tolerance=1, skeletonise=thin)
    return {name: float(getattr(found, field) or 0) for name, field in MEASURES.items()}


def _segment(image: Path, model: str) -> Mask:
    with TemporaryDirectory() as folder:
        mask = Path(folder) / "mask.nii.gz"
        _run(image, model, mask)
        return np.asarray(nib.load(mask).dataobj) > 0


def _run(image: Path, model: str, mask: Path, *more: str) -> None:
    command = [sys.executable, "-m", "voxport", "segment", str(image), "-m", model, "-o", str(mask), "--quiet", *more]
    subprocess.run(command, check=True)


def _reliability(pairs: dict[str, tuple[Path, Path]], model: str) -> list[dict[str, float]]:
    """Return, for tenths of the probability, the share of voxels, their mean probability and the share of true ones."""
    told, true = [], []
    for image_file, label_file in pairs.values():
        with TemporaryDirectory() as folder:
            file = Path(folder) / "probabilities.nii"
            _run(image_file, model, Path(folder) / "mask.nii", "--probabilities", str(file))
            told.append(np.asarray(nib.load(file).dataobj)[..., 1].ravel())
        true.append(np.asarray(nib.load(label_file).dataobj).ravel() > 0)
    probability, truth = np.concatenate(told), np.concatenate(true)
    tenth = np.clip((probability * 10).astype(int), 0, 9)
    rows, error = [], 0.0
    for number in range(10):
        inside = tenth == number
        row = {"voxels": float(inside.mean()), "told": float(probability[inside].mean())}
        row["true"] = float(truth[inside].mean())
        error += row["voxels"] * abs(row["told"] - row["true"])
        rows.append(row)
        print("reliability " + "".join(f"{name} {value:7.4f}  " for name, value in row.items()), flush=True)
    print(f"expected calibration error {error:.4f}")
    return rows


def _robustness(pairs: dict[str, tuple[Path, Path]], model: str) -> dict[str, float]:
    """Return the mean Dice for each way of storing the volumes, and the largest difference from the first."""
    means = {}
    for way, store in _ways().items():
        logits = []
        for image_file, label_file in pairs.values():
            with TemporaryDirectory() as folder:
                path = Path(folder) / "scan.nii.gz"
                nib.save(store(nib.load(image_file)), path)
                mask = nib.Nifti1Image(_segment(path, model).astype(np.uint8), nib.load(path).affine)
            labels = nib.as_closest_canonical(nib.load(label_file))
            logits.append(
                _agreement(np.asarray(nib.as_closest_canonical(mask).dataobj) > 0, np.asarray(labels.dataobj) > 0)[
                    "dice"
                ]
            )
        means[way] = float(np.mean(logits))
        print(f"stored {way:24} mean Dice {means[way]:.4f}", flush=True)
    return means


def _ways() -> dict[str, Callable[[Any], Any]]:
    def valued(change: Callable[[Values], NDArray[Any]]) -> Callable[[Any], Any]:
        return lambda image: nib.Nifti1Image(
            change(np.asarray(image.dataobj).astype(np.float32)), image.affine, _units(image)
        )

    def turned(codes: str) -> Callable[[Any], Any]:
        wanted = nib.orientations.axcodes2ornt(codes)
        return lambda image: image.as_reoriented(
            nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted)
        )

    return {
        "as it is": lambda image: image,
        "as uint16": valued(lambda v: v.astype(np.uint16)),
        "as uint16, 10 times": valued(lambda v: (v * 10).astype(np.uint16)),
        "as float32, a tenth": valued(lambda v: v * np.float32(0.1)),
        "as uint16 of 12 bits": valued(lambda v: np.rint(v * 16).astype(np.uint16)),
        "LPS": turned("LPS"),
        "SAR": turned("SAR"),
        "IPL": turned("IPL"),
    }


def _units(image: Any) -> Any:
    header = nib.Nifti1Header()
    header.set_xyzt_units(*image.header.get_xyzt_units())
    return header


def _picture(image: Values, truth: Mask, mask: Mask) -> Image.Image:
    """Draw raw, truth (blue) and mask (orange) of the slice with most vessel voxels."""
    z = int(truth.sum(axis=(0, 1)).argmax())
    low, high = np.percentile(image, (1, 99.5))
    grey = np.clip((image[..., z] - low) / max(float(high - low), 1e-6) * 255, 0, 255).astype(np.uint8).T
    panels = [np.repeat(grey[..., None], 3, axis=-1) for _ in range(3)]
    for panel, shown, colour in ((panels[1], truth, (86, 180, 233)), (panels[2], mask, (228, 87, 46))):
        inside = shown[..., z].T
        panel[inside] = (panel[inside] * 0.4 + np.array(colour) * 0.6).astype(np.uint8)
    gap = np.zeros((grey.shape[0], 6, 3), np.uint8)
    return Image.fromarray(np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1))


def _print(folder: str, table: Table) -> None:
    print(f"\n{folder:34}" + "".join(f"{who:>26}" for who in table["mean"]))
    print(f"{'':34}" + f"{'Dice':>10}{'clDice':>8}{'surface':>8}" * 3)
    for name, logits in table.items():
        cells = "".join("  " + "".join(f"{value:8.3f}" for value in measures.values()) for measures in logits.values())
        print(f"{name:34}{cells}", flush=True)


if __name__ == "__main__":
    main()
