"""Headers of DICOM images: what is needed to place and read each frame. Nothing about the patient is read."""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....domain.errors import InputError
from ...arrays import package
from ...disk import CHUNK_BYTES
from .files import MAGIC_AT, Part

Vector = tuple[float, ...]
_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "Modality", "ImageType",
    "InstanceNumber", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "ModalityLUTSequence",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "RescaleSlope", "RescaleIntercept", "TemporalPositionIdentifier", "EchoTime", "DiffusionBValue", "TriggerTime",
    "AcquisitionNumber", "AcquisitionTime", "ContentTime", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
# Distinguishes images at one place, the plainest statement first.
TIMES = (
    "TemporalPositionIndex", "TemporalPositionIdentifier", "EffectiveEchoTime", "EchoTime", "DiffusionBValue",
    "TriggerTime", "AcquisitionNumber", "FrameAcquisitionNumber", "AcquisitionTime", "ContentTime",
)  # fmt: skip
_FUNCTIONAL = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameContentSequence": ("TemporalPositionIndex", "FrameAcquisitionNumber"),
    "MREchoSequence": ("EffectiveEchoTime",),
    "MRDiffusionSequence": ("DiffusionBValue",),
    "CTImageFrameTypeSequence": ("FrameType",),
    "MRImageFrameTypeSequence": ("FrameType",),
}
DEFLATED = "1.2.840.10008.1.2.1.99"
_MOST_FRAMES, _MOST_INFLATED = 10**6, 2**30
_SEGMENTATION, _LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"


@dataclass(frozen=True, eq=False)
class Stored:
    """How the frames of one file are stored; ``offset`` is that of the element of pixel data.

    ``is_mask``: the file is a segmentation; ``has_segments``: one with frames for each segment, not a label map.
    """

    part: Part
    offset: int
    syntax: str
    frames: int
    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    bits: int
    high: int
    signed: bool
    padding: bool
    is_mask: bool
    has_segments: bool
    sop_uid: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a stored value."""
        return np.dtype(f"{'i' if self.signed else 'u'}{max(1, self.allocated // 8)}")


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: ``index`` in its file, what a person calls it (``number``), and its place in LPS+, in mm."""

    stored: Stored
    index: int
    number: int
    series: str
    modality: str
    description: str
    kind: str
    position: Vector | None
    orientation: Vector | None
    spacing: Vector | None
    thickness: tuple[str, float] | None
    slope: float
    intercept: float
    times: Mapping[str, float | str] = field(default_factory=dict)


def quiet() -> Any:
    """Import pydicom, and keep its and highdicom's remarks on values to themselves: they may hold a patient's data."""
    pydicom = package("pydicom", "medical", "DICOM")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)(\.|$)")
    return pydicom


@contextmanager
def damage_errors(subject: str, expected: str) -> Iterator[None]:
    """Raise what pydicom raises for a damaged file as an InputError that quotes nothing of it."""
    try:
        yield
    except InputError:
        raise
    except (
        OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError,
        NotImplementedError, RecursionError, RuntimeError, struct.error, zlib.error,
    ) as error:  # fmt: skip
        got = f"a damaged one ({type(error).__name__})"
        raise InputError(subject, expected=expected, got=got, do="copy or export it again") from None
    except Exception as error:  # pydicom's InvalidDicomError and BytesLengthException derive from Exception alone
        if type(error).__module__.partition(".")[0] != "pydicom":
            raise
        raise InputError(subject, expected=expected, got="a damaged one", do="copy or export it again") from None


def read_frames(part: Part) -> list[Frame]:
    """Return the frames of a DICOM file; none of one without pixels. Raises InputError: damaged."""
    pydicom = quiet()
    with damage_errors(part.name, "a DICOM header"):
        _check_deflated(part)
        with part.stream() as stream:
            header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=[*_TAGS])
            offset = stream.tell()
        if "Rows" not in header or "Columns" not in header or header.get("SOPClassUID") == _DOSE:
            return []
        if "ModalityLUTSequence" in header:
            do = "export it with a rescale slope and intercept"
            raise InputError(part.name, expected="values on a line", got="a modality look-up table", do=do)
        return list(_frames(header, _stored(header, part, offset)))


def _check_deflated(part: Part) -> None:
    """Raise InputError for a deflated data set that grows beyond all images: pydicom inflates all of it in memory."""
    head = part.read(MAGIC_AT + 4, 2**12)
    if head[:4] != b"\x02\0\0\0":  # the group's length comes first
        return
    length = 12 + struct.unpack("<I", head[8:12])[0]
    if DEFLATED.encode() not in head[:length]:
        return
    at, stream, count = MAGIC_AT + 4 + length, zlib.decompressobj(-zlib.MAX_WBITS), 0
    while chunk := stream.unconsumed_tail or part.read(at, CHUNK_BYTES):
        at += 0 if stream.unconsumed_tail else len(chunk)
        count += len(stream.decompress(chunk, CHUNK_BYTES))
        if count > _MOST_INFLATED:
            do = "write it without deflation, e.g. with dcmtk: dcmconv +te IN OUT"
            raise InputError(part.name, expected=f"at most {_MOST_INFLATED} bytes deflated", got="more", do=do)


def _stored(header: Any, part: Part, offset: int) -> Stored:
    frames, rows, columns = int(header.get("NumberOfFrames") or 1), int(header.Rows), int(header.Columns)
    if not (0 < frames <= _MOST_FRAMES and rows > 0 and columns > 0):
        got = f"{frames} of {rows} x {columns}"
        raise InputError(part.name, expected="frames with pixels", got=got, do="copy or export it again")
    allocated = int(header.BitsAllocated)
    bits = int(header.get("BitsStored") or allocated)
    if allocated not in (1, 8, 16, 32) or not 0 < bits <= allocated:
        got = f"{bits} of {allocated} bits"
        raise InputError(part.name, expected="pixels of 8, 16 or 32 bits", got=got, do="export it as integers")
    high = header.get("HighBit")
    high = bits - 1 if high is None else int(high)
    return Stored(
        part=part,
        offset=offset,
        syntax=str(header.file_meta.TransferSyntaxUID),
        frames=frames,
        rows=rows,
        columns=columns,
        samples=int(header.get("SamplesPerPixel") or 1),
        photometric=str(header.get("PhotometricInterpretation") or "MONOCHROME2"),
        allocated=allocated,
        bits=bits,
        high=high if bits - 1 <= high < allocated else bits - 1,
        signed=bool(header.get("PixelRepresentation") or 0),
        padding="PixelPaddingValue" in header,
        is_mask=header.get("SOPClassUID") in (_LABEL_MAP, _SEGMENTATION),
        has_segments=header.get("SOPClassUID") == _SEGMENTATION,
        sop_uid=str(header.get("SOPInstanceUID") or ""),
    )


def _frames(header: Any, stored: Stored) -> Iterator[Frame]:
    own = {name: header.get(name) for name in _TAGS if name in header}
    shared = _values(next(iter(header.get("SharedFunctionalGroupsSequence") or []), None))
    each: Sequence[Any] = header.get("PerFrameFunctionalGroupsSequence") or []
    if each and len(each) != stored.frames:
        got = f"places of {len(each)}"
        do = "export it again: header and pixels do not belong together"
        raise InputError(stored.part.name, expected=f"places of {stored.frames} frames", got=got, do=do)
    if not each and stored.frames > 1:
        own.pop("ImagePositionPatient", None)  # that of the first frame alone
    for index in range(stored.frames):
        stated = own | shared | (_values(each[index]) if each else {})
        yield Frame(
            stored=stored,
            index=index,
            number=index + 1 if stored.frames > 1 else int(stated.get("InstanceNumber") or 0),
            series=str(stated.get("SeriesInstanceUID") or "none"),
            modality=str(stated.get("Modality") or "?"),
            description=str(stated.get("SeriesDescription") or ""),
            kind="\\".join(map(str, stated.get("FrameType") or stated.get("ImageType") or ())),
            position=_vector(stated.get("ImagePositionPatient"), 3),
            orientation=_vector(stated.get("ImageOrientationPatient"), 6),
            spacing=_vector(stated.get("PixelSpacing"), 2),
            thickness=_thickness(stated),
            slope=_number(stated.get("RescaleSlope"), 1.0),
            intercept=_number(stated.get("RescaleIntercept"), 0.0),
            times={name: _time(stated[name]) for name in TIMES if stated.get(name) not in (None, "")},
        )


def _values(group: Any) -> dict[str, Any]:
    """Return what a functional group of frames states, by name."""
    if group is None:
        return {}
    found = {}
    for sequence, names in _FUNCTIONAL.items():
        item = next(iter(group.get(sequence) or []), None)
        if item is not None:
            found.update({name: item.get(name) for name in names if name in item})
    return found


def _vector(values: Any, length: int) -> Vector | None:
    if values is None or isinstance(values, str) or not hasattr(values, "__len__") or len(values) != length:
        return None
    numbers = tuple(float(value) for value in values)
    return numbers if np.isfinite(numbers).all() else None


def _number(value: Any, default: float) -> float:
    number = default if value in (None, "") else float(value)
    if not np.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _thickness(stated: Mapping[str, Any]) -> tuple[str, float] | None:
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        length = abs(_number(stated.get(name), 0.0))
        if length > 0:
            return name, length
    return None


def _time(value: Any) -> float | str:
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)
