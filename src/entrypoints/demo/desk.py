"""What a person can do at the page, without a word of how it looks: open, foretell, run, cancel, leave."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter

from ...domain.errors import InputError, UsageError, VoxportError
from ...domain.geometry.grid import Box, Shape3
from ...domain.labels.label_map import LabelTable
from ...domain.run import RESULT_FILES, STATISTICS_TABLE
from ...domain.viewing.display import around
from ...domain.volume_names import PLAIN, VolumeNames
from ...services.viewing.sessions import Result, RunProgress, Session, Sessions
from ...services.viewing.threshold_preview import TABLE
from ...services.viewing.volume_viewer import OpenVolume, ShownMask, cut_out
from .engines import Engine, RunEstimate, result_files

if TYPE_CHECKING:
    from ...application import Application

THRESHOLD = "threshold"  # what stands for no model at all; no card may be called so, as it has no version
QUICK_EDGE = 128
_GLANCE_SECONDS = 0.15
_LOOKERS = 4  # slices cut at a time; more would only stand in each other's way


@dataclass(frozen=True)
class Desk:
    """The use cases of the demo, and the sessions that they work on."""

    application: Application
    engine: Engine
    sessions: Sessions
    lookers: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_LOOKERS))

    @property
    def largest_upload(self) -> int:
        """The most bytes that a file may have."""
        return self.application.settings.demo.max_upload_bytes

    def open(self, token: str | None, uploads: Sequence[Path]) -> Session:
        """Take files that were just uploaded, or the sample, as the volume to look at.

        Raises:
            UsageError: the session has ended.
            InputError, LimitError: they are no volumes, or not of one grid; the volume before stays open.
        """
        session = self.sessions.find(token)
        folder = session.new_folder()
        try:
            names = self.application.volumes.names
            files = tuple(_moved(path, folder, names) for path in uploads)
            session.show(OpenVolume.open(self.application.volumes, [str(path) for path in files]), files)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return session

    def open_sample(self, token: str | None) -> Session:
        """Take a copy of the bundled sample. Raises as ``open``."""
        sample = Path(self.application.sample)
        session = self.sessions.find(token)
        copy = Path(shutil.copy(sample, session.new_folder()))
        try:
            return self.open(token, [copy])
        finally:
            shutil.rmtree(copy.parent, ignore_errors=True)

    def estimate(self, token: str | None, model: str) -> RunEstimate:
        """What a run with a model would take. Raises what the run would."""
        session = self.sessions.find(token)
        _check_open(session)
        return self.engine.estimate(session.files, model, RunProgress())

    def run(self, token: str | None, model: str, voxel: Shape3 | None) -> Iterator[RunProgress]:
        """Segment the volume, or its neighbourhood of a voxel; gives its progress several times a second.

        Raises:
            VoxportError: the run's; CancelledError where it was stopped.
        """
        session = self.sessions.find(token)
        volume = _check_open(session)
        box = None if voxel is None else around(voxel, volume.case.grid.shape, [QUICK_EDGE] * 3)
        with session.running() as progress:
            work = _Work(lambda: self._infer(session, volume, model, box, progress))
            try:
                while not work.wait(_GLANCE_SECONDS):
                    session.touch()  # a run may take longer than an idle session lives
                    yield progress
            except GeneratorExit:  # the page is gone
                progress.cancel()
                raise
            work.check()

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
        if model == THRESHOLD:
            made = self.application.threshold_preview
            return TABLE, made([str(path) for path in inputs], result_files(folder), progress)
        table = self.engine.card(model).output.table
        return table, self.engine.run(inputs, model, folder, progress)


class _Work:
    """Something that is done in a thread of its own."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="voxport-demo-run", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, at the latest after so long."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def check(self) -> None:
        """Raise what it ended with, if it did not end well."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised again where the work was asked for
            self._error = error


def sentence(error: VoxportError) -> str:
    """An error as a person is told of it at the page."""
    do = error.do[:1].upper() + error.do[1:]
    return f"{error.subject}: expected {error.expected}, got {error.got}. {do}."


def _check_open(session: Session) -> OpenVolume:
    if session.volume is None:
        raise UsageError("volume", expected="one to segment", got="none yet", do="drop one, or try the sample")
    return session.volume


def _moved(upload: Path, folder: Path, names: VolumeNames) -> Path:
    """An upload under its own name in the session's folder, so that it is nowhere else."""
    name = upload.name if names.is_volume(upload.name) else f"{upload.name}{PLAIN}"
    while (folder / name).exists():  # files of one name from several folders are the channels of a case
        name = f"next_{name}"
    try:
        return Path(shutil.move(upload, folder / name))
    except OSError:
        raise InputError(upload.name, expected="an upload", got="one that is gone", do="drop it again") from None


def _named(volume: Path, folder: Path, names: VolumeNames) -> dict[str, Path]:
    """Result files by the names that they are handed out under, after the volume's."""
    files = (RESULT_FILES["mask"], STATISTICS_TABLE, RESULT_FILES["report"])
    return {f"{names.stem(volume.name)}_{file}": folder / file for file in files}
