"""Arrays in requests: nested lists in JSON, or ``.npy`` files. Size limits are checked before an array is built."""

from __future__ import annotations

import math
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from ...domain.errors import InputError, LimitError, UsageError

# A number in JSON with its comma: -1.2345678901234567e-308
_JSON_BYTES_PER_VALUE = 25
# size of a body without its values
FIELD_BYTES = 2**16


def json_bytes(max_values: int) -> int:
    """The largest JSON text, in bytes, of an array with this number of values and its fields."""
    return max_values * _JSON_BYTES_PER_VALUE + FIELD_BYTES


def too_large(got: str, max_values: int) -> LimitError:
    """The error for an array that has more than ``max_values``."""
    do = "send it as NIfTI to /segment, which takes volumes of any size"
    return LimitError("volume", expected=f"at most {max_values} values", got=got, do=do)


def load_json(content: bytes, max_values: int, refused: LimitError) -> Any:
    """The data of a JSON text. Raises ``refused`` where it surely holds more than ``max_values``, and UsageError."""
    # Python's lists are far larger than their text: [[],[],...] must not be built to be refused.
    # Lists of v values have v - 1 commas; at most three of them hold one value, and the fourth holds all.
    if content.count(b",") > max_values + FIELD_BYTES or content.count(b"[") > 3 * max_values + FIELD_BYTES:
        raise refused
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UsageError("body", expected="JSON", got=str(error)[:120], do="correct it") from None


def parse_json(content: bytes, max_values: int) -> tuple[NDArray[Any], dict[str, Any]]:
    """The array of a JSON object's member ``volume``, and its other members.

    Raises:
        UsageError: it is no JSON object with a volume.
        InputError: the volume is no array of numbers.
        LimitError: it has more than ``max_values``.
    """
    data = load_json(content, max_values, too_large("more", max_values))
    if not isinstance(data, dict) or "volume" not in data:
        raise UsageError("body", expected='{"volume": [[[...]]], ...}', got="no volume", do="send one")
    try:
        array = np.array(data.pop("volume"))
    except (ValueError, OverflowError):
        array = np.array(None)
    if array.dtype.kind not in "iufb":
        do = "make all rows equally long, of numbers only"
        raise InputError("volume", expected="a nested list of numbers", got="rows that differ, or no numbers", do=do)
    _check_size(array.size, max_values)
    return array, data


def parse_npy(file: BinaryIO, max_values: int) -> NDArray[Any]:
    """The array of an ``.npy`` file. The size is checked before values are read; pickled objects are refused.

    Raises:
        InputError: it is no such file, or holds anything but real numbers.
        LimitError: it has more than ``max_values``.
    """
    shape, dtype = _header(file)
    if dtype.hasobject or dtype.kind not in "iufb" or dtype.itemsize > 8:
        do = "save real numbers with numpy.save"
        raise InputError("volume", expected="an array of real numbers", got=str(dtype), do=do)
    _check_size(math.prod(shape), max_values)
    file.seek(0)
    try:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    except (ValueError, EOFError, TypeError, OverflowError) as error:
        raise _no_npy(error) from None


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception as error:  # noqa: BLE001 - the header is Python code to numpy: its parser has many errors
        raise _no_npy(error) from None
    return shape, dtype


def _no_npy(error: Exception) -> InputError:
    got = " ".join(str(error).split())[:120] or "something else"
    return InputError("volume", expected="an .npy file", got=got, do="write it with numpy.save")


def _check_size(values: int, max_values: int) -> None:
    if values > max_values:
        raise too_large(f"{values}", max_values)
