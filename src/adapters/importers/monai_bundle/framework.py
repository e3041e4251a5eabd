"""A bundle run by MONAI itself, which evaluates its expressions: for comparisons that the user asks for."""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ....domain.errors import ModelError, UsageError
from ....domain.labels.label_map import LabelTable
from ....domain.plain import first_line
from ...archives import file_inside
from .configuration import INFERENCE

if TYPE_CHECKING:
    import torch


def run_bundle(folder: Path, weights: Path, inputs: Sequence[Path], mask: Path, table: LabelTable) -> tuple[str, str]:
    """Write the labels of a case, as MONAI gives them, to ``mask``; return MONAI's name and version.

    Args:
        folder: the bundle.
        weights: its checkpoint, or a TorchScript network.
        inputs: NIfTI files, one a channel, or one file.
        mask: the NIfTI file to write, with the values of ``table``.
        table: the labels of the card.

    Raises:
        UsageError: MONAI is not installed.
        ModelError: it fails.
    """
    try:
        monai = importlib.import_module("monai")
    except ImportError:
        raise UsageError.not_installed("MONAI bundle", "MONAI", "torch") from None
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            labels = _labels(_predicted(folder, weights, inputs), table)
    except Exception as error:  # noqa: BLE001 - MONAI and the bundle raise many kinds
        cause: BaseException = error
        while cause.__cause__ is not None:  # MONAI wraps it in long advice
            cause = cause.__cause__
        expected, do = "a bundle that MONAI runs", "import it without the comparison"
        raise ModelError(folder.name, expected=expected, got=first_line(cause), do=do) from None
    first = nib.load(inputs[0])
    nib.save(nib.Nifti1Image(labels.astype(table.dtype), first.affine), mask)
    return "monai", str(monai.__version__)


def _predicted(folder: Path, weights: Path, inputs: Sequence[Path]) -> NDArray[Any]:
    """Return the postprocessed prediction ``(C, x, y, z)`` on the grid of the first input."""
    import torch
    from monai.bundle import ConfigParser
    from monai.data import decollate_batch, list_data_collate
    from monai.transforms import SaveImage, SaveImaged, SpatialResample

    parser = ConfigParser()
    parser.read_config(next(str(p) for name in INFERENCE if (p := file_inside(folder, "configs", name)).is_file()))
    parser["bundle_root"] = str(folder)
    preprocessing = parser.get_parsed_content("preprocessing")
    inferer, postprocessing = (parser.get_parsed_content(name) for name in ("inferer", "postprocessing"))
    given = [str(path) for path in inputs]
    # Batched and unbatched as MONAI's evaluator does: the prediction takes the image's affine and history with it.
    batch = list_data_collate([preprocessing({"image": given if len(given) > 1 else given[0]})])
    with torch.no_grad():
        batch["pred"] = inferer(batch["image"], _network(parser, weights))
    item = decollate_batch(batch)[0]
    for transform in postprocessing.transforms:
        if not isinstance(transform, SaveImage | SaveImaged):
            item = transform(item)
    found, first = item["pred"], nib.load(inputs[0])
    if found.shape[1:] != first.shape[:3] or not np.allclose(found.affine, first.affine, atol=1e-3):
        found = SpatialResample(mode="nearest")(found, first.affine, first.shape[:3])
    return np.asarray(found)


def _network(parser: Any, weights: Path) -> torch.nn.Module:
    import torch

    if weights.suffix == ".ts":
        script: torch.nn.Module = torch.jit.load(weights, map_location="cpu").eval()  # type: ignore[no-untyped-call]
        return script
    content = torch.load(weights, map_location="cpu", weights_only=True)
    holder = next((content[key] for key in ("state_dict", "model") if key in content), content)
    network: torch.nn.Module = parser.get_parsed_content("network_def")
    network.load_state_dict(holder)
    return network.eval()


def _labels(predicted: NDArray[Any], table: LabelTable) -> NDArray[Any]:
    if len(predicted) == 1:
        return np.asarray(np.rint(predicted[0]))
    labels = np.zeros(predicted.shape[1:], table.dtype)
    for channel, value in enumerate(table.values, start=len(predicted) - len(table.values)):
        labels[predicted[channel] > 0] = value
    return labels
