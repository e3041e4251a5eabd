"""Volumes stored in each format by another library than the store's, and what a user states of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

nib: Any = nibabel
Array = NDArray[Any]
Stated = dict[str, Any]
# Writes channels ``(C, x, y, z)``; gives the reference and the options to read it with.
Write = Callable[[Path, Array, Array, str], tuple[Path, Stated]]
_UNITS = {"mm": "millimeter", "um": "micrometer"}
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Format:
    """A format as another library writes it, and what it can say.

    ``units`` that it states, or that are stated for it; ``directions`` that are not the world's own.
    """

    write: Write
    dtypes: tuple[str, ...]
    channels: bool = False
    directions: bool = False
    origin: bool = True
    units: tuple[str, ...] = ("mm", "um")


def write_nifti(path: Path, values: Array, affine: Array, unit: str) -> Path:
    """Write NIfTI with nibabel, a channel a volume."""
    stored = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
    image = nib.Nifti1Image(stored, affine)
    image.header.set_xyzt_units({"mm": "mm", "um": "micron"}[unit])
    nib.save(image, path)
    return path


def _spacing(affine: Array) -> list[float]:
    return [float(length) for length in np.linalg.norm(affine[:3, :3], axis=0)]


def _given(affine: Array, unit: str, axes: str) -> Stated:
    return {"spacing": tuple(_spacing(affine)), "unit": unit, "axes": axes}


def _planes(values: Array) -> tuple[Array, str]:
    """Return ``(z, y, x)`` or ``(C, z, y, x)``, and its axes."""
    stored = np.ascontiguousarray(values.transpose(0, 3, 2, 1))
    return (stored[0], "ZYX") if len(values) == 1 else (stored, "CZYX")


def _ome_tiff(folder: Path, values: Array, affine: Array, unit: str) -> tuple[Path, Stated]:
    tifffile: Any = import_module("tifffile")

    stored, axes = _planes(values)
    symbol = {"mm": "mm", "um": "\N{MICRO SIGN}m"}[unit]
    sizes = {f"PhysicalSize{axis}": edge for axis, edge in zip("XYZ", _spacing(affine), strict=True)}
    units = {f"PhysicalSize{axis}Unit": symbol for axis in "XYZ"}
    tifffile.imwrite(
        folder / "scan.ome.tif", stored, metadata={"axes": axes, **sizes, **units}, photometric="minisblack"
    )
    return folder / "scan.ome.tif", {}


def _imagej(folder: Path, values: Array, affine: Array, unit: str) -> tuple[Path, Stated]:
    tifffile: Any = import_module("tifffile")

    x, y, z = _spacing(affine)
    stored, axes = _planes(values)
    if axes == "CZYX":  # as ImageJ orders them
        stored, axes = stored.swapaxes(0, 1), "ZCYX"
    metadata = {"axes": axes, "spacing": z, "unit": unit}
    tifffile.imwrite(folder / "scan.tif", stored, imagej=True, resolution=(1 / x, 1 / y), metadata=metadata)
    return folder / "scan.tif", {}


def _plain_tiff(folder: Path, values: Array, affine: Array, unit: str) -> tuple[Path, Stated]:
    tifffile: Any = import_module("tifffile")

    stored, axes = _planes(values)
    compressed = {"compression": "lzw", "tile": (16, 16)}
    tifffile.imwrite(folder / "scan.tif", stored, metadata=None, photometric="minisblack", **compressed)
    return folder / "scan.tif", _given(affine, unit, axes)


def _ngff(folder: Path, values: Array, affine: Array, unit: str) -> tuple[Path, Stated]:
    ngff_zarr: Any = import_module("ngff_zarr")

    stored, axes = _planes(values)
    named = [axis.lower() for axis in axes]
    image = ngff_zarr.to_ngff_image(
        stored,
        dims=named,
        scale={"c": 1.0} | dict(zip("xyz", _spacing(affine), strict=True)),
        translation={"c": 0.0} | dict(zip("xyz", map(float, affine[:3, 3]), strict=True)),
        axes_units=dict.fromkeys("xyz", _UNITS[unit]),
    )
    ngff_zarr.to_ngff_zarr(folder / "scan.ome.zarr", ngff_zarr.to_multiscales(image, scale_factors=[], chunks=16))
    return folder / "scan.ome.zarr", {}


def _zarr(folder: Path, values: Array, affine: Array, unit: str) -> tuple[Path, Stated]:
    """Write version 0.4 by zarr-python alone."""
    zarr: Any = import_module("zarr")

    stored, axes = _planes(values)
    edges = dict(zip("XYZ", _spacing(affine), strict=True))
    root = zarr.open_group(folder / "scan.zarr", mode="w", zarr_format=2)
    array = root.create_array("0", shape=stored.shape, dtype=stored.dtype, chunks=(8,) * stored.ndim)
    array[...] = stored
    lengths = [edges.get(axis, 1.0) for axis in axes]
    places = [float(affine["XYZ".index(axis), 3]) if axis in "XYZ" else 0.0 for axis in axes]
    named = [{"name": a.lower(), "type": "channel"} if a == "C" else _axis(a, unit) for a in axes]
    moved = [{"type": "scale", "scale": lengths}, {"type": "translation", "translation": places}]
    level = {"path": "0", "coordinateTransformations": moved}
    root.attrs["multiscales"] = [{"version": "0.4", "axes": named, "datasets": [level]}]
    return folder / "scan.zarr", {}


def _axis(letter: str, unit: str) -> dict[str, str]:
    return {"name": letter.lower(), "type": "space", "unit": _UNITS[unit]}


def _itk(ending: str) -> Write:
    def write(folder: Path, values: Array, affine: Array, unit: str) -> tuple[Path, Stated]:
        itk: Any = import_module("SimpleITK")

        stored = values.transpose(3, 2, 1, 0)
        image = itk.GetImageFromArray(stored if len(values) > 1 else stored[..., 0], isVector=len(values) > 1)
        lps = _LPS @ affine
        image.SetSpacing(_spacing(affine))
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / _spacing(affine)).ravel().tolist())
        itk.WriteImage(image, str(folder / f"scan{ending}"), useCompression=True)
        return folder / f"scan{ending}", {"unit": unit}

    return write


def _dicom(folder: Path, values: Array, affine: Array, unit: str) -> tuple[Path, Stated]:  # noqa: ARG001 - always mm
    """Write a series with pydicom, in an order of files that is not the order of slices."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    (folder / "series").mkdir()
    series, study, frame = (generate_uid() for _ in range(3))
    lps, edges = _LPS @ affine, _spacing(affine)
    column, row = lps[:3, 0] / edges[0], lps[:3, 1] / edges[1]
    order = np.random.default_rng(0).permutation(values.shape[3])
    for index, name in enumerate(order):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_ = Dataset()
        slice_.file_meta = meta
        slice_.SOPClassUID, slice_.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        slice_.SeriesInstanceUID, slice_.StudyInstanceUID, slice_.FrameOfReferenceUID = series, study, frame
        slice_.PatientName, slice_.PatientID, slice_.PatientBirthDate, slice_.PatientSex = "A^B", "1", "", ""
        slice_.StudyDate, slice_.StudyTime, slice_.StudyID, slice_.AccessionNumber = "20260101", "120000", "1", ""
        slice_.ReferringPhysicianName, slice_.SeriesNumber, slice_.Manufacturer = "", 1, "voxport"
        slice_.PositionReferenceIndicator, slice_.SliceThickness = "", f"{edges[2]:.12f}"
        slice_.Modality, slice_.InstanceNumber = "CT", int(name) + 1
        slice_.ImageOrientationPatient = [f"{cosine:.12f}"[:16] for cosine in (*column, *row)]
        slice_.ImagePositionPatient = [f"{place:.10f}"[:16] for place in lps[:3, 3] + index * lps[:3, 2]]
        slice_.PixelSpacing = [f"{edges[1]:.12f}", f"{edges[0]:.12f}"]
        pixels = np.ascontiguousarray(values[0, :, :, index].T)
        slice_.Columns, slice_.Rows = values.shape[1:3]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated = slice_.BitsStored = 8 * pixels.itemsize
        slice_.HighBit, slice_.PixelRepresentation = slice_.BitsStored - 1, int(pixels.dtype.kind == "i")
        slice_.RescaleSlope, slice_.RescaleIntercept = "1", "0"
        slice_.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
        slice_.save_as(folder / "series" / f"IM{name:04}", enforce_file_format=True)
    return folder / "series", {}


def _hdf5(folder: Path, values: Array, affine: Array, unit: str) -> tuple[Path, Stated]:
    h5py: Any = import_module("h5py")

    stored, axes = _planes(values)
    with h5py.File(folder / "scan.h5", "w") as file:
        chunks = tuple(min(8, edge) for edge in stored.shape)
        file.create_dataset("volumes/raw", data=stored, chunks=chunks, compression="gzip")
    return Path(f"{folder}/scan.h5:/volumes/raw"), _given(affine, unit, axes)


def _numpy(folder: Path, values: Array, affine: Array, unit: str) -> tuple[Path, Stated]:
    np.save(folder / "scan.npy", values)
    return folder / "scan.npy", _given(affine, unit, "CXYZ")


def _mgz(folder: Path, values: Array, affine: Array, unit: str) -> tuple[Path, Stated]:  # noqa: ARG001 - always mm
    stored = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
    nib.save(nib.MGHImage(stored, affine), folder / "scan.mgz")
    return folder / "scan.mgz", {}


_NUMBERS = ("uint8", "int16", "uint16", "int32", "float32")
FORMATS: Mapping[str, Format] = {
    "OME-TIFF": Format(_ome_tiff, _NUMBERS, channels=True, origin=False),
    "ImageJ": Format(_imagej, ("uint8", "uint16", "float32"), channels=True, origin=False),
    "TIFF": Format(_plain_tiff, _NUMBERS, origin=False),
    "ngff-zarr": Format(_ngff, _NUMBERS, channels=True),
    "zarr": Format(_zarr, _NUMBERS, channels=True),
    "NRRD": Format(_itk(".nrrd"), _NUMBERS, channels=True, directions=True),
    "MHA": Format(_itk(".mha"), _NUMBERS, channels=True, directions=True),
    "DICOM": Format(_dicom, ("uint8", "int16", "uint16"), directions=True, units=("mm",)),
    "HDF5": Format(_hdf5, _NUMBERS, channels=True, origin=False),
    "NumPy": Format(_numpy, _NUMBERS, channels=True, origin=False),
    "MGZ": Format(_mgz, ("uint8", "int16", "int32", "float32"), channels=True, directions=True, units=("mm",)),
}


def read_elsewhere(path: Path) -> tuple[Array, list[float], Array | None]:
    """Return labels ``(x, y, z)``, spacing and, where stated, the affine, as another library reads them."""
    if path.name.endswith(".tif"):
        tifffile: Any = import_module("tifffile")

        with tifffile.TiffFile(path) as file:
            pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
            return file.asarray().T, [float(pixels[f"PhysicalSize{axis}"]) for axis in "XYZ"], None
    if path.name.endswith(".zarr"):
        ngff_zarr: Any = import_module("ngff_zarr")

        image = ngff_zarr.from_ngff_zarr(path).images[0]
        return np.asarray(image.data).T, [image.scale[axis] for axis in "xyz"], None
    itk: Any = import_module("SimpleITK")

    image = itk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return itk.GetArrayFromImage(image).T, list(image.GetSpacing()), _LPS @ affine
