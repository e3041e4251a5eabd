"""A reference means a file, a stored model's name, or the only model there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from voxport.adapters.models.folder import ModelDirectory
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.domain.errors import ModelError
from voxport.ports.model import Model
from voxport.services.models.loading import ModelOpener, names_a_model
from voxport.testing.models import write_bare_affine

from tests.services.conftest import make_card

FILES = OnnxModelFiles()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelDirectory:
    """A folder of models; the present folder is another, empty one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return ModelDirectory(tmp_path / "models", FILES)


def stored(repository: ModelDirectory, name: str, version: str = "1.0.0") -> Model:
    path = Path("..") / "upload.onnx"
    write_bare_affine(path)
    return repository.put(FILES.write(path, replace(make_card(), name=name, version=version), path))


def test_a_path_means_the_file(repository: ModelDirectory) -> None:
    path = stored(repository, "vessels").path
    assert ModelOpener(FILES, repository, {}, "").find(str(path)).path == path


def test_a_home_folder_is_expanded(repository: ModelDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(repository, "vessels").path
    monkeypatch.setenv("HOME", str(path.parent))
    assert ModelOpener(FILES, repository, {}, "").find(f"~/{path.name}").path == path


def test_a_file_may_get_another_card(repository: ModelDirectory) -> None:
    path = stored(repository, "vessels").path
    card = Path("card.yaml")
    card.write_text(
        "{schema: voxport/model-card/1, name: given, version: 1.0.0, input: {channels: [{name: a}]},"
        " tiling: {patch: [8, 8, 8]}, output: {activation: softmax, labels: [{value: 1, name: b}]}}",
        encoding="utf-8",
    )
    assert ModelOpener(FILES, repository, {}, "").find(str(path), card).card.name == "given"


def test_a_name_means_the_stored_model_and_a_version_which_of_them(repository: ModelDirectory) -> None:
    old, new = stored(repository, "vessels", "1.0.0"), stored(repository, "vessels", "2.0.0")
    assert ModelOpener(FILES, repository, {}, "").find("vessels") == new
    assert ModelOpener(FILES, repository, {}, "").find("vessels:1.0.0") == old


def test_a_folder_of_the_same_name_does_not_hide_a_stored_model(repository: ModelDirectory) -> None:
    model = stored(repository, "vessels")
    Path("vessels").mkdir()
    assert ModelOpener(FILES, repository, {}, "").find("vessels") == model


def test_a_file_of_the_same_name_comes_first(repository: ModelDirectory) -> None:
    stored(repository, "vessels")
    write_bare_affine(Path("vessels"))
    FILES.write(Path("vessels"), replace(make_card(), name="beside"), Path("vessels"))
    assert ModelOpener(FILES, repository, {}, "").find("vessels").card.name == "beside"


@pytest.mark.parametrize("reference", ["missing.onnx", "folder/missing", "missing.pt"])
def test_a_missing_file_is_a_model_error_about_a_file(repository: ModelDirectory, reference: str) -> None:
    with pytest.raises(ModelError, match="no such file"):
        ModelOpener(FILES, repository, {}, "").find(reference)


def test_an_unknown_name_is_a_model_error_about_names(repository: ModelDirectory) -> None:
    stored(repository, "vessels")
    with pytest.raises(ModelError, match=r"one of the models vessels:1\.0\.0"):
        ModelOpener(FILES, repository, {}, "").find("nuclei")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("net.onnx", True),
        ("folder/net.ONNX", True),
        ("net.pt", True),
        ("vessels", True),
        ("vessels:1.0.0", True),
        ("scan.nii", False),
        ("scan.nii.gz", False),
        ("folder/scan", False),
    ],
)
def test_a_references_form_says_whether_it_means_a_model(
    repository: ModelDirectory, reference: str, expected: bool
) -> None:
    del repository
    assert names_a_model(reference) is expected
