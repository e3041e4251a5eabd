"""A network of another framework becomes one proved file, with what its source states and what the user adds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from voxport.application import Application
from voxport.domain.errors import ModelError, OutputError, UsageError
from voxport.injector import providers
from voxport.ports.importer import Example, ImportChoices, Imported
from voxport.services.models.importing import ImportResult
from voxport.testing.affine import affine_card, affine_logits, write_affine_onnx
from voxport.testing.importer import ModelImporterContract
from voxport.testing.progress import RecordingProgress

WEIGHTS, BIAS = np.array([[0.0], [8.0]], np.float32), np.array([0.0, -4.0], np.float32)  # label 1 above 0.5


class FolderImporter:
    """Imports folders with ``network.onnx`` and ``about.json``; its own runs label what is above ``cut``."""

    name = "folders"

    def __init__(self, *, cut: float = 0.5, examples: tuple[Example, ...] = ()) -> None:
        self.cut, self.examples = cut, examples

    def recognises(self, source: Path) -> bool:
        return (source / "about.json").is_file()

    def read(self, source: Path, choices: ImportChoices, folder: Path) -> Imported:
        assert not list(folder.iterdir())
        try:
            about = json.loads((source / "about.json").read_text(encoding="utf-8"))
        except ValueError:
            do = "get the folder again"
            raise ModelError("about.json", expected="JSON", got="something else", do=do) from None
        card = replace(
            affine_card(1, 2),
            name=choices.name or about["name"],
            version=choices.version or "1.0.0",
            licence=about.get("licence", ""),
            intended_use="",
        )
        missing = tuple(name for name in ("licence", "intended_use") if not getattr(card, name))
        return Imported(card, source / "network.onnx", self.examples, missing, ("read as it is",))

    def segment(
        self,
        source: Path,  # noqa: ARG002 - its answer is a cut
        choices: ImportChoices,  # noqa: ARG002
        inputs: Sequence[Path],
        mask: Path,
        folder: Path,  # noqa: ARG002
    ) -> tuple[str, str]:
        image = nib.load(inputs[0])
        labels = (np.asarray(image.dataobj) > self.cut).astype(np.uint8)
        nib.save(nib.Nifti1Image(labels, image.affine), mask)
        return "folders", "3.1"


def write_source(folder: Path, **about: str) -> Path:
    source = folder / "trained"
    source.mkdir()
    write_affine_onnx(source / "network.onnx", WEIGHTS, BIAS)
    (source / "about.json").write_text(json.dumps({"name": "found", **about}), encoding="utf-8")
    return source


class TestFolderImporter(ModelImporterContract):
    def make_importer(self) -> FolderImporter:
        return FolderImporter()

    def make_source(self, folder: Path) -> Path:
        return write_source(folder)

    def damage(self, source: Path) -> None:
        (source / "about.json").write_text("{", encoding="utf-8")


class Imports:
    """Imports one source with one importer."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, write_source(folder)
        self.application = Application.build(models_dir=folder / "models")
        self.importer = FolderImporter()
        self.target = folder / "model.onnx"

    def run(self, **arguments: object) -> ImportResult:
        self.application.container.importers.override(providers.List(providers.Object(self.importer)))
        return self.application.import_model(self.source, self.target, RecordingProgress(), **arguments)  # type: ignore[arg-type]

    def volume(self) -> Path:
        path = self.folder / "scan.nii.gz"
        values = np.random.default_rng(0).random((9, 10, 11), np.float32)
        nib.save(nib.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0])), path)
        return path


@pytest.fixture
def imports(tmp_path: Path) -> Imports:
    return Imports(tmp_path)


def test_the_file_has_the_sources_card_and_a_certificate(imports: Imports) -> None:
    done = imports.run()
    found = imports.application.find_model(str(imports.target))
    assert found.card == done.exported.model.card
    assert found.card.reference == "found:1.0.0"
    assert found.card.parity is not None
    assert found.card.parity.certifies("onnx", "fp32")
    assert done.exported.notes == ("read as it is",)


def test_what_the_source_does_not_state_is_named_until_it_is_set(imports: Imports) -> None:
    assert imports.run().missing == ("licence", "intended_use")
    done = imports.run(changes={"licence": "MIT"})
    assert done.missing == ("intended_use",)
    assert done.exported.model.card.licence == "MIT"


def test_a_field_of_any_depth_can_be_set(imports: Imports) -> None:
    changes = {"input.orientation": None, "output.postprocessing": [{"keep_largest": [1]}]}
    card = imports.run(changes=changes).exported.model.card
    assert card.input.orientation is None
    assert [step.labels for step in card.output.postprocessing] == [(1,)]


@pytest.mark.parametrize("changes", [{"licences": "MIT"}, {"licence.short": "MIT"}, {"input.spacing": 3}])
def test_a_field_that_does_not_exist_or_a_wrong_value_is_refused(imports: Imports, changes: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        imports.run(changes=changes)
    assert not imports.target.exists()


def test_a_card_of_the_users_replaces_the_sources(imports: Imports) -> None:
    own = replace(affine_card(1, 2), name="mine")
    assert imports.run(card=own).exported.model.card.reference == "mine:1.0.0"


def test_a_run_of_the_framework_is_compared_voxel_by_voxel(imports: Imports) -> None:
    pipeline = imports.run(check=[imports.volume()]).pipeline
    assert pipeline is not None
    assert (pipeline.framework, pipeline.version, pipeline.volume) == ("folders", "3.1", "scan.nii.gz")
    assert (pipeline.label_agreement, pipeline.dice) == (1.0, (1.0,))
    found = imports.application.find_model(str(imports.target)).card.parity
    assert found is not None
    assert found.pipeline == (pipeline,)


def test_a_framework_that_labels_otherwise_is_recorded_as_it_is(imports: Imports) -> None:
    imports.importer.cut = 0.6
    scan = imports.volume()
    values = np.asarray(nib.load(scan).dataobj)
    pipeline = imports.run(check=[scan]).pipeline
    assert pipeline is not None
    assert pipeline.label_agreement == pytest.approx(np.mean((values > 0.5) == (values > 0.6)))


def _example(off: float) -> Example:
    values = np.random.default_rng(1).random((1, 1, 8, 8, 8), np.float32)
    return Example("test tensor", values, affine_logits(values, WEIGHTS, BIAS) + np.float32(off), 1e-3, 1e-3)


def test_the_authors_examples_are_run(imports: Imports) -> None:
    imports.importer.examples = (_example(0.0),)
    imports.run()
    imports.importer.examples = (_example(0.1),)
    imports.target.unlink()
    with pytest.raises(ModelError, match=r"values off by up to 0\.1"):
        imports.run()
    assert not imports.target.exists()


def test_what_no_framework_wrote_is_refused_with_their_names(imports: Imports) -> None:
    (imports.source / "about.json").unlink()
    with pytest.raises(ModelError, match="a model of one of folders"):
        imports.run()
    imports.source = imports.folder / "nowhere"
    with pytest.raises(ModelError, match="no such path"):
        imports.run()


def test_the_file_is_named_onnx(imports: Imports) -> None:
    imports.target = imports.folder / "model.pt"
    with pytest.raises(OutputError, match=r"\.onnx"):
        imports.run()


def test_inspecting_shows_the_card_and_writes_nothing(imports: Imports) -> None:
    imports.application.container.importers.override(providers.List(providers.Object(imports.importer)))
    assert imports.application.recognises(imports.source)
    framework, found = imports.application.inspect_source(imports.source, ImportChoices())
    assert (framework, found.card.name) == ("folders", "found")
    assert not imports.target.exists()


def test_a_run_of_the_framework_on_another_grid_is_refused(imports: Imports, monkeypatch: pytest.MonkeyPatch) -> None:
    def smaller(*given: Any) -> tuple[str, str]:
        nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), given[3])
        return "folders", "3.1"

    monkeypatch.setattr(imports.importer, "segment", smaller)
    with pytest.raises(UsageError, match="on the volume's grid"):
        imports.run(check=[imports.volume()])
    assert not imports.target.exists()
