"""A package that voxport writes passes bioimage.io's own test, and imports to a model with the same labels."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import voxport
import yaml
from voxport.adapters.models.onnx_files import CARD_KEY, OnnxModelFiles
from voxport.adapters.packages.bioimageio import BioimageioPackager
from voxport.adapters.pictures.png import PngPictures
from voxport.adapters.runtimes.onnx import OnnxRuntimeSettings, open_onnx_runtime
from voxport.application import Application
from voxport.domain.cards.model_card import Crop, ModelCard
from voxport.domain.inference.patches import Tiling
from voxport.domain.intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore
from voxport.domain.labels.postprocessing import KeepLargest
from voxport.ports.model import Model
from voxport.ports.runtime import InferenceRuntime, RuntimeOptions
from voxport.testing.affine import affine_card, write_affine_onnx
from voxport.testing.packager import PackagerContract
from voxport.testing.progress import RecordingProgress

from .test_bioimageio_importer import run_oracle

WEIGHTS, BIAS = np.array([[0.0], [8.0]], np.float32), np.array([0.0, -4.0], np.float32)  # label 1 above 0.5
TILING = Tiling((8, 8, 8), divisor=4)


@pytest.fixture
def application(tmp_path: Path) -> Application:
    return Application.build(models_dir=tmp_path / "models")


def write_model(folder: Path, card: ModelCard) -> Path:
    path = folder / "model.onnx"
    write_affine_onnx(path, WEIGHTS, BIAS)
    OnnxModelFiles().write(path, card, path)
    return path


def card_of(*steps: Step, **changes: Any) -> ModelCard:
    card = affine_card(1, 2, tiling=TILING)
    return replace(card, input=replace(card.input, intensity=steps, orientation=None), **changes)


def package(application: Application, model: Path, folder: Path) -> tuple[Path, tuple[str, ...]]:
    made = folder / "package.zip"
    return made, application.package_model(application.find_model(str(model)), made)


def labels(model: Path) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(1).random((9, 10, 11), np.float32)
    with voxport.load(str(model)) as segmenter:
        return np.array(segmenter(values, spacing=(1, 1, 1), unit="mm").labels.array)


CHAINS: list[tuple[Step, ...]] = [
    (ZScore(), Window(-1, 1.5), ShiftScale(2, 0.5), ZScore("all", 0.5, 2)),
    (Rescale(-1, 1),),
    (ClipPercentiles(1, 99), Rescale(-1, 1), ShiftScale(0.5, 1)),
]


class TestBioimageioPackager(PackagerContract):
    suffix = ".zip"

    def make_packager(self) -> BioimageioPackager:
        return BioimageioPackager(PngPictures())

    def open(self, model: Model) -> InferenceRuntime:
        return open_onnx_runtime(model, RuntimeOptions(), OnnxRuntimeSettings())


def test_a_written_package_passes_bioimageios_test_and_gives_the_same_labels(
    application: Application, tmp_path: Path
) -> None:
    card = card_of(Rescale(0, 1), licence="MIT", authors=("A. Author",), citation="A paper, 10.1234/abcd")
    model = write_model(tmp_path, card)
    made, _ = package(application, model, tmp_path)
    run_oracle(made)
    again = tmp_path / "again.onnx"
    application.import_model(made, again, RecordingProgress())
    assert len(np.unique(labels(model))) == 2
    np.testing.assert_array_equal(labels(again), labels(model))


@pytest.mark.parametrize("steps", CHAINS)
def test_intensity_steps_pass_bioimageios_test(
    application: Application, tmp_path: Path, steps: tuple[Step, ...]
) -> None:
    made, warnings = package(application, write_model(tmp_path, card_of(*steps, licence="of our own")), tmp_path)
    assert not any("intensity" in line for line in warnings)
    run_oracle(made)


@pytest.mark.parametrize(
    "steps", [(Window(0, 1), ZScore()), (ZScore(), Rescale(0, 1)), (ZScore("nonzero"),), (ClipPercentiles(1, 99),)]
)
def test_steps_that_bioimageio_computes_otherwise_are_left_out(
    application: Application, tmp_path: Path, steps: tuple[Step, ...]
) -> None:
    made, warnings = package(application, write_model(tmp_path, card_of(*steps)), tmp_path)
    assert any("intensity steps" in line for line in warnings)
    with zipfile.ZipFile(made) as archive:
        assert yaml.safe_load(archive.read("bioimageio.yaml"))["inputs"][0]["preprocessing"] == []


@pytest.mark.parametrize("steps", CHAINS)
def test_the_description_alone_says_the_same_pipeline(
    application: Application, tmp_path: Path, steps: tuple[Step, ...]
) -> None:
    model = write_model(tmp_path, card_of(*steps))
    made, _ = package(application, model, tmp_path)
    bare, content = tmp_path / "bare", onnx.load(model)
    with zipfile.ZipFile(made) as archive:
        archive.extractall(bare)
    kept = [(p.key, p.value) for p in content.metadata_props if p.key != CARD_KEY]
    del content.metadata_props[:]
    onnx.helper.set_model_props(content, dict(kept))
    onnx.save(content, bare / "weights.onnx")
    description = yaml.safe_load((bare / "bioimageio.yaml").read_text(encoding="utf-8"))
    del description["weights"]["onnx"]["sha256"]
    (bare / "bioimageio.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    again = tmp_path / "again.onnx"
    done = application.import_model(bare, again, RecordingProgress())
    assert done.exported.model.card.output.activation == "softmax"
    np.testing.assert_array_equal(labels(again), labels(model))


def test_what_a_package_cannot_say_is_listed_and_the_card_comes_back(application: Application, tmp_path: Path) -> None:
    card = card_of(ZScore("nonzero"))
    card = replace(
        card,
        input=replace(card.input, crop=Crop("nonzero"), orientation="RAS"),
        tiling=replace(TILING, mirror=(0,)),
        output=replace(card.output, postprocessing=(KeepLargest((1,)),)),
    )
    made, warnings = package(application, write_model(tmp_path, card), tmp_path)
    said = "\n".join(warnings)
    for part in ("intensity steps", "crop", "orientation RAS", "mirroring", "postprocessing"):
        assert part in said
    run_oracle(made)
    found = application.import_model(made, tmp_path / "again.onnx", RecordingProgress()).exported.model.card
    assert replace(found, parity=None, provenance={}) == replace(card, provenance={})
