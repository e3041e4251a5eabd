"""`python -m recipes.two_photon_vessels.evaluate WEIGHTS DATA` evaluates weights beside two baselines."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray

from .inference import vessel_probability
from .metrics import Mask, cl_dice, dice, frangi_mask, otsu_mask, surface_dice
from .model import load_network

Picture = NDArray[np.float32]
Pairs = dict[str, tuple[Picture, Mask]]
Logits = dict[str, dict[str, dict[str, float]]]
Segmenter = Callable[[Picture], Mask]
PATCH = (512, 512, 32)
MEASURES = {"dice": dice, "cldice": cl_dice, "surface_dice_1": surface_dice}
DISTURBANCES: dict[str, tuple[Callable[[Picture], Picture], Callable[[Mask], Mask]]] = {
    "as stored": (lambda image: image, lambda mask: mask),
    "times 0.1": (lambda image: np.rint(image * 0.1 * 256), lambda mask: mask),
    "times 10": (lambda image: np.rint(image * 10), lambda mask: mask),
    "flip x": (lambda image: image[::-1], lambda mask: mask[::-1]),
    "flip y": (lambda image: image[:, ::-1], lambda mask: mask[:, ::-1]),
    "flip z": (lambda image: image[..., ::-1], lambda mask: mask[..., ::-1]),
    "transpose": (lambda image: image.swapaxes(0, 1), lambda mask: mask.swapaxes(0, 1)),
}


def load_pairs(data: Path) -> Pairs:
    """Load every `*_image.nii.gz` below `data` that has a `*_label.nii.gz`, by name."""
    pairs = {}
    for image in sorted(data.glob("*_image.nii.gz")):
        label = image.with_name(image.name.replace("_image", "_label"))
        picture, truth = (np.asanyarray(nibabel.load(file).dataobj) for file in (image, label))
        pairs[image.name.removesuffix("_image.nii.gz")] = (picture.astype(np.float32), truth > 0)
    return pairs


def evaluate(segmenters: dict[str, Segmenter], pairs: Pairs) -> Logits:
    """Return the metrics of each case and segmenter, with their mean under `mean`."""
    logits: Logits = {}
    for case, (image, truth) in pairs.items():
        logits[case] = {}
        for name, segment in segmenters.items():
            began_s = time.monotonic()
            mask = segment(image)
            seconds = time.monotonic() - began_s
            logits[case][name] = {measure: of(mask, truth) for measure, of in MEASURES.items()} | {"seconds": seconds}
            print(
                case,
                name,
                {key: round(value, 3) for key, value in logits[case][name].items()},
                file=sys.stderr,
                flush=True,
            )
    logits["mean"] = {
        name: {
            measure: float(np.mean([logits[case][name][measure] for case in pairs]))
            for measure in (*MEASURES, "seconds")
        }
        for name in segmenters
    }
    return logits


def robustness(segment: Segmenter, pairs: Pairs) -> dict[str, float]:
    """Return the mean Dice for each variant of how the volumes are stored."""
    result: dict[str, float] = {}
    for name, (disturb, restore) in DISTURBANCES.items():
        masks = [restore(segment(np.ascontiguousarray(disturb(image)))) for image, _ in pairs.values()]
        result[name] = float(
            np.mean([dice(mask, truth) for mask, (_, truth) in zip(masks, pairs.values(), strict=True)])
        )
        print(name, round(result[name], 4), file=sys.stderr, flush=True)
    return result


def main(arguments: list[str] | None = None) -> None:
    """Print the results as JSON."""
    parser = argparse.ArgumentParser(prog="recipes.two_photon_vessels.evaluate", description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path, nargs="+", help="folders of *_image.nii.gz and *_label.nii.gz")
    parser.add_argument("--threshold", type=float, default=0.5, help="probability above which a voxel is vessel")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--robustness", action="store_true", help="also score rescaled and reoriented copies")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    network, patch = load_network(options.weights), PATCH

    def ours(image: Picture) -> Mask:
        probability = vessel_probability(network, image, patch, options.overlap)
        return np.asarray(probability > options.threshold, dtype=np.bool_)

    report: dict[str, object] = {}
    for folder in options.data:
        pairs = load_pairs(folder)
        report[folder.name] = evaluate({"ours": ours, "otsu": otsu_mask, "frangi": frangi_mask}, pairs)
        if options.robustness:
            report[f"{folder.name} robustness"] = robustness(ours, pairs)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
