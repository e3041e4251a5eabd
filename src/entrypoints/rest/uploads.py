"""Multipart forms: files, which are written and hashed as they arrive, and the options of a run."""

from __future__ import annotations

import hashlib
import inspect
import io
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args

from anyio import to_thread
from fastapi import Depends, File, Form, Request, UploadFile
from pydantic.json_schema import SkipJsonSchema
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response

from ...contract import service as schemas
from ...contract.options import REMOTE, option_fields, options_of
from ...domain.errors import InputError, OutputError, UsageError
from ...domain.run import OutputName
from ...domain.volume_names import GZIP_MAGIC, sent_name

_MOST_CHANNELS = 64
_MOST_MODELS = 16

# an absent field: a form has no word for it
None_ = SkipJsonSchema[None]
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
    list[schemas.ModelName],
    Form(alias="model", description="Repeated, each is run; the default model where absent.", max_length=_MOST_MODELS),
]
ModelName = Annotated[schemas.ModelName | None_, Form(description="NAME or NAME:VERSION; the default where absent.")]
Outputs = Annotated[list[OutputName], Form(description="What to send back.", max_length=len(get_args(OutputName)))]


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
    """Writes files straight into a folder, where Starlette's own copies them through a temporary file."""

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
    """Read the request's form, its files into ``folder``; ``request.form()`` then gives it.

    Raises:
        HTTPException: not a form.
        OutputError: the folder has no room.
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


def form_fields(*, single: Collection[str], repeated: Collection[str]) -> Any:
    """A dependency that checks the form of a request, see `check_form`."""

    async def check(request: Request) -> None:
        check_form(await request.form(), single=single, repeated=repeated)

    return Depends(check)


def takes_options(endpoint: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """Have an endpoint's parameter ``options`` come from form fields, one for each option that a server takes."""

    @wraps(endpoint)
    async def answer(**given: Any) -> Response:
        given["options"] = options_of({name: given.pop(name) for name in REMOTE}, memory_bytes=None)
        return await endpoint(**given)

    signature = inspect.signature(endpoint, eval_str=True)
    kept = [parameter for name, parameter in signature.parameters.items() if name != "options"]
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None_, Form(description=text)],
        )
        for name, (kind, text) in option_fields().items()
    ]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in kept]
    answer.__signature__ = signature.replace(parameters=[*parameters, *added])  # type: ignore[attr-defined]
    return answer


async def name_volumes(uploads: Sequence[UploadFile]) -> list[str]:
    """Give received files names of voxport's own, whose ending follows their content; their paths.

    Raises:
        InputError: an upload is empty.
    """
    return await to_thread.run_sync(lambda: [_named(upload, n) for n, upload in enumerate(uploads, 1)])


def _named(upload: UploadFile, number: int) -> str:
    file = received(upload)
    start = file.read(len(GZIP_MAGIC))
    if not start:
        raise InputError(f"volume {number}", expected="a NIfTI file", got="an empty upload", do="send the file")
    return str(file.path.rename(file.path.with_name(sent_name(number, start))))


def received(upload: UploadFile) -> ReceivedFile:
    """The hashed file of an upload."""
    file: object = upload.file
    if not isinstance(file, ReceivedFile):
        raise TypeError("expected a file that receive_form has written")
    return file
