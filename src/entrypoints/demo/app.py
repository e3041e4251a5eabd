"""The demo as an ASGI app: Gradio's page and the viewer's routes."""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
from fastapi import FastAPI
from starlette.requests import Request
from starlette.routing import Mount

from ...services.viewing.sessions import Sessions
from ..public_address import PublicAddress
from ..rest.keys import KeyHash
from .controller import Controller
from .languages import Languages
from .routes import Guarded, router, static_files

if TYPE_CHECKING:
    from pathlib import Path

    from ...application import Application
    from ...ports.segmenter import Segmenter

_SWEEP_SECONDS = 5.0
_HEAD = (
    '<link rel="stylesheet" href="viewer/page.css"><script type="module" src="viewer/viewer.js"></script>'
    '<meta name="referrer" content="no-referrer">'
)
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_MONO = ["ui-monospace", "Consolas", "monospace"]


def create_app(
    application: Application,
    segmenter: Segmenter,
    folder: Path,
    keys: Sequence[KeyHash] = (),
    training: Path | None = None,
) -> FastAPI:
    """Build the demo.

    Args:
        application: the use cases.
        segmenter: segments the cases.
        folder: for the sessions' files and Gradio's uploads; the caller deletes it.
        keys: any of them is the password; without keys there is no login.
        training: where users may keep corrected cases.

    Raises:
        OutputError: ``training`` cannot be written.
    """
    # Gradio reads these on import, or at each upload: no analytics, and no uploads in the system's temporary folder
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    settings = application.settings.demo
    sessions = Sessions(folder, settings.idle_seconds, settings.keep_seconds)
    kept = None if training is None else application.training_folder(training)
    controller = Controller(application, segmenter, sessions, kept)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001 - the signature is FastAPI's
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_sweep, sessions)
            yield
            tasks.cancel_scope.cancel()
        await anyio.to_thread.run_sync(sessions.close)

    app = FastAPI(title="voxport demo", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Guarded, public=PublicAddress(settings.public_url, settings.trust_forwarded_prefix))
    app.state.controller = controller
    app.include_router(router)
    app.mount("/viewer", static_files())
    return _with_page(app, controller, keys)


def _with_page(app: FastAPI, controller: Controller, keys: Sequence[KeyHash]) -> FastAPI:
    import gradio as gr

    from .page import build_page, translations

    languages = Languages.read()
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        build_page(controller, languages),
        path="/",
        footer_links=[],
        run_history=False,
        auth=_opened_by(keys) if keys else None,
        auth_message="".join(f'<p lang="{tag}">{say("login")}</p>' for tag, say in languages.texts.items()),
        show_error=False,
        max_file_size=controller.application.settings.demo.max_upload_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        theme=gr.themes.Default(font=_FONTS, font_mono=_MONO),
        head=_texts_of_the_viewer(languages) + _HEAD,
        i18n=translations(controller, languages),
    )
    page = next(r.app for r in mounted.routes if isinstance(r, Mount) and isinstance(r.app, gr.routes.App))
    # the streams of open pages end only when this is set
    mounted.state.end_streams = page.stop_event.set
    mounted.state.may_enter = lambda request: not keys or _is_logged_in(page, request)
    return mounted


def _texts_of_the_viewer(languages: Languages) -> str:
    texts = json.dumps({tag: say.group("viewer") for tag, say in languages.texts.items()})
    return f'<script type="application/json" id="voxport-texts">{texts}</script>'


def _opened_by(keys: Sequence[KeyHash]) -> Callable[[str, str], bool]:
    def check(name: str, password: str) -> bool:  # noqa: ARG001 - a key is enough
        digest = KeyHash.of(password).digest
        # compares all keys, so that the time taken does not depend on which one matches
        return sum(hmac.compare_digest(key.digest, digest) for key in keys) > 0

    return check


def _is_logged_in(page: FastAPI, request: Request) -> bool:
    names = (f"access-token-{page.cookie_id}", f"access-token-unsecure-{page.cookie_id}")  # type: ignore[attr-defined]
    return any(request.cookies.get(name) in page.tokens for name in names)  # type: ignore[attr-defined]


async def _sweep(sessions: Sessions) -> None:
    while True:
        await anyio.sleep(_SWEEP_SECONDS)
        with suppress(OSError):
            await anyio.to_thread.run_sync(sessions.sweep)
