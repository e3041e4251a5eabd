"""From a multipart form to files in a request's folder and options of a run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import File, Form, UploadFile

from ...domain.errors import InputError, OutputError, UsageError
from ...services.prepare import RunOptions, run_options

_GZIP = b"\x1f\x8b"
_MOST_CHANNELS = 64
_COPY_BYTES = 2**20

OutputName = Literal["mask", "probabilities", "statistics", "preview", "report"]
Volumes = Annotated[
    list[UploadFile],
    File(
        alias="volume",
        description="NIfTI, plain or gzipped; repeated, the channels of the case in order.",
        min_length=1,
        max_length=_MOST_CHANNELS,
    ),
]
ModelNames = Annotated[
    list[str],
    Form(alias="model", description="NAME or NAME:VERSION; repeated, each is run.", max_length=16, examples=[[]]),
]
ModelName = Annotated[str | None, Form(description="NAME or NAME:VERSION; the default model where absent.")]
Outputs = Annotated[list[OutputName], Form(description="What to send back.", max_length=5, examples=[["mask"]])]
Overlap = Annotated[float | None, Form(description="Overlap of tiles, 0 to 0.75; the card's where absent.")]
Patch = Annotated[str | None, Form(description="Tile edges X,Y,Z in voxels; the card's where absent.", max_length=40)]
Blending = Annotated[str | None, Form(description="gaussian, constant or halo.", max_length=20)]
Threshold = Annotated[float | None, Form(description="Probability from which a voxel has a label.")]
NanAs = Annotated[float | None, Form(description="Taken for NaN and Inf, which are refused otherwise.")]


def options_of(
    overlap: float | None,
    patch: str | None,
    blending: str | None,
    nan_as: float | None,
    threshold: float | None,
    memory_bytes: int | None,
) -> RunOptions:
    """The options of a run. Raises UsageError."""
    return run_options(overlap, _edges(patch), blending, memory_bytes, nan_as, threshold)


def _edges(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise UsageError("patch", expected="X,Y,Z in voxels", got=text, do="give three whole numbers")
    x, y, z = (int(part) for part in parts)
    return x, y, z


async def store_volumes(uploads: Sequence[UploadFile], folder: Path) -> list[str]:
    """Write uploads into ``folder`` under names of ours, whatever theirs are; the content says whether it is gzip.

    Raises:
        InputError: an upload is empty.
        OutputError: there is no room for it.
    """
    return [await to_thread.run_sync(_store, upload, folder, index + 1) for index, upload in enumerate(uploads)]


def _store(upload: UploadFile, folder: Path, number: int) -> str:
    source = upload.file
    magic = source.read(len(_GZIP))
    if not magic:
        raise InputError(f"volume {number}", expected="a NIfTI file", got="an empty upload", do="send the file")
    source.seek(0)
    target = folder / f"volume_{number}{'.nii.gz' if magic == _GZIP else '.nii'}"
    try:
        with target.open("wb") as file:
            shutil.copyfileobj(source, file, _COPY_BYTES)
    except OSError as error:
        raise OutputError.cannot_write("scratch folder", error) from None
    return str(target)
