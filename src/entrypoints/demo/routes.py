"""The viewer's routes: slices, values, pictures, surfaces, files. The session's cookie gives access."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, TypeVar
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ValidationError
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...domain.errors import CancelledError, UsageError, VoxportError
from ...domain.geometry.grid import Shape3
from ...domain.labels.brush import Stroke
from ...domain.labels.label_map import Label, LabelTable
from ...domain.viewing.display import Display
from ...domain.viewing.slicing import Convention, Picture, Plane
from ...services.viewing.sessions import Result, Session
from ...services.viewing.volume_viewer import Look, OpenVolume, ShownMask
from ..public_address import PublicAddress
from .controller import Controller

T = TypeVar("T")
STATIC = Path(__file__).parent / "static"
_GONE = 410
_MOST_STROKE_BYTES = 2**16
_PIECE_BYTES = 2**18
# The page may contact no other server. Gradio compiles its templates in the page.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_FRESH = {"Cache-Control": "no-store"}
_COLOURED = re.compile(r"(\d{1,9})-([0-9a-f]{6})")


def look(
    low: float,
    high: float,
    channel: Annotated[int, Query(ge=0)] = 0,
    convention: Convention = "radiological",
    opacity: Annotated[float, Query(ge=0, le=1)] = 0.5,
    outline: bool = False,
    labels: Annotated[str, Query(max_length=2**16)] = "",
) -> Look:
    """Read the display settings of a slice. ``labels`` are the visible ones, as ``1-e4572e.2-56b4e9``."""
    found = [Label(int(value), "", f"#{colour}") for value, colour in _COLOURED.findall(labels)]
    return Look(Display(low, high, LabelTable(tuple(found)), opacity, outline), channel, convention)


Looked = Annotated[Look, Depends(look)]


@dataclass(frozen=True)
class Looking:
    """An open session, and the use cases."""

    session: Session
    controller: Controller

    @property
    def opened(self) -> tuple[OpenVolume, ShownMask | None]:
        """The volume and its mask; 410 without a volume."""
        if self.session.volume is None:
            raise HTTPException(_GONE, "there is no volume")
        return self.session.volume, None if self.session.result is None else self.session.result.shown

    @property
    def result(self) -> Result:
        """The result; 410 without one."""
        if self.session.result is None:
            raise HTTPException(_GONE, "there is no mask")
        return self.session.result

    async def aside(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread.

        404 for a position outside the volume, 410 once the session's files are deleted, 422 with a sentence for errors.
        """
        try:
            return await to_thread.run_sync(work, limiter=self.controller.slicing)
        except IndexError:
            raise HTTPException(404, "there is no such place in the volume") from None
        except (ValueError, FileNotFoundError, CancelledError):  # closed meanwhile
            raise HTTPException(_GONE, "this volume is no longer open") from None
        except VoxportError as error:
            raise HTTPException(422, self.controller.sentence(error)) from None

    async def picture(self, make: Callable[[OpenVolume, ShownMask | None], Picture], **headers: str) -> Response:
        """Respond with a picture as PNG."""
        volume, mask = self.opened
        encoder = self.controller.application.pictures
        content = await self.aside(lambda: encoder.encode(make(volume, mask), quickly=True))
        return Response(content, media_type="image/png", headers={**_FRESH, **headers})

    async def file(self, find: Callable[[], Path], media_type: str, **headers: str) -> Response:
        """Respond with a file, which stays readable to its end if the session ends meanwhile."""
        file = await self.aside(lambda: find().open("rb"))
        headers = {**_FRESH, **headers, "Content-Length": str(os.fstat(file.fileno()).st_size)}
        return StreamingResponse(_pieces(file), media_type=media_type, headers=headers)

    async def download(self, name: str, place: Path) -> Response:
        """Respond with a file as a download."""
        attached = f"attachment; filename*=utf-8''{quote(name)}"
        return await self.file(lambda: place, "application/octet-stream", **{"Content-Disposition": attached})


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


async def looking(request: Request, id: str) -> Looking:
    """Find the session of an id: 401 without login, 410 if it has ended or the cookie is of another."""
    controller: Controller = request.app.state.controller
    if not request.app.state.may_enter(request):
        raise HTTPException(401, "log in on the page first")
    try:
        return Looking(controller.sessions.find(request.cookies.get(f"voxport-{id}"), id), controller)
    except UsageError:
        raise HTTPException(_GONE, "this session has ended: load the page again") from None


Looker = Annotated[Looking, Depends(looking)]
router = APIRouter(prefix="/session/{id}", include_in_schema=False)


@router.get("/slice/{plane}/{index}")
async def cut(at: Looker, plane: Plane, index: int, shown: Looked) -> Response:
    """Return a slice as PNG."""
    return await at.picture(lambda volume, mask: volume.plane(plane, index, shown, mask))


@router.get("/picture")
async def picture(at: Looker, axial: int, coronal: int, sagittal: int, shown: Looked) -> Response:
    """Return the three planes as one PNG, as a download."""
    attached = {"Content-Disposition": 'attachment; filename="view.png"'}
    return await at.picture(lambda volume, mask: volume.picture((axial, coronal, sagittal), shown, mask), **attached)


@router.get("/voxel/{x}/{y}/{z}")
async def voxel(at: Looker, x: int, y: int, z: int) -> Response:
    """Return the values and the label of a voxel."""
    volume, mask = at.opened
    values, label = await at.aside(lambda: volume.at((x, y, z), mask))
    # JSON has no NaN and Inf
    shown = [value if abs(value) < float("inf") else None for value in values]
    return JSONResponse({"values": shown, "label": label})


@router.get("/surfaces")
async def surfaces(at: Looker) -> Response:
    """Return the mask's surfaces as GLB, made on first use and after corrections."""
    result, revision = at.result, at.session.revision
    place = result.folder / f"surfaces_{revision}.glb"

    def made() -> Path:
        with at.session.surfacing:
            if not place.exists():
                content = at.controller.application.label_surfaces(result.shown.source, result.mask.table)
                for old in result.folder.glob("surfaces_*.glb"):
                    old.unlink()
                place.write_bytes(content)
        return place

    return await at.file(made, "model/gltf-binary")


@router.get("/files/{name}")
async def files(at: Looker, name: str) -> Response:
    """Return a file of the result."""
    place = None if at.session.result is None else at.session.result.files.get(name)
    if place is None:
        raise HTTPException(404, "there is no such file")
    return await at.download(name, place)


class Painting(BaseModel):
    """A stroke as the page sends it; ``continues``: a further part of the latest one."""

    value: int
    radius: float
    points: list[Shape3]
    continues: bool = False


async def painting(request: Request) -> Painting:
    """Read a stroke: 413 for a longer text than a stroke has, 422 for anything else."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > _MOST_STROKE_BYTES:
            raise HTTPException(413, "this is longer than a stroke")
    try:
        return Painting.model_validate_json(bytes(content))
    except ValidationError:
        raise HTTPException(422, "this is no stroke") from None


@router.post("/stroke")
async def stroke(at: Looker, painted: Annotated[Painting, Depends(painting)]) -> JSONResponse:
    """Paint a stroke into the mask; return the new revision."""
    brushed = Stroke(painted.value, painted.radius, tuple(painted.points))
    revision = await at.aside(lambda: at.controller.paint(at.session, brushed, continues=painted.continues))
    return JSONResponse({"revision": revision})


@router.post("/undo")
async def undo(at: Looker) -> JSONResponse:
    """Take the latest stroke back; return the new revision."""
    return JSONResponse({"revision": await at.aside(lambda: at.controller.undo(at.session))})


@router.get("/corrected/{kind}")
async def corrected(at: Looker, kind: Literal["mask", "report"]) -> Response:
    """Return the corrected mask, or the report of it, as a download."""
    make = at.controller.corrected_mask if kind == "mask" else at.controller.corrected_report
    name, place = await at.aside(lambda: make(at.session))
    return await at.download(name, place)


@router.post("/training")
async def training(at: Looker) -> JSONResponse:
    """Keep the volume and its corrected mask for training; return the case's name."""
    return JSONResponse({"case": await at.aside(lambda: at.controller.keep_for_training(at.session))})


def static_files() -> StaticFiles:
    """Serve the viewer's script and style."""
    return StaticFiles(directory=STATIC)


class Guarded:
    """ASGI middleware: the public address's prefix, and headers that forbid the page to contact other servers.

    Messages pass one by one, because Gradio detects a closed page by its broken stream.
    """

    def __init__(self, app: ASGIApp, public: PublicAddress) -> None:
        self._app, self._public = app, public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        if scope["type"] == "http":
            scope = self._public.applied_to(dict(scope))
        await self._app(scope, receive, guarded)
