"""Label maps as DICOM segmentations that refer to the series they were made from."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....domain.errors import FormatError
from ....domain.geometry.grid import Grid
from ....domain.labels.label_map import Label, LabelTable
from ....domain.volume_names import PACKED
from ....ports.volume_store import VolumeSource
from ...arrays import package
from ...spool import SpooledSink, tree_sha256
from .headers import Frame, damage_errors, quiet
from .source import DicomSource

# Of a segment whose label states no code: "Tissue" is in the category list CID 7150 and says the least.
_TISSUE = ("85756007", "SCT", "Tissue")
_ARTIFICIAL_INTELLIGENCE = ("123110", "DCM", "Artificial Intelligence")
_PRODUCT = "voxport"
_LONGEST_NAME = 64  # of an LO, PS3.5 section 6.2
_SERIES_NUMBER = 1000


def new_segmentation(
    path: Path, grid: Grid, dtype: np.dtype[Any], channels: int, like: VolumeSource | None, labels: LabelTable | None
) -> SpooledSink:
    """Begin a DICOM segmentation of a series.

    Raises:
        FormatError: not a label map of at most 16 bits, or ``like`` is no DICOM series as its files state it.
    """
    do = f"name the output in another format, e.g. {PACKED}"
    if dtype.kind != "u" or dtype.itemsize > 2 or channels != 1:
        got = f"{channels} channels of {dtype}" if channels > 1 else f"values of {dtype}"
        raise FormatError(path.name, expected="a label map of uint8 or uint16 for DICOM", got=got, do=do)
    if not isinstance(like, DicomSource):
        expected = "a DICOM series as input, to which a DICOM SEG refers"
        raise FormatError(path.name, expected=expected, got="an input of another format", do=do)
    if not like.is_as_stored:
        expected = "voxel sizes and axes of the series, as a DICOM SEG has them"
        raise FormatError(path.name, expected=expected, got="others, which were given", do=do)
    for name in ("pydicom", "highdicom"):
        package(name, "medical", path.name)
    writer = _Writer(path.name, like.frames, _headers(like.frames, grid), labels)
    return SpooledSink(path, grid, dtype, 1, write=writer.write, digest=tree_sha256)


def _headers(frames: Sequence[Frame], grid: Grid) -> list[Any]:
    """Return the whole headers of the files of frames, in their order; the segmentation refers to them.

    highdicom asks for a thickness: in files of one frame without one, it is the distance between slices.
    """
    pydicom = quiet()
    across = np.cross(grid.affine[:3, 0], grid.affine[:3, 1])
    distance = abs(float(across @ grid.affine[:3, 2])) / float(np.linalg.norm(across))
    found = []
    for part in dict.fromkeys(frame.stored.part for frame in frames):
        with damage_errors(part.name, "a DICOM header"), part.stream() as stream:
            header = pydicom.dcmread(stream, stop_before_pixels=True)
            if "NumberOfFrames" not in header and not header.get("SliceThickness"):
                header.SliceThickness = pydicom.valuerep.DSfloat(distance, auto_format=True)
            found.append(header)
    return found


@dataclass(frozen=True)
class _Writer:
    """Writes the label map of the given frames; equal label maps of one series give equal bytes."""

    name: str
    frames: Sequence[Frame]
    headers: Sequence[Any]
    labels: LabelTable | None

    def write(self, values: NDArray[Any], folder: Path) -> None:
        highdicom = package("highdicom", "medical", self.name)
        planes = values[0].transpose(2, 1, 0)
        labels = self._labels(planes)
        own, series, organisation = (self._uid(planes, labels, word) for word in ("instance", "series", "dimensions"))
        try:
            segmentation = highdicom.seg.Segmentation(
                self.headers,
                planes,
                highdicom.seg.SegmentationTypeValues.LABELMAP,
                [_segment(label) for label in labels],
                series_instance_uid=series,
                series_number=_SERIES_NUMBER,
                sop_instance_uid=own,
                instance_number=1,
                manufacturer=_PRODUCT,
                manufacturer_model_name=_PRODUCT,
                software_versions=_version(),
                device_serial_number="0",
                content_label="SEGMENTATION",
                plane_positions=self._positions(),
                omit_empty_frames=False,
            )
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            got = f"one that lacks what it needs ({type(error).__name__})"
            do = f"name the output in another format, e.g. {PACKED}"
            raise FormatError(self.name, expected="a series that a DICOM SEG can refer to", got=got, do=do) from None
        segmentation.SeriesDescription = "Segmentation"
        _fix_date(segmentation, self.headers[0], organisation)
        segmentation.save_as(folder / self.name)

    def _labels(self, planes: NDArray[Any]) -> list[Label]:
        known = {label.value: label for label in (self.labels.labels if self.labels else ())}
        found = {int(value) for plane in planes for value in np.unique(plane)} - {0}
        return [known.get(value) or Label(value, f"label {value}") for value in sorted(found | set(known))]

    def _uid(self, planes: NDArray[Any], labels: Sequence[Label], word: str) -> str:
        """Return a UID that follows from the content (PS3.5 annex B.2: a UUID as a number)."""
        digest = hashlib.sha256(word.encode())
        digest.update("\0".join(f"{frame.stored.sop_uid}:{frame.index}" for frame in self.frames).encode())
        digest.update(repr([(label.value, label.name, label.colour, dict(label.also)) for label in labels]).encode())
        for plane in planes if word == "instance" else ():
            digest.update(plane.tobytes())
        return f"2.25.{uuid.UUID(bytes=digest.digest()[:16], version=4).int}"

    def _positions(self) -> list[Any]:
        highdicom = package("highdicom", "medical", self.name)
        patient = highdicom.CoordinateSystemNames.PATIENT
        return [highdicom.PlanePositionSequence(patient, frame.position) for frame in self.frames]


def _segment(label: Label) -> Any:
    highdicom = package("highdicom", "medical", "DICOM SEG")
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=_PRODUCT, family=_code(_ARTIFICIAL_INTELLIGENCE), version=_version()
    )
    return highdicom.seg.SegmentDescription(
        label.value,
        label.name[:_LONGEST_NAME].replace("\\", "/"),
        _code(_stated_code(label.also, "category") or _TISSUE),
        _code(_stated_code(label.also, "type") or _TISSUE),
        highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm,
        display_color=highdicom.color.CIELabColor.from_rgb(*label.rgb),
    )


def _stated_code(also: Mapping[str, Any], name: str) -> tuple[str, str, str] | None:
    """Return a coded concept among a label's further facts: ``[value, scheme, meaning]``, or a mapping of them."""
    stated = also.get(name)
    if isinstance(stated, Mapping):
        stated = [stated.get(part) for part in ("value", "scheme", "meaning")]
    if not isinstance(stated, (list, tuple)) or len(stated) != 3 or not all(isinstance(x, str) and x for x in stated):
        return None
    value, scheme, meaning = stated
    return value, scheme, meaning


def _code(code: tuple[str, str, str]) -> Any:
    highdicom = package("highdicom", "medical", "DICOM SEG")
    return highdicom.sr.CodedConcept(*code)


def _version() -> str:
    return metadata.version(_PRODUCT)


def _fix_date(segmentation: Any, source: Any, organisation: str) -> None:
    """Set what highdicom takes from the clock and from chance, so that equal content gives equal bytes."""
    date, time = source.get("StudyDate") or "19000101", source.get("StudyTime") or "000000"
    for name, value in (
        ("InstanceCreationDate", date), ("InstanceCreationTime", time), ("ContentDate", date), ("ContentTime", time),
    ):  # fmt: skip
        setattr(segmentation, name, value)
    for item in segmentation.get("ContributingEquipmentSequence") or ():
        if "ContributionDateTime" in item:
            item.ContributionDateTime = f"{date}{time}"
    for sequence in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in segmentation.get(sequence) or ():
            item.DimensionOrganizationUID = organisation
