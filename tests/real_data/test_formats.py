"""One volume in every format gives one mask in the world; a mask in every format lies where its volume does."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from voxport.application import Application
from voxport.domain.geometry.grid import Box
from voxport.domain.run import Outputs, RunOptions
from voxport.services.models.loading import LoadedModel
from voxport.services.viewing.sessions import RunProgress
from voxport.testing.strategies import affines

from tests.cli.conftest import make_model

from .writers import FORMATS, Format, read_elsewhere, write_nifti

pytestmark = pytest.mark.no_cover
nib: Any = nibabel
Array = NDArray[Any]
_TILTED = Rotation.from_euler("ZYX", (0.2, -0.1, 0.15)).as_matrix()


@dataclass
class Runs:
    """Segments volumes in this process, with models that stay loaded."""

    folder: Path
    application: Application
    loaded: dict[tuple[Any, ...], LoadedModel] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def model(self, channels: int = 1, spacing: tuple[float, float, float] | None = None) -> LoadedModel:
        """A network in closed form, whose card names an orientation and perhaps a spacing."""
        key = (channels, spacing)
        if key not in self.loaded:
            fields: dict[str, Any] = {"orientation": "LPS"}
            if spacing is not None:
                fields |= {"spacing": list(spacing), "spacing_unit": "mm"}
            path = self.folder / f"{next(self.numbers)}.onnx"
            made = make_model(path, channels=channels, classes=3, patch=(32, 32, 16), input_fields=fields)
            self.loaded[key] = self.application.load_model(self.application.find_model(str(made)), runtime="onnx")
        return self.loaded[key]

    @property
    def bundled(self) -> LoadedModel:
        """The bundled model."""
        if () not in self.loaded:
            self.loaded[()] = self.application.load_model(self.application.find_model())
        return self.loaded[()]

    def mask(self, volume: Path, loaded: LoadedModel, stated: dict[str, Any] | None = None) -> Any:
        """The mask of a stored volume, in the order of voxels that is nearest to RAS."""
        place = self.folder / f"mask_{next(self.numbers)}.nii"
        options = RunOptions(**(stated or {}))
        self.application.segment([str(volume)], loaded, Outputs(str(place)), options, RunProgress())
        return nib.as_closest_canonical(nib.load(place))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("formats")
    runs = Runs(folder, Application.build(scratch_dir=folder))
    yield runs
    for loaded in runs.loaded.values():
        loaded.runtime.close()


def crop(path: Path, *parts: slice) -> tuple[Array, Array]:
    image = nib.load(path).slicer[parts]
    return np.asarray(image.dataobj), np.asarray(image.affine)


def stored_as(form: Format, values: Array, affine: Array) -> tuple[Array, Array]:
    """The volume in the nearest orientation, and with the nearest type, that a format can hold."""
    if not form.directions:
        image = nib.as_closest_canonical(nib.Nifti1Image(values, affine))
        values = np.asarray(image.dataobj)
        origin = image.affine[:3, 3] if form.origin else np.zeros(3)
        affine = np.diag([*nib.affines.voxel_sizes(image.affine), 1.0])
        affine[:3, 3] = origin
    dtype = values.dtype.name if values.dtype.name in form.dtypes else form.dtypes[-1]
    return values.astype(dtype), affine


def assert_same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(found.affine, expected.affine, rtol=1e-6, atol=1e-4)


@pytest.mark.real_data
@pytest.mark.parametrize("name", FORMATS)
def test_the_bundled_model_finds_the_same_vessels_in_every_format(
    runs: Runs, real_data: Path, tmp_path: Path, name: str
) -> None:
    form = FORMATS[name]
    scan = real_data / "two_photon" / "burgess2014_lowerRes_hiSNR_image.nii.gz"
    values, affine = stored_as(form, *crop(scan, slice(160, 288), slice(32, 160), slice(8, 18)))
    loaded, unit = runs.bundled, form.units[-1]
    expected = runs.mask(write_nifti(tmp_path / "scan.nii", values[np.newaxis], affine, unit), loaded)
    stored, stated = form.write(tmp_path, values[np.newaxis], affine, unit)
    assert 0.01 < np.asarray(expected.dataobj).mean() < 0.5
    assert_same(runs.mask(stored, loaded, stated), expected)


@pytest.mark.real_data
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("scan", ["ct_mr/example_ct_sm.nii.gz", "brain/t1_crop.nii.gz"])
def test_a_card_with_spacing_and_orientation_gives_the_same_mask_in_every_format(
    runs: Runs, real_data: Path, tmp_path: Path, name: str, scan: str
) -> None:
    form = FORMATS[name]
    middle = [slice(edge // 3, edge // 3 + 40) for edge in nib.load(real_data / scan).shape[:2]]
    values, affine = crop(real_data / scan, *middle, slice(3, 27))
    affine[:3, :3] = _TILTED @ affine[:3, :3]
    values, affine = stored_as(form, values, affine)
    loaded = runs.model(spacing=(1.4, 1.7, 2.2))
    expected = runs.mask(write_nifti(tmp_path / "scan.nii", values[np.newaxis], affine, "mm"), loaded)
    stored, stated = form.write(tmp_path, values[np.newaxis], affine, "mm")
    assert len(np.unique(np.asarray(expected.dataobj))) > 1
    assert_same(runs.mask(stored, loaded, stated), expected)


@pytest.mark.parametrize("name", FORMATS)
def test_any_orientation_type_unit_and_number_of_channels_gives_the_same_mask(runs: Runs, name: str) -> None:
    form = FORMATS[name]

    @settings(max_examples=6, deadline=None)
    @given(
        affine=affines(oblique=form.directions),
        shape=st.tuples(*[st.integers(2, 20)] * 3),
        dtype=st.sampled_from(form.dtypes),
        channels=st.integers(1, 3 if form.channels else 1),
        unit=st.sampled_from(form.units),
        seed=st.integers(0, 2**32 - 1),
    )
    def same(affine: Array, shape: tuple[int, int, int], dtype: str, channels: int, unit: str, seed: int) -> None:
        random = np.random.default_rng(seed).integers(0, 100, (channels, *shape)).astype(dtype)
        parts = [stored_as(form, channel, affine) for channel in random]
        values, placed = np.stack([part for part, _ in parts]), parts[0][1]
        loaded = runs.model(channels)
        with tempfile.TemporaryDirectory(dir=runs.folder) as folder:
            expected = runs.mask(write_nifti(Path(folder) / "scan.nii", values, placed, unit), loaded)
            stored, stated = form.write(Path(folder), values, placed, unit)
            found = runs.mask(stored, loaded, stated)
        assert_same(found, expected)
        assert found.header.get_xyzt_units() == expected.header.get_xyzt_units()

    same()


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("ending", "lost"),
    [
        (".ome.tif", "directions of axes"),
        (".ome.zarr", "directions"),
        (".nrrd", ""),
        (".seg.nrrd", ""),
        (".mha", "lengths are in mm"),
    ],
)
def test_a_mask_in_another_format_lies_where_its_volume_does(
    runs: Runs, real_data: Path, tmp_path: Path, ending: str, lost: str
) -> None:
    values, affine = crop(real_data / "ct_mr/example_ct_sm.nii.gz", slice(40, 80), slice(30, 63), slice(3, 27))
    affine[:3, :3] = _TILTED @ affine[:3, :3] * (-1, 1, 1)
    scan, mask = write_nifti(tmp_path / "scan.nii", values[np.newaxis], affine, "mm"), tmp_path / f"mask{ending}"
    expected, grids = tmp_path / "mask.nii", []
    for place in (expected, mask):
        done = runs.application.segment([str(scan)], runs.model(), Outputs(str(place)), RunOptions(), RunProgress())
    named = [warning for warning in done.warnings if lost and lost in warning]
    assert len(named) == bool(lost), done.warnings
    labels = np.asarray(nib.load(expected).dataobj)
    assert len(np.unique(labels)) == 3
    for reference in (scan, mask):
        with runs.application.volumes.open(str(reference)) as source:
            grids.append(source.grid)
    with runs.application.volumes.open(str(mask)) as source:
        np.testing.assert_array_equal(source.read(Box.whole(source.grid.shape))[0], labels)
    found, spacing, placed = read_elsewhere(mask)
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_allclose(spacing, grids[0].spacing, rtol=1e-12)
    if placed is None:
        np.testing.assert_allclose(grids[1].spacing, grids[0].spacing, rtol=1e-12)
    else:
        np.testing.assert_allclose(placed, grids[0].affine, atol=1e-9)
        np.testing.assert_array_equal(grids[1].affine, grids[0].affine)
