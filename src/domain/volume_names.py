"""Names of stored volumes: the endings of each format, and what follows from them. No other module names an ending."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class VolumeFormat:
    """Endings of one format, in lower case.

    Args:
        name: of the format.
        single: endings of volumes of one file.
        pairs: endings of header and voxels of volumes of two files.
        folders: endings of volumes that are folders.
        writable: endings that a new volume may have.
        is_input: whether a search of a folder takes volumes of this format; results of others are none.
        beside: endings of a header and of the file that may hold its voxels, which is no volume by itself.
        inside: the text between a file or folder of this format and the name of a volume inside it; empty for none.
        is_nested: whether a folder is a volume whose files may lie deeper in it.
    """

    name: str
    single: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    is_input: bool = True
    beside: tuple[tuple[str, str], ...] = ()
    inside: str = ""
    is_nested: bool = False

    @property
    def endings(self) -> tuple[str, ...]:
        """All endings."""
        return (*self.single, *self.folders, *(ending for pair in self.pairs for ending in pair))


@dataclass(frozen=True)
class VolumeNames:
    """Endings of the formats that a store keeps; the case of letters does not matter."""

    formats: tuple[VolumeFormat, ...] = ()

    @property
    def writable(self) -> tuple[str, ...]:
        """Endings that a new volume may have."""
        return tuple(ending for known in self.formats for ending in known.writable)

    @property
    def writable_text(self) -> str:
        """The writable endings in words."""
        *first, last = self.writable
        return f"{', '.join(first)} or {last}" if first else last

    @property
    def searched(self) -> str:
        """Formats and endings that a search of a folder finds, in words."""
        return ", ".join(
            f"{known.name} ({', '.join((*known.single, *known.folders))})" for known in self.formats if known.is_input
        )

    def format(self, name: str) -> str:
        """Return the name of the format that a name's ending stands for; empty if it has none."""
        ending = self.ending(name)
        return next((known.name for known in self.formats if ending and ending in known.endings), "")

    def ending(self, name: str) -> str:
        """Return the ending of a name, in lower case; empty if it has none. The longest counts.

        The name of a volume inside a file or folder has the ending of that, e.g. ``scan.zarr/labels/vessels``.
        """
        low = name.lower()
        found = [ending for known in self.formats for ending in known.endings if low.endswith(ending)]
        return max(found, key=len, default="") or self._outer_ending(low)

    def is_inside(self, name: str) -> bool:
        """Return whether a name is that of a volume inside a file or folder, e.g. ``scan.zarr/labels/vessels``."""
        return bool(self._outer_ending(name.lower()))

    def _outer_ending(self, low: str) -> str:
        """Return the ending of the file or folder that a volume lies inside, also deeper in it."""
        found = []
        for known in self.formats:
            outer, mark, own = low.rpartition(known.inside) if known.inside else ("", "", "")
            if mark and own:
                found += [e for e in known.endings if outer.endswith(e) or f"{e}/" in outer]
        return max(found, key=len, default="")

    def stem(self, name: str) -> str:
        """Return a name, or path, without its ending; as it is if nothing else would be left of the name."""
        ending = self.ending(name)
        if not name.lower().endswith(ending):  # inside a file or folder
            return name
        return name[: len(name) - len(ending)] if len(PurePosixPath(name).name) > len(ending) else name

    def is_volume(self, name: str, *, is_folder: bool = False) -> bool:
        """Return whether a search of a folder takes a file, or folder, for a volume."""
        inputs = [known for known in self.formats if known.is_input]
        endings = [e for known in inputs for e in (known.folders if is_folder else known.single)]
        return self.ending(name) in endings and self.stem(name) != name

    def files(self, path: str) -> tuple[str, ...]:
        """Return the paths that a volume may occupy: its own and those of the other half, or of a header's voxels."""
        own = self.ending(path) if path.lower().endswith(self.ending(path)) else ""
        halves: list[tuple[str, ...]] = [pair for known in self.formats for pair in known.pairs if own in pair]
        stem = path[: len(path) - len(own)]
        halves += [(voxels,) for known in self.formats for header, voxels in known.beside if header == own]
        others = [stem + form for pair in halves for half in pair for form in (half, half.upper())]
        return tuple(dict.fromkeys([path, *others]))


NIFTI = VolumeFormat(
    "NIfTI",
    (".nii", ".nii.gz"),
    pairs=((".hdr", ".img"), (".hdr.gz", ".img.gz")),
    writable=(".nii", ".nii.gz", ".hdr", ".img"),
)
TIFF = VolumeFormat(
    "TIFF",
    (".ome.tif", ".ome.tiff", ".tif", ".tiff", ".ome.btf", ".btf"),
    writable=(".ome.tif", ".ome.tiff", ".tif", ".tiff"),
)
OME_ZARR = VolumeFormat(
    "OME-Zarr",
    (".ome.zarr.zip", ".zarr.zip"),
    folders=(".ome.zarr", ".zarr"),
    writable=(".ome.zarr", ".zarr", ".ome.zarr.zip", ".zarr.zip"),
    inside="/labels/",
)
SEGMENTATION_NRRD = VolumeFormat("segmentation NRRD", (".seg.nrrd",), writable=(".seg.nrrd",), is_input=False)
NRRD = VolumeFormat("NRRD", (".nrrd", ".nhdr"), writable=(".nrrd",), beside=((".nhdr", ".raw"), (".nhdr", ".raw.gz")))
META_IMAGE = VolumeFormat(
    "MetaImage", (".mha", ".mhd"), writable=(".mha", ".mhd"), beside=((".mhd", ".raw"), (".mhd", ".zraw"))
)
DICOM = VolumeFormat("DICOM", (".dcm",), writable=(".dcm",), is_nested=True)
HDF5 = VolumeFormat("HDF5", (".h5", ".hdf5", ".hdf", ".ims"), inside=":/")
NUMPY = VolumeFormat("NumPy", (".npy", ".npz"), inside=":/")
MGH = VolumeFormat("MGH", (".mgz", ".mgh"))
VENDORS = VolumeFormat("vendor", (".czi", ".lif", ".nd2", ".oir"))
PLAIN, PACKED = NIFTI.single
GZIP_MAGIC, ZIP_MAGIC, ZIP = b"\x1f\x8b", b"PK\x03\x04", ".zip"
# Files of metadata, one of which each folder of zarr has.
ZARR_FILES = (".zattrs", ".zgroup", ".zarray", "zarr.json")
DICOM_MAGIC, DICOM_START = b"DICM", 128
ALL_NAMES = VolumeNames((NIFTI, TIFF, OME_ZARR, SEGMENTATION_NRRD, NRRD, META_IMAGE, DICOM, HDF5, NUMPY, MGH, VENDORS))
# Endings of headers whose voxels may lie in a file beside them.
HEADERS = tuple(header for header, _ in (*NRRD.beside, *META_IMAGE.beside))

MaskFormat = Literal["nii.gz", "nii", "ome.tif", "tif", "ome.zarr", "zarr", "nrrd", "seg.nrrd", "mha", "dcm"]
USUAL_FORMAT: MaskFormat = "nii.gz"


@dataclass(frozen=True)
class SentFile:
    """How a server sends a mask: the ending of the one file that it is, and its media type."""

    ending: str
    media_type: str


_BYTES = "application/octet-stream"
SENT_MASKS: Mapping[MaskFormat, SentFile] = MappingProxyType(
    {
        "nii.gz": SentFile(PACKED, "application/gzip"),
        "nii": SentFile(PLAIN, _BYTES),
        "ome.tif": SentFile(".ome.tif", "image/tiff"),
        "tif": SentFile(".tif", "image/tiff"),
        "ome.zarr": SentFile(".ome.zarr.zip", "application/zip"),
        "zarr": SentFile(".zarr.zip", "application/zip"),
        "nrrd": SentFile(".nrrd", _BYTES),
        "seg.nrrd": SentFile(".seg.nrrd", _BYTES),
        "mha": SentFile(".mha", _BYTES),
        "dcm": SentFile(".dcm", "application/dicom"),
    }
)


def mask_format(name: str) -> MaskFormat | None:
    """Return the format that a server sends for a mask of this name; None for a name that it has no format for."""
    ending = ALL_NAMES.ending(name)
    if not ending or not name.lower().endswith(ending):
        return None
    known = ending[1:].removesuffix(ZIP).replace("tiff", "tif")
    return next((form for form in SENT_MASKS if form == known), None)


def sent_name(number: int, name: str, start: bytes) -> str:
    """Return the name of an uploaded volume: its number in the case and an ending.

    Args:
        number: of the volume in its case.
        name: that the sender gave it; only an ending of a known format is kept of it.
        start: the first bytes of the content. They decide for NIfTI and for a name of no format.
    """
    ending = ALL_NAMES.ending(name)
    if ending in OME_ZARR.folders:
        ending += ZIP
    elif not ending or ending in NIFTI.endings:
        ending = PACKED if start.startswith(GZIP_MAGIC) else ZIP if start.startswith(ZIP_MAGIC) else PLAIN
    return f"volume_{number}{ending}"
