"""The demo's page: its parts and its events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr

from ...contract.options import options_of, stated_options
from ...domain.errors import CancelledError, VoxportError
from ...services.viewing.sessions import Run, Session
from . import texts
from .controller import QUICK_EDGE, THRESHOLD, Controller
from .scene import scene_of
from .uploads import asks_for_reading

_NO_MODEL = "No model: threshold preview"
_CROSSHAIR = "(token, model, voxel) => [token, model, window.voxport ? window.voxport.crosshair() : '']"
_KEPT_TOKEN = "() => [sessionStorage.getItem('voxport-session') || '']"
_SWEEP_SECONDS = 60
_GLANCE_SECONDS = 0.02

Updates = dict[Any, Any]


class Page:
    """The page's parts, and its events: each calls the controller and updates the parts that change."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._tokens: dict[str, str] = {}  # of sessions, by Gradio's own
        self.token = gr.State(None)
        self.voxel, self.kept = gr.Textbox(visible=False), gr.Textbox(visible=False)
        _html(
            '<header class="vx-head"><h1>voxport</h1><p>Drop a volume, see its segmentation, take the mask home. '
            f"Segmented {texts.plain(controller.place)}; nothing goes anywhere else.</p></header>"
        )
        with gr.Row(elem_classes="vx-main"):
            with gr.Column(scale=1, min_width=300, elem_classes="vx-side"):
                self._add_steps()
            with gr.Column(scale=4, min_width=640):
                self.viewer = _html(texts.viewer(None), elem_id="vx-viewer")
                with gr.Column(visible=False, elem_id="vx-results") as self.results:
                    headers, _ = texts.table(None)
                    label = "Statistics; a click on a heading sorts"
                    self.table = gr.Dataframe(headers=headers, interactive=False, label=label, wrap=True)

    def _add_steps(self) -> None:
        _html('<h2 class="vx-step">1. Volume</h2>')
        self.upload = gr.File(
            label="Volume",
            file_count="multiple",  # of any name: DICOM files often have no ending
            height=148,
            interactive=False,
            elem_id="vx-upload",
        )
        limit = self.controller.application.settings.demo.max_upload_bytes
        formats = ", ".join(known.name for known in self.controller.application.volumes.names.formats)
        _html(f'<p class="vx-tip">{formats}. {texts.upload_tip(limit)}</p>')
        with gr.Row():
            folder: dict[str, Any] = {"file_count": "directory", "size": "sm", "interactive": False}
            self.folder = gr.UploadButton("Open a folder of DICOM", elem_id="vx-folder", **folder)
            self.sample = gr.Button("Try the sample", size="sm", interactive=False, elem_id="vx-sample")
        self.facts = _html(elem_id="vx-facts")
        with gr.Accordion("How it is stored", open=False, visible=False, elem_id="vx-stored") as self.stored:
            self._add_reading()
        _html('<h2 class="vx-step">2. Model</h2>')
        self.model = gr.Dropdown([], label="Model (being loaded …)", interactive=False, elem_id="vx-model")
        with gr.Accordion("About this model", open=False):
            self.card = _html()
        _html('<h2 class="vx-step">3. Segment</h2>')
        self.preflight = _html(elem_id="vx-preflight")
        self.run = gr.Button("Segment the volume", variant="primary", interactive=False, elem_id="vx-run")
        look = f"Quick look around the crosshair ({QUICK_EDGE} voxels)"
        self.quick = gr.Button(look, size="sm", interactive=False, elem_id="vx-quick")
        self.cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="vx-cancel")
        self.status = _html(elem_id="vx-status")
        self.downloads = _html(elem_id="vx-downloads")
        self.form = gr.Dropdown([], label="Format of the mask", visible=False, elem_id="vx-format")

    def _add_reading(self) -> None:
        """Add a field for each option that states how a volume is stored."""
        _html('<p class="vx-tip">What is left empty is as the file states it.</p>')
        self.reading: dict[str, Any] = {}
        for name, stated in stated_options().items():
            more: dict[str, Any] = {"label": name.capitalize(), "info": stated.description, "elem_id": f"vx-{name}"}
            if stated.choices:
                self.reading[name] = gr.Dropdown([("as stated", ""), *stated.choices], value="", **more)
            elif stated.is_whole:
                self.reading[name] = gr.Number(None, precision=0, minimum=0, **more)
            else:
                self.reading[name] = gr.Textbox(placeholder=stated.metavar, max_lines=1, max_length=200, **more)
        self.reopen = gr.Button("Read it so", size="sm", elem_id="vx-reopen")

    def connect(self, blocks: gr.Blocks) -> None:
        """Connect the parts to the events."""
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        inputs = [self.token, self.model]
        changing = [
            *(self.viewer, self.upload, self.folder, self.sample, self.facts, self.stored, *self.reading.values()),
            *(self.model, self.card, self.preflight),
            *(self.run, self.quick, self.cancel, self.status, self.results, self.table, self.downloads, self.form),
        ]
        entered = blocks.load(self.enter, self.kept, [self.token, *changing], js=_KEPT_TOKEN, **quiet)
        entered.then(self.resume, self.token, changing, **quiet)
        blocks.unload(self.leave)
        for changed in (
            self.upload.upload(self.drop, [self.token, self.upload], changing, **quiet),
            self.folder.upload(self.drop, [self.token, self.folder], changing, **quiet),
            self.sample.click(self.take_sample, self.token, changing, **quiet),
            self.reopen.click(self.read_again, [self.token, *self.reading.values()], changing, **quiet),
            self.model.change(self.choose, inputs, changing, **quiet),
        ):
            changed.then(self.estimate, inputs, self.preflight, **quiet)
        self.run.click(self.run_all, inputs, changing, **quiet)
        self.quick.click(self.run_part, [*inputs, self.voxel], changing, js=_CROSSHAIR, **quiet)
        self.form.input(self.save_as, [self.token, self.form], changing, **quiet)
        self.cancel.click(self.stop, self.token, changing, **quiet)

    def enter(self, token: str, request: gr.Request) -> Updates:
        """Resume the session of a page that is loaded again, or begin one, and enable the controls."""
        session = self.controller.sessions.enter(token)
        self._tokens[str(request.session_hash)] = session.token
        cards, status = {}, ""
        try:
            cards = {offer.card.reference: offer.card for offer in self.controller.segmenter.offers()}
        except VoxportError as error:
            status = self._error(error)
        choices = [(f"{card.name} {card.version}", reference) for reference, card in cards.items()]
        choices.append((_NO_MODEL, THRESHOLD))
        if session.model not in dict(choices).values():
            session.model = choices[0][1]
        ready = {
            self.token: session.token,
            self.model: gr.Dropdown(choices=choices, value=session.model, label="Model", interactive=True),
            self.card: texts.card(cards.get(session.model)),
            self.upload: gr.File(interactive=True),
            self.folder: gr.UploadButton(interactive=True),
            self.sample: gr.Button(interactive=True),
        }
        if session.volume is None:
            return {**ready, self.status: status}
        return {**self._opened(session), self.preflight: "", **self._shown(session), **ready}

    def leave(self, request: gr.Request) -> None:
        """Record that a page is closed; its session ends a little later."""
        self.controller.sessions.leave(self._tokens.pop(str(request.session_hash), None))

    def drop(self, token: str, uploads: Sequence[str] | None) -> Updates:
        """Open uploaded files."""
        if not uploads:
            return {self.upload: None}
        try:
            return self._opened(self.controller.open(token, [Path(path) for path in uploads]))
        except VoxportError as error:
            asked: Updates = self._emptied(is_open=True) if asks_for_reading(error) else {}
            return {self.upload: None, self.folder: None, self.facts: self._error(error), **asked}

    def read_again(self, token: str, *values: Any) -> Updates:
        """Open the latest files again, as the fields state them."""
        stated = {name: value for name, value in zip(self.reading, values, strict=True) if value not in ("", None)}
        try:
            options = options_of(stated, memory_bytes=None)
            kept = {self.stored: gr.skip(), **{part: gr.skip() for part in self.reading.values()}}
            return {**self._opened(self.controller.reopen(token, options)), **kept}
        except VoxportError as error:
            return {self.facts: self._error(error)}

    def take_sample(self, token: str) -> Updates:
        """Open the sample."""
        try:
            return self._opened(self.controller.open_sample(token))
        except VoxportError as error:
            return {self.facts: self._error(error)}

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
                self.card: texts.card(None if model == THRESHOLD else self.controller.segmenter.card(model))
            }
            if self.controller.channel_names(session) != before:
                updates[self.viewer] = self._viewer(session)
            return updates
        except VoxportError as error:
            return {self.card: self._error(error)}

    def run_all(self, token: str, model: str) -> Iterator[Updates]:
        """Segment the whole volume."""
        yield from self._followed(token, lambda: self.controller.start(token, model, None))

    def run_part(self, token: str, model: str, voxel: str) -> Iterator[Updates]:
        """Segment the neighbourhood of the crosshair."""
        try:
            x, y, z = (int(v) for v in voxel.split(","))
        except ValueError:
            yield {self.status: texts.error("There is no crosshair: drop a volume first, or try the sample.")}
            return
        yield from self._followed(token, lambda: self.controller.start(token, model, (x, y, z)))

    def resume(self, token: str) -> Iterator[Updates]:
        """Follow the run of a resumed session."""
        yield {self.status: gr.skip()}  # Gradio empties the outputs of a generator that yields nothing
        with suppress(VoxportError):
            run = self.controller.sessions.find(token).run
            if run is not None and not run.wait(0):
                yield from self._followed(token, lambda: run)

    def save_as(self, token: str, ending: str) -> Updates:
        """Offer the mask in another format."""
        try:
            return self._offered(*self.controller.save_as(token, ending))
        except VoxportError as error:
            return {self.status: self._error(error)}

    def stop(self, token: str) -> Updates:
        """Cancel the run."""
        try:
            running = self.controller.sessions.find(token).cancel()
        except VoxportError as error:
            return {self.status: self._error(error)}
        return {self.status: texts.note("Stopping …") if running else gr.skip()}

    def _followed(self, token: str, start: Callable[[], Run]) -> Iterator[Updates]:
        try:
            for progress in self.controller.follow(token, start()):
                elapsed = time.monotonic() - progress.began
                yield {self.status: texts.progress(progress, elapsed), **self._busy(True)}
            shown = self._shown(self.controller.sessions.find(token))
            shown = shown or {self.status: texts.note("Another volume was opened meanwhile.")}
            yield {**shown, self.preflight: "", **self._busy(False)}
        except CancelledError:
            yield {self.status: texts.note("Cancelled. Nothing was kept of the run."), **self._busy(False)}
        except VoxportError as error:
            yield {self.status: self._error(error), **self._busy(False)}
        except Exception as error:  # the page must say something
            message = f"Something went wrong that should not: {type(error).__name__}. The server's log has more."
            yield {self.status: texts.error(message), **self._busy(False)}
            raise

    def _shown(self, session: Session) -> Updates:
        result = session.result
        if result is None:
            return {}
        headers, rows = texts.table(result)
        return {
            self.viewer: self._viewer(session),
            self.status: texts.summary(result, self.controller.place),
            self.results: gr.Column(visible=result.box is None),
            self.table: gr.Dataframe(value={"headers": headers, "data": rows}),
            **self._offered(session),
        }

    def _offered(self, session: Session, notes: Sequence[str] = ()) -> Updates:
        """Offer the files of the result, and the other formats of its mask."""
        result = session.result
        if result is None or not result.files:
            return {self.downloads: "", self.form: gr.Dropdown(visible=False)}
        endings, mask = self.controller.mask_endings(session), next(iter(result.files))
        kept = max((ending for ending in endings if mask.endswith(ending)), key=len)
        return {
            self.downloads: texts.downloads(session, self.controller.commands(session, result), notes),
            self.form: gr.Dropdown(choices=list(endings), value=kept, visible=True),
        }

    def _opened(self, session: Session) -> Updates:
        return {
            self.upload: None,
            self.folder: None,
            self.viewer: self._viewer(session),
            self.facts: texts.facts(session, self.controller.formats(session)),
            **self._emptied(is_open=False),
            self.preflight: texts.note("Looking the volume over …"),
            self.status: "",
            self.results: gr.Column(visible=False),
            self.downloads: "",
            self.form: gr.Dropdown(visible=False),
            self.run: gr.Button(interactive=True),
            self.quick: gr.Button(interactive=True),
        }

    def _emptied(self, *, is_open: bool) -> Updates:
        """Show the fields of how a volume is stored, empty."""
        parts = self.reading.values()
        empty = {part: "" if isinstance(part, gr.Dropdown) else None for part in parts}
        return {self.stored: gr.Accordion(visible=True, open=is_open), **empty}

    def _viewer(self, session: Session) -> str:
        return texts.viewer(scene_of(session, self.controller.channel_names(session)))

    def _error(self, error: VoxportError) -> str:
        return texts.error(self.controller.sentence(error))

    def _busy(self, running: bool) -> Updates:
        return {
            self.run: gr.Button(interactive=not running),
            self.quick: gr.Button(interactive=not running),
            self.cancel: gr.Button(visible=running),
        }


def build_page(controller: Controller) -> gr.Blocks:
    """Build the page over a controller."""
    blocks: gr.Blocks
    with gr.Blocks(
        title="voxport", analytics_enabled=False, delete_cache=(_SWEEP_SECONDS, 3600), fill_width=True
    ) as blocks:
        Page(controller).connect(blocks)
    blocks.queue(default_concurrency_limit=None, api_open=False)
    # Gradio would look a thousand times a second for events, which takes 6 % of a processor
    blocks._queue.sleep_when_free = _GLANCE_SECONDS
    return blocks


def _html(content: str = "", **options: Any) -> gr.HTML:
    """Return HTML without Gradio's style."""
    return gr.HTML(content, apply_default_css=False, js_on_load=None, **options)
