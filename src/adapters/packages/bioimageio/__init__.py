"""bioimage.io packages of format 0.5: ONNX weights, test tensors, a cover and a description."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ....domain.cards.model_card import ModelCard
from ....domain.errors import ModelError, OutputError
from ....domain.intensity import apply, fit
from ....domain.viewing.slicing import Picture
from ....ports.model import Model
from ....ports.packager import Packager
from ....ports.pictures import PictureEncoder
from ....ports.runtime import InferenceRuntime
from ...disk import output_errors, write_whole
from .words import preprocessing, unsaid

__all__ = ["BioimageioPackager"]

Array = NDArray[np.float32]
_FORMAT = "0.5.12"
_WHOLE_AXIS = 32  # voxels along an axis that the network takes whole
_UNITS = {"mm": "millimeter", "um": "micrometer"}
_LICENCES = (  # those that a package names; the text of any other is a file of it
    *("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "MPL-2.0", "Unlicense"),
    *("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"),
    *("GPL-2.0-only", "GPL-3.0-only", "GPL-3.0-or-later", "LGPL-3.0-only"),
)
_COVER = 256  # pixels


class BioimageioPackager(Packager):
    """Writes packages as zip files.

    Args:
        pictures: encodes the cover.
    """

    def __init__(self, pictures: PictureEncoder) -> None:
        self._pictures = pictures

    def package(self, model: Model, runtime: InferenceRuntime, destination: Path) -> tuple[str, ...]:
        if destination.suffix != ".zip":
            expected, do = "a name that ends in .zip", "rename it"
            raise OutputError(str(destination), expected=expected, got=destination.name, do=do)
        card = model.card
        if model.format != "onnx" or card.output.tensor is not None:
            got = "a checkpoint" if model.format != "onnx" else "one of several outputs"
            do = "export the network with one output"
            raise ModelError(model.path.name, expected="an ONNX file with one output", got=got, do=do)
        steps = preprocessing(card)
        given = _test_input(card, runtime)
        logits = runtime.infer(given if steps is None else _prepared(card, given))
        output = np.stack([card.output.probabilities(one) for one in logits]).astype(np.float32)
        files = {
            "weights.onnx": model.path.read_bytes(),
            "test_input.npy": _npy(given),
            "test_output.npy": _npy(output),
            "cover.png": self._pictures.encode(_cover(output)),
            "README.md": _readme(card).encode(),
            "LICENSE.md": (card.licence or "Not stated.").encode(),
        }
        if card.licence in _LICENCES:
            del files["LICENSE.md"]
        description = _description(card, runtime, steps or [], given, output, files)
        files["bioimageio.yaml"] = yaml.safe_dump(description, sort_keys=False, allow_unicode=True).encode()
        with output_errors(destination):
            write_whole(destination, _zip(files))
        return unsaid(card)


def _zip(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            # one date for all, so that the same model gives the same bytes
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _npy(array: Array) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def _test_input(card: ModelCard, runtime: InferenceRuntime) -> Array:
    """Return random values of a patch, in the network's axes."""
    patch = card.tiling.rounded(edge or _WHOLE_AXIS for edge in card.tiling.patch)
    edges = card.input.in_network_order(patch)
    shape = [fixed or edge for fixed, edge in zip(runtime.input_shape[2:], edges, strict=True)]
    values = np.random.default_rng(0).normal(100, 40, (1, len(card.input.channels), *shape))
    return values.astype(np.float32)


def _prepared(card: ModelCard, given: Array) -> Array:
    prepared = np.empty_like(given)
    for i, channel in enumerate(card.input.channels):
        values = given[:, i]

        def chunks(values: Array = values) -> list[tuple[Array, None]]:
            return [(values, None)]

        prepared[:, i] = apply(fit(card.input.steps(channel), chunks), values)
    return prepared


def _cover(output: Array) -> Picture:
    """The middle slice of the last channel of the test output, as a square."""
    plane = output[0, -1, output.shape[2] // 2]
    spread = float(plane.max() - plane.min()) or 1.0
    grey = ((plane - plane.min()) / spread * 255).astype(np.uint8)
    rows, columns = (np.arange(_COVER) * edge // _COVER for edge in grey.shape)
    return Picture(np.repeat(grey[np.ix_(rows, columns)][..., None], 3, axis=2))


def _description(
    card: ModelCard, runtime: InferenceRuntime, steps: list[dict[str, Any]], given: Array, output: Array, files: Any
) -> dict[str, Any]:
    def file(name: str) -> dict[str, Any]:
        return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    data = {"type": "float32"}
    finish = {"sigmoid": [{"id": "sigmoid"}], "softmax": [{"id": "softmax", "kwargs": {"axis": "channel"}}]}
    source = {"test_tensor": file("test_input.npy"), "data": data, "preprocessing": steps}
    after = finish.get(card.output.activation, [])
    result = {"test_tensor": file("test_output.npy"), "data": data, "postprocessing": after}
    emitted = [channel.name for channel in card.input.channels]
    names = list(card.output.channel_names) if len(card.output.channel_names) == output.shape[1] else ["labels"]
    description: dict[str, Any] = {
        "type": "model",
        "format_version": _FORMAT,
        "name": card.name,
        "description": " ".join(card.description.split())[:1000] or card.name,
        "authors": [{"name": re.sub(r"[/\\]", " ", name)} for name in card.authors] or [{"name": "unknown"}],
        "license": card.licence if "LICENSE.md" not in files else file("LICENSE.md"),
        "documentation": file("README.md"),
        "covers": [file("cover.png")],
        "tags": ["segmentation", "3d"],
        "inputs": [{"id": "image", "axes": _axes(card, runtime, emitted, given.shape, False), **source}],
        "outputs": [{"id": "labels", "axes": _axes(card, runtime, names, given.shape, True), **result}],
        "weights": {"onnx": {**file("weights.onnx"), "opset_version": _opset(files["weights.onnx"])}},
    }
    link = re.search(r"https?://\S+|\b10\.\d{4,}/\S+", card.citation)
    if link:
        key = "url" if link[0].startswith("http") else "doi"
        description["cite"] = [{"text": card.citation, key: link[0].rstrip(".,;)")}]
    if re.fullmatch(r"\d+(\.\d+)*", card.version):
        description["version"] = card.version
    return description


def _axes(
    card: ModelCard, runtime: InferenceRuntime, names: list[str], shape: tuple[int, ...], of_output: bool
) -> list[dict[str, Any]]:
    batch: dict[str, Any] = {"type": "batch"}
    if runtime.input_shape[0] is not None:
        batch["size"] = runtime.input_shape[0]
    axes = [batch, {"type": "channel", "id": "channel", "channel_names": _identifiers(names)}]
    divisors = card.input.in_network_order(card.tiling.divisors)
    spacing = card.input.in_network_order(card.input.spacing or (None, None, None))
    for i, name in enumerate(card.input.axes.lower()):
        size: Any = {"min": shape[2 + i], "step": divisors[i]}
        if runtime.input_shape[2 + i] is not None:
            size = shape[2 + i]
        elif of_output:
            size = {"tensor_id": "image", "axis_id": name}
        axis = {"type": "space", "id": name, "size": size}
        stated = spacing[i]
        if stated is not None and card.input.spacing_unit in _UNITS:
            axis |= {"scale": stated, "unit": _UNITS[card.input.spacing_unit]}
        axes.append(axis)
    return axes


def _identifiers(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        word = re.sub(r"\W", "_", name, flags=re.ASCII)
        word = word if re.match("[A-Za-z]", word) else f"c_{word}"
        found.append(word if word not in found else f"{word}_{len(found)}")
    return found


def _opset(content: bytes) -> int:
    import onnx

    opsets = onnx.ModelProto.FromString(content).opset_import
    return max((entry.version for entry in opsets if entry.domain in ("", "ai.onnx")), default=1)


def _readme(card: ModelCard) -> str:
    parts = [f"# {card.name} {card.version}", card.description, "## Intended use", card.intended_use or "Not stated."]
    parts += ["## Validation", "The test tensors are those of the network itself.", "## What the package leaves out"]
    parts += ["\n".join(f"- {line}" for line in unsaid(card)) or "Nothing."]
    if card.citation:
        parts += ["## Citation", card.citation]
    return "\n\n".join(parts) + "\n"
