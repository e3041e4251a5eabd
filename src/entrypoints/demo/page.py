"""The demo's page: its parts and its events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ...contract.options import options_of, stated_options
from ...domain.errors import CancelledError, VoxportError
from ...services.segmentation.preparation.planning import size
from ...services.viewing.sessions import Run, Session
from . import parts
from .controller import QUICK_EDGE, THRESHOLD, Controller
from .languages import ENGLISH, Languages, Texts
from .scene import scene_of
from .uploads import asks_for_reading

_CROSSHAIR = "(visit, model, voxel) => [visit, model, window.voxport ? window.voxport.crosshair() : '']"
_KEPT = "() => [sessionStorage.getItem('voxport-session') || '', document.documentElement.lang]"
_SWEEP_SECONDS = 60
_GLANCE_SECONDS = 0.02

Updates = dict[Any, Any]


@dataclass(frozen=True)
class Visit:
    """A loaded page: the token of its session, and the texts in the language of its browser."""

    token: str
    say: Texts


class Page:
    """The page's parts, and its events: each calls the controller and updates the parts that change.

    Texts that are there from the start are translated in the browser, by Gradio; the others here.
    """

    def __init__(self, controller: Controller, languages: Languages) -> None:
        self.controller, self.languages = controller, languages
        self._tokens: dict[str, str] = {}  # of sessions, by Gradio's own
        self.visit = gr.State(None)
        self.voxel, self.kept, self.language = (gr.Textbox(visible=False) for _ in range(3))
        _html(f'<header class="vx-head"><h1>voxport</h1><p>{_later("head")}</p></header>')
        with gr.Row(elem_classes="vx-main"):
            with gr.Column(scale=1, min_width=300, elem_classes="vx-side"):
                self._add_steps()
            with gr.Column(scale=4, min_width=640):
                self.viewer = _html(parts.viewer(None), elem_id="vx-viewer")
                with gr.Column(visible=False, elem_id="vx-results") as self.results:
                    self.table = gr.Dataframe(interactive=False, label=_later("statistics"), wrap=True)
                    self.spots = _html(elem_id="vx-spots")

    def _add_steps(self) -> None:
        _html(f'<h2 class="vx-step">{_later("step_volume")}</h2>')
        self.upload = gr.File(
            label=_later("volume"),
            file_count="multiple",  # of any name: DICOM files often have no ending
            height=148,
            interactive=False,
            elem_id="vx-upload",
        )
        _html(f'<p class="vx-tip">{_later("tip")}</p>')
        with gr.Row():
            folder: dict[str, Any] = {"file_count": "directory", "size": "sm", "interactive": False}
            self.folder = gr.UploadButton(_later("folder"), elem_id="vx-folder", **folder)
            self.sample = gr.Button(_later("sample"), size="sm", interactive=False, elem_id="vx-sample")
        self.facts = _html(elem_id="vx-facts")
        with gr.Accordion(_later("stored"), open=False, visible=False, elem_id="vx-stored") as self.stored:
            self._add_reading()
        _html(f'<h2 class="vx-step">{_later("step_model")}</h2>')
        self.model = gr.Dropdown([], label=_later("model_loading"), interactive=False, elem_id="vx-model")
        with gr.Accordion(_later("about"), open=False):
            self.card = _html()
        _html(f'<h2 class="vx-step">{_later("step_segment")}</h2>')
        self.preflight = _html(elem_id="vx-preflight")
        self.run = gr.Button(_later("segment"), variant="primary", interactive=False, elem_id="vx-run")
        self.quick = gr.Button(_later("quick"), size="sm", interactive=False, elem_id="vx-quick")
        self.cancel = gr.Button(_later("cancel"), variant="stop", visible=False, elem_id="vx-cancel")
        self.status = _html(elem_id="vx-status")
        self.downloads = _html(elem_id="vx-downloads")
        self.form = gr.Dropdown([], label=_later("format"), visible=False, elem_id="vx-format")

    def _add_reading(self) -> None:
        """Add a field for each option that states how a volume is stored."""
        _html(f'<p class="vx-tip">{_later("stored_tip")}</p>')
        self.reading: dict[str, Any] = {}
        for name, stated in stated_options().items():
            more: dict[str, Any] = {"label": _later(name), "info": _later(f"{name}_info"), "elem_id": f"vx-{name}"}
            if stated.choices:
                self.reading[name] = gr.Dropdown([""], value="", **more)
            elif stated.is_whole:
                self.reading[name] = gr.Number(None, precision=0, minimum=0, **more)
            else:
                form = _later(f"{name}_form")
                self.reading[name] = gr.Textbox(placeholder=form, max_lines=1, max_length=200, **more)
        self.reopen = gr.Button(_later("read"), size="sm", elem_id="vx-reopen")

    def connect(self, blocks: gr.Blocks) -> None:
        """Connect the parts to the events."""
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        inputs = [self.visit, self.model]
        changing = [
            *(self.viewer, self.upload, self.folder, self.sample, self.facts, self.stored, *self.reading.values()),
            *(self.model, self.card, self.preflight),
            *(self.run, self.quick, self.cancel, self.status, self.results, self.table, self.spots),
            *(self.downloads, self.form),
        ]
        entered = blocks.load(self.enter, [self.kept, self.language], [self.visit, *changing], js=_KEPT, **quiet)
        entered.then(self.resume, self.visit, changing, **quiet)
        blocks.unload(self.leave)
        for changed in (
            self.upload.upload(self.drop, [self.visit, self.upload], changing, **quiet),
            self.folder.upload(self.drop, [self.visit, self.folder], changing, **quiet),
            self.sample.click(self.take_sample, self.visit, changing, **quiet),
            self.reopen.click(self.read_again, [self.visit, *self.reading.values()], changing, **quiet),
            self.model.change(self.choose, inputs, changing, **quiet),
        ):
            changed.then(self.estimate, inputs, self.preflight, **quiet)
        self.run.click(self.run_all, inputs, changing, **quiet)
        self.quick.click(self.run_part, [*inputs, self.voxel], changing, js=_CROSSHAIR, **quiet)
        self.form.input(self.save_as, [self.visit, self.form], changing, **quiet)
        self.cancel.click(self.stop, self.visit, changing, **quiet)

    def enter(self, token: str, language: str, request: gr.Request) -> Updates:
        """Resume the session of a page that is loaded again, or begin one, and enable the controls."""
        session = self.controller.sessions.enter(token)
        visit = Visit(session.token, self.languages.of(language))
        self._tokens[str(request.session_hash)] = session.token
        cards, status = {}, ""
        try:
            cards = {offer.card.reference: offer.card for offer in self.controller.segmenter.offers()}
        except VoxportError as error:
            status = self._error(error)
        choices = [(f"{card.name} {card.version}", reference) for reference, card in cards.items()]
        choices.append((visit.say("no_model"), THRESHOLD))
        if session.model not in dict(choices).values():
            session.model = choices[0][1]
        ready = {
            self.visit: visit,
            self.model: gr.Dropdown(choices=choices, value=session.model, label=visit.say("model"), interactive=True),
            self.card: parts.card(visit.say, cards.get(session.model)),
            self.upload: gr.File(interactive=True),
            self.folder: gr.UploadButton(interactive=True),
            self.sample: gr.Button(interactive=True),
        }
        if session.volume is None:
            return {**ready, self.status: status}
        return {**self._opened(visit, session), self.preflight: "", **self._shown(visit, session), **ready}

    def leave(self, request: gr.Request) -> None:
        """Record that a page is closed; its session ends a little later."""
        self.controller.sessions.leave(self._tokens.pop(str(request.session_hash), None))

    def drop(self, visit: Visit, uploads: Sequence[str] | None) -> Updates:
        """Open uploaded files."""
        if not uploads:
            return {self.upload: None}
        try:
            return self._opened(visit, self.controller.open(visit.token, [Path(path) for path in uploads]))
        except VoxportError as error:
            asked: Updates = self._emptied(visit, is_open=True) if asks_for_reading(error) else {}
            return {self.upload: None, self.folder: None, self.facts: self._error(error), **asked}

    def read_again(self, visit: Visit, *values: Any) -> Updates:
        """Open the latest files again, as the fields state them."""
        stated = {name: value for name, value in zip(self.reading, values, strict=True) if value not in ("", None)}
        try:
            options = options_of(stated, memory_bytes=None)
            kept = {self.stored: gr.skip(), **{part: gr.skip() for part in self.reading.values()}}
            return {**self._opened(visit, self.controller.reopen(visit.token, options)), **kept}
        except VoxportError as error:
            return {self.facts: self._error(error)}

    def take_sample(self, visit: Visit) -> Updates:
        """Open the sample."""
        try:
            return self._opened(visit, self.controller.open_sample(visit.token))
        except VoxportError as error:
            return {self.facts: self._error(error)}

    def estimate(self, visit: Visit, model: str) -> str:
        """Estimate a run, once a volume is open."""
        try:
            if model == THRESHOLD or self.controller.sessions.find(visit.token).volume is None:
                return ""
            return parts.estimated(visit.say, self.controller.estimate(visit.token, model))
        except CancelledError:
            return ""
        except VoxportError as error:
            return self._error(error)

    def choose(self, visit: Visit, model: str) -> Updates:
        """Show a model's card, and its names of the channels."""
        try:
            session = self.controller.sessions.find(visit.token)
            before, session.model = self.controller.channel_names(session), model
            updates: Updates = {
                self.card: parts.card(visit.say, None if model == THRESHOLD else self.controller.segmenter.card(model))
            }
            if self.controller.channel_names(session) != before:
                updates[self.viewer] = self._viewer(session)
            return updates
        except VoxportError as error:
            return {self.card: self._error(error)}

    def run_all(self, visit: Visit, model: str) -> Iterator[Updates]:
        """Segment the whole volume."""
        yield from self._followed(visit, lambda: self.controller.start(visit.token, model, None))

    def run_part(self, visit: Visit, model: str, voxel: str) -> Iterator[Updates]:
        """Segment the neighbourhood of the crosshair."""
        try:
            x, y, z = (int(v) for v in voxel.split(","))
        except ValueError:
            yield {self.status: parts.error(visit.say("run.no_crosshair"))}
            return
        yield from self._followed(visit, lambda: self.controller.start(visit.token, model, (x, y, z)))

    def resume(self, visit: Visit) -> Iterator[Updates]:
        """Follow the run of a resumed session."""
        yield {self.status: gr.skip()}  # Gradio empties the outputs of a generator that yields nothing
        with suppress(VoxportError):
            run = self.controller.sessions.find(visit.token).run
            if run is not None and not run.wait(0):
                yield from self._followed(visit, lambda: run)

    def save_as(self, visit: Visit, ending: str) -> Updates:
        """Offer the mask in another format."""
        try:
            return self._offered(visit, *self.controller.save_as(visit.token, ending))
        except VoxportError as error:
            return {self.status: self._error(error)}

    def stop(self, visit: Visit) -> Updates:
        """Cancel the run; who follows it says so: two events may reach the browser in either order."""
        try:
            self.controller.sessions.find(visit.token).cancel()
        except VoxportError as error:
            return {self.status: self._error(error)}
        return {self.status: gr.skip()}

    def _followed(self, visit: Visit, start: Callable[[], Run]) -> Iterator[Updates]:
        try:
            for progress in self.controller.follow(visit.token, start()):
                elapsed = time.monotonic() - progress.began
                yield {self.status: parts.progress(visit.say, progress, elapsed), **self._busy(True)}
            shown = self._shown(visit, self.controller.sessions.find(visit.token))
            shown = shown or {self.status: parts.note(visit.say("run.replaced"))}
            yield {**shown, self.preflight: "", **self._busy(False)}
        except CancelledError:
            yield {self.status: parts.note(visit.say("run.cancelled")), **self._busy(False)}
        except VoxportError as error:
            yield {self.status: self._error(error), **self._busy(False)}
        except Exception as error:  # the page must say something
            message = visit.say("run.failed", error=type(error).__name__)
            yield {self.status: parts.error(message), **self._busy(False)}
            raise

    def _shown(self, visit: Visit, session: Session) -> Updates:
        result = session.result
        if result is None:
            return {}
        headers, rows = parts.table(visit.say, result)
        place = parts.place(visit.say, self.controller.segmenter.url)
        return {
            self.viewer: self._viewer(session),
            self.status: parts.summary(visit.say, result, place),
            self.results: gr.Column(visible=result.box is None),
            self.table: gr.Dataframe(value={"headers": headers, "data": rows}),
            self.spots: parts.spots(visit.say, result),
            **self._offered(visit, session),
        }

    def _offered(self, visit: Visit, session: Session, notes: Sequence[str] = ()) -> Updates:
        """Offer the files of the result, and the other formats of its mask."""
        result = session.result
        if result is None or not result.files:
            return {self.downloads: "", self.form: gr.Dropdown(visible=False)}
        endings, mask = self.controller.mask_endings(session), next(iter(result.files))
        kept = max((ending for ending in endings if mask.endswith(ending)), key=len)
        return {
            self.downloads: parts.downloads(visit.say, session, self.controller.commands(session, result), notes),
            self.form: gr.Dropdown(choices=list(endings), value=kept, visible=True),
        }

    def _opened(self, visit: Visit, session: Session) -> Updates:
        return {
            self.upload: None,
            self.folder: None,
            self.viewer: self._viewer(session),
            self.facts: parts.facts(visit.say, session, self.controller.formats(session)),
            **self._emptied(visit, is_open=False),
            self.preflight: parts.note(visit.say("run.looking")),
            self.status: "",
            self.results: gr.Column(visible=False),
            self.downloads: "",
            self.form: gr.Dropdown(visible=False),
            self.run: gr.Button(interactive=True),
            self.quick: gr.Button(interactive=True),
        }

    def _emptied(self, visit: Visit, *, is_open: bool) -> Updates:
        """Show the fields of how a volume is stored, empty."""
        empty: Updates = dict.fromkeys(self.reading.values())
        for name, stated in stated_options().items():
            if stated.choices:
                empty[self.reading[name]] = gr.Dropdown([(visit.say("as_stated"), ""), *stated.choices], value="")
        return {self.stored: gr.Accordion(visible=True, open=is_open), **empty}

    def _viewer(self, session: Session) -> str:
        trains = self.controller.training is not None
        return parts.viewer(scene_of(session, self.controller.channel_names(session), trains=trains))

    def _error(self, error: VoxportError) -> str:
        return parts.error(self.controller.sentence(error), ENGLISH)

    def _busy(self, running: bool) -> Updates:
        return {
            self.run: gr.Button(interactive=not running),
            self.quick: gr.Button(interactive=not running),
            self.cancel: gr.Button(visible=running),
        }


def build_page(controller: Controller, languages: Languages) -> gr.Blocks:
    """Build the page over a controller."""
    blocks: gr.Blocks
    with gr.Blocks(
        title="voxport", analytics_enabled=False, delete_cache=(_SWEEP_SECONDS, 3600), fill_width=True
    ) as blocks:
        Page(controller, languages).connect(blocks)
    blocks.queue(default_concurrency_limit=None, api_open=False)
    # Gradio would look a thousand times a second for events, which takes 6 % of a processor
    blocks._queue.sleep_when_free = _GLANCE_SECONDS
    return blocks


def _html(content: str = "", **options: Any) -> gr.HTML:
    """Return HTML without Gradio's style."""
    return gr.HTML(content, apply_default_css=False, js_on_load=None, **options)


def translations(controller: Controller, languages: Languages) -> gr.I18n:
    """Return the texts that are on the page from the start, in all languages, for Gradio to choose from."""
    values = {
        "formats": ", ".join(known.name for known in controller.application.volumes.names.formats),
        "limit": size(controller.application.settings.demo.max_upload_bytes),
        "edge": QUICK_EDGE,
    }

    def page(say: Texts) -> dict[str, str]:
        place = parts.plain(parts.place(say, controller.segmenter.url))
        return {key: say(key, place=place, **values) for key in say.group("page")}

    return gr.I18n(**{tag: page(say) for tag, say in languages.texts.items()})


def _later(key: str) -> str:
    """Return what Gradio replaces in the browser by the text ``page.KEY``."""
    return str(gr.I18n()(f"page.{key}"))
