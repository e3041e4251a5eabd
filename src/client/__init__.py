"""Client of voxport's HTTP service; volumes and masks are streamed from and to disk.

It needs httpx, which the extra ``serving`` installs::

    from voxport.client import Client

    with Client("http://127.0.0.1:3000") as client:
        report = client.segment("scan.nii.gz", "mask.nii.gz", outputs={"preview": "mask.png"})
    for label in report["statistics"]["labels"]:
        print(label["name"], label["voxels"])
"""

from __future__ import annotations

from .answers import JobInput, ModelResult, PredictResult, RemoteJob
from .client import Client
from .errors import LostAnswerError, RemoteError, UnreachableError
from .forms import is_model_reference

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
