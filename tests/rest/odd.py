"""A small volume in every form that the service takes, and what a refusal must look like."""

from __future__ import annotations

import gzip
import io
from typing import Any

import httpx
import nibabel as nib
import numpy as np

VALUES = np.random.default_rng(0).integers(0, 256, (6, 5, 4), np.uint8)
SCAN = gzip.compress(nib.Nifti1Image(VALUES, np.diag([-1, 1, 5, 1.0])).to_bytes(), 1)


def npy(array: np.ndarray[Any, Any] = VALUES) -> bytes:
    """An array as a file of numpy."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def refused(answer: httpx.Response, status: int, kind: str) -> str:
    """The detail of a problem of one line; AssertionError if the answer is anything else."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"urn:voxport:problem:{kind}"
    for word in (body[member] for member in ("detail", "expected", "got", "do") if member in body):
        assert word.isprintable(), word
    return str(body["detail"])
