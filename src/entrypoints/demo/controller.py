"""The demo's use cases: open, estimate, run, cancel."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter

from ...domain.errors import UsageError, VoxportError
from ...domain.geometry.grid import Box, Shape3
from ...domain.labels.brush import Stroke
from ...domain.labels.label_map import LabelTable
from ...domain.run import RESULT_FILES, STATISTICS_TABLE, Outputs, RunOptions
from ...domain.viewing.display import around
from ...domain.volume_names import DICOM, NIFTI, PACKED, PLAIN, VolumeNames
from ...ports.segmenter import RunEstimate, Segmenter
from ...services.segmentation.report import curl_line, same_again_there
from ...services.viewing.correction import Correction
from ...services.viewing.sessions import Result, Run, RunProgress, Session, Sessions
from ...services.viewing.threshold_preview import TABLE
from ...services.viewing.training import TrainingFolder
from ...services.viewing.volume_viewer import OpenVolume, ShownMask, cut_out, save_mask
from .uploads import asks_for_reading, take

if TYPE_CHECKING:
    from ...application import Application

THRESHOLD = "threshold"  # no model; a model's reference has a version
QUICK_EDGE = 128
_GLANCE_SECONDS = 0.15
_SLICES_AT_ONCE = 4
_SERVE_URL = "http://127.0.0.1:3000"  # where ``voxport serve`` listens by default


@dataclass(frozen=True)
class Controller:
    """The demo's use cases on sessions. ``training``: where corrected cases are kept, if anywhere."""

    application: Application
    segmenter: Segmenter
    sessions: Sessions
    training: TrainingFolder | None = None
    slicing: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_SLICES_AT_ONCE))

    @property
    def place(self) -> str:
        """The machine that segments, in words."""
        return "on this machine" if self.segmenter.url is None else f"on {self.segmenter.url}"

    def open(self, token: str | None, uploads: Sequence[Path], *, keep: bool = False) -> Session:
        """Open uploaded files as the session's volume; they are moved away, or deleted if refused, unless ``keep``.

        Files that do not state how they are stored are kept for ``reopen``.

        Raises:
            UsageError: the session has ended.
            InputError, LimitError: the files are not volumes, are on several grids, or do not state how they are
                stored. The previous volume stays open.
        """
        session = self.sessions.find(token)
        folder, limit = session.new_folder(), self.application.settings.demo.max_upload_bytes
        try:
            files = take(uploads, folder, self.application.volumes.names, limit, keep=keep)
            try:
                self._show(session, files, RunOptions())
            except VoxportError as error:
                if not asks_for_reading(error):
                    raise
                session.wait_for_reading(files)
                raise error from None
        except BaseException:
            if folder not in {path.parent for path in session.dropped}:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            for path in () if keep else uploads:
                path.unlink(missing_ok=True)
        return session

    def reopen(self, token: str | None, options: RunOptions) -> Session:
        """Open the latest files as ``options`` state them.

        Raises:
            UsageError: there are no files, the options do not fit them, or the session has ended.
            InputError, LimitError: see ``open``.
        """
        session = self.sessions.find(token)
        if not session.dropped:
            raise UsageError("volume", expected="one to read", got="none yet", do="drop one, or try the sample")
        self._show(session, session.dropped, options)
        return session

    def open_sample(self, token: str | None) -> Session:
        """Open a copy of the bundled sample. Raises as ``open``."""
        return self.open(token, [Path(self.application.sample)], keep=True)

    def formats(self, session: Session) -> tuple[str, ...]:
        """Return the format of each of the session's volumes."""
        return tuple(self.application.format_of(str(path)) for path in session.files)

    def channel_names(self, session: Session) -> tuple[str, ...]:
        """Return the chosen model's names of the volume's channels, empty where it has none.

        There are none at all if the number of channels differs.
        """
        if session.model in ("", THRESHOLD) or session.volume is None:
            return ()
        try:
            given = self.segmenter.card(session.model).input
        except VoxportError:
            return ()
        count = session.volume.case.channels
        names = {channel.source: channel.name for channel in given.channels}
        return tuple(names.get(i, "") for i in range(count)) if given.source_count == count else ()

    def estimate(self, token: str | None, model: str) -> RunEstimate:
        """Estimate a run. Raises the errors of the run."""
        session = self.sessions.find(token)
        _volume_of(session)
        return self.segmenter.estimate([str(path) for path in session.files], model, session.options, RunProgress())

    def start(self, token: str | None, model: str, voxel: Shape3 | None) -> Run:
        """Start to segment the volume, or the part around a voxel. Raises UsageError: no volume, or a second run."""
        session = self.sessions.find(token)
        volume = _volume_of(session)
        box = None if voxel is None else around(voxel, volume.case.grid.shape, [QUICK_EDGE] * 3)
        return session.start(lambda progress: self._infer(session, volume, model, box, progress))

    def follow(self, token: str | None, run: Run) -> Iterator[RunProgress]:
        """Yield a run's progress several times a second until it ends.

        Raises:
            VoxportError: the run's error; CancelledError for a run that was cancelled.
        """
        while not run.wait(_GLANCE_SECONDS):
            self.sessions.find(token)  # keeps the session open during a long run
            yield run.progress
        run.check()

    def mask_endings(self, session: Session) -> tuple[str, ...]:
        """Return the endings that a mask of the session's volume may have, one a format."""
        refers = DICOM.name in self.formats(session)  # a DICOM mask refers to the images of its volume
        formats = [f for f in self.application.volumes.names.formats if f != NIFTI and (f != DICOM or refers)]
        endings = [[ending for ending in known.writable if ending in known.single] for known in formats]
        return (PACKED, *(written[0] for written in endings if written))

    def save_as(self, token: str | None, ending: str) -> tuple[Session, tuple[str, ...]]:
        """Offer the mask in another format; return the session and what the format cannot say.

        Raises:
            UsageError: there is no mask, or no such format.
            OutputError: the mask cannot be written so.
        """
        session = self.sessions.find(token)
        volume, endings = _volume_of(session), self.mask_endings(session)
        result = _whole_result(session)
        if ending not in endings:
            raise UsageError("format", expected=f"one of {', '.join(endings)}", got=ending[:40], do="choose another")
        names, place = self.application.volumes.names, result.folder / f"mask{ending}"
        notes: tuple[str, ...] = ()
        if ending != PACKED:
            notes = save_mask(self.application.volumes, result.mask, str(place), volume.case.sources[0])
        session.offer(_named(session.files[0], result.folder, names, place.name), result)
        return session, notes

    def paint(self, session: Session, stroke: Stroke, *, continues: bool) -> int:
        """Paint a stroke into the session's mask; return the new revision.

        Raises:
            UsageError: there is no mask of the whole volume, or a wrong stroke.
            OutputError: there is no room for a copy of the mask.
            CancelledError: another mask is shown.
        """
        with session.correcting:
            result = _whole_result(session)
            correction = result.correction
            if correction is None:
                place = result.folder / f"correction{PLAIN}"
                correction = Correction(self.application.volumes, result.mask, str(place))
                session.show_correction(correction, result)  # which closes it with the result
            correction.paint(stroke, continues=continues)
            return session.show_correction(correction, result)

    def undo(self, session: Session) -> int:
        """Take the latest stroke back, if there is one; return the new revision. Raises as ``paint``."""
        with session.correcting:
            result = _whole_result(session)
            if result.correction is None or not result.correction.undo():
                return session.revision
            return session.show_correction(result.correction, result)

    def corrected_mask(self, session: Session) -> tuple[str, Path]:
        """Write the corrected mask in the format of the mask; return the name of the download and the file.

        Raises:
            UsageError: there is no mask of the whole volume.
            OutputError: the mask cannot be written.
        """
        volume = _volume_of(session)
        with session.correcting:
            result = _whole_result(session)
            endings, offered = self.mask_endings(session), next(iter(result.files))
            ending = max((ending for ending in endings if offered.endswith(ending)), key=len)
            place = result.folder / f"corrected{ending}"
            save_mask(self.application.volumes, result.shown, str(place), volume.case.sources[0])
            return f"{self._stem(session)}_mask_corrected{ending}", place

    def corrected_report(self, session: Session) -> tuple[str, Path]:
        """Write the run's report with the corrections; return as ``corrected_mask``, and raise as it."""
        with session.correcting:
            result = _whole_result(session)
            changes = {"voxels": 0, "labels": []} if result.correction is None else result.correction.report()
            place = result.folder / "corrected.json"
            content = json.dumps({**result.report, "corrections": changes}, indent=2) + "\n"
            self.application.artifacts.write(str(place), content.encode())
            return f"{self._stem(session)}_report_corrected.json", place

    def keep_for_training(self, session: Session) -> str:
        """Keep the volume and its mask, as corrected, in the training folder; return the case's name there.

        Raises:
            UsageError: there is no mask of the whole volume, or no such folder.
            OutputError: see ``TrainingFolder``.
        """
        if self.training is None:
            do = "start voxport demo with such a folder"
            raise UsageError("training", expected="a folder for corrected cases", got="none", do=do)
        case = _volume_of(session).case
        names = self.channel_names(session) or case.channel_names
        with session.correcting:
            return self.training.keep(self._stem(session), case, _whole_result(session).shown, names)

    def _stem(self, session: Session) -> str:
        return self.application.volumes.names.stem(session.files[0].name)

    def commands(self, session: Session, result: Result) -> dict[str, str]:
        """Return the commands that reproduce a result's mask, by the key of their title.

        There are none for a part, or without a model.
        """
        if "model" not in result.report or result.box is not None:
            return {}
        shown = {"result.command": str(result.report["command"])}
        if any(path.is_dir() for path in session.files):  # curl sends files
            return shown
        remote, names, mask = self.segmenter.url, [path.name for path in session.files], RESULT_FILES["mask"]
        key = remote is not None and self.application.settings.api_key is not None
        curl = curl_line(remote or _SERVE_URL, names, mask, result.report, session.options.reading, with_key=key)
        return {**shown, "result.request": curl}

    def sentence(self, error: VoxportError) -> str:
        """Return an error in English as the page shows it, with file names instead of paths."""
        do = error.do[:1].upper() + error.do[1:]
        text = self.sessions.public(f"{error.subject}: expected {error.expected}, got {error.got}. {do}.")
        folder = None if self.training is None else self.training.folder
        return text if folder is None else text.replace(str(folder), folder.name)

    def _show(self, session: Session, files: tuple[Path, ...], options: RunOptions) -> None:
        volume = OpenVolume.open(self.application.volumes, [str(path) for path in files], options.reading)
        session.show(volume, files, options)

    def _infer(self, session: Session, volume: OpenVolume, model: str, box: Box | None, progress: RunProgress) -> None:
        folder = session.new_folder()
        try:
            inputs, options = session.files, session.options
            if box is not None:
                parts = tuple(folder / f"part_{i + 1}{PLAIN}" for i in range(len(inputs)))
                whole, places = [str(f) for f in inputs], [str(f) for f in parts]
                cut_out(self.application.volumes, whole, box, places, options.reading)
                inputs, options = parts, RunOptions()
            table, report = self._segmented(inputs, model, options, folder, progress)
            (folder / RESULT_FILES["report"]).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            mask = self.application.volumes.open(str(folder / RESULT_FILES["mask"]))
            shown = ShownMask(mask, table, box or Box.whole(volume.case.grid.shape))
            files = {} if box is not None else _named(session.files[0], folder, self.application.volumes.names)
            session.take_result(Result(files, report, shown, folder, box), volume)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _segmented(
        self, inputs: Sequence[Path], model: str, options: RunOptions, folder: Path, progress: RunProgress
    ) -> tuple[LabelTable, Mapping[str, Any]]:
        names = [str(path) for path in inputs]
        outputs = Outputs(str(folder / RESULT_FILES["mask"]), statistics=str(folder / STATISTICS_TABLE))
        if model == THRESHOLD:
            return TABLE, self._public(self.application.threshold_preview(names, outputs, progress, options.reading))
        outputs = replace(outputs, uncertainty=str(folder / RESULT_FILES["uncertainty"]))
        table = self.segmenter.card(model).output.table
        report = self._public(self.segmenter.segment(names, model, outputs, options, progress))
        if self.segmenter.url is not None:
            bare = [path.name for path in inputs]
            again = same_again_there(self.segmenter.url, bare, RESULT_FILES["mask"], report, options)
            return table, {**report, "command": again}
        command = str(report["command"])
        for path in (*inputs, Path(outputs.mask)):
            command = command.replace(shlex.quote(str(path)), shlex.quote(path.name))
        return table, {**report, "command": command}

    def _public(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """Return a report with file names instead of paths."""
        files = {
            kind: [{**entry, "name": Path(entry["name"]).name} for entry in report[kind]]
            for kind in ("inputs", "outputs")
        }
        return {**report, **files, "warnings": [self.sessions.public(text) for text in report["warnings"]]}


def _volume_of(session: Session) -> OpenVolume:
    if session.volume is None:
        raise UsageError("volume", expected="one to segment", got="none yet", do="drop one, or try the sample")
    return session.volume


def _whole_result(session: Session) -> Result:
    if session.result is None or not session.result.files:
        raise UsageError("mask", expected="one of the whole volume", got="none yet", do="segment the volume")
    return session.result


def _named(volume: Path, folder: Path, names: VolumeNames, mask: str = RESULT_FILES["mask"]) -> dict[str, Path]:
    files = (mask, STATISTICS_TABLE, RESULT_FILES["report"], RESULT_FILES["uncertainty"])
    return {f"{names.stem(volume.name)}_{file}": folder / file for file in files if (folder / file).exists()}
