"""The page: where things stand, and what happens when they are used."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from ...domain.errors import CancelledError, VoxportError
from ...domain.volume_names import NIFTI, PLAIN
from ...services.viewing.sessions import Session
from . import texts
from .desk import QUICK_EDGE, THRESHOLD, Desk, sentence
from .engines import Offer
from .scene import scene_of

_NO_MODEL = "No model: threshold preview"
_CROSSHAIR = "(token, model, voxel) => [token, model, window.voxport ? window.voxport.crosshair() : '']"
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

    @property
    def all(self) -> list[Any]:
        """Every part that an event may change."""
        return [getattr(self, name) for name in self.__dataclass_fields__ if name not in ("token", "voxel")]


@dataclass
class Events:
    """What happens at the page: the desk is asked, and the answer put where the person is looking."""

    desk: Desk
    page: Page
    tokens: dict[str, str] = field(default_factory=dict)

    def enter(self, request: gr.Request) -> tuple[Any, ...]:
        """Begin a session: a token, the models to choose from, and an empty viewer."""
        session = self.desk.sessions.open()
        self.tokens[str(request.session_hash)] = session.token
        offers, status = self._offers()
        choices = [(_title(offer), offer.card.reference) for offer in offers]
        chosen = offers[0].card.reference if offers else THRESHOLD
        dropdown = gr.Dropdown(
            choices=[*choices, (_NO_MODEL, THRESHOLD)], value=chosen, label="Model", interactive=True
        )
        return session.token, dropdown, texts.card(offers[0].card if offers else None), status

    def leave(self, request: gr.Request) -> None:
        """End the session of a page that is gone, with all its files."""
        self.desk.sessions.end(self.tokens.pop(str(request.session_hash), None))

    def drop(self, token: str, uploads: Sequence[str] | None) -> Updates:
        """Open what was dropped."""
        if not uploads:
            return {self.page.upload: None}
        try:
            return self._opened(self.desk.open(token, [Path(path) for path in uploads]))
        except VoxportError as error:
            return {self.page.upload: None, self.page.facts: texts.error(sentence(error))}

    def take_sample(self, token: str) -> Updates:
        """Open the sample."""
        try:
            return self._opened(self.desk.open_sample(token))
        except VoxportError as error:
            return {self.page.facts: texts.error(sentence(error))}

    def estimate(self, token: str, model: str) -> str:
        """What a run would take and what looks wrong; nothing before there is a volume."""
        try:
            if model == THRESHOLD or self.desk.sessions.find(token).volume is None:
                return ""
            return texts.estimated(self.desk.estimate(token, model))
        except CancelledError:
            return ""
        except VoxportError as error:
            return texts.error(sentence(error))

    def choose(self, model: str) -> str:
        """Show a model's card."""
        try:
            return texts.card(None if model == THRESHOLD else self.desk.engine.card(model))
        except VoxportError as error:
            return texts.error(sentence(error))

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

    def stop(self, token: str) -> Updates:
        """Cancel the run."""
        try:
            running = self.desk.sessions.find(token).cancel()
        except VoxportError as error:
            return {self.page.status: texts.error(sentence(error))}
        return {self.page.status: texts.note("Stopping …")} if running else {}

    def _run(self, token: str, model: str, voxel: tuple[int, int, int] | None) -> Iterator[Updates]:
        page = self.page
        try:
            for progress in self.desk.run(token, model, voxel):
                elapsed = time.monotonic() - progress.began
                yield {page.status: texts.progress(progress, elapsed), **self._busy(True)}
            yield self._finished(self.desk.sessions.find(token))
        except CancelledError:
            yield {page.status: texts.note("Cancelled. Nothing was kept of the run."), **self._busy(False)}
        except VoxportError as error:
            yield {page.status: texts.error(sentence(error)), **self._busy(False)}
        except Exception as error:  # a person is waiting, and must not be left without a word
            told = f"Something went wrong that should not: {type(error).__name__}. The server's log has more."
            yield {page.status: texts.error(told), **self._busy(False)}
            raise

    def _finished(self, session: Session) -> Updates:
        page, result = self.page, session.result
        if result is None:
            return {page.status: texts.note("Another volume was opened meanwhile."), **self._busy(False)}
        commands = None
        if "model" in result.report and result.box is None:
            commands = self.desk.engine.commands(session.files, result.report)
        headers, rows = texts.table(result)
        return {
            page.viewer: texts.viewer(scene_of(session)),
            page.status: texts.summary(result, self.desk.engine.place),
            page.preflight: "",
            page.results: gr.Column(visible=result.box is None),
            page.table: gr.Dataframe(value={"headers": headers, "data": rows}),
            page.downloads: texts.downloads(session, commands),
            **self._busy(False),
        }

    def _opened(self, session: Session) -> Updates:
        page = self.page
        return {
            page.upload: None,
            page.viewer: texts.viewer(scene_of(session)),
            page.facts: texts.facts(session),
            page.preflight: texts.note("Looking the volume over …"),
            page.status: "",
            page.results: gr.Column(visible=False),
            page.downloads: "",
            page.run: gr.Button(interactive=True),
            page.quick: gr.Button(interactive=True),
        }

    def _busy(self, running: bool) -> Updates:
        page = self.page
        return {
            page.run: gr.Button(interactive=not running),
            page.quick: gr.Button(interactive=not running),
            page.cancel: gr.Button(visible=running),
        }

    def _offers(self) -> tuple[Sequence[Offer], str]:
        try:
            return self.desk.engine.offers(), ""
        except VoxportError as error:
            return [], texts.error(sentence(error))


def _html(content: str = "", **options: Any) -> gr.HTML:
    """HTML in the page's own style."""
    return gr.HTML(content, apply_default_css=False, js_on_load=None, **options)


def _title(offer: Offer) -> str:
    return f"{offer.card.name} {offer.card.version}"


def build_page(desk: Desk) -> gr.Blocks:
    """The page of a desk."""
    blocks: gr.Blocks
    with gr.Blocks(
        title="voxport", analytics_enabled=False, delete_cache=(_SWEEP_SECONDS, 3600), fill_width=True
    ) as blocks:
        page = _layout(desk)
        events = Events(desk, page)
        _connect(blocks, page, events)
    blocks.queue(default_concurrency_limit=None, api_open=False)
    # Gradio looks a thousand times a second whether there is something to do, which takes 6 % of a processor
    blocks._queue.sleep_when_free = _GLANCE_SECONDS
    return blocks


def _layout(desk: Desk) -> Page:
    token = gr.State(None)
    voxel = gr.Textbox(visible=False)
    _html(
        '<header class="vx-head"><h1>voxport</h1><p>Drop a volume, see its segmentation, take the mask home. '
        f"Scored {texts.plain(desk.engine.place)}; nothing goes anywhere else.</p></header>"
    )
    with gr.Row(elem_classes="vx-main"):
        with gr.Column(scale=1, min_width=300, elem_classes="vx-side"):
            _html('<h2 class="vx-step">1. Volume</h2>')
            upload = gr.File(
                label=f"{NIFTI.name} files: {', '.join(NIFTI.single)}",
                file_count="multiple",
                file_types=[PLAIN, ".gz"],
                height=148,
                elem_id="vx-upload",
            )
            _html(f'<p class="vx-tip">{texts.upload_tip(desk.largest_upload)}</p>')
            sample = gr.Button("Try the sample", size="sm", elem_id="vx-sample")
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
        run, quick, cancel, status, results, table, downloads, voxel,
    )  # fmt: skip


def _connect(blocks: gr.Blocks, page: Page, events: Events) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    opened = (page.token, page.model)
    blocks.load(events.enter, None, [page.token, page.model, page.card, page.status], **quiet)
    blocks.unload(events.leave)
    dropped = page.upload.upload(events.drop, [page.token, page.upload], page.all, **quiet)
    dropped.then(events.estimate, [*opened], page.preflight, **quiet)
    sampled = page.sample.click(events.take_sample, page.token, page.all, **quiet)
    sampled.then(events.estimate, [*opened], page.preflight, **quiet)
    chosen = page.model.change(events.choose, page.model, page.card, **quiet)
    chosen.then(events.estimate, [*opened], page.preflight, **quiet)
    page.run.click(events.run_all, [*opened], page.all, **quiet)
    page.quick.click(events.run_part, [*opened, page.voxel], page.all, js=_CROSSHAIR, **quiet)
    page.cancel.click(events.stop, page.token, page.all, **quiet)
