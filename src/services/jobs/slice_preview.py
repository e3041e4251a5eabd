"""A slice of a job's first volume with its mask over it, made on request from the stored files."""

from __future__ import annotations

import errno
import json
from contextlib import ExitStack
from pathlib import Path

from ...domain.errors import OutputError, UsageError
from ...domain.geometry.grid import Box
from ...domain.job import Job, StoredFile
from ...domain.labels.label_map import Label, LabelTable
from ...domain.viewing.slicing import Plane, PlaneView
from ...ports.blobs import BlobStore
from ...ports.folders import WorkFolders
from ...ports.progress import ProgressListener
from ..segmentation.case import Case, survey
from ..segmentation.segment import SegmentPorts
from ..viewing.preview import display_window, slice_pictures
from .run import options_of

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def job_slice(
    job: Job,
    plane: Plane,
    index: int | None,
    progress: ProgressListener,
    *,
    blobs: BlobStore,
    ports: SegmentPorts,
    folders: WorkFolders,
) -> bytes:
    """Draw one slice of the first channel of a job that is done, with the mask over it, as PNG.

    ``index`` counts slices along the stored axis that the plane is across; None takes the middle one.

    Raises:
        UsageError: no such slice.
        InputError: a stored file is missing or damaged.
        OutputError: the scratch folder cannot be written. OSError where the blobs cannot be read.
    """
    with folders.new() as folder, ExitStack() as stack:
        volume = _unpacked(blobs, job.case.inputs[0], folder / "volume")
        case = Case.open(ports.volumes, [volume], stack, options_of(job.case.options).reading)
        mask = stack.enter_context(ports.volumes.open(_unpacked(blobs, job.results["mask"], folder / "mask")))
        view = PlaneView.of(case.grid, plane)
        box = _slice(case, view.stored_axis, index)
        progress.stage("picture")
        with blobs.open(job.results["report"].blob) as stream:
            report = json.load(stream)
        # the card of the report: this process need not have the model
        table = LabelTable(tuple(Label(**label) for label in report["model"]["card"]["output"]["labels"]))
        window = report.get("display_window")
        if not window:  # reports of voxport 0.1 do not state it
            window = display_window(survey(case, job.case.options.get("nan_as") or 0.0)[0])
        labels = mask.read(box)[0].astype(table.dtype)
        _, picture = slice_pictures(view, case.read_channel(0, box), labels, window, table)
        return ports.pictures.encode(picture)


def _slice(case: Case, axis: int, index: int | None) -> Box:
    last = case.grid.shape[axis] - 1
    index = (last + 1) // 2 if index is None else index
    if not 0 <= index <= last:
        raise UsageError("index", expected=f"a slice from 0 to {last}", got=str(index), do="choose another")
    return Box.whole(case.grid.shape).with_range(axis, index, index + 1)


def _unpacked(blobs: BlobStore, file: StoredFile, folder: Path) -> str:
    folder.mkdir()
    path = folder / file.name  # its end says what it is
    try:
        blobs.link(file.blob, path)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise OutputError.cannot_write("scratch folder", error) from None
        raise
    return str(path)
