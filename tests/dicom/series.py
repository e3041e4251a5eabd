"""Series that tests send: pydicom's CT of five slices, and objects that are no images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import generate_uid

FILES = Path(pydicom.__path__[0], "data", "test_files")
HEAD = FILES / "dicomdirtests" / "98892001" / "CT5N"


def head_ct() -> list[Path]:
    """The files of a published CT of five slices."""
    return sorted(path for path in HEAD.iterdir() if path.is_file())


def changed(file: Path, place: Path, **values: Any) -> Path:
    """Write a file again with other values of some elements; those that are None are left out."""
    dataset = pydicom.dcmread(file)
    for name, value in values.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.save_as(place)
    return place


def as_new_series(folder: Path, files: list[Path], **values: Any) -> list[Path]:
    """Copies of files as another series of another study."""
    study, series = generate_uid(), generate_uid()
    return [
        changed(
            file,
            folder / f"{generate_uid()}.dcm",
            SOPInstanceUID=generate_uid(),
            SeriesInstanceUID=series,
            StudyInstanceUID=study,
            **values,
        )
        for file in files
    ]
