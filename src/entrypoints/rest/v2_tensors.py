"""Tensors of the Open Inference Protocol v2: in JSON, and as raw bytes behind it (the binary extension).

A request's body is JSON, or JSON of the length in ``Inference-Header-Content-Length`` followed by the raw
little-endian tensors in the order of the inputs.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping
from tempfile import SpooledTemporaryFile
from typing import Annotated, Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from ...contract.reading import expected
from ...domain.errors import InputError, LimitError, UsageError
from ...ports.tensors import TEXT, TensorSpec, dtype_name
from .arrays import json_bytes, load_json
from .routing import checked

HEADER_LENGTH = "Inference-Header-Content-Length"
DATATYPES: Mapping[str, str] = {
    "BOOL": "bool",
    **{f"{kind.upper()}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": TEXT,
}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
IN_MEMORY = 2**20  # bytes of a body that is not kept in a file
_MOST_TENSORS, _MOST_AXES, _LONGEST_NAME = 64, 32, 200
Parameters = Annotated[dict[str, Any], Field(max_length=64)]


class Tensor(BaseModel, strict=True):
    """A tensor that a request names."""

    name: str = Field(min_length=1, max_length=_LONGEST_NAME)
    parameters: Parameters = {}


class InputTensor(Tensor):
    """A tensor that a request sends, with its values or the number of its bytes behind the JSON."""

    datatype: Annotated[str, Field(pattern=f"^({'|'.join(DATATYPES)})$"), expected(f"one of {', '.join(DATATYPES)}")]
    shape: list[Annotated[int, Field(ge=0)]] = Field(max_length=_MOST_AXES)
    data: Any = None


class InferRequest(BaseModel, strict=True):
    """The JSON of an inference request."""

    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[Tensor] | None = None
    parameters: Parameters = {}
    id: str | None = Field(default=None, max_length=_LONGEST_NAME)

    @property
    def names(self) -> list[str] | None:
        """Names of the outputs; None for all."""
        return [output.name for output in self.outputs] if self.outputs else None

    def is_binary(self, name: str) -> bool:
        """Whether an output's bytes follow the JSON of the answer."""
        default = self.parameters.get("binary_data_output")
        chosen = {output.name: output.parameters.get("binary_data", default) for output in self.outputs or ()}
        return chosen.get(name, default) is True


def read_request(
    body: SpooledTemporaryFile[bytes], header_length: str | None, max_json_values: int
) -> tuple[InferRequest, dict[str, NDArray[Any]]]:
    """Decode a body; binary tensors are views of it, a file's mapped into memory.

    Raises:
        RequestValidationError: the JSON is not a request.
        UsageError: lengths contradict each other.
        InputError: a tensor's data does not fit its shape or type.
        LimitError: there are more tensors, or more values in JSON, than the service takes.
    """
    size = body.seek(0, os.SEEK_END)
    length = size if header_length is None else _whole(header_length, HEADER_LENGTH)
    if length > size:
        got = f"{length}, and a body of {size} bytes"
        raise UsageError(HEADER_LENGTH, expected="at most the body's length", got=got, do="correct it")
    body.seek(0)
    whole = memoryview(mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ) if size > IN_MEMORY else body.read())
    request, raw = _request(whole[:length], max_json_values), whole[length:]
    inputs: dict[str, NDArray[Any]] = {}
    used = 0
    for tensor in request.inputs:
        name = tensor.name
        if name in inputs:
            raise UsageError(name, expected="each input once", got="it twice", do="send one of them")
        binary = tensor.parameters.get("binary_data_size")
        if binary is None:
            inputs[name] = _from_json(tensor)
            continue
        stop = used + _whole(binary, f"{name}.binary_data_size")
        if stop > len(raw):
            got = f"{stop - used} bytes of {len(raw) - used} that are left"
            raise UsageError(f"{name}.binary_data_size", expected="the length of its bytes", got=got, do="correct it")
        inputs[name] = _from_bytes(raw[used:stop], tensor)
        used = stop
    if used != len(raw):
        got = f"{len(raw) - used} bytes more"
        raise UsageError("body", expected="the bytes of the inputs and no others", got=got, do="correct the lengths")
    return request, inputs


def _request(content: memoryview, max_values: int) -> InferRequest:
    do = "send the tensors with the binary extension"
    refused = LimitError("request", expected=f"at most {max_values} values in JSON", got="more", do=do)
    if len(content) > json_bytes(max_values):
        raise refused
    data = load_json(bytes(content), max_values, refused)
    for what in ("inputs", "outputs"):  # pydantic would list what is wrong with each of a million
        given = data.get(what) if isinstance(data, dict) else None
        if isinstance(given, list) and len(given) > _MOST_TENSORS:
            most = f"at most {_MOST_TENSORS} tensors"
            raise LimitError(what, expected=most, got=str(len(given)), do="send fewer")
    return checked(InferRequest.model_validate, data)


def answer(
    model: str, version: str, found: Mapping[str, NDArray[Any]], request: InferRequest, parameters: Mapping[str, Any]
) -> tuple[list[bytes], int | None]:
    """The body of an answer in pieces, and the length of its JSON where bytes follow it."""
    outputs, behind = [], []
    for name, array in found.items():
        entry: dict[str, Any] = {"name": name, "datatype": NAMES[dtype_name(array.dtype)], "shape": list(array.shape)}
        if request.is_binary(name):
            content = _bytes_of(array)
            entry["parameters"] = {"binary_data_size": len(content)}
            behind.append(content)
        else:
            entry["data"] = array.reshape(-1).tolist()
        outputs.append(entry)
    head: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    head |= {"id": request.id} if request.id else {}
    head |= {"parameters": dict(parameters)} if parameters else {}
    # NaN and Inf have no JSON: orjson writes null
    first = orjson.dumps(head)
    return [first, *behind], len(first) if behind else None


def described(spec: TensorSpec) -> dict[str, Any]:
    """A tensor's specification in the protocol's words; -1 for a free axis."""
    shape = [axis if isinstance(axis, int) else -1 for axis in spec.shape]
    return {"name": spec.name, "datatype": NAMES[spec.dtype], "shape": shape}


def _from_json(tensor: InputTensor) -> NDArray[Any]:
    name, values, count = tensor.name, tensor.data, math.prod(tensor.shape)
    if values is None:
        raise UsageError(f"{name}.data", expected="values, or binary_data_size", got="neither", do="send one of them")
    kind = np.dtype(object if tensor.datatype == "BYTES" else DATATYPES[tensor.datatype])
    # a number with a fraction is no integer, and a truth value is no number
    taken = {"O": (str,), "b": (bool,), "i": (int,), "u": (int,)}.get(kind.kind, (int, float, type(None)))
    try:
        array = np.array(values, dtype=kind)
        fits = all(type(value) in taken for value in np.array(values, object).flat)
    except (ValueError, TypeError, OverflowError):
        fits = False
    if not fits or array.size != count:
        expected = f"{count} values of the type {tensor.datatype} for the shape {tensor.shape}"
        got = str(array.size) if fits else "others"
        raise InputError(f"{name}.data", expected=expected, got=got, do="correct data, datatype or shape")
    return array.reshape(tensor.shape)


def _from_bytes(content: memoryview, tensor: InputTensor) -> NDArray[Any]:
    name, shape, count = tensor.name, tensor.shape, math.prod(tensor.shape)
    if tensor.datatype == "BYTES":
        return np.array(_texts(content, name, count), object).reshape(shape)
    kind = np.dtype(DATATYPES[tensor.datatype]).newbyteorder("<")
    if count * kind.itemsize != len(content):
        expected = f"{count * kind.itemsize} bytes for {tensor.datatype} {shape}"
        raise InputError(name, expected=expected, got=str(len(content)), do="correct binary_data_size or shape")
    found: NDArray[Any] = np.frombuffer(content, kind).reshape(shape)
    return found.astype(kind.newbyteorder("="), copy=False)


def _texts(content: memoryview, name: str, count: int) -> list[str]:
    """Texts, each behind its length in four bytes."""
    texts: list[str] = []
    at = 0
    while at + 4 <= len(content) and len(texts) < count:
        stop = at + 4 + int.from_bytes(content[at : at + 4], "little")
        if stop > len(content):
            break
        try:
            texts.append(str(content[at + 4 : stop], "utf-8"))
        except UnicodeDecodeError:
            raise InputError(name, expected="texts in UTF-8", got="other bytes", do="encode them as UTF-8") from None
        at = stop
    if at != len(content) or len(texts) != count:
        expected = f"{count} texts, each behind its length in four bytes"
        raise InputError(name, expected=expected, got=f"{len(texts)} in {len(content)} bytes", do="correct them")
    return texts


def _bytes_of(array: NDArray[Any]) -> bytes:
    if dtype_name(array.dtype) != TEXT:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    encoded = [str(value).encode() for value in array.reshape(-1)]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


def _whole(value: object, subject: str) -> int:
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise UsageError(subject, expected="a number of bytes", got=str(value)[:40], do="correct it")
    return int(text)
