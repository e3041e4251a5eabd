"""A slice of a job's first volume with its mask over it, made from the stored files when somebody asks for it."""

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
    """A PNG of one slice of the first volume's first channel, its mask over it.

    Args:
        job: one that is done.
        plane: axial, coronal or sagittal.
        index: of the slice, as the volume is stored along the axis that the plane is across; None for the middle.
        progress: stops it by raising CancelledError.
        blobs: where the job's files are.
        ports: how volumes are read and pictures made.
        folders: where the files are unpacked.

    Raises:
        UsageError: there is no such slice.
        InputError: a stored file is missing or damaged.
        OutputError: the scratch folder cannot be written. OSError where the blobs cannot be read.
    """
    with folders.new() as folder, ExitStack() as stack:
        volume = _unpacked(blobs, job.case.inputs[0], folder / "volume")
        case = Case.open(ports.volumes, [volume], stack)
        mask = stack.enter_context(ports.volumes.open(_unpacked(blobs, job.results["mask"], folder / "mask")))
        view = PlaneView.of(case.grid, plane)
        box = _slice(case, view.stored_axis, index)
        progress.stage("picture")
        window = display_window(survey(case, job.case.options.get("nan_as") or 0.0)[0])
        table = _label_table(blobs, job.results["report"])
        labels = mask.read(box)[0].astype(table.dtype)
        _, picture = slice_pictures(view, case.read_channel(0, box), labels, window, table)
        return ports.pictures.encode(picture)


def _slice(case: Case, axis: int, index: int | None) -> Box:
    last = case.grid.shape[axis] - 1
    index = (last + 1) // 2 if index is None else index
    if not 0 <= index <= last:
        raise UsageError("index", expected=f"a slice from 0 to {last}", got=str(index), do="choose another")
    return Box.whole(case.grid.shape).with_range(axis, index, index + 1)


def _label_table(blobs: BlobStore, report: StoredFile) -> LabelTable:
    """The labels' colours, by the model card in the report: this process need not have the model."""
    with blobs.open(report.blob) as stream:
        labels = json.load(stream)["model"]["card"]["output"]["labels"]
    return LabelTable(tuple(Label(**label) for label in labels))


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
