"""ONNX weights of a package as one file, with the axes in an order that cards know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import helper
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from ....domain.errors import ModelError
from ...archives import file_inside

_AGAIN = "get the package again"
_WANTED = ("batch", "channel", "z", "y", "x")


def one_file(
    source: Path, folder: Path, kinds: tuple[Sequence[str], Sequence[str]], destination: Path, output: int
) -> None:
    """Write the graph with its weights inside, and its input and chosen output with axes (batch, channel, z, y, x).

    ``kinds`` are the axes of the input and the output as they are; ``folder`` is the package's.

    Raises:
        ModelError: not an ONNX file, or one with weights outside the package.
    """
    try:
        model = onnx.load(source, load_external_data=False)
        for tensor in _tensors(model.graph):
            if uses_external_data(tensor):
                place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
                base = source.parent.relative_to(folder)
                if not place or not file_inside(folder, str(base), place).is_file():
                    raise ModelError(source.name, expected="weights inside the package", got=f"no {place}", do=_AGAIN)
        load_external_data_for_model(model, str(source.parent))
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        got = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(source.name, expected="an ONNX file", got=got, do=_AGAIN) from None
    for tensor in _tensors(model.graph):
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT
    _reorder(model.graph, kinds, source.name, output)
    onnx.save(model, destination)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from _tensors(attribute.g)
            yield from attribute.tensors
            for inner in attribute.graphs:
                yield from _tensors(inner)


def _reorder(graph: onnx.GraphProto, kinds: tuple[Sequence[str], Sequence[str]], subject: str, output: int) -> None:
    """Transpose the graph's input and output where their axes are in another order."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1 or output >= len(graph.output):
        got = f"{len(inputs)} inputs and {len(graph.output)} outputs"
        raise ModelError(subject, expected="a graph with the package's input and outputs", got=got, do=_AGAIN)
    before, after = list(kinds[0]), list(kinds[1])
    nodes = list(graph.node)
    if before != list(_WANTED):
        order = [_WANTED.index(kind) for kind in before]
        nodes.insert(0, helper.make_node("Transpose", ["voxport.image"], [inputs[0].name], perm=order))
        _rename(inputs[0], "voxport.image", [before.index(kind) for kind in _WANTED])
    if after != list(_WANTED):
        value = graph.output[output]
        order = [after.index(kind) for kind in _WANTED]
        nodes.append(helper.make_node("Transpose", [value.name], ["voxport.logits"], perm=order))
        _rename(value, "voxport.logits", order)
    del graph.node[:]
    graph.node.extend(nodes)


def _rename(value: onnx.ValueInfoProto, name: str, order: Sequence[int]) -> None:
    value.name = name
    dims = list(value.type.tensor_type.shape.dim)
    if len(dims) == len(order):
        moved = [onnx.TensorShapeProto.Dimension.FromString(dims[i].SerializeToString()) for i in order]
        del value.type.tensor_type.shape.dim[:]
        value.type.tensor_type.shape.dim.extend(moved)
