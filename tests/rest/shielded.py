"""A small application behind the shield, and what a test needs to ask it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI, Request, UploadFile
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from voxport.entrypoints.json_log import JsonLines
from voxport.entrypoints.rest.keys import KeyHash, parse_keys
from voxport.entrypoints.rest.shield import Shield
from voxport.settings import ServingSettings

KEY = "correct-horse-battery-staple"
OTHER_KEY = "another-horse-battery-staple"
KEYS = parse_keys([KEY, OTHER_KEY])
BEARER = {"Authorization": f"Bearer {KEY}"}
PRINCIPAL = sha256(KEY.encode()).hexdigest()[:12]
LIMIT = 100_000


class Lines(logging.Handler):
    """Keeps the lines of a log."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(self.format(record))

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text]


def make_api() -> FastAPI:
    """An application that reads bodies as the service does."""
    api = FastAPI(openapi_url=None)
    router = APIRouter(prefix="/v1")

    @api.post("/echo")
    async def echo(request: Request) -> dict[str, Any]:
        sizes = [len(chunk) async for chunk in request.stream()]
        return {"bytes": sum(sizes), "largest": max(sizes), **request.scope["state"]}

    @api.post("/form")
    async def form(volume: UploadFile) -> dict[str, Any]:
        return {"bytes": len(await volume.read())}

    @api.get("/fail")
    async def fail() -> None:
        raise RuntimeError("a secret")

    @api.get("/livez")
    @api.get("/readyz")
    async def probe() -> dict[str, str]:
        return {}

    @router.get("/models/{name}")
    async def model(name: str) -> dict[str, str]:
        return {"name": name}

    api.include_router(router)
    return api


async def outer_app(scope: Scope, receive: Receive, send: Send) -> None:
    """What stands for BentoML."""
    await PlainTextResponse(f"outer {scope['type']}")(scope, receive, send)


def make_shield(
    lines: Lines | None = None,
    *,
    app: ASGIApp = outer_app,
    api: ASGIApp | None = None,
    keys: Sequence[KeyHash] = (),
    **settings: Any,
) -> Shield:
    """A shield before `make_api`, logging to ``lines``."""
    log = logging.Logger("shield under test")
    log.addHandler(lines or Lines())
    limits = ServingSettings(max_body_bytes=LIMIT, **settings)
    return Shield(app, api=api or make_api(), settings=limits, log=log, keys=keys)


def with_scope(app: ASGIApp, **changes: Any) -> ASGIApp:
    """The application, told that its connections are others."""

    async def changed(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, **changes}, receive, send)

    return changed


def ask(app: ASGIApp, method: str, path: str, **request: Any) -> httpx.Response:
    """The answer to one request, which comes from this machine."""

    async def asking() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:3000") as client:
            return await client.request(method, path, **request)

    return asyncio.run(asking())


def kind_of(response: httpx.Response) -> str:
    """The kind of the problem that an answer is, which must be well formed."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["instance"] == f"urn:uuid:{response.headers['Voxport-Request']}"
    kind = str(body["type"]).removeprefix("urn:voxport:problem:")
    if kind != "internal":
        assert body["detail"].endswith(f"expected {body['expected']}, got {body['got']}; {body['do']}")
    return kind


async def pieces(size: int, count: int) -> AsyncIterator[bytes]:
    """A body of so many pieces."""
    for _ in range(count):
        yield b"x" * size


def call(app: ASGIApp, messages: list[Message], **scope: Any) -> list[Message]:
    """All that passes between the application and its server, in order."""
    given = iter(messages)
    passed: list[Message] = []

    async def receive() -> Message:
        passed.append(next(given))
        return passed[-1]

    async def send(message: Message) -> None:
        passed.append(message)

    base = {"type": "http", "method": "POST", "path": "/echo", "raw_path": b"/echo", "query_string": b""}
    local = {"server": ("127.0.0.1", 3000), "client": ("127.0.0.1", 5), "headers": [(b"host", b"localhost")]}

    async def calling() -> None:
        await app({**base, **local, **scope}, receive, send)

    asyncio.run(calling())
    return passed


def chunk(size: int, more: bool = True) -> Message:
    """A message with a part of a body."""
    return {"type": "http.request", "body": b"x" * size, "more_body": more}
