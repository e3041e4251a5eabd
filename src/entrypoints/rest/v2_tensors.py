"""Tensors of the Open Inference Protocol v2: in JSON, and as raw bytes behind it (the binary extension).

A request's body is JSON, or JSON of the length in ``Inference-Header-Content-Length`` followed by the raw
little-endian tensors in the order of the inputs.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader, BytesIO
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ...domain.errors import InputError, LimitError, UsageError
from ...ports.tensors import TEXT, TensorSpec

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
Body = BytesIO | BufferedReader
MOST_TENSORS, _MOST_AXES, _LONGEST_NAME = 64, 32, 200


@dataclass(frozen=True)
class Asked:
    """An output that a request names: its name, and whether its bytes follow the JSON."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferRequest:
    """An inference request, decoded. ``outputs`` is None where the request names none."""

    inputs: Mapping[str, NDArray[Any]]
    outputs: tuple[Asked, ...] | None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None

    @property
    def names(self) -> list[str] | None:
        """Names of the outputs; None for all."""
        return None if self.outputs is None else [output.name for output in self.outputs]

    def is_binary(self, name: str) -> bool:
        """Whether an output's bytes follow the JSON of the answer."""
        default = self.parameters.get("binary_data_output") is True
        return next((o.binary for o in self.outputs or () if o.name == name), default)


def read_request(body: Body, header_length: str | None, max_json_values: int) -> InferRequest:
    """Decode a body; binary tensors are views of it, a file's mapped into memory.

    Raises:
        UsageError: the JSON is not a request, or lengths contradict each other.
        InputError: a tensor's data does not fit its shape or type.
        LimitError: there are more tensors, or more values in JSON, than the service takes.
    """
    size = body.seek(0, os.SEEK_END)
    length = size if header_length is None else _whole(header_length, HEADER_LENGTH)
    if length > size:
        got = f"{length}, and a body of {size} bytes"
        raise UsageError(HEADER_LENGTH, expected="at most the body's length", got=got, do="correct it")
    body.seek(0)
    head = _json_head(body.read(min(length, max_json_values * 25 + 2**20)), length, max_json_values)
    raw = memoryview(b"")
    if size > length:
        whole = body.getvalue() if isinstance(body, BytesIO) else mmap.mmap(body.fileno(), 0, access=mmap.ACCESS_READ)
        raw = memoryview(whole)[length:]
    inputs, used = {}, 0
    for entry in _entries(head, "inputs"):
        name, dtype, shape = _tensor(entry)
        if name in inputs:
            raise UsageError(name, expected="each input once", got="it twice", do="send one of them")
        binary = _parameters(entry).get("binary_data_size")
        if binary is None:
            inputs[name] = _from_json(entry, name, dtype, shape)
            continue
        stop = used + _whole(binary, f"{name}.binary_data_size")
        if stop > len(raw):
            got = f"{stop - used} bytes of {len(raw) - used} that are left"
            raise UsageError(f"{name}.binary_data_size", expected="the length of its bytes", got=got, do="correct it")
        inputs[name] = _from_bytes(raw[used:stop], name, dtype, shape)
        used = stop
    if used != len(raw):
        got = f"{len(raw) - used} bytes more"
        raise UsageError("body", expected="the bytes of the inputs and no others", got=got, do="correct the lengths")
    return InferRequest(inputs, _asked(head), _parameters(head), _id(head))


def answer(
    model: str, version: str, found: Mapping[str, NDArray[Any]], request: InferRequest, parameters: Mapping[str, Any]
) -> tuple[list[bytes], int | None]:
    """The body of an answer in pieces, and the length of its JSON where bytes follow it."""
    outputs, behind = [], []
    for name, array in found.items():
        entry: dict[str, Any] = {"name": name, "datatype": NAMES[_dtype(array)], "shape": list(array.shape)}
        if request.is_binary(name):
            content = _bytes_of(array)
            entry["parameters"] = {"binary_data_size": len(content)}
            behind.append(content)
        else:
            entry["data"] = array.reshape(-1).tolist()
        outputs.append(entry)
    head: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    head |= {"id": request.id} if request.id is not None else {}
    head |= {"parameters": dict(parameters)} if parameters else {}
    # NaN and Inf have no JSON: orjson writes null
    first = orjson.dumps(head)
    return [first, *behind], len(first) if behind else None


def described(spec: TensorSpec) -> dict[str, Any]:
    """A tensor's specification in the protocol's words; -1 for a free axis."""
    shape = [axis if isinstance(axis, int) else -1 for axis in spec.shape]
    return {"name": spec.name, "datatype": NAMES[spec.dtype], "shape": shape}


def _json_head(content: bytes, length: int, max_values: int) -> dict[str, Any]:
    # Python's lists are far larger than their text: [[],[],...] must not be built to be refused
    if len(content) < length or content.count(b",") + content.count(b"[") > 4 * max_values + 2**16:
        do = "send the tensors with the binary extension"
        raise LimitError("request", expected=f"at most {max_values} values in JSON", got="more", do=do)
    try:
        head = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UsageError("body", expected="JSON", got=str(error)[:120], do="correct it") from None
    if not isinstance(head, dict):
        raise UsageError("body", expected="an object with inputs", got=type(head).__name__, do="correct it")
    return head


def _entries(head: Mapping[str, Any], what: str) -> Iterator[Mapping[str, Any]]:
    entries = head.get(what)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(what, expected="a list of objects, one for each tensor", got="another value", do="correct it")
    if len(entries) > MOST_TENSORS:
        raise LimitError(what, expected=f"at most {MOST_TENSORS} tensors", got=str(len(entries)), do="send fewer")
    yield from entries


def _tensor(entry: Mapping[str, Any]) -> tuple[str, str, tuple[int, ...]]:
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise UsageError("inputs.name", expected="a text", got=str(name)[:80], do="name each input")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        expected = f"one of {', '.join(DATATYPES)}"
        raise UsageError(f"{name}.datatype", expected=expected, got=str(datatype)[:80], do="correct it")
    if not isinstance(shape, list) or len(shape) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise UsageError(f"{name}.shape", expected="a list of whole numbers", got=str(shape)[:80], do="correct it")
    return name, DATATYPES[datatype], tuple(shape)


def _from_json(entry: Mapping[str, Any], name: str, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    if "data" not in entry:
        raise UsageError(f"{name}.data", expected="values, or binary_data_size", got="neither", do="send one of them")
    values, kind = entry["data"], object if dtype == TEXT else np.dtype(dtype)
    try:
        array = np.array(values, dtype=kind)
    except (ValueError, TypeError, OverflowError):
        array = None
    wanted = str if dtype == TEXT else bool if dtype == "bool" else None
    texts = (
        array is not None and wanted is not None and not all(type(v) is wanted for v in np.array(values, object).flat)
    )
    # a number with a fraction is no integer, and a truth value is no number
    odd = array is not None and wanted is None and not _all_numbers(values, integers=np.dtype(kind).kind in "iu")
    if array is None or texts or odd or array.size != math.prod(shape):
        expected = f"{math.prod(shape)} values of the type {NAMES[dtype]} for the shape {list(shape)}"
        got = "others" if array is None or texts or odd else f"{array.size}"
        raise InputError(f"{name}.data", expected=expected, got=got, do="correct data, datatype or shape")
    return array.reshape(shape)


def _all_numbers(values: object, *, integers: bool) -> bool:
    kinds = (int,) if integers else (int, float, type(None))
    return all(type(v) in kinds for v in np.array(values, object).flat)


def _from_bytes(content: memoryview, name: str, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    count = math.prod(shape)
    if dtype == TEXT:
        return np.array(_texts(content, name, count), object).reshape(shape)
    kind = np.dtype(dtype).newbyteorder("<")
    if count * kind.itemsize != len(content):
        expected = f"{count * kind.itemsize} bytes for {NAMES[dtype]} {list(shape)}"
        raise InputError(name, expected=expected, got=str(len(content)), do="correct binary_data_size or shape")
    found: NDArray[Any] = np.frombuffer(content, kind).reshape(shape)
    return found.astype(np.dtype(dtype), copy=False)


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
    if _dtype(array) != TEXT:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    encoded = [str(value).encode() for value in array.reshape(-1)]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


def _asked(head: Mapping[str, Any]) -> tuple[Asked, ...] | None:
    if head.get("outputs") in (None, []):
        return None
    found = []
    default = _parameters(head).get("binary_data_output") is True
    for entry in _entries(head, "outputs"):
        name = entry.get("name")
        if not isinstance(name, str):
            raise UsageError("outputs.name", expected="a text", got=str(name)[:80], do="name each output")
        found.append(Asked(name, _parameters(entry).get("binary_data", default) is True))
    return tuple(found)


def _parameters(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise UsageError("parameters", expected="an object", got=str(parameters)[:80], do="correct it")
    return parameters


def _id(head: Mapping[str, Any]) -> str | None:
    found = head.get("id")
    if found is not None and (not isinstance(found, str) or len(found) > _LONGEST_NAME):
        raise UsageError("id", expected=f"a text of at most {_LONGEST_NAME} characters", got="another", do="correct it")
    return found or None


def _whole(value: object, subject: str) -> int:
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise UsageError(subject, expected="a number of bytes", got=str(value)[:40], do="correct it")
    return int(text)


def _dtype(array: NDArray[Any]) -> str:
    return TEXT if array.dtype.kind in "OUS" else array.dtype.name
