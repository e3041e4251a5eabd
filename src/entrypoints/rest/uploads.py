"""Multipart forms: files, written and hashed on arrival, and options of a run."""

from __future__ import annotations

import hashlib
import inspect
import io
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, get_args

from anyio import to_thread
from fastapi import Depends, File, Form, Request, UploadFile
from pydantic.json_schema import SkipJsonSchema
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from ...contract import service as schemas
from ...contract.options import option_fields, options_of
from ...domain.errors import InputError, OutputError, UsageError
from ...domain.run import OutputName, RunOptions
from ...domain.volume_names import MaskFormat, sent_name

_MOST_CHANNELS = 64
_START_BYTES = 4  # of an upload, which tell a zip and gzip from the rest
_MOST_MODELS = 16

# an absent field; forms have no null
None_ = SkipJsonSchema[None]
Volumes = Annotated[
    list[UploadFile],
    File(
        alias="volume",
        description="A file of any format that is read, under its own name; a DICOM series or an OME-Zarr as a zip. "
        "Repeated, the channels of the case in order.",
        min_length=1,
        max_length=_MOST_CHANNELS,
    ),
]
ModelNames = Annotated[
    list[schemas.ModelName],
    Form(alias="model", description="Repeated, each is run; the default model where absent.", max_length=_MOST_MODELS),
]
ModelName = Annotated[schemas.ModelName | None_, Form(description="NAME or NAME:VERSION; the default where absent.")]
Outputs = Annotated[list[OutputName], Form(description="What to send back.", max_length=len(get_args(OutputName)))]

MaskIn = Annotated[
    MaskFormat | None_,
    Form(alias="format", description="Of the mask; gzipped NIfTI where absent. A zarr comes as zip."),
]


class ReceivedFile(io.FileIO):
    """A file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "x+")
        self.path = path
        self._sha256 = hashlib.sha256()

    def write(self, data: Any, /) -> int:
        """Write all of ``data``."""
        self._sha256.update(data)
        left = memoryview(data)
        while left:
            left = left[super().write(left) :]
        return len(data)

    @property
    def sha256(self) -> str:
        """The hash of everything that was written."""
        return self._sha256.hexdigest()


class _Parser(MultiPartParser):
    """Writes files into a folder; Starlette's own parser would copy them through a temporary file."""

    folder: Path

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        if self._current_part.file is not None:
            unused = self._files_to_close_on_error.pop()
            unused.close()
            file: Any = ReceivedFile(self.folder / f"part_{self._current_files}")
            self._files_to_close_on_error.append(file)
            self._current_part.file.file = file


async def receive_form(request: Request, folder: Path) -> None:
    """Read the request's form, with its files in ``folder``; ``request.form()`` returns it.

    Raises:
        HTTPException: not a form.
        OutputError: the folder cannot hold the files.
    """
    try:
        async with aclosing(request.stream()) as stream:
            parser = _Parser(request.headers, stream)
            parser.folder = folder
            request._form = await parser.parse()
    except MultiPartException as error:
        detail = f"form: expected multipart/form-data, got {error.message.lower()}; see /openapi.json"
        raise HTTPException(400, detail) from None
    except OSError as error:
        raise OutputError.cannot_write("upload", error) from None


def check_form(form: FormData, *, single: Collection[str], repeated: Collection[str] = ()) -> None:
    """Refuse unknown fields, and fields that are empty or repeated.

    Raises:
        UsageError: names the field.
    """
    for name, value in form.multi_items():
        if name not in single and name not in repeated:
            known = ", ".join((*repeated, *single))
            raise UsageError(name[:80], expected=f"one of the fields {known}", got="another", do="correct its name")
        if name in single and len(form.getlist(name)) > 1:
            raise UsageError(name, expected="the field once", got="it several times", do="send one of them")
        if value == "":
            raise UsageError(name, expected="a value", got="an empty field", do="give one, or leave the field out")


def _options_from_form() -> Callable[..., Awaitable[RunOptions]]:
    """A dependency with a form field for each option that a server takes."""

    async def options(**given: Any) -> RunOptions:
        return options_of(given, memory_bytes=None)

    fields = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None_, Form(description=text)],
        )
        for name, (kind, text) in option_fields().items()
    ]
    options.__signature__ = inspect.Signature(fields)  # type: ignore[attr-defined]
    return options


Options = Annotated[RunOptions, Depends(_options_from_form())]


async def name_volumes(uploads: Sequence[UploadFile]) -> list[str]:
    """Rename received files, with the endings of their formats; return their paths.

    Raises:
        InputError: an upload is empty.
    """
    return await to_thread.run_sync(lambda: [_named(upload, n) for n, upload in enumerate(uploads, 1)])


def _named(upload: UploadFile, number: int) -> str:
    file = received(upload)
    start = file.read(_START_BYTES)
    if not start:
        raise InputError(f"volume {number}", expected="a file", got="an empty upload", do="send the file")
    return str(file.path.rename(file.path.with_name(sent_name(number, upload.filename or "", start))))


def received(upload: UploadFile) -> ReceivedFile:
    """The hashed file of an upload."""
    file: object = upload.file
    if not isinstance(file, ReceivedFile):
        raise TypeError("expected a file that receive_form has written")
    return file
