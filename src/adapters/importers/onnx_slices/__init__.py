"""ONNX files of networks for 2-D images, applied slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from ....domain.errors import ModelError
from ....ports.importer import ImportChoices, Imported, ModelImporter
from ....ports.model import ModelFiles

_IMAGE_DIMENSIONS = 4
# Squeeze and Unsqueeze take their axes as an input from this opset on, as an attribute before.
_AXES_AS_INPUT = 13


class OnnxSlicesImporter(ModelImporter):
    """Wraps a graph ``(N, C, ., .)`` to take ``(N, C, ., ., .)`` with one slice along the axis where the patch is 1.

    Args:
        files: reads the card of a file: the one given, or ``NAME.card.yaml`` beside it.
    """

    name = "ONNX for 2-D images"

    def __init__(self, files: ModelFiles) -> None:
        self._files = files

    def recognises(self, source: Path) -> bool:
        model = _parsed(source) if source.suffix == ".onnx" and source.is_file() else None
        return model is not None and len(_images(model.graph.input, _given(model.graph))) == 1

    def read(self, source: Path, choices: ImportChoices, folder: Path) -> Imported:
        model = _parsed(source)
        if model is None:
            raise ModelError(source.name, expected="an ONNX file", got="something else", do="get the file again")
        card = choices.card or self._files.read(source).card
        card = replace(card, name=choices.name or card.name, version=choices.version or card.version)
        axis = card.slice_axis
        position = 2 + card.input.in_network_order(range(3)).index(axis)
        _wrap(model, position, _output(model.graph, choices.output or card.output.tensor, source.name))
        wrapped = folder / "network.onnx"
        onnx.save(model, wrapped)
        return Imported(card, wrapped, notes=(f"the network is applied to each slice along {'xyz'[axis]}",))


def _parsed(source: Path) -> onnx.ModelProto | None:
    try:
        return onnx.load(source)
    except (DecodeError, OSError, ValueError):
        return None


def _given(graph: onnx.GraphProto) -> set[str]:
    return {weight.name for weight in graph.initializer}


def _images(values: Sequence[onnx.ValueInfoProto], besides: set[str]) -> list[onnx.ValueInfoProto]:
    """Return the tensors of four axes that are no weights."""
    free = [value for value in values if value.name not in besides]
    return [value for value in free if len(value.type.tensor_type.shape.dim) == _IMAGE_DIMENSIONS]


def _output(graph: onnx.GraphProto, choice: str | None, subject: str) -> onnx.ValueInfoProto:
    outputs = _images(graph.output, set())
    names = [output.name for output in outputs]
    if choice is not None:
        outputs = [output for i, output in enumerate(outputs) if choice in (output.name, str(i))]
    if len(outputs) != 1:
        raise ModelError(
            subject,
            expected="one output (N, K, ., .) with the logits",
            got=f"{', '.join(names) or 'none'}" + (f", and {choice} was chosen" if choice is not None else ""),
            do="name one of them as `output`",
        )
    return outputs[0]


def _wrap(model: onnx.ModelProto, position: int, output: onnx.ValueInfoProto) -> None:
    """Give a graph an input and an output with an axis of length 1 at ``position``."""
    graph = model.graph
    (image,) = _images(graph.input, _given(graph))
    newest = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    axes = numpy_helper.from_array(np.array([position], np.int64), "voxport.slice_axis")
    named: dict[str, Any] = {"axes": [position]} if newest < _AXES_AS_INPUT else {}
    also = [axes.name] if newest >= _AXES_AS_INPUT else []
    if also:
        graph.initializer.append(axes)
    first = helper.make_node("Squeeze", ["voxport.image", *also], [image.name], **named)
    last = helper.make_node("Unsqueeze", [output.name, *also], ["voxport.logits"], **named)
    nodes = [first, *graph.node, last]
    new_input, new_output = _with_axis(image, position, "voxport.image"), _with_axis(output, position, "voxport.logits")
    kept = [value for value in graph.input if value.name != image.name]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.extend([new_input, *kept])
    graph.output.append(new_output)


def _with_axis(value: onnx.ValueInfoProto, position: int, name: str) -> onnx.ValueInfoProto:
    kind = value.type.tensor_type
    shape: list[int | str | None] = [dim.dim_param or dim.dim_value or None for dim in kind.shape.dim]
    shape.insert(position, 1)
    return helper.make_tensor_value_info(name, kind.elem_type, shape)
