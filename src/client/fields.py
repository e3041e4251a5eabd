"""What a request says: its address, its form fields, and arrays."""

from __future__ import annotations

import io
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..contract.options import encode
from ..domain.errors import InputError, UsageError
from .errors import one_line

_EXAMPLE = "http://127.0.0.1:3000"


def checked_url(url: str) -> str:
    """Return a server's address without a trailing slash; a path is kept, for servers behind a proxy.

    Raises:
        UsageError: not http or https, no host, or a password, query or fragment.
    """
    try:
        parts = urlsplit(url)
        usable = parts.hostname is not None and parts.port != 0
    except ValueError:
        raise _refused("one that cannot be read") from None
    if parts.username is not None or parts.password is not None:
        # not repeated: error messages are logged
        raise UsageError("server", expected="a URL", got="one with a name or password", do="give the key apart from it")
    if parts.scheme not in ("http", "https") or not usable or not url.isprintable() or " " in url:
        raise _refused(one_line(url) or "nothing")
    if parts.query or parts.fragment:
        raise _refused("one with a query or a fragment")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Return whether the address is this machine's, by name or number."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def checked_key(key: str | None) -> str | None:
    """Return the key without surrounding space, or None if empty.

    Raises:
        UsageError: characters that a header cannot contain; the message does not repeat them.
    """
    key = (key or "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise UsageError(
            "API key",
            expected="printable ASCII without spaces",
            got="other characters",
            do="copy it again; VOXPORT_API_KEY holds the key alone",
        )
    return key or None


def _refused(got: str) -> UsageError:
    return UsageError("server", expected=f"a URL such as {_EXAMPLE}", got=got, do="correct it")


Fields = dict[str, list[str]]
Part = tuple[str, tuple[str, BinaryIO, str]]
_LONGEST_KEY = 255
_NAME, _VERSION = r"[a-z0-9][a-z0-9-]*", r"[0-9A-Za-z][0-9A-Za-z.+-]*"


@dataclass(frozen=True)
class Form:
    """A request's body.

    Args:
        fields: each with its values.
        parts: files, each with its field's name.
        is_sent: whether the files were handed on whole.
        localised: puts the files' names here into the server's words.
    """

    fields: Fields
    parts: Sequence[Part]
    is_sent: Callable[[], bool] = lambda: True
    localised: Callable[[str], str] = str


def is_model_reference(text: str) -> bool:
    """Whether ``text`` is the ``NAME`` or ``NAME:VERSION`` of a model, and not, say, a file."""
    return re.fullmatch(f"{_NAME}(:{_VERSION})?", text) is not None


def model_folder(reference: object) -> str | None:
    """The folder ``NAME-VERSION`` of a model's results; None unless the reference is ``NAME:VERSION``."""
    whole = isinstance(reference, str) and re.fullmatch(f"{_NAME}:{_VERSION}", reference)
    return str(reference).replace(":", "-", 1) if whole else None


def fields_of(models: Iterable[str | None], options: Mapping[str, Any], outputs: Iterable[str] = ()) -> Fields:
    """Return the fields that are given. Raises UsageError for a model that no server can have."""
    named = [model for model in models if model is not None]
    for model in named:
        check_model(model)
    given = {"model": named, **encode(options), "outputs": list(outputs)}
    return {name: values for name, values in given.items() if values}


def check_model(reference: str) -> None:
    """UsageError unless it is ``NAME`` or ``NAME:VERSION``."""
    if not is_model_reference(reference):
        raise UsageError(
            "model",
            expected="the NAME or NAME:VERSION of a model that the server has",
            got=reference,
            do="see its list of models",
        )


def checked_request_key(key: str) -> str:
    """UsageError unless it can be the name that a request is known again by."""
    # space around a header's value is taken away on the way
    if not 1 <= len(key) <= _LONGEST_KEY or not all(" " <= c <= "~" for c in key) or key != key.strip():
        expected = f"1 to {_LONGEST_KEY} printable ASCII characters without space around them"
        raise UsageError("key", expected=expected, got=one_line(key) or "none", do="choose another")
    return key


def real_array(array: ArrayLike) -> NDArray[Any]:
    """Return an array ``(X, Y, Z)`` or ``(C, X, Y, Z)`` of real numbers. Raises InputError."""
    values = np.asarray(array)
    if values.ndim not in (3, 4) or values.dtype.kind not in "biuf":
        got = f"{values.dtype} of shape {values.shape}"
        do = "give all axes, and convert it to integers or floats"
        raise InputError("array", expected="real numbers (x, y, z) or (channel, x, y, z)", got=got, do=do)
    return values


def array_fields(spacing: Sequence[float] | None, unit: str | None, probabilities: bool) -> Fields:
    """Return the form fields that only arrays need: spacing and unit."""
    return {
        "spacing": [] if spacing is None else [",".join(repr(float(step)) for step in spacing)],
        "unit": [] if unit is None else [unit],
        "probabilities": ["true" if probabilities else "false"],
    }


def array_form(values: NDArray[Any], fields: Fields) -> Form:
    """Return a form with these fields and the array as a file."""
    content = io.BytesIO()
    np.save(content, values, allow_pickle=False)
    return Form(fields, [("volume", ("volume.npy", content, "application/octet-stream"))])
