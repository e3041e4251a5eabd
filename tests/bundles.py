"""MONAI bundles of four kinds, after the public structure of the zoo's, with small networks trained on the spot."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "channels": [8, 16, 32],
    "strides": [2, 2],
    "num_res_units": 1,
    "norm": "batch",
}
_SEGRESNET = {"_target_": "SegResNet", "init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]}
_IMAGE = {"keys": "image"}
_READ = [{"_target_": "LoadImaged", **_IMAGE}, {"_target_": "EnsureChannelFirstd", **_IMAGE}]
_RAS = {"_target_": "Orientationd", **_IMAGE, "axcodes": "RAS"}
_SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
_ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
_SAVE = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "$@bundle_root + '/eval'"}


def _spacing(*edges: float) -> dict[str, Any]:
    return {"_target_": "Spacingd", **_IMAGE, "pixdim": list(edges), "mode": "bilinear"}


def _invert(*, nearest: bool) -> dict[str, Any]:
    return {
        "_target_": "Invertd",
        "keys": "pred",
        "transform": "@preprocessing",
        "orig_keys": "image",
        "nearest_interp": nearest,
        "to_tensor": True,
    }


def _window(size: tuple[int, int, int], overlap: float | str, **more: Any) -> dict[str, Any]:
    return {
        "_target_": "SlidingWindowInferer",
        "roi_size": list(size),
        "sw_batch_size": 2,
        "overlap": overlap,
        **more,
    }


def spleen() -> dict[str, Any]:
    """Two classes, CT: a window of intensities; probabilities are resampled."""
    window = {"_target_": "ScaleIntensityRanged", **_IMAGE, "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1}
    return {
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {**_UNET, "in_channels": 1, "out_channels": 2},
        "preprocessing": [*_READ, _RAS, _spacing(4.0, 4.0, 5.0), {**window, "clip": True}],
        "inferer": _window((32, 32, 32), 0.5),
        "postprocessing": [_SOFTMAX, _invert(nearest=False), _ARGMAX, _SAVE],
    }


def brats() -> dict[str, Any]:
    """Four channels as files, three overlapping regions of which the enhancing tumour comes first."""
    merge = "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"
    return {
        "network_def": {**_SEGRESNET, "in_channels": 4, "out_channels": 3},
        "preprocessing": [
            {"_target_": "LoadImaged", **_IMAGE},
            {"_target_": "NormalizeIntensityd", **_IMAGE, "nonzero": True, "channel_wise": True},
        ],
        "inferer": _window((48, 48, 32), 0.5),
        "postprocessing": [
            {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
            _invert(nearest=False),
            {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
            {"_target_": "Lambdad", "keys": "pred", "func": merge},
            _SAVE,
        ],
    }


def prostate() -> dict[str, Any]:
    """Three classes, MR: scaled, then normalised; the largest component of each label is kept."""
    return {
        "network_def": {**_UNET, "in_channels": 1, "out_channels": 3},
        "preprocessing": [
            *_READ,
            _RAS,
            _spacing(3.5, 3.5, 3.5),
            {"_target_": "ScaleIntensityd", **_IMAGE, "minv": 0, "maxv": 1},
            {"_target_": "NormalizeIntensityd", **_IMAGE},
        ],
        "inferer": _window((32, 32, 32), 0.5),
        "postprocessing": [
            _ARGMAX,
            {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1, 2]},
            _invert(nearest=True),
            _SAVE,
        ],
    }


def whole_body() -> dict[str, Any]:
    """Five classes, CT: nonzero voxels normalised, then scaled; replicate padding, Gaussian windows, nearest labels."""
    return {
        "displayable_configs": {"highres": True, "sw_overlap": 0.25},
        "image_key": "image",
        "pixdim": "$[4.6, 4.6, 4.6] if @displayable_configs#highres else [9.0, 9.0, 9.0]",
        "modelname": "$'model.pt' if @displayable_configs#highres else 'model_lowres.pt'",
        "network_def": {**_SEGRESNET, "in_channels": 1, "out_channels": 5},
        "preprocessing": [
            {"_target_": "LoadImaged", "keys": "@image_key"},
            {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
            {**_RAS, "keys": "@image_key"},
            {"_target_": "Spacingd", "keys": "@image_key", "pixdim": "@pixdim", "mode": "bilinear"},
            {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True},
            {"_target_": "ScaleIntensityd", "keys": "@image_key", "minv": -1.0, "maxv": 1.0},
        ],
        "inferer": _window(
            (48, 48, 48),
            "@displayable_configs#sw_overlap",
            padding_mode="replicate",
            mode="gaussian",
        ),
        "postprocessing": [_SOFTMAX, _ARGMAX, _invert(nearest=True), _SAVE],
    }


def pediatric() -> dict[str, Any]:
    """Four classes, CT: cropped to the foreground after a window of intensities."""
    window = {"_target_": "ScaleIntensityRanged", **_IMAGE, "a_min": -250, "a_max": 400, "b_min": 0, "b_max": 1}
    crop = {"_target_": "CropForegroundd", **_IMAGE, "source_key": "image", "mode": ["minimum"]}
    return {
        "network_def": {**_UNET, "in_channels": 1, "out_channels": 4},
        "preprocessing": [*_READ, _RAS, _spacing(4.1, 4.1, 4.6), {**window, "clip": True}, crop],
        "inferer": _window((32, 32, 32), 0.75),
        "postprocessing": [_SOFTMAX, _invert(nearest=False), _ARGMAX, _SAVE],
    }


NAMES = {
    "pediatric": ("background", "liver", "spleen", "pancreas"),
    "spleen": ("background", "spleen"),
    "brats": ("Tumor core", "Whole tumor", "Enhancing tumor"),
    "prostate": ("background", "central gland", "peripheral zone"),
    "whole_body": ("background", "liver", "heart", "lung", "bone"),
}
KINDS = {"spleen": spleen, "brats": brats, "prostate": prostate, "whole_body": whole_body, "pediatric": pediatric}


def metadata(kind: str) -> dict[str, Any]:
    """The metadata of a bundle of a kind."""
    channels = KINDS[kind]()["network_def"]["in_channels"]
    inputs = dict(enumerate(("T1c", "T1", "T2", "FLAIR") if channels == 4 else ("image",)))
    return {
        "version": "0.3.1",
        "task": f"{kind} segmentation",
        "description": f"A small network for {kind}",
        "authors": "A group",
        "intended_use": "An example, not for diagnosis",
        "references": ["A. Author. A paper. 2020."],
        "network_data_format": {
            "inputs": {"image": {"num_channels": channels, "channel_def": {str(k): v for k, v in inputs.items()}}},
            "outputs": {"pred": {"channel_def": {str(k): v for k, v in enumerate(NAMES[kind])}}},
        },
    }


def write_bundle(
    folder: Path, configuration: Mapping[str, Any], about: Mapping[str, Any] | None = None, weights: bytes = b""
) -> Path:
    """Write a bundle: its configuration, with transforms as a Compose, and its metadata."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    whole: dict[str, Any] = {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "network": "$@network_def.to('cpu')",
    }
    whole |= configuration
    for name in ("preprocessing", "postprocessing"):
        if isinstance(whole.get(name), list):
            whole[name] = {"_target_": "Compose", "transforms": whole[name]}
    (folder / "configs" / "inference.json").write_text(json.dumps(whole, indent=1), encoding="utf-8")
    if about is not None:
        (folder / "configs" / "metadata.json").write_text(json.dumps(about), encoding="utf-8")
    if weights:
        (folder / "models" / "model.pt").write_bytes(weights)
    return folder


def train(network_def: Mapping[str, Any], image: NDArray[Any], truth: NDArray[Any], steps: int = 40) -> Any:
    """Return a network trained to find labels; ``image`` ``(C, x, y, z)``, ``truth`` ``(x, y, z)`` or of channels."""
    import monai.networks.nets as nets
    import torch

    torch.manual_seed(0)
    network = getattr(nets, network_def["_target_"])(**{k: v for k, v in network_def.items() if k != "_target_"})
    x, y = torch.from_numpy(image)[None].float(), torch.from_numpy(truth)[None]
    optimiser, loss = torch.optim.Adam(network.parameters(), 5e-3), torch.nn.functional.cross_entropy
    random = np.random.default_rng(0)
    edge = [min(32, length // 8 * 8) for length in image.shape[1:]]
    for _ in range(steps):
        starts = [random.integers(0, n - e + 1) for n, e in zip(image.shape[1:], edge, strict=True)]
        box: tuple[Any, ...] = tuple(slice(int(s), int(s) + e) for s, e in zip(starts, edge, strict=True))
        part, wanted = x[(..., *box)], y[(..., *box)]
        logits = network(part)
        if wanted.ndim == 5:
            value = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted.float())
        else:
            value = loss(logits, wanted.long())
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network.eval()


def volume(path: Path, shape: tuple[int, int, int], spacing: tuple[float, float, float], axes: str, seed: int) -> Path:
    """Write a volume of balls in noise, as stored in ``axes``, with an intensity for each kind of ball."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"))
    extent = np.array(shape) * spacing
    values = np.full(shape, -900.0)
    body = (((grid - extent[:, None, None, None] / 2) / (extent[:, None, None, None] * 0.45)) ** 2).sum(0) < 1
    values[body] = 0
    for kind in range(1, 5):
        for _ in range(3):
            centre = extent * random.uniform(0.25, 0.75, 3)
            ball = ((grid - centre[:, None, None, None]) ** 2).sum(0) < (extent.min() * random.uniform(0.1, 0.2)) ** 2
            values[ball & body] = 60 * kind
    values += random.normal(0, 15, shape)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-40.0, 25.5, 10.25)
    image = nib.Nifti1Image(np.rint(values).astype(np.int16), affine)
    start = nib.orientations.axcodes2ornt("RAS")
    change = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(axes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nib.save(image.as_reoriented(change), path)
    return path


def trained_bundle(folder: Path, kind: str, inputs: Sequence[Path], steps: int = 40) -> Path:
    """Write a bundle of a kind whose network finds levels of smoothed intensity in a case."""
    import torch
    from monai.bundle import ConfigParser

    configuration = KINDS[kind]()
    write_bundle(folder, configuration, metadata(kind))
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    given = [str(path) for path in inputs]
    item = parser.get_parsed_content("preprocessing")({"image": given if len(given) > 1 else given[0]})
    image = np.asarray(item["image"], np.float32)
    network = train(configuration["network_def"], image, _truth(kind, image), steps)
    weights = io.BytesIO()
    torch.save(network.state_dict(), weights)
    (folder / "models" / "model.pt").write_bytes(weights.getvalue())
    return folder


def _truth(kind: str, image: NDArray[Any]) -> NDArray[Any]:
    smooth = ndimage.gaussian_filter(image[0], 1.5)
    if kind == "brats":
        return np.stack([smooth > level for level in np.quantile(smooth, [0.9, 0.75, 0.97])])
    levels = np.quantile(smooth, np.linspace(0.5, 0.85, len(NAMES[kind]) - 1))
    return np.asarray(np.digitize(smooth, levels))
