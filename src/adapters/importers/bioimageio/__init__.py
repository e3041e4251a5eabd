"""Import of bioimage.io packages. Their description is data; nothing is fetched, and state dicts are refused."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.cards.model_card import Axes, Channel, Input, ModelCard
from ....domain.errors import ModelError, UsageError
from ....domain.inference.patches import Padding, Tiling
from ....domain.intensity import apply, fit
from ....ports.exporter import Checkpoint
from ....ports.importer import Example, ImportChoices, Imported, ModelImporter
from ....ports.model import ModelFiles
from ...archives import unpack
from .package import DESCRIPTIONS, Axis, Package, Tensor
from .processing import finish, read_output, read_steps
from .weights import one_file

__all__ = ["BioimageioImporter"]

_SPACE = ("x", "y", "z")
_FIVE = {"batch", "channel", *_SPACE}
_MICROMETRES = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}
_USUAL_EDGE = 64
_MOST_OVERLAP = 0.75


class BioimageioImporter(ModelImporter):
    """Imports a package: a folder, a zip, or its ``rdf.yaml``.

    Args:
        files: reads the card inside ONNX weights that have one.
    """

    name = "bioimageio"

    def __init__(self, files: ModelFiles) -> None:
        self._files = files

    def recognises(self, source: Path) -> bool:
        try:
            if source.is_dir():
                return any((source / name).is_file() for name in DESCRIPTIONS)
            if not source.is_file() or not zipfile.is_zipfile(source):
                return source.is_file() and source.name in DESCRIPTIONS
            with zipfile.ZipFile(source) as archive:
                names = map(PurePosixPath, archive.namelist())
                return any(name.name in DESCRIPTIONS and len(name.parts) <= 2 for name in names)
        except (OSError, zipfile.BadZipFile, ValueError):
            return False

    def read(self, source: Path, choices: ImportChoices, folder: Path) -> Imported:
        unpacked = folder / "package"
        unpacked.mkdir()
        package = _opened(source, unpacked)
        inputs, outputs = package.tensors("inputs"), package.tensors("outputs")
        if len(inputs) != 1:
            raise package.refused("inputs", "one input", str(len(inputs)))
        number = _chosen(package, outputs, choices.output)
        image, result = inputs[0], outputs[number]
        _check_axes(package, image, result)
        network, axes = _network(package, image, result, folder, number if len(outputs) > 1 else None)
        card, notes = choices.card, []
        if card is None and isinstance(network, Path):
            card = _card_inside(self._files, network)
            notes = [] if card is None else ["the card is the one inside the weights"]
        try:
            described = _card(package, image, result, axes, str(number) if len(outputs) > 1 else None)
        except ModelError as error:
            if card is None:
                raise
            return _named(card, network, choices, (), (*notes, f"its test tensors are not compared: {error}"))
        examples = _examples(package, image, result, described)
        return _named(card or described, network, choices, examples, tuple(notes))


def _named(
    card: ModelCard,
    network: Checkpoint | Path,
    choices: ImportChoices,
    examples: tuple[Example, ...],
    notes: tuple[str, ...],
) -> Imported:
    card = replace(card, name=choices.name or card.name, version=choices.version or card.version, parity=None)
    missing = tuple(name for name in ("licence", "intended_use") if not getattr(card, name))
    return Imported(card, network, examples, missing, notes)


def _opened(source: Path, folder: Path) -> Package:
    if source.is_file() and source.name in DESCRIPTIONS:
        return Package(source)
    inside = source if source.is_dir() else unpack(source, folder)
    found = next((inside / name for name in DESCRIPTIONS if (inside / name).is_file()), None)
    if found is None:
        do = "name the folder or the zip of a bioimage.io package"
        raise ModelError(source.name, expected=" or ".join(DESCRIPTIONS), got="neither", do=do)
    return Package(found)


def _chosen(package: Package, outputs: Sequence[Tensor], choice: str | None) -> int:
    names = [output.name for output in outputs]
    found = [i for i, name in enumerate(names) if choice in (None, name, str(i))]
    if len(found) != 1:
        raise UsageError(
            "output",
            expected=f"one of the outputs {', '.join(names) or '(none)'} of {package.path.name}",
            got=choice or "none",
            do="name the output with the labels",
        )
    return found[0]


def _check_axes(package: Package, image: Tensor, result: Tensor) -> None:
    for field, tensor in (("inputs", image), ("outputs", result)):
        if len(tensor.axes) != len(_FIVE) or set(tensor.kinds) != _FIVE:
            do = "import its ONNX file with a card whose patch has an edge of 1, if it is for 2-D images"
            raise package.refused(field, "axes batch, channel, z, y and x", " ".join(tensor.kinds), do)
    for name in _SPACE:
        before, after = image.axis(name), result.axis(name)
        if after.moved or (after.unit == before.unit and after.scale != before.scale):
            raise package.refused("outputs", "an output of the input's size", f"another one along {name}")


def _network(
    package: Package, image: Tensor, result: Tensor, folder: Path, output: int | None
) -> tuple[Checkpoint | Path, Axes]:
    """Return the network, and the order of its axes as a card has it."""
    found = package.description.get("weights")
    given = {key: value for key, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}
    if "onnx" in given:
        entry = given["onnx"]
        path = package.file("weights.onnx", entry.get("source"), entry.get("sha256"))
        outside = entry.get("external_data")
        if isinstance(outside, dict):
            package.file("weights.onnx.external_data", outside, None)
        network = folder / "network.onnx"
        one_file(path, package.folder, (image.kinds, result.kinds), network, output or 0)
        return network, "ZYX"
    if "torchscript" in given:
        entry = given["torchscript"]
        path = package.file("weights.torchscript", entry.get("source"), entry.get("sha256"))
        orders: dict[tuple[str, ...], Axes] = {("z", "y", "x"): "ZYX", ("x", "y", "z"): "XYZ"}
        order = orders.get(image.kinds[2:])
        if order is None or image.kinds != result.kinds:
            raise package.refused("inputs", "axes batch, channel, and z y x or x y z", " ".join(image.kinds))
        return Checkpoint(path, {} if output is None else {"_output_": str(output)}), order
    expected, got = "ONNX or TorchScript weights", ", ".join(given) or "none"
    if "pytorch_state_dict" in given:
        got += ", which need the package's own code to run"
    raise package.refused("weights", expected, got, "ask its authors for ONNX weights, or export the checkpoint")


def _card_inside(files: ModelFiles, network: Path) -> ModelCard | None:
    try:
        return replace(files.read(network).card, parity=None)
    except ModelError:
        return None


def _card(package: Package, image: Tensor, result: Tensor, axes: Axes, output: str | None) -> ModelCard:
    about = package.description
    channel = image.axis("channel")
    count = _count(package, "inputs", channel, image)
    steps = read_steps(package, image, count)
    names = channel.names or tuple(f"channel {i}" for i in range(count))
    common = len(set(steps)) == 1
    channels = tuple(Channel(names[i], i, None if common else steps[i]) for i in range(count))
    spacing, unit = _spacing(image)
    kinds = result.kinds
    test = None if result.test is None or result.test.ndim != len(kinds) else _ordered(result.test, kinds, axes)
    found = read_output(package, result, _count(package, "outputs", result.axis("channel"), result), test)
    return ModelCard(
        _slug(str(about.get("name", ""))),
        _version(about.get("version")),
        " ".join(str(about.get("description", "")).split()),
        _licence(about.get("license")),
        "",
        Input(channels, axes, None, spacing, unit, steps[0] if common else ()),
        _tiling(image, result),
        replace(found, tensor=output),
        {"framework": "bioimage.io", "format_version": package.format, "id": str(about.get("id", ""))},
        authors=tuple(str(a["name"]) for a in _entries(about.get("authors")) if a.get("name")),
        citation="; ".join(_cited(entry) for entry in _entries(about.get("cite"))),
    )


def _licence(found: Any) -> str:
    """Return an identifier; the text of a licence in a file is for the user to read."""
    return found.strip() if isinstance(found, str) else ""


def _entries(found: Any) -> list[dict[str, Any]]:
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _cited(entry: dict[str, Any]) -> str:
    return " ".join(str(entry[key]) for key in ("text", "doi", "url") if entry.get(key))


def _count(package: Package, field: str, axis: Axis, tensor: Tensor) -> int:
    test = tensor.test
    position = tensor.kinds.index("channel")
    found = axis.least or (test.shape[position] if test is not None and test.ndim == len(tensor.axes) else None)
    if found is None or found < 1:
        raise package.refused(field, "a number of channels", "none", "get the package again")
    return found


def _spacing(image: Tensor) -> tuple[tuple[float, float, float] | None, str | None]:
    """Return the spacing (x, y, z) and its unit, where each axis states a unit that cards know."""
    axes = [image.axis(name) for name in _SPACE]
    factors = [_MICROMETRES.get(axis.unit or "") for axis in axes]
    if any(factor is None for factor in factors):
        return None, None
    unit, of_unit = ("mm", 1e3) if all(axis.unit == "millimeter" for axis in axes) else ("um", 1.0)
    x, y, z = (axis.scale * (factor or 0) / of_unit for axis, factor in zip(axes, factors, strict=True))
    return (x, y, z), unit


def _tiling(image: Tensor, result: Tensor) -> Tiling:
    """Patches of a size that the network takes: the test tensor's, or the smallest of at least 64 voxels."""
    edges, steps, share = [], [], 0.5
    for name in _SPACE:
        axis, test = image.axis(name), image.test
        least, step = axis.least or 1, axis.step
        edge = least
        if step:
            stated = test.shape[image.kinds.index(name)] if test is not None and test.ndim == len(image.axes) else 0
            wanted = stated or _USUAL_EDGE
            edge = least + step * max(0, -(-(wanted - least) // step))
        edges.append(edge)
        steps.append(step if step and edge % step == 0 else edge)
        share = max(share, min(_MOST_OVERLAP, 2 * max(axis.halo, result.axis(name).halo) / edge))
    patch, divisor = (edges[0], edges[1], edges[2]), (steps[0], steps[1], steps[2])
    return Tiling(patch, divisor, share, padding=Padding("reflect", to="patch"))


def _ordered(array: NDArray[np.float32], kinds: Sequence[str], axes: Axes) -> NDArray[np.float32]:
    """Return an array with the axes of a card's network."""
    return np.ascontiguousarray(array.transpose([kinds.index(kind) for kind in ("batch", "channel", *axes.lower())]))


def _examples(package: Package, image: Tensor, result: Tensor, card: ModelCard) -> tuple[Example, ...]:
    """Return the test tensors: the input after the steps before the network, and the output as it is stated."""
    if image.test is None or result.test is None:
        return ()
    for field, tensor in (("inputs", image), ("outputs", result)):
        assert tensor.test is not None  # as above
        if tensor.test.ndim != len(tensor.axes) or not tensor.test.size:
            got = f"shape {tensor.test.shape}"
            raise package.refused(field, "a test tensor with the declared axes", got, "get the package again")
    given = _ordered(image.test, image.kinds, card.input.axes)
    prepared = np.empty_like(given)
    for i, channel in enumerate(card.input.channels):
        values = given[:, i]

        def chunks(values: NDArray[np.float32] = values) -> list[tuple[NDArray[np.float32], None]]:
            return [(values, None)]

        prepared[:, i] = apply(fit(card.input.steps(channel), chunks), values)
    output = _ordered(result.test, result.kinds, card.input.axes)
    relative, absolute, share = _tolerances(package)
    name = f"test tensor of {result.name}"
    return (Example(name, prepared, output, relative, absolute, share, finish(result)),)


def _tolerances(package: Package) -> tuple[float, float, float]:
    """Return the relative and absolute tolerance, and the share of voxels that may be beyond them."""
    config = package.description.get("config")
    own = config.get("bioimageio") if isinstance(config, dict) else None
    entries = _entries(own.get("reproducibility_tolerance")) if isinstance(own, dict) else []
    stated = next((e for e in entries if "onnx" in (e.get("weights_formats") or ["onnx"])), {})
    keys = {"relative_tolerance": 1e-3, "absolute_tolerance": 1e-3, "mismatched_elements_per_million": 100}
    found = [stated.get(key, usual) for key, usual in keys.items()]
    relative, absolute, beyond = (
        min(float(v), 1000 * usual) if isinstance(v, int | float) else usual
        for v, usual in zip(found, keys.values(), strict=True)
    )
    return relative, absolute, min(beyond, 1000) / 1e6


def _slug(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") or "package"


def _version(found: Any) -> str:
    text = "" if found is None else str(found)
    return text if re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.+-]*", text) else "1.0.0"
