"""Segmenting from Python gives what the command line gives, byte for byte."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import typer.main
import voxport
from hypothesis import given, settings
from voxport import Application, InputError, LimitError, UsageError
from voxport.domain.report import statistics_mapping
from voxport.entrypoints.cli.main import app
from voxport.testing.progress import RecordingProgress
from voxport.testing.strategies import affines

from tests.cli.conftest import AFFINE, make_model
from tests.cli.test_orientations import ALL_48, store

SHAPE = (15, 12, 11)
VALUES = np.random.default_rng(1).integers(0, 256, SHAPE, np.uint8)
# steps whose results depend on the order in which values are summed
FIELDS = {"intensity": [{"zscore": {"nonzero": True}}, {"clip_percentiles": [1, 99]}]}
RESAMPLED = FIELDS | {"spacing": [0.75, 0.5, 1.2], "spacing_unit": "um", "orientation": "RAS"}


@cache
def command_line() -> Any:
    return typer.main.get_command(app)


def by_command(*arguments: object) -> None:
    command_line().main(args=["segment", *map(str, arguments), "--quiet"], standalone_mode=False)


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model.onnx", classes=3, input_fields=FIELDS)


@pytest.fixture(scope="module")
def resampling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "resampling.onnx", classes=3, input_fields=RESAMPLED)


@pytest.fixture
def predictor(model: Path) -> Iterator[voxport.Predictor]:
    with voxport.load(model) as loaded:
        yield loaded


def saved(path: Path, values: np.ndarray[Any, Any], affine: np.ndarray[Any, Any] = AFFINE) -> nib.Nifti1Image:
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("micron")
    nib.save(image, path)
    return nib.load(path)


def assert_as_written(found: voxport.Prediction, folder: Path) -> None:
    """The prediction is what ``by_command`` wrote into the folder: labels, probabilities, statistics, grid."""
    mask, probabilities = nib.load(folder / "mask.nii"), nib.load(folder / "p.nii")
    assert found.labels.array.dtype == mask.get_data_dtype()
    np.testing.assert_array_equal(found.labels.array, np.asarray(mask.dataobj))
    np.testing.assert_array_equal(found.labels.grid.affine, mask.affine)
    assert found.probabilities is not None
    np.testing.assert_array_equal(np.moveaxis(found.probabilities, 0, -1), np.asarray(probabilities.dataobj))
    written = json.loads((folder / "s.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(statistics_mapping(found.statistics, found.labels.grid))) == written


def by_command_into(folder: Path, scan: Path, model: Path, *options: object) -> None:
    outputs = ("--probabilities", folder / "p.nii", "--statistics", folder / "s.json")
    by_command(scan, "-m", model, "-o", folder / "mask.nii", *outputs, *options)


@pytest.mark.parametrize("name", ["model", "resampling"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_files_images_and_arrays_give_what_the_command_line_gives(
    tmp_path: Path, request: pytest.FixtureRequest, name: str, dtype: str
) -> None:
    model, values = request.getfixturevalue(name), VALUES.astype(dtype)
    image = saved(tmp_path / "scan.nii", values)
    by_command_into(tmp_path, tmp_path / "scan.nii", model)
    with voxport.load(model) as predictor:
        assert_as_written(predictor("scan.nii", probabilities=True), tmp_path)
        assert_as_written(predictor(tmp_path / "scan.nii", probabilities=True), tmp_path)
        assert_as_written(predictor(image, probabilities=True), tmp_path)
        assert_as_written(predictor(values, affine=image.affine, unit="um", probabilities=True), tmp_path)


@given(affine=affines(sheared=True))
@settings(max_examples=25, deadline=None)
def test_an_array_with_any_affine_gives_what_its_file_gives(
    affine: np.ndarray[Any, Any], tmp_path_factory: pytest.TempPathFactory, resampling: Path
) -> None:
    folder = tmp_path_factory.mktemp("any")
    image = saved(folder / "scan.nii", VALUES[:7, :6, :5], affine)
    try:
        by_command_into(folder, folder / "scan.nii", resampling)
    except (InputError, LimitError) as refused:  # a spacing too far from the model's
        with voxport.load(resampling) as predictor, pytest.raises(type(refused)):
            predictor(VALUES[:7, :6, :5], affine=image.affine, unit="um")
        return
    with voxport.load(resampling) as predictor:
        found = predictor(VALUES[:7, :6, :5], affine=image.affine, unit="um", probabilities=True)
        assert_as_written(found, folder)
        assert_as_written(predictor(image, probabilities=True), folder)


def test_an_image_in_any_of_the_48_orientations_gives_what_its_file_gives(tmp_path: Path, resampling: Path) -> None:
    with voxport.load(resampling) as predictor:
        for codes in ALL_48:
            image = store(VALUES, codes, tmp_path / "scan.nii")
            by_command_into(tmp_path, tmp_path / "scan.nii", resampling)
            assert_as_written(predictor(nib.load(tmp_path / "scan.nii"), probabilities=True), tmp_path)
            assert_as_written(predictor(image, probabilities=True), tmp_path)


def test_scaled_values_of_an_image_are_those_of_its_file(tmp_path: Path, model: Path) -> None:
    image = nib.Nifti1Image(VALUES.astype(np.int16), AFFINE)
    image.header.set_slope_inter(0.1, -3.7)
    image.to_filename(tmp_path / "scan.nii")
    loaded = nib.load(tmp_path / "scan.nii")
    assert loaded.dataobj.slope != 1
    by_command_into(tmp_path, tmp_path / "scan.nii", model)
    with voxport.load(model) as predictor:
        assert_as_written(predictor(loaded, probabilities=True), tmp_path)


def test_an_image_placed_by_its_qform_alone(tmp_path: Path, model: Path) -> None:
    image = nib.Nifti2Image(VALUES, None)
    image.header.set_xyzt_units("mm")
    image.set_qform(AFFINE, 1, strip_shears=True)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "scan.nii")
    by_command_into(tmp_path, tmp_path / "scan.nii", model)
    with voxport.load(model) as predictor:
        assert_as_written(predictor(nib.load(tmp_path / "scan.nii"), probabilities=True), tmp_path)


def test_several_volumes_are_the_channels_of_one_case(tmp_path: Path) -> None:
    two = make_model(tmp_path / "two.onnx", channels=2, input_fields=FIELDS)
    other = VALUES[::-1].copy()
    images = [saved(tmp_path / "a.nii", VALUES), saved(tmp_path / "b.nii", other)]
    by_command("a.nii", "b.nii", "-m", two, "-o", "mask.nii")
    expected = np.asarray(nib.load("mask.nii").dataobj)
    place = {"affine": images[0].affine, "unit": "um"}
    with voxport.load(two) as predictor:
        for found in (
            predictor("a.nii", "b.nii"),
            predictor(*images),
            predictor("a.nii", images[1]),
            predictor(np.stack([VALUES, other]), **place),
            predictor(VALUES, other, **place),
            predictor("a.nii", other, **place),
        ):
            np.testing.assert_array_equal(found.labels.array, expected)


def test_segment_writes_the_files_that_the_command_writes(tmp_path: Path, model: Path) -> None:
    saved(tmp_path / "scan.nii.gz", VALUES)
    for folder in ("command", "python"):
        (tmp_path / folder).mkdir()
    by_command(
        *("scan.nii.gz", "-m", model, "-o", "command/mask.nii.gz", "--overlap", 0.25, "--patch", "12,12,8"),
        *("--probabilities", "command/p.nii.gz", "--statistics", "command/s.csv", "--preview", "command/p.png"),
        *("--report", "command/r.json", "--runtime", "onnx", "--blending", "halo"),
        *("--label-table", "command/labels.tsv"),
    )
    outputs: dict[str, Any] = {"probabilities": "python/p.nii.gz", "statistics": "python/s.csv"}
    outputs |= {"preview": "python/p.png", "report": "python/r.json", "label_table": "python/labels.tsv"}
    done = voxport.segment(
        Path("scan.nii.gz"),
        Path("python/mask.nii.gz"),
        model=model,
        runtime="onnx",
        overlap=0.25,
        patch=(12, 12, 8),
        blending="halo",
        **outputs,
    )
    for name in ("mask.nii.gz", "p.nii.gz", "s.csv", "p.png", "labels.tsv"):
        assert Path("python", name).read_bytes() == Path("command", name).read_bytes(), name
    python, command = (
        json.loads(Path(folder, "r.json").read_text(encoding="utf-8")) for folder in ("python", "command")
    )
    assert python["statistics"] == command["statistics"]
    assert python["command"] == command["command"].replace("command/mask", "python/mask")
    assert [label.name for label in done.statistics] == [s["name"] for s in python["statistics"]["labels"]]


def test_the_bundled_sample_and_model_give_what_the_command_line_gives(tmp_path: Path) -> None:
    by_command("--sample", "-o", "command.nii.gz")
    sample = Application.build().sample
    voxport.segment(sample, "python.nii.gz")
    assert Path("python.nii.gz").read_bytes() == Path("command.nii.gz").read_bytes()
    with voxport.load() as predictor:
        found = predictor(nib.load(sample))
    np.testing.assert_array_equal(found.labels.array, np.asarray(nib.load(tmp_path / "command.nii.gz").dataobj))


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_the_axis_of_a_run_is_an_option_everywhere_and_changes_no_result(
    tmp_path: Path, model: Path, axis: str
) -> None:
    saved(tmp_path / "scan.nii", VALUES)
    by_command_into(tmp_path, tmp_path / "scan.nii", model)
    with voxport.load(model) as predictor:
        assert_as_written(predictor("scan.nii", axis=axis, probabilities=True), tmp_path)
    by_command_into(tmp_path, tmp_path / "scan.nii", model, "--axis", axis, "--report", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert report["tiles"]["axis"] == axis
    assert f"--axis {axis}" in report["command"]


def test_labels_have_names_and_a_grid(predictor: voxport.Predictor) -> None:
    found = predictor(VALUES, spacing=(0.5, 0.5, 2), unit="um")
    assert found.labels.grid.spacing == (0.5, 0.5, 2)
    assert found.labels.grid.axis_codes == "RAS"
    assert found.labels.grid.unit == "um"
    assert [label.name for label in found.labels.table.labels] == [s.name for s in found.statistics]
    assert sum(s.voxels for s in found.statistics) == np.count_nonzero(found.labels.array)
    assert found.probabilities is None


def test_what_is_given_stays_as_it_is(predictor: voxport.Predictor, tmp_path: Path) -> None:
    values = VALUES.copy()
    image = saved(tmp_path / "scan.nii", values)
    header = image.header.copy()
    predictor(image)
    predictor(values, affine=AFFINE, unit="um")
    assert image.header == header
    np.testing.assert_array_equal(values, VALUES)


def test_threads_share_a_predictor(predictor: voxport.Predictor) -> None:
    volumes = [np.roll(VALUES, shift, 0) for shift in range(6)]
    alone = [predictor(values, affine=AFFINE, unit="um").labels.array for values in volumes]
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda values: predictor(values, affine=AFFINE, unit="um"), volumes))
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(found.labels.array, expected)


def test_progress_shows_a_bar_on_stderr_and_nothing_otherwise(
    predictor: voxport.Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor(VALUES, affine=AFFINE, unit="um")
    assert capsys.readouterr() == ("", "")
    predictor(VALUES, affine=AFFINE, unit="um", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "write" in err


def test_a_listener_follows_a_run(predictor: voxport.Predictor) -> None:
    listener = RecordingProgress()
    predictor(VALUES, affine=AFFINE, unit="um", progress=listener)
    assert "score" in [name for name, _ in listener.stages]


def test_a_predictor_closes_at_the_end_of_its_block_and_when_nothing_refers_to_it(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    application = Application.build()

    def load() -> voxport.Predictor:
        loaded = application.load_model(application.find_model(str(model)))
        monkeypatch.setattr(loaded.runtime, "close", lambda: closed.append("closed"))
        return voxport.Predictor(application, loaded)

    with load() as predictor:
        assert not closed
    assert closed == ["closed"]
    predictor.close()
    assert closed == ["closed"]
    with pytest.raises(UsageError, match="model: expected a loaded one, got one that is closed; load it again"):
        predictor(VALUES, affine=AFFINE, unit="um")
    predictor = load()
    del predictor
    gc.collect()
    assert closed == ["closed", "closed"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overlpa": 0.5}, "overlpa: expected options among overlap, .*write overlap"),
        ({"overlap": "much"}, "overlap: expected overlap: a number, got overlap='much'"),
        ({"overlap": "much", "patch": (1, 2)}, "overlap, patch: "),
        ({"overlap": 0.9}, "overlap: expected a fraction"),
        ({"blending": "linear"}, "blending: "),
        ({"nan_as": float("nan")}, "nan_as: expected a finite number"),
        ({"patch": (-8, 8, 8)}, "patch: expected positive multiples"),
    ],
)
def test_a_wrong_option_is_one_clear_error(
    predictor: voxport.Predictor, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        predictor(VALUES, affine=AFFINE, unit="um", **options)
    saved(tmp_path / "scan.nii", VALUES)
    with pytest.raises(UsageError, match=words):
        voxport.segment("scan.nii", "mask.nii", model=predictor.model.path, **options)
    assert not Path("mask.nii").exists()


@pytest.mark.parametrize(
    ("place", "kind", "words"),
    [
        ({}, UsageError, "spacing: expected the array's spacing or its affine, got neither"),
        ({"spacing": (1, 1, 1), "affine": AFFINE, "unit": "um"}, UsageError, "got both"),
        ({"spacing": (1, 1, 1)}, UsageError, "unit: expected the unit"),
        ({"spacing": (1, 1, 1), "unit": "cm"}, InputError, "unit: expected one of mm, um, unknown"),
        ({"spacing": (1, 1), "unit": "um"}, InputError, "spacing: expected three positive lengths"),
        ({"spacing": (1, 1, -1), "unit": "um"}, InputError, "spacing: expected three positive lengths"),
        ({"affine": np.eye(3), "unit": "um"}, InputError, "affine: "),
        ({"affine": np.ones((4, 4)), "unit": "um"}, InputError, "affine: expected a finite, invertible matrix"),
    ],
)
def test_an_array_needs_a_usable_place(
    predictor: voxport.Predictor, place: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        predictor(VALUES, **place)


def test_an_image_of_nibabel_states_its_place_itself(predictor: voxport.Predictor, tmp_path: Path) -> None:
    image = saved(tmp_path / "scan.nii", VALUES)
    with pytest.raises(UsageError, match="spacing: expected no spacing beside a volume that states it"):
        predictor(image, spacing=(1, 1, 1))


def test_a_file_takes_the_voxel_sizes_that_are_stated_as_on_the_command_line(
    predictor: voxport.Predictor, tmp_path: Path, model: Path
) -> None:
    saved(tmp_path / "scan.nii", VALUES)
    by_command_into(tmp_path, tmp_path / "scan.nii", model, "--spacing", "0.5,0.25,2", "--unit", "um")
    found = predictor("scan.nii", spacing=(0.5, 0.25, 2), unit="um", probabilities=True)
    written = nib.load(tmp_path / "mask.nii")
    np.testing.assert_array_equal(found.labels.array, np.asarray(written.dataobj))
    np.testing.assert_allclose(found.labels.grid.affine, written.affine, rtol=1e-6)
    np.testing.assert_allclose(found.labels.grid.spacing, (0.5, 0.25, 2), rtol=1e-12)
    with pytest.raises(UsageError, match="affine: expected no affine beside a volume that states it"):
        predictor("scan.nii", affine=np.eye(4))


def test_what_is_no_volume_is_an_input_error(predictor: voxport.Predictor) -> None:
    for wrong in (VALUES.astype(complex), VALUES[0], np.array(["a"]), np.zeros((0, 3, 3))):
        with pytest.raises(InputError):
            predictor(wrong, spacing=(1, 1, 1), unit="um")
    with pytest.raises(InputError, match="image: expected a NIfTI image of nibabel, got Spm99AnalyzeImage"):
        predictor(nib.Spm99AnalyzeImage(VALUES, AFFINE))
    with pytest.raises(InputError):
        predictor()
