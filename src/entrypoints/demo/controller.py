"""The demo's use cases: open, estimate, run, cancel."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter

from ...domain.errors import InputError, UsageError, VoxportError
from ...domain.geometry.grid import Box, Shape3
from ...domain.labels.label_map import LabelTable
from ...domain.run import RESULT_FILES, STATISTICS_TABLE, Outputs, RunOptions
from ...domain.viewing.display import around
from ...domain.volume_names import PLAIN, VolumeNames
from ...ports.segmenter import RunEstimate, Segmenter
from ...services.segmentation.report import curl_line, same_again_there
from ...services.viewing.sessions import Result, Run, RunProgress, Session, Sessions
from ...services.viewing.threshold_preview import TABLE
from ...services.viewing.volume_viewer import OpenVolume, ShownMask, cut_out

if TYPE_CHECKING:
    from ...application import Application

THRESHOLD = "threshold"  # no model; a model's reference has a version
QUICK_EDGE = 128
_GLANCE_SECONDS = 0.15
_SLICES_AT_ONCE = 4
_SERVE_URL = "http://127.0.0.1:3000"  # where ``voxport serve`` listens by default


@dataclass(frozen=True)
class Controller:
    """The demo's use cases on sessions."""

    application: Application
    segmenter: Segmenter
    sessions: Sessions
    slicing: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_SLICES_AT_ONCE))

    @property
    def place(self) -> str:
        """The machine that segments, in words."""
        return "on this machine" if self.segmenter.url is None else f"on {self.segmenter.url}"

    def open(self, token: str | None, uploads: Sequence[Path], *, keep: bool = False) -> Session:
        """Open uploaded files as the session's volume; they are moved away unless ``keep``.

        Raises:
            UsageError: the session has ended.
            InputError, LimitError: the files are not volumes, or are on several grids. The previous volume stays open.
        """
        session = self.sessions.find(token)
        folder = session.new_folder()
        try:
            names = self.application.volumes.names
            kept = [keep or path in uploads[i + 1 :] for i, path in enumerate(uploads)]  # one may come twice
            files = tuple(_taken(path, folder, names, keep=k) for path, k in zip(uploads, kept, strict=True))
            session.show(OpenVolume.open(self.application.volumes, [str(path) for path in files]), files)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return session

    def open_sample(self, token: str | None) -> Session:
        """Open a copy of the bundled sample. Raises as ``open``."""
        return self.open(token, [Path(self.application.sample)], keep=True)

    def channel_names(self, session: Session) -> tuple[str, ...]:
        """Return the chosen model's names of the volume's channels; none if the number of channels differs."""
        if session.model in ("", THRESHOLD) or session.volume is None:
            return ()
        try:
            given = self.segmenter.card(session.model).input
        except VoxportError:
            return ()
        count = session.volume.case.channels
        names = {channel.source: channel.name for channel in given.channels}
        return tuple(names.get(i, f"channel {i + 1}") for i in range(count)) if given.source_count == count else ()

    def estimate(self, token: str | None, model: str) -> RunEstimate:
        """Estimate a run. Raises the errors of the run."""
        session = self.sessions.find(token)
        _volume_of(session)
        return self.segmenter.estimate([str(path) for path in session.files], model, RunOptions(), RunProgress())

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

    def commands(self, session: Session, result: Result) -> dict[str, str]:
        """Return the commands that reproduce a result's mask, by title; none for a part, or without a model."""
        if "model" not in result.report or result.box is not None:
            return {}
        remote, names = self.segmenter.url, [path.name for path in session.files]
        key = remote is not None and self.application.settings.api_key is not None
        curl = curl_line(remote or _SERVE_URL, names, RESULT_FILES["mask"], result.report, with_key=key)
        return {"On the command line": str(result.report["command"]), "Over HTTP": curl}

    def sentence(self, error: VoxportError) -> str:
        """Return an error as the page shows it, with file names instead of paths."""
        do = error.do[:1].upper() + error.do[1:]
        return self.sessions.public(f"{error.subject}: expected {error.expected}, got {error.got}. {do}.")

    def _infer(self, session: Session, volume: OpenVolume, model: str, box: Box | None, progress: RunProgress) -> None:
        folder = session.new_folder()
        try:
            inputs = session.files
            if box is not None:
                inputs = tuple(folder / f"part_{i + 1}{PLAIN}" for i in range(len(session.files)))
                cut_out(self.application.volumes, [str(f) for f in session.files], box, [str(f) for f in inputs])
            table, report = self._segmented(inputs, model, folder, progress)
            (folder / RESULT_FILES["report"]).write_text(json.dumps(report, indent=2) + "\n")
            mask = self.application.volumes.open(str(folder / RESULT_FILES["mask"]))
            shown = ShownMask(mask, table, box or Box.whole(volume.case.grid.shape))
            files = {} if box is not None else _named(session.files[0], folder, self.application.volumes.names)
            session.take_result(Result(files, report, shown, folder, box), volume)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _segmented(
        self, inputs: Sequence[Path], model: str, folder: Path, progress: RunProgress
    ) -> tuple[LabelTable, Mapping[str, Any]]:
        names = [str(path) for path in inputs]
        outputs = Outputs(str(folder / RESULT_FILES["mask"]), statistics=str(folder / STATISTICS_TABLE))
        if model == THRESHOLD:
            return TABLE, self._public(self.application.threshold_preview(names, outputs, progress))
        table, options = self.segmenter.card(model).output.table, RunOptions()
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


def _taken(upload: Path, folder: Path, names: VolumeNames, *, keep: bool) -> Path:
    """Move an upload into the session's folder, or copy it."""
    # one half of a pair is refused alone
    is_half = names.ending(upload.name) and not names.is_volume(upload.name)
    name = f"{upload.name}{PLAIN}" if is_half else upload.name
    while (folder / name).exists():  # channels of one case may have one name, in several folders
        name = f"next_{name}"
    try:
        return Path((shutil.copy if keep else shutil.move)(upload, folder / name))
    except OSError:
        raise InputError(upload.name, expected="an upload", got="one that is gone", do="drop it again") from None


def _named(volume: Path, folder: Path, names: VolumeNames) -> dict[str, Path]:
    files = (RESULT_FILES["mask"], STATISTICS_TABLE, RESULT_FILES["report"])
    return {f"{names.stem(volume.name)}_{file}": folder / file for file in files}
