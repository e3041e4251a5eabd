"""napari's panel: segments layers with a model, in this process or on a server, beside the viewer's own work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from magicgui.widgets import ComboBox, Container, Label, LineEdit, ProgressBar, PushButton, Select
from napari.layers import Image
from qtpy.QtCore import QTimer

from ...application import Application
from ...domain.errors import CancelledError, VoxportError
from ...domain.geometry.grid import Box
from ...domain.labels.statistics_file import statistics_rows
from ...domain.run import Outputs, RunOptions
from ...domain.volume_names import PLAIN
from ...services.viewing.sessions import Run, RunProgress
from .layers import shown, store

if TYPE_CHECKING:
    from collections.abc import Mapping

    import napari
    from numpy.typing import NDArray

    from ...domain.cards.model_card import ModelCard

T = TypeVar("T")
_POLL_MS = 50
_HERE = "this machine"


class SegmentWidget(Container[Any]):
    """Chooses a server, a model and layers, runs, and adds the labels as a layer."""

    def __init__(self, napari_viewer: napari.Viewer, application: Application | None = None) -> None:
        self.viewer, self.application = napari_viewer, application or Application.build()
        self._cards: dict[str, ModelCard] = {}
        self._run: Run | None = None
        self._finish: Callable[[], None] = lambda: None
        self.server = LineEdit(label="server", tooltip=f"URL of a voxport service; empty: {_HERE}")
        self.model = ComboBox(label="model", choices=lambda _: list(self._cards))
        self.layers = Select(label="layers", choices=lambda _: self._images())
        self.segment = PushButton(text="Segment", tooltip="one layer for each channel of the model, in this order")
        self.cancel = PushButton(text="Cancel", enabled=False)
        self.progress = ProgressBar(value=0, max=1, visible=False)
        self.status = Label(value="")
        super().__init__(
            widgets=[self.server, self.model, self.layers, self.segment, self.cancel, self.progress, self.status]
        )
        self._timer = QTimer(self.native)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self._look)
        self.server.changed.connect(self.find_models)
        self.segment.changed.connect(self.start)
        self.cancel.changed.connect(self.stop)
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            event.connect(self._show_layers)
        self.native.destroyed.connect(self.stop)
        self._show_layers()
        self.find_models()

    def find_models(self) -> None:
        """List the models of the server, or of this machine."""
        url = self.server.value.strip()

        def cards(_: RunProgress) -> Sequence[ModelCard]:
            if url:
                return [offer.card for offer in self.application.remote_segmenter(url).offers()]
            return [known.card for known in self.application.list_models().models]

        def show(found: Sequence[ModelCard]) -> None:
            self._cards = {card.reference: card for card in found}
            self.model.reset_choices()
            self._show("" if found else "no models")

        self._cards = {}
        self.model.reset_choices()
        self._start(cards, show, f"models of {url or _HERE}")

    def start(self) -> None:
        """Segment the chosen layers; the labels become a layer of the same place."""
        chosen, model, url = list(self.layers.value), self.model.value, self.server.value.strip()
        if not chosen or model is None:
            self._show("choose a model and an image layer")
            return
        layers = [self.viewer.layers[name] for name in chosen]
        table = self._cards[model].output.table

        def work(progress: RunProgress) -> tuple[NDArray[Any], Mapping[str, Any]]:
            return self._segmented(layers, model, url, progress)

        def show(found: tuple[NDArray[Any], Mapping[str, Any]]) -> None:
            labels, report = found
            rows = statistics_rows(report["statistics"])
            self.viewer.add_layer(shown(labels, table, layers[0], rows, f"{chosen[0]} {model}"))
            self._show("; ".join(report["warnings"]) or "done")

        self._start(work, show, "segment")

    def stop(self) -> None:
        """Cancel what runs, at its next tile."""
        if self._run is not None:
            self._run.progress.cancel()

    def _segmented(
        self, layers: Sequence[Any], model: str, url: str, progress: RunProgress
    ) -> tuple[NDArray[Any], Mapping[str, Any]]:
        with self.application.work_folders.new() as folder:
            inputs = [str(folder / f"volume_{number}{PLAIN}") for number in range(1, len(layers) + 1)]
            for layer, name in zip(layers, inputs, strict=True):
                progress.advance(0)
                store(layer, name, self.application)
            outputs, options = Outputs(str(folder / f"mask{PLAIN}")), RunOptions()
            if url:
                remote = self.application.remote_segmenter(url)
                report = remote.segment(inputs, model, outputs, options, progress)
            else:
                with self.application.loaded_segmenter(model) as segmenter:
                    report = segmenter.segment(inputs, model, outputs, options, progress)
            with self.application.volumes.open(outputs.mask) as mask:
                return mask.read(Box.whole(mask.grid.shape))[0], report

    def _start(self, work: Callable[[RunProgress], T], show: Callable[[T], None], what: str) -> None:
        """Run ``work`` in a thread, and ``show`` its result in the viewer's."""
        self.stop()
        results: list[T] = []

        def keep(progress: RunProgress) -> None:
            results.append(work(progress))

        self._finish = lambda: show(results[0])
        self._run = Run(keep)
        self._show(f"{what} ...")
        self.segment.enabled, self.cancel.enabled, self.progress.visible = False, True, True
        self._timer.start()

    def _look(self) -> None:
        """Show how far the run is, and its result or error when it has ended."""
        run = self._run
        if run is None:
            return
        self.progress.max = max(run.progress.tiles, 1)
        self.progress.value = min(run.progress.done, self.progress.max)
        if not run.wait(0):
            return
        self._timer.stop()
        self._run = None
        self.segment.enabled, self.cancel.enabled, self.progress.visible = True, False, False
        try:
            run.check()
            self._finish()
        except CancelledError:
            self._show("cancelled")
        except VoxportError as error:
            self._show(str(error))

    def _images(self) -> list[str]:
        return [layer.name for layer in self.viewer.layers if isinstance(layer, Image)]

    def _show_layers(self) -> None:
        """List the image layers; the active one is chosen where none is."""
        self.layers.reset_choices()
        active = self.viewer.layers.selection.active
        if not self.layers.value and active is not None and active.name in self._images():
            self.layers.value = [active.name]

    def _show(self, line: str) -> None:
        self.status.value = line
