"""The page: its layout, and the events of its parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from ...domain.errors import CancelledError, VoxportError
from ...domain.volume_names import NIFTI, PLAIN
from ...ports.segmenter import Offer
from ...services.viewing.sessions import Run, Session
from . import texts
from .controller import QUICK_EDGE, THRESHOLD, Controller
from .scene import scene_of

_NO_MODEL = "No model: threshold preview"
_CROSSHAIR = "(token, model, voxel) => [token, model, window.voxport ? window.voxport.crosshair() : '']"
_KEPT_TOKEN = "() => [sessionStorage.getItem('voxport-session') || '']"
_SWEEP_SECONDS = 60
_GLANCE_SECONDS = 0.02

Updates = dict[Any, Any]


@dataclass
class Page:
    """The parts of the page that change."""

    token: gr.State
    viewer: gr.HTML
    upload: gr.File
    sample: gr.Button
    facts: gr.HTML
    model: gr.Dropdown
    card: gr.HTML
    preflight: gr.HTML
    run: gr.Button
    quick: gr.Button
    cancel: gr.Button
    status: gr.HTML
    results: gr.Column
    table: gr.Dataframe
    downloads: gr.HTML
    voxel: gr.Textbox
    kept: gr.Textbox

    @property
    def all(self) -> list[Any]:
        """Every part that an event may change."""
        return [getattr(self, name) for name in self.__dataclass_fields__ if name not in ("token", "voxel", "kept")]


@dataclass
class Events:
    """The page's events: each calls the controller and updates the parts that show the answer."""

    controller: Controller
    page: Page
    tokens: dict[str, str] = field(default_factory=dict)

    def enter(self, token: str, request: gr.Request) -> Updates:
        """Take up the session of a page that is loaded again, or begin one, and wake the controls."""
        page, session = self.page, self.controller.sessions.enter(token)
        self.tokens[str(request.session_hash)] = session.token
        offers, status = self._offers()
        choices = [(_title(offer), offer.card.reference) for offer in offers] + [(_NO_MODEL, THRESHOLD)]
        if session.model not in [reference for _, reference in choices]:
            session.model = choices[0][1]
        card = next((offer.card for offer in offers if offer.card.reference == session.model), None)
        ready = {
            page.token: session.token,
            page.model: gr.Dropdown(choices=choices, value=session.model, label="Model", interactive=True),
            page.card: texts.card(card),
            page.upload: gr.File(interactive=True),
            page.sample: gr.Button(interactive=True),
        }
        if session.volume is None:
            return {**ready, page.status: status}
        return {**self._opened(session), page.preflight: "", **self._shown(session), **ready}

    def leave(self, request: gr.Request) -> None:
        """Note that a page is gone; its session ends a little later."""
        self.controller.sessions.leave(self.tokens.pop(str(request.session_hash), None))

    def drop(self, token: str, uploads: Sequence[str] | None) -> Updates:
        """Open what was dropped."""
        if not uploads:
            return {self.page.upload: None}
        try:
            return self._opened(self.controller.open(token, [Path(path) for path in uploads]))
        except VoxportError as error:
            return {self.page.upload: None, self.page.facts: self._error(error)}

    def take_sample(self, token: str) -> Updates:
        """Open the sample."""
        try:
            return self._opened(self.controller.open_sample(token))
        except VoxportError as error:
            return {self.page.facts: self._error(error)}

    def estimate(self, token: str, model: str) -> str:
        """Estimate a run, once a volume is open."""
        try:
            if model == THRESHOLD or self.controller.sessions.find(token).volume is None:
                return ""
            return texts.estimated(self.controller.estimate(token, model))
        except CancelledError:
            return ""
        except VoxportError as error:
            return self._error(error)

    def choose(self, token: str, model: str) -> Updates:
        """Show a model's card, and its names of the channels."""
        try:
            session = self.controller.sessions.find(token)
            before, session.model = self.controller.channel_names(session), model
            updates: Updates = {
                self.page.card: texts.card(None if model == THRESHOLD else self.controller.segmenter.card(model))
            }
            if self.controller.channel_names(session) != before:
                updates[self.page.viewer] = self._viewer(session)
            return updates
        except VoxportError as error:
            return {self.page.card: self._error(error)}

    def run_all(self, token: str, model: str) -> Iterator[Updates]:
        """Segment the whole volume."""
        yield from self._run(token, model, None)

    def run_part(self, token: str, model: str, voxel: str) -> Iterator[Updates]:
        """Segment the neighbourhood of the crosshair."""
        try:
            x, y, z = (int(v) for v in voxel.split(","))
        except ValueError:
            yield {self.page.status: texts.error("There is no crosshair: drop a volume first, or try the sample.")}
            return
        yield from self._run(token, model, (x, y, z))

    def resume(self, token: str) -> Iterator[Updates]:
        """Follow the run that goes on in a session that was taken up."""
        yield {self.page.status: gr.skip()}  # Gradio empties the outputs of a generator that yields nothing
        with suppress(VoxportError):
            run = self.controller.sessions.find(token).run
            if run is not None and not run.wait(0):
                yield from self._followed(token, lambda: run)

    def stop(self, token: str) -> Updates:
        """Cancel the run."""
        try:
            running = self.controller.sessions.find(token).cancel()
        except VoxportError as error:
            return {self.page.status: self._error(error)}
        return {self.page.status: texts.note("Stopping …") if running else gr.skip()}

    def _run(self, token: str, model: str, voxel: tuple[int, int, int] | None) -> Iterator[Updates]:
        yield from self._followed(token, lambda: self.controller.start(token, model, voxel))

    def _followed(self, token: str, start: Callable[[], Run]) -> Iterator[Updates]:
        page = self.page
        try:
            for progress in self.controller.follow(token, start()):
                elapsed = time.monotonic() - progress.began
                yield {page.status: texts.progress(progress, elapsed), **self._busy(True)}
            shown = self._shown(self.controller.sessions.find(token))
            shown = shown or {page.status: texts.note("Another volume was opened meanwhile.")}
            yield {**shown, page.preflight: "", **self._busy(False)}
        except CancelledError:
            yield {page.status: texts.note("Cancelled. Nothing was kept of the run."), **self._busy(False)}
        except VoxportError as error:
            yield {page.status: self._error(error), **self._busy(False)}
        except Exception as error:  # the page must say something
            message = f"Something went wrong that should not: {type(error).__name__}. The server's log has more."
            yield {page.status: texts.error(message), **self._busy(False)}
            raise

    def _shown(self, session: Session) -> Updates:
        """The session's result."""
        page, result = self.page, session.result
        if result is None:
            return {}
        headers, rows = texts.table(result)
        return {
            page.viewer: self._viewer(session),
            page.status: texts.summary(result, self.controller.place),
            page.results: gr.Column(visible=result.box is None),
            page.table: gr.Dataframe(value={"headers": headers, "data": rows}),
            page.downloads: texts.downloads(session, self.controller.commands(session, result)),
        }

    def _opened(self, session: Session) -> Updates:
        page = self.page
        return {
            page.upload: None,
            page.viewer: self._viewer(session),
            page.facts: texts.facts(session),
            page.preflight: texts.note("Looking the volume over …"),
            page.status: "",
            page.results: gr.Column(visible=False),
            page.downloads: "",
            page.run: gr.Button(interactive=True),
            page.quick: gr.Button(interactive=True),
        }

    def _viewer(self, session: Session) -> str:
        return texts.viewer(scene_of(session, self.controller.channel_names(session)))

    def _error(self, error: VoxportError) -> str:
        return texts.error(self.controller.sentence(error))

    def _busy(self, running: bool) -> Updates:
        page = self.page
        return {
            page.run: gr.Button(interactive=not running),
            page.quick: gr.Button(interactive=not running),
            page.cancel: gr.Button(visible=running),
        }

    def _offers(self) -> tuple[Sequence[Offer], str]:
        try:
            return self.controller.segmenter.offers(), ""
        except VoxportError as error:
            return [], self._error(error)


def _html(content: str = "", **options: Any) -> gr.HTML:
    """HTML in the page's own style."""
    return gr.HTML(content, apply_default_css=False, js_on_load=None, **options)


def _title(offer: Offer) -> str:
    return f"{offer.card.name} {offer.card.version}"


def build_page(controller: Controller) -> gr.Blocks:
    """Build the page over a controller."""
    blocks: gr.Blocks
    with gr.Blocks(
        title="voxport", analytics_enabled=False, delete_cache=(_SWEEP_SECONDS, 3600), fill_width=True
    ) as blocks:
        page = _layout(controller)
        events = Events(controller, page)
        _connect(blocks, page, events)
    blocks.queue(default_concurrency_limit=None, api_open=False)
    # Gradio looks a thousand times a second whether there is something to do, which takes 6 % of a processor
    blocks._queue.sleep_when_free = _GLANCE_SECONDS
    return blocks


def _layout(controller: Controller) -> Page:
    token = gr.State(None)
    voxel, kept = gr.Textbox(visible=False), gr.Textbox(visible=False)
    _html(
        '<header class="vx-head"><h1>voxport</h1><p>Drop a volume, see its segmentation, take the mask home. '
        f"Segmented {texts.plain(controller.place)}; nothing goes anywhere else.</p></header>"
    )
    with gr.Row(elem_classes="vx-main"):
        with gr.Column(scale=1, min_width=300, elem_classes="vx-side"):
            _html('<h2 class="vx-step">1. Volume</h2>')
            upload = gr.File(
                label=f"{NIFTI.name} files: {', '.join(NIFTI.single)}",
                file_count="multiple",
                file_types=[PLAIN, ".gz"],
                height=148,
                interactive=False,
                elem_id="vx-upload",
            )
            _html(f'<p class="vx-tip">{texts.upload_tip(controller.application.settings.demo.max_upload_bytes)}</p>')
            sample = gr.Button("Try the sample", size="sm", interactive=False, elem_id="vx-sample")
            facts = _html(elem_id="vx-facts")
            _html('<h2 class="vx-step">2. Model</h2>')
            model = gr.Dropdown([], label="Model (being loaded …)", interactive=False, elem_id="vx-model")
            with gr.Accordion("About this model", open=False):
                card = _html()
            _html('<h2 class="vx-step">3. Segment</h2>')
            preflight = _html(elem_id="vx-preflight")
            run = gr.Button("Segment the volume", variant="primary", interactive=False, elem_id="vx-run")
            quick = gr.Button(
                f"Quick look around the crosshair ({QUICK_EDGE} voxels)",
                size="sm",
                interactive=False,
                elem_id="vx-quick",
            )
            cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="vx-cancel")
            status = _html(elem_id="vx-status")
            downloads = _html(elem_id="vx-downloads")
        with gr.Column(scale=4, min_width=640):
            viewer = _html(texts.viewer(None), elem_id="vx-viewer")
            with gr.Column(visible=False, elem_id="vx-results") as results:
                headers, _ = texts.table(None)
                table = gr.Dataframe(
                    headers=headers, interactive=False, label="Statistics; a click on a heading sorts", wrap=True
                )
    return Page(
        token, viewer, upload, sample, facts, model, card, preflight,
        run, quick, cancel, status, results, table, downloads, voxel, kept,
    )  # fmt: skip


def _connect(blocks: gr.Blocks, page: Page, events: Events) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    opened = (page.token, page.model)
    entered = blocks.load(events.enter, page.kept, [page.token, *page.all], js=_KEPT_TOKEN, **quiet)
    entered.then(events.resume, page.token, page.all, **quiet)
    blocks.unload(events.leave)
    dropped = page.upload.upload(events.drop, [page.token, page.upload], page.all, **quiet)
    dropped.then(events.estimate, [*opened], page.preflight, **quiet)
    sampled = page.sample.click(events.take_sample, page.token, page.all, **quiet)
    sampled.then(events.estimate, [*opened], page.preflight, **quiet)
    chosen = page.model.change(events.choose, [*opened], page.all, **quiet)
    chosen.then(events.estimate, [*opened], page.preflight, **quiet)
    page.run.click(events.run_all, [*opened], page.all, **quiet)
    page.quick.click(events.run_part, [*opened, page.voxel], page.all, js=_CROSSHAIR, **quiet)
    page.cancel.click(events.stop, page.token, page.all, **quiet)
