"""A request's form fields, as the service reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..contract.options import encode
from ..domain.errors import UsageError
from .errors import one_line

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
