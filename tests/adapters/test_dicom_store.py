"""The DICOM store keeps the reading contract; pydicom, SimpleITK (GDCM), highdicom and dcm2niix are the witnesses."""

from __future__ import annotations

import copy
import hashlib
import os
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voxport.adapters.volumes.dicom import DicomStore
from voxport.adapters.volumes.nifti import NiftiStore
from voxport.adapters.volumes.routed import RoutedStore
from voxport.domain.errors import InputError, LimitError, OutputError, UsageError, VoxportError
from voxport.domain.geometry.grid import Box, Grid
from voxport.domain.labels.label_map import Label, LabelTable
from voxport.domain.reading import Reading
from voxport.domain.volume import Volume
from voxport.ports.volume_store import VolumeSource, VolumeStore
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
    largest_misfit = 1e-5  # it writes positions to 1e-7 mm: 1.1e-6 of a voxel of 1/16 mm

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


# Series of several kinds


_TILTED = Grid((6, 5, 12), np.array([[-0.5, 0, 0.02, 7], [0, -0.25, 0.3, -3], [0, 0, 2, 1], [0, 0, 0, 1.0]]), "mm")
_STRAIGHT = Grid((6, 5, 12), np.diag([-0.5, -0.25, 2.0, 1.0]), "mm")
_WHOLE = Box.whole((6, 5, 12))


def volume_of(grid: Grid = _STRAIGHT, seed: int = 0) -> Volume:
    values = np.random.default_rng(seed).integers(-1000, 1000, (1, *grid.shape))
    return Volume(values.astype(np.int16), grid)


def opened(folder: Path, reading: Reading | None = None) -> VolumeSource:
    return DicomStore(folder.parent).open(str(folder), reading)


def values_of(folder: Path, reading: Reading | None = None) -> Any:
    with opened(folder, reading) as source:
        return source.read(Box.whole(source.grid.shape))


def refusal(folder: Path, reading: Reading | None = None) -> VoxportError:
    """Return the error of a series that is refused; it is one line and says nothing of the patient."""
    with pytest.raises((InputError, UsageError)) as caught:
        opened(folder, reading)
    assert "\n" not in str(caught.value)
    assert "Secret" not in str(caught.value)
    return caught.value


def test_a_gantry_tilt_is_a_shear_of_the_grid(tmp_path: Path) -> None:
    volume = volume_of(_TILTED)
    with opened(write_series(tmp_path / "a", slices_of(volume))) as source:
        np.testing.assert_allclose(source.grid.affine, _TILTED.affine, atol=1e-9)
        np.testing.assert_array_equal(source.read(_WHOLE), volume.array)


def test_slices_are_ordered_by_their_places_and_not_by_names_or_numbers(tmp_path: Path) -> None:
    volume, slices = volume_of(), slices_of(volume_of())
    for number, one in zip(np.random.default_rng(1).permutation(12), slices, strict=True):
        one.InstanceNumber = int(number)
    np.testing.assert_array_equal(values_of(write_series(tmp_path / "a", slices)), volume.array)


def test_slices_beside_other_files_and_deeper_folders_are_found(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "study" / "a" / "b", slices_of(volume_of()))
    (tmp_path / "study" / "README.txt").write_text("hello", encoding="utf-8")
    (tmp_path / "study" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / ".hidden").write_bytes(bytes(128) + b"DICM")
    store = RoutedStore(NiftiStore(tmp_path), DicomStore(tmp_path))
    assert not store.recognises(str(tmp_path / "study"))
    assert store.recognises(str(folder))
    with store.open(str(tmp_path / "study")) as source:
        np.testing.assert_array_equal(source.read(_WHOLE), volume_of().array)


def test_one_slice_alone_is_a_volume_of_one_slice_with_a_note(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", slices_of(volume_of()))
    with opened(folder / "IM00000") as source:
        assert source.grid.shape == (6, 5, 1)
        assert source.spacing_sources[2] == "SliceThickness"
        assert "name the folder" in source.notes[0]
        np.testing.assert_array_equal(source.read(Box.whole((6, 5, 1))), volume_of().array[..., 11:])


def test_one_slice_without_a_thickness_takes_the_spacing_that_is_given(tmp_path: Path) -> None:
    (only,) = slices_of(volume_of())[:1]
    del only.SliceThickness
    folder = write_series(tmp_path / "a", [only])
    assert "`spacing`" in refusal(folder).do
    with opened(folder, Reading(spacing=(0.5, 0.25, 3), unit="mm")) as source:
        np.testing.assert_allclose(source.grid.affine, np.diag([-0.5, -0.25, 3, 1]), atol=1e-12)


@pytest.mark.parametrize(
    ("slope", "intercept", "bits", "dtype"),
    [
        (1, -1024, 12, "int16"),
        (1, -1024, 16, "int32"),
        (1, 0, 12, "uint16"),
        (2, -1024, 12, "float32"),
        (1, 0.5, 12, "float32"),
    ],
)
def test_rescaled_values_keep_an_integer_type_where_they_are_whole(
    tmp_path: Path, slope: float, intercept: float, bits: int, dtype: str
) -> None:
    stored = np.random.default_rng(0).integers(0, 4096, (1, 6, 5, 12)).astype(np.uint16)
    slices = slices_of(Volume(stored, _STRAIGHT))
    for one in slices:
        one.RescaleSlope, one.RescaleIntercept, one.BitsStored, one.HighBit = slope, intercept, bits, bits - 1
    values = values_of(write_series(tmp_path / "a", slices))
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, stored * slope + np.float64(intercept))


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    slices = slices_of(volume_of())
    for number, one in enumerate(slices):
        one.RescaleSlope, one.RescaleIntercept = 1 + number, -number
    folder = write_series(tmp_path / "a", slices)
    numbers = np.arange(12)
    np.testing.assert_array_equal(values_of(folder), volume_of().array * (1.0 + numbers) - numbers)
    with opened(folder) as source:
        assert any("rescale" in note for note in source.notes)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_beside_those_stored_do_not_count(tmp_path: Path, signed: bool) -> None:
    values = np.random.default_rng(0).integers(-2048 if signed else 0, 2048, (1, 6, 5, 12)).astype(np.int16)
    dirty = (values & 0x0FFF) | 0x5000
    slices = slices_of(Volume(dirty.astype(np.int16 if signed else np.uint16), _STRAIGHT))
    for one in slices:
        one.BitsStored, one.HighBit = 12, 11
    np.testing.assert_array_equal(values_of(write_series(tmp_path / "a", slices)), values)


def test_values_are_as_stored_where_high_ones_are_shown_dark_or_pad(tmp_path: Path) -> None:
    slices = slices_of(volume_of())
    for one in slices:
        one.PhotometricInterpretation, one.PixelPaddingValue = "MONOCHROME1", -1000
    folder = write_series(tmp_path / "a", slices)
    np.testing.assert_array_equal(values_of(folder), volume_of().array)
    with opened(folder) as source:
        assert [word in " ".join(source.notes) for word in ("MONOCHROME1", "PixelPaddingValue")] == [True, True]


def test_slices_of_several_times_give_the_one_that_is_chosen(tmp_path: Path) -> None:
    slices = []
    for time in range(3):
        for one in slices_of(volume_of(seed=time)):
            one.SOPInstanceUID, one.AcquisitionNumber = f"{one.SOPInstanceUID}.{time}", time + 5
            one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
            slices.append(one)
    folder = write_series(tmp_path / "a", slices)
    assert "`timepoint`" in refusal(folder).do
    for time in range(3):
        np.testing.assert_array_equal(values_of(folder, Reading(timepoint=time)), volume_of(seed=time).array)
    with pytest.raises(UsageError):
        opened(folder, Reading(timepoint=3))


def test_of_two_series_the_one_that_is_named_is_read(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", slices_of(volume_of(), "1.2.3.4") + slices_of(volume_of(seed=1), "1.2.7"))
    error = refusal(folder)
    assert "1.2.3.4 (CT, thorax, 12 slices of 6 x 5)" in error.got
    assert "`series`" in error.do
    for name, seed in (("1.2.3.4", 0), ("1.2.7", 1), ("1.2.3", 0)):
        np.testing.assert_array_equal(values_of(folder, Reading(series=name)), volume_of(seed=seed).array)
    assert "2 of them match" in refusal(folder, Reading(series="1.2")).got
    assert "none of them match" in refusal(folder, Reading(series="7")).got


def test_a_scout_within_the_series_counts_as_another_one(tmp_path: Path) -> None:
    slices = slices_of(volume_of())
    scout = copy.deepcopy(slices[0])
    scout.ImageOrientationPatient, scout.SOPInstanceUID = [1, 0, 0, 0, 0, -1], "1.2.99"
    folder = write_series(tmp_path / "a", [scout, *slices])
    assert "1.2.3.4:1 (CT, thorax, 12 slices of 6 x 5); 1.2.3.4:2 (CT, thorax, 1 slice" in refusal(folder).got
    np.testing.assert_array_equal(values_of(folder, Reading(series="1.2.3.4:1")), volume_of().array)


def test_kinds_of_images_at_the_same_places_count_as_series(tmp_path: Path) -> None:
    slices = []
    for seed, kind in enumerate(("WATER", "FAT")):
        for one in slices_of(volume_of(seed=seed)):
            one.ImageType, one.SOPInstanceUID = ["DERIVED", "PRIMARY", kind], f"{one.SOPInstanceUID}.{seed}"
            slices.append(one)
    folder = write_series(tmp_path / "a", slices)
    found = [values_of(folder, Reading(series=f"1.2.3.4:{number}")) for number in (1, 2)]
    expected = [volume_of(seed=seed).array for seed in (1, 0)]  # the last slices have the first names
    np.testing.assert_array_equal(found, expected)


def test_the_hash_is_that_of_the_slices_in_order_whatever_their_names(tmp_path: Path) -> None:
    hashes = set()
    for name, slices in (("a", slices_of(volume_of())), ("b", slices_of(volume_of())[::-1])):
        with opened(write_series(tmp_path / name, slices)) as source:
            hashes.add(source.sha256())
    assert len(hashes) == 1


# Compressed and multi-frame files


def _compressed(syntax: str) -> Callable[[Any], None]:
    def compress(one: Any) -> None:
        one.compress(syntax, generate_instance_uid=False)

    return compress


def _by_imagecodecs(syntax: str, encoder: str) -> Callable[[Any], None]:
    def compress(one: Any) -> None:
        import imagecodecs

        plane = np.frombuffer(one.PixelData, "<u2").reshape(one.Rows, one.Columns)
        one.PixelData = pydicom.encaps.encapsulate([getattr(imagecodecs, encoder)(plane)])
        one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
        one.file_meta.TransferSyntaxUID = syntax

    return compress


def _plainly(syntax: str) -> Callable[[Any], None]:
    def store(one: Any) -> None:
        one.file_meta.TransferSyntaxUID = syntax

    return store


@pytest.mark.parametrize(
    "store",
    [
        _compressed("1.2.840.10008.1.2.5"),  # RLE
        _compressed("1.2.840.10008.1.2.4.80"),  # JPEG-LS
        _by_imagecodecs("1.2.840.10008.1.2.4.90", "jpeg2k_encode"),
        _by_imagecodecs("1.2.840.10008.1.2.4.70", "ljpeg_encode"),  # JPEG lossless
        _by_imagecodecs("1.2.840.10008.1.2.4.201", "htj2k_encode"),
        _plainly("1.2.840.10008.1.2"),  # implicit VR
        _plainly("1.2.840.10008.1.2.1.99"),  # deflated
    ],
)
def test_compressed_slices_read_as_plain_ones(tmp_path: Path, store: Callable[[Any], None]) -> None:
    values = np.abs(volume_of().array).astype(np.uint16)
    slices = slices_of(Volume(values, _STRAIGHT))
    for one in slices:
        store(one)
    folder = write_series(tmp_path / "a", slices)
    np.testing.assert_array_equal(values_of(folder), values)
    with opened(folder) as source:
        np.testing.assert_array_equal(source.read(Box((1, 2, 3), (4, 5, 9)))[0], values[0, 1:4, 2:5, 3:9])


def enhanced_file(path: Path, volume: Volume) -> Path:
    """Write an enhanced CT image of several frames, by highdicom, the last slice first."""
    slices = slices_of(volume)
    for one in slices:
        one.ImageType, one.Laterality, one.PatientPosition = ["ORIGINAL", "PRIMARY", "AXIAL"], "", "HFS"
        one.RescaleSlope, one.RescaleIntercept, one.AcquisitionNumber = 2, -7, 1
    enhanced = highdicom.legacy.LegacyConvertedEnhancedCTImage(slices[::-1], "1.2.9", 1, "1.2.9.1", 1)
    enhanced.save_as(path)
    return path


def test_a_file_of_several_frames_is_a_volume(tmp_path: Path) -> None:
    path = enhanced_file(tmp_path / "e.dcm", volume_of(_TILTED))
    with opened(path) as source:
        np.testing.assert_allclose(source.grid.affine, _TILTED.affine, atol=1e-9)
        np.testing.assert_array_equal(source.read(_WHOLE), volume_of().array * 2.0 - 7)
        assert source.notes == ()


def test_real_files_of_pydicom_read_as_pydicom_reads_them() -> None:
    names = ["693_J2KI", "CT_small", "J2K_pixelrep_mismatch", "MR_small", "MR_small_RLE", "MR_small_bigendian"]
    names += ["MR_small_implicit", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_padded"]
    for name in [*names, "examples_overlay"]:
        path = Path(pydicom.__path__[0], "data", "test_files", f"{name}.dcm")
        values = values_of(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one = pydicom.dcmread(path)
            expected = pydicom.pixels.apply_rescale(one.pixel_array, one)
        np.testing.assert_array_equal(values[0, :, :, 0], expected.T)


# Bad files


def _without(position: int) -> Callable[[list[Any]], None]:
    return lambda slices: slices.pop(position)


def _doubled(slices: list[Any]) -> None:
    slices.append(copy.deepcopy(slices[3]))


def _uneven(slices: list[Any]) -> None:
    slices[4].ImagePositionPatient[2] += 0.5


def _sideways(slices: list[Any]) -> None:
    slices[4].ImagePositionPatient[0] += 0.5


def _in_colours(slices: list[Any]) -> None:
    for one in slices:
        one.PhotometricInterpretation, one.SamplesPerPixel, one.PixelData = "RGB", 3, one.PixelData * 3


def _without_places(slices: list[Any]) -> None:
    for one in slices:
        del one.ImagePositionPatient, one.ImageOrientationPatient


def _set(name: str, value: Any) -> Callable[[list[Any]], None]:
    def change(slices: list[Any]) -> None:
        for one in slices:
            setattr(one, name, value)

    return change


def _cut_short(slices: list[Any]) -> None:
    slices[2].PixelData = slices[2].PixelData[:20]


@pytest.mark.parametrize(
    ("change", "got", "do"),
    [
        (_without(5), "4 mm between slices 5 and 7 at 8 and 12 mm, 2 mm between others (1 missing)", "with all slices"),
        (_doubled, "2 slices (4 and 4) at one place, 6 mm", "each slice once"),
        (_uneven, "2.5 mm between slices 4 and 5 at 6 and 8.5 mm, 2 mm between others", "dcm2niix"),
        (_sideways, "slices up to 0.5 mm beside a straight line", "straight"),
        (_in_colours, "a picture in colours (RGB)", "intensities"),
        (_without_places, "no ImagePositionPatient and no ImageOrientationPatient in IM00000", "original series"),
        (_set("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "1, 0, 0, 1, 0, 0", "export"),
        (_set("PixelSpacing", [0, 0]), "zero", "export"),
        (_cut_short, "20", "cut short"),
        (_set("Rows", 0), "1 of 0 x 6", "export"),
        (_set("Rows", 65535), "60", "header is wrong"),
        (_set("BitsStored", 17), "17 of 16 bits", "export"),
        (_set("ModalityLUTSequence", []), "a modality look-up table", "rescale slope"),
    ],
)
def test_a_bad_series_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[list[Any]], None], got: str, do: str
) -> None:
    slices = slices_of(volume_of())
    change(slices)
    error = refusal(write_series(tmp_path / "a", slices))
    assert isinstance(error, InputError)
    assert got in error.got
    assert do in error.do


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.34.567.8.9.10.11.12"])
def test_a_compression_that_nothing_decodes_is_refused(tmp_path: Path, syntax: str) -> None:
    slices, known = slices_of(volume_of()), "1.2.840.10008.1.2.4.100"
    for one in slices:
        _by_imagecodecs(known, "ljpeg_encode")(one)
    folder = write_series(tmp_path / "a", slices)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(known.encode(), syntax.encode()))
    assert "decompress" in refusal(folder).do


def test_a_deflated_file_that_grows_without_end_is_refused(tmp_path: Path) -> None:
    (one,) = slices_of(volume_of())[:1]
    _plainly("1.2.840.10008.1.2.1.99")(one)
    path = write_series(tmp_path / "a", [one]) / "IM00000"
    head, packer = path.read_bytes(), zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = 144 + int.from_bytes(head[140:144], "little")
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(head[:start] + block * 65)
    assert "bytes deflated" in refusal(path).expected


def test_a_file_that_is_cut_anywhere_gives_one_line(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", slices_of(volume_of())[:1])
    whole = (folder / "IM00000").read_bytes()
    for length in [132, *range(140, len(whole), 37), len(whole) - 1]:
        (tmp_path / "cut.dcm").write_bytes(whole[:length])
        assert isinstance(refusal(tmp_path / "cut.dcm"), InputError)


def test_a_damaged_byte_gives_a_volume_or_one_line(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", slices_of(volume_of())[:1])
    whole = bytearray((folder / "IM00000").read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[int(rng.integers(132, len(whole)))] = int(rng.integers(256))
        (tmp_path / "damaged.dcm").write_bytes(damaged)
        with suppress(InputError, UsageError, LimitError):
            values_of(tmp_path / "damaged.dcm")


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("no DICOM", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    files = Path(pydicom.__path__[0], "data", "test_files")
    for path in (tmp_path / "text.dcm", tmp_path / "empty", tmp_path / "none", files / "test-SR.dcm"):
        assert isinstance(refusal(path), InputError)


def test_more_voxels_than_the_limit_are_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", slices_of(volume_of()))
    with pytest.raises(LimitError):
        DicomStore(tmp_path, max_voxels=359).open(str(folder))


def test_a_zip_that_hides_much_or_links_elsewhere_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.dcm", bytes(128) + b"DICM" + bytes(2**26))
    assert "in a zip of" in refusal(tmp_path / "bomb.zip").got
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        link = zipfile.ZipInfo("a.dcm")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert "links" in refusal(tmp_path / "link.zip").got


# Other programs


@pytest.mark.parametrize("grid", [_STRAIGHT, _EXAMPLE])
def test_gdcm_reads_the_same_values_at_the_same_places(tmp_path: Path, grid: Grid) -> None:
    folder = write_series(tmp_path / "a", slices_of(volume_of(grid)))
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    with opened(folder) as source:
        assert image.GetSize() == source.grid.shape
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, source.read(Box.whole(source.grid.shape))[0])
        for index in ((0, 0, 0), (3, 1, 4), (1, 2, 5)):
            world = _TO_LPS @ source.grid.affine @ [*index, 1]
            np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), world[:3], atol=1e-6)


def test_dcm2niix_reads_the_same_values_at_the_same_places(tmp_path: Path) -> None:
    import nibabel

    folder = write_series(tmp_path / "a", slices_of(volume_of(_EXAMPLE)))
    subprocess.run(["dcm2niix", "-o", str(tmp_path), str(folder)], check=True, stdout=subprocess.DEVNULL)
    (converted,) = tmp_path.glob("*.nii")
    image: Any = nibabel.load(converted)
    with opened(folder) as source:
        to_other = np.linalg.inv(image.affine) @ source.grid.affine
        values, other = source.read(Box.whole(source.grid.shape))[0], np.asarray(image.dataobj)
        for index in np.ndindex(*source.grid.shape):
            there = to_other @ [*index, 1]
            np.testing.assert_allclose(there, there.round(), atol=1e-4)
            assert other[tuple(there[:3].round().astype(int))] == values[index]


# Segmentations

_LABELS = LabelTable(
    (
        Label(2, "liver", "#ff0000", also={"type": ["10200004", "SCT", "Liver"]}),
        Label(5, "Gefäß", "#00ff00"),
        Label(9, "nothing of this", "#123456"),
    )
)


def mask_of(grid: Grid) -> Any:
    return np.random.default_rng(3).choice(np.array([0, 2, 5], np.uint8), (1, *grid.shape))


def write_mask(reference: Path, source: VolumeSource, values: Any, labels: LabelTable | None = _LABELS) -> str:
    with DicomStore().create(
        str(reference), source.grid, values.dtype, like=source, channel_names=(), labels=labels
    ) as sink:
        for z in reversed(range(source.grid.shape[2])):
            sink.write(Box.whole(source.grid.shape).with_range(2, z, z + 1), values[..., z : z + 1])
        assert sink.notes == ()
        return sink.commit()


def test_a_segmentation_lies_on_its_series_for_highdicom(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", slices_of(volume_of(_EXAMPLE)))
    values = mask_of(_EXAMPLE)
    with opened(folder) as source:
        write_mask(tmp_path / "m.dcm", source, values)
    volume = highdicom.seg.segread(tmp_path / "m.dcm").get_volume(combine_segments=True)
    to_seg = np.linalg.inv(volume.affine) @ _TO_LPS @ _EXAMPLE.affine
    for index in np.ndindex(*_EXAMPLE.shape):
        there = to_seg @ [*index, 1]
        np.testing.assert_allclose(there, there.round(), atol=1e-6)
        assert volume.array[tuple(there[:3].round().astype(int))] == values[(0, *index)]


@pytest.mark.parametrize("depth", [1, 6])
def test_a_segmentation_of_a_series_without_a_thickness_lies_on_it_for_highdicom(tmp_path: Path, depth: int) -> None:
    slices = slices_of(volume_of(_EXAMPLE))[:depth]
    for one in slices:
        del one.SliceThickness
        if depth == 1:
            one.SpacingBetweenSlices = 2
    folder = write_series(tmp_path / "a", slices)
    with opened(folder) as source:
        grid = source.grid
        values = mask_of(grid)
        write_mask(tmp_path / "m.dcm", source, values)
    volume = highdicom.seg.segread(tmp_path / "m.dcm").get_volume(combine_segments=True)
    np.testing.assert_allclose(volume.spacing, (2, 0.25, 0.5))
    to_seg = np.linalg.inv(volume.affine) @ _TO_LPS @ grid.affine
    for index in np.ndindex(*grid.shape):
        there = to_seg @ [*index, 1]
        np.testing.assert_allclose(there, there.round(), atol=1e-6)
        assert volume.array[tuple(there[:3].round().astype(int))] == values[(0, *index)]
    with opened(tmp_path / "m.dcm") as mask:
        assert mask.grid == grid
        np.testing.assert_array_equal(mask.read(Box.whole(grid.shape)), values)


def test_a_segmentation_has_names_colours_codes_and_its_series(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", slices_of(volume_of()))
    with opened(folder) as source:
        write_mask(tmp_path / "m.dcm", source, mask_of(_STRAIGHT))
    found = highdicom.seg.segread(tmp_path / "m.dcm")
    assert list(found.segment_numbers) == [2, 5, 9]
    segments = [found.get_segment_description(number) for number in (2, 5, 9)]
    assert [segment.segment_label for segment in segments] == ["liver", "Gefäß", "nothing of this"]
    colours = [
        highdicom.color.CIELabColor.from_dicom_value(list(segment.RecommendedDisplayCIELabValue)).to_rgb()
        for segment in segments
    ]
    assert colours == [(255, 0, 0), (0, 255, 0), (0x12, 0x34, 0x56)]
    meanings = [segment.segmented_property_type.meaning for segment in segments]
    assert meanings == ["Liver", "Tissue", "Tissue"]
    assert found.StudyInstanceUID == "1.2.3.4.8"
    assert found.FrameOfReferenceUID == "1.2.3.4.9"
    (series,) = found.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.4"
    assert len(series.ReferencedInstanceSequence) == 12


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("grid", [_STRAIGHT, _TILTED])
def test_a_segmentation_opens_as_it_was_written(tmp_path: Path, grid: Grid, kind: Any) -> None:
    folder, values = write_series(tmp_path / "a", slices_of(volume_of(grid))), mask_of(grid).astype(kind)
    with opened(folder) as source:
        committed = write_mask(tmp_path / "m.dcm", source, values)
        with opened(tmp_path / "m.dcm") as mask:
            assert mask.grid == source.grid
            assert mask.dtype == np.uint8  # the smallest type that holds the labels
            assert mask.sha256() == committed
            assert mask.notes == ()
            np.testing.assert_array_equal(mask.read(_WHOLE), values)


def test_a_segmentation_of_a_file_of_several_frames_and_of_a_zip(tmp_path: Path) -> None:
    path, values = enhanced_file(tmp_path / "e.dcm", volume_of()), mask_of(_STRAIGHT)
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.write(path, "e")
    for place in (path, tmp_path / "e.zip"):
        with opened(place) as source:
            write_mask(tmp_path / "m.dcm", source, values)
            with opened(tmp_path / "m.dcm") as mask:
                assert mask.grid == source.grid
                np.testing.assert_array_equal(mask.read(_WHOLE), values)


def test_equal_masks_of_a_series_have_equal_bytes_and_others_other_uids(tmp_path: Path) -> None:
    folder, values = write_series(tmp_path / "a", slices_of(volume_of())), mask_of(_STRAIGHT)
    other = values.copy()
    other[0, 0, 0, 0] = 5 if values[0, 0, 0, 0] != 5 else 2
    with opened(folder) as source:
        hashes = [write_mask(tmp_path / f"{n}.dcm", source, v) for n, v in enumerate((values, values, other))]
    assert hashes[0] == hashes[1] != hashes[2]
    uids = [pydicom.dcmread(tmp_path / f"{n}.dcm").SOPInstanceUID for n in (0, 2)]
    assert uids[0] != uids[1]


def test_a_mask_beside_its_series_does_not_count_as_a_series(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", slices_of(volume_of()))
    with opened(folder) as source:
        write_mask(folder / "mask.dcm", source, mask_of(_STRAIGHT))
    np.testing.assert_array_equal(values_of(folder), volume_of().array)
    uid = pydicom.dcmread(folder / "mask.dcm").SeriesInstanceUID
    np.testing.assert_array_equal(values_of(folder, Reading(series=uid)), mask_of(_STRAIGHT))


def test_labels_without_a_table_have_names(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "a", slices_of(volume_of()))
    with opened(folder) as source:
        write_mask(tmp_path / "m.dcm", source, mask_of(_STRAIGHT), labels=None)
    assert [s.SegmentLabel for s in highdicom.seg.segread(tmp_path / "m.dcm").SegmentSequence][1:] == [
        "label 2",
        "label 5",
    ]


def test_what_is_no_segmentation_of_a_series_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder, store = write_series(tmp_path / "a", slices_of(volume_of())), DicomStore(tmp_path)
    reference, kind = str(tmp_path / "m.dcm"), np.dtype(np.uint8)
    with pytest.raises(OutputError, match="DICOM series as input"):
        store.create(reference, _STRAIGHT, kind)
    with opened(folder) as source:
        for dtype, channels in (("float32", 1), ("uint8", 2), ("uint32", 1)):
            with pytest.raises(OutputError, match="label map"):
                store.create(reference, source.grid, np.dtype(dtype), channels=channels, like=source)
    with (
        opened(folder, Reading(spacing=(1, 1, 1), unit="mm")) as source,
        pytest.raises(OutputError, match="which were given"),
    ):
        store.create(reference, source.grid, kind, like=source)
    assert not Path(reference).exists()


def test_segments_in_frames_of_their_own_are_refused_by_name(tmp_path: Path) -> None:
    slices = slices_of(volume_of())
    code = highdicom.sr.CodedConcept("85756007", "SCT", "Tissue")
    segment = highdicom.seg.SegmentDescription(1, "a", code, code, "MANUAL")
    names = {"manufacturer": "a", "manufacturer_model_name": "b", "software_versions": "1", "device_serial_number": "1"}
    found = highdicom.seg.Segmentation(
        slices, np.ones((12, 5, 6), np.uint8), "BINARY", [segment], "1.7", 1, "1.7.1", 1, **names
    )
    found.save_as(tmp_path / "m.dcm")
    assert "LABELMAP" in refusal(tmp_path / "m.dcm").do


def test_nothing_heavy_is_imported_before_a_series_is_opened() -> None:
    code = (
        "import sys; from voxport.adapters.volumes.dicom import DicomStore; DicomStore().recognises('/');"
        "assert not {'pydicom', 'highdicom'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
