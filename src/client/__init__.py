"""A client of voxport's HTTP service: volumes are sent from disk, masks are written to disk, both in a stream.

It needs httpx, which the extra ``serving`` brings, and nothing else of voxport but the domain::

    from pathlib import Path
    from voxport.client import Client

    with Client("http://127.0.0.1:3000") as client:
        report = client.segment([Path("scan.nii.gz")], Path("mask.nii.gz"), outputs={"preview": Path("mask.png")})
    for label in report["statistics"]["labels"]:
        print(label["name"], label["voxels"])
"""

from __future__ import annotations

from .answers import ModelResult, PredictResult
from .client import Client
from .errors import LostAnswerError, RemoteError, UnreachableError
from .fields import is_model_reference
from .job import JobInput, RemoteJob

__all__ = [
    "Client",
    "JobInput",
    "LostAnswerError",
    "ModelResult",
    "PredictResult",
    "RemoteError",
    "RemoteJob",
    "UnreachableError",
    "is_model_reference",
]
