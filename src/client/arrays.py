"""Arrays as ``.npy`` uploads."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..domain.errors import InputError
from .fields import Fields, Form


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
