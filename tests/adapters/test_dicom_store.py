"""The DICOM store keeps the reading contract; pydicom, SimpleITK (GDCM), highdicom and dcm2niix are the witnesses."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voxport.adapters.volumes.dicom import DicomStore
from voxport.domain.geometry.grid import Grid
from voxport.domain.volume import Volume
from voxport.ports.volume_store import VolumeStore
from voxport.testing.volume_store import VolumeReadingContract

pydicom: Any = pytest.importorskip("pydicom")
highdicom: Any = pytest.importorskip("highdicom")
sitk: Any = pytest.importorskip("SimpleITK")

_CT = "1.2.840.10008.5.1.4.1.1.2"
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_EXAMPLE = Grid((4, 3, 6), np.array([[-0.5, 0, 0, 7], [0, -0.25, 0, -3], [0, 0, 2, 1], [0, 0, 0, 1.0]]), "mm")


def slices_of(volume: Volume, uid: str = "1.2.3.4") -> list[Any]:
    """Make the slices of a volume of one channel, as pydicom datasets."""
    affine = _TO_LPS @ volume.grid.affine
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    values = volume.array[0]
    return [_slice(values[:, :, z].T, affine, lengths, z, uid) for z in range(values.shape[2])]


def _slice(plane: Any, affine: Any, lengths: Any, z: int, uid: str) -> Any:
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = _CT, f"{uid}.{z + 1}"
    one = pydicom.Dataset()
    one.file_meta = meta
    one.SOPClassUID, one.SOPInstanceUID = _CT, f"{uid}.{z + 1}"
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = f"{uid}.8", uid, f"{uid}.9"
    one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "Secret^Name", "Secret-1", "", ""
    one.StudyDate, one.StudyTime, one.AccessionNumber, one.ReferringPhysicianName = "20200102", "101112", "", ""
    one.Modality, one.SeriesDescription, one.Manufacturer, one.StudyID = "CT", "thorax", "somebody", "1"
    one.InstanceNumber = z + 1
    one.ImagePositionPatient = [_ds(v) for v in affine[:3] @ [0, 0, z, 1]]
    one.ImageOrientationPatient = [_ds(v) for axis in (0, 1) for v in affine[:3, axis] / lengths[axis]]
    one.PixelSpacing = [_ds(lengths[1]), _ds(lengths[0])]
    one.SliceThickness = _ds(lengths[2])
    one.Rows, one.Columns = plane.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 8 * plane.dtype.itemsize
    one.HighBit, one.PixelRepresentation = one.BitsStored - 1, int(plane.dtype.kind == "i")
    one.PixelData = np.ascontiguousarray(plane).tobytes() + b"\0" * (plane.nbytes % 2)
    one["PixelData"].VR = "OW"
    return one


def _ds(value: float) -> Any:
    return pydicom.valuerep.DSfloat(float(value), auto_format=True)


def write_series(folder: Path, slices: list[Any], names: Callable[[int], str] = "IM{:05}".format) -> Path:
    """Write slices into a new folder, the last first, so that names do not order them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(reversed(slices)):
        one.save_as(folder / names(number), enforce_file_format=True)
    return folder


class _DicomContract(VolumeReadingContract):
    dtypes: Sequence[str] = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
    max_channels = 1
    units = ("mm",)
    geometry = "directions"
    largest_misfit = 1e-6  # decimal strings of 16 characters

    def make_store(self) -> VolumeStore:
        self.numbers = count()
        return DicomStore(self.folder)

    def new_reference(self) -> str:
        return str(self.folder / f"series_{next(self.numbers)}")

    def place_foreign(self) -> str:
        folder = Path(self.new_reference())
        folder.mkdir()
        (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
        (folder / "scan.dcm").write_bytes(b"no DICOM")
        return str(folder)

    def holdable(self, grid: Grid) -> Grid:
        """The same grid in mm, with its slices along the normal of rows and columns, as DICOM orders them."""
        held = super().holdable(grid)
        affine = held.affine.copy()
        affine[:3, 2] *= np.sign(np.linalg.det(affine[:3, :3]))
        return Grid(held.shape, affine, "mm")


class TestPydicomFolder(_DicomContract):
    def place(self, volume: Volume) -> str:
        return str(write_series(Path(self.new_reference()), slices_of(volume)))


class TestPydicomZip(_DicomContract):
    def new_reference(self) -> str:
        return super().new_reference() + ".zip"

    def place_foreign(self) -> str:
        reference = self.new_reference()
        with zipfile.ZipFile(reference, "w") as archive:
            archive.writestr("series/a.dcm", "no DICOM")
        return reference

    def place(self, volume: Volume) -> str:
        reference = self.new_reference()
        folder = write_series(Path(reference + ".d") / "study", slices_of(volume))
        with zipfile.ZipFile(reference, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in folder.iterdir():
                archive.write(file, f"study/{file.name}")
        return reference

    def test_the_hash_is_that_of_the_zip_as_it_was_sent(self) -> None:
        reference = self.place(Volume(np.zeros((1, *_EXAMPLE.shape), np.uint8), _EXAMPLE))
        with self.make_store().open(reference) as source:
            assert source.sha256() == hashlib.sha256(Path(reference).read_bytes()).hexdigest()


class TestGdcmFolder(_DicomContract):
    """As SimpleITK writes a series."""

    dtypes = ("uint8", "uint16", "int16")

    def place(self, volume: Volume) -> str:
        folder = Path(self.new_reference())
        folder.mkdir()
        affine = _TO_LPS @ volume.grid.affine
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        cosines = affine[:3, :3] / lengths
        for z in range(volume.grid.shape[2]):
            image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array[0, :, :, z].T))
            image.SetSpacing(lengths[:2].tolist())
            tags = {
                "0020|000e": "1.2.3",
                "0008|0018": f"1.2.3.{z + 1}",
                "0008|0060": "CT",
                "0020|0032": "\\".join(f"{v:.10g}" for v in affine[:3] @ [0, 0, z, 1]),
                "0020|0037": "\\".join(str(_ds(v)) for v in cosines[:, :2].T.flat),
                "0018|0050": f"{lengths[2]:.10g}",
                "0020|0013": str(z + 1),
            }
            for tag, text in tags.items():
                image.SetMetaData(tag, text)
            writer.SetFileName(str(folder / f"{z}.dcm"))
            writer.Execute(image)
        return str(folder)
