"""What the viewer asks for while a person looks around: slices, values, pictures, surfaces, files. Tokens open them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...domain.errors import UsageError
from ...domain.labels.label_map import Label, LabelTable
from ...domain.viewing.display import Display
from ...domain.viewing.slicing import Convention, Picture, Plane
from ...services.viewing.sessions import Session
from ...services.viewing.volume_viewer import Look, OpenVolume, ShownMask
from .desk import Desk

T = TypeVar("T")
STATIC = Path(__file__).parent / "static"
_GONE = 410
# Nothing on the page may come from, or go to, any other place; Gradio's templates are compiled in the page.
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
    """A dependency: how a slice is to be shown. ``labels`` are those that show, as ``1-e4572e.2-56b4e9``."""
    found = [Label(int(value), "", f"#{colour}") for value, colour in _COLOURED.findall(labels)]
    return Look(Display(low, high, LabelTable(tuple(found)), opacity, outline), channel, convention)


Looked = Annotated[Look, Depends(look)]


@dataclass(frozen=True)
class Looking:
    """A session that is looked at, and what cuts its slices."""

    session: Session
    desk: Desk

    @property
    def opened(self) -> tuple[OpenVolume, ShownMask | None]:
        """The volume and the mask over it; 410 where there is no volume."""
        if self.session.volume is None:
            raise HTTPException(_GONE, "there is no volume")
        result = self.session.result
        return self.session.volume, None if result is None else result.mask

    async def aside(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread; 404 and 410 for places and volumes that there are not."""
        try:
            return await to_thread.run_sync(work, limiter=self.desk.lookers)
        except IndexError:
            raise HTTPException(404, "there is no such place in the volume") from None
        except ValueError:  # closed while it was looked at
            raise HTTPException(_GONE, "this volume is no longer open") from None

    async def picture(self, make: Callable[[OpenVolume, ShownMask | None], Picture], **headers: str) -> Response:
        """A picture as PNG."""
        volume, mask = self.opened
        encoder = self.desk.application.pictures
        content = await self.aside(lambda: encoder.encode(make(volume, mask), quickly=True))
        return Response(content, media_type="image/png", headers={**_FRESH, **headers})


async def looking(request: Request, token: str) -> Looking:
    """A dependency: the session of a token; 410 where it has ended."""
    desk: Desk = request.app.state.desk
    try:
        return Looking(desk.sessions.find(token), desk)
    except UsageError:
        raise HTTPException(_GONE, "this session has ended: load the page again") from None


Looker = Annotated[Looking, Depends(looking)]
router = APIRouter(prefix="/session/{token}", include_in_schema=False)


@router.get("/slice/{plane}/{index}")
async def cut(at: Looker, plane: Plane, index: int, shown: Looked) -> Response:
    """One slice as PNG."""
    return await at.picture(lambda volume, mask: volume.plane(plane, index, shown, mask))


@router.get("/picture")
async def picture(at: Looker, axial: int, coronal: int, sagittal: int, shown: Looked) -> Response:
    """The three planes as they are shown, as a PNG to keep."""
    attached = {"Content-Disposition": 'attachment; filename="view.png"'}
    return await at.picture(lambda volume, mask: volume.picture((axial, coronal, sagittal), shown, mask), **attached)


@router.get("/voxel/{x}/{y}/{z}")
async def voxel(at: Looker, x: int, y: int, z: int) -> Response:
    """The values and the label at a voxel."""
    volume, mask = at.opened
    values, label = await at.aside(lambda: volume.at((x, y, z), mask))
    # NaN and Inf are no JSON
    shown = [value if abs(value) < float("inf") else None for value in values]
    return JSONResponse({"values": shown, "label": label})


@router.get("/surfaces")
async def surfaces(at: Looker) -> Response:
    """The mask's surfaces as GLB, made when they are first asked for."""
    result = at.session.result
    if result is None:
        raise HTTPException(_GONE, "there is no mask")
    place = result.folder / "surfaces.glb"

    def made() -> Path:
        with at.session.surfacing:
            if not place.exists():
                place.write_bytes(at.desk.application.label_surfaces(result.mask.source, result.mask.table))
        return place

    return FileResponse(await at.aside(made), media_type="model/gltf-binary", headers=_FRESH)


@router.get("/files/{name}")
async def files(at: Looker, name: str) -> Response:
    """A result's file."""
    place = None if at.session.result is None else at.session.result.files.get(name)
    if place is None:
        raise HTTPException(404, "there is no such file")
    return FileResponse(place, filename=name, media_type="application/octet-stream", headers=_FRESH)


def static_files() -> StaticFiles:
    """The viewer's script and style."""
    return StaticFiles(directory=STATIC)


class Guarded:
    """An ASGI app around another: every answer forbids the page to reach for other places.

    It hands messages on one by one: Gradio notices that a page has gone by its broken stream.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, guarded)
