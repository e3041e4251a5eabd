"""MONAI bundles: their words as a card, their network, and what is refused; nothing of them is run."""

from __future__ import annotations

import copy
import json
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from voxport.adapters.importers.monai_bundle import BundleImporter, checkpoint_from_bundle
from voxport.adapters.importers.monai_bundle.expressions import NotLiteralError, compute
from voxport.contract.card import read_card
from voxport.domain.cards.model_card import Crop, ResamplingRule
from voxport.domain.cards.writing import write_card
from voxport.domain.errors import ModelError, UsageError
from voxport.domain.inference.patches import Padding, Tiling
from voxport.domain.intensity import ClipPercentiles, Rescale, ShiftScale, Window, ZScore
from voxport.domain.labels.postprocessing import KeepLargest
from voxport.ports.exporter import Checkpoint
from voxport.ports.importer import ImportChoices, Imported, ModelImporter
from voxport.testing.importer import ModelImporterContract

from tests.bundles import KINDS, metadata, volume, write_bundle

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript's

Change = Callable[[dict[str, Any]], object]
CODE = "$open('sprung', 'w')"


class TestBundleFolders(ModelImporterContract):
    """A bundle's folder."""

    def make_importer(self) -> ModelImporter:
        return BundleImporter()

    def make_source(self, folder: Path) -> Path:
        return write_bundle(folder / "spleen", KINDS["spleen"](), metadata("spleen"), b"weights")

    def damage(self, source: Path) -> None:
        (source / "configs" / "inference.json").write_text('{"network_def": {', encoding="utf-8")


class TestBundleArchives(TestBundleFolders):
    """The zip of a bundle."""

    def make_source(self, folder: Path) -> Path:
        written = super().make_source(folder / "unzipped")
        with zipfile.ZipFile(folder / "spleen.zip", "w") as archive:
            for path in written.rglob("*"):
                archive.write(path, path.relative_to(written.parent))
        return folder / "spleen.zip"

    def damage(self, source: Path) -> None:
        source.write_bytes(source.read_bytes()[:200])


def read(folder: Path, **choices: Any) -> Imported:
    unpacked = folder.parent / "unpacked"
    unpacked.mkdir(exist_ok=True)
    return BundleImporter().read(folder, ImportChoices(**choices), unpacked)


def imported(folder: Path, kind: str, change: Change | None = None) -> Imported:
    """Import a bundle of a kind, after a change of its configuration."""
    configuration = copy.deepcopy(KINDS[kind]())
    if change is not None:
        change(configuration)
    return read(write_bundle(folder / kind, configuration, metadata(kind), b"weights"))


def steps_of(folder: Path, *words: Mapping[str, Any]) -> Imported:
    """Import a bundle with these words after its files are read."""
    return imported(folder, "spleen", lambda c: c.update(preprocessing=[c["preprocessing"][0], *words]))


def on_image(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, "keys": ["image"], **arguments}


def refusal(folder: Path, kind: str, change: Change) -> str:
    with pytest.raises(ModelError) as caught:
        imported(folder, kind, change)
    assert "\n" not in str(caught.value)
    assert not list(folder.rglob("sprung")) + list(Path.cwd().glob("sprung"))
    return str(caught.value)


# The four kinds


def test_a_window_of_intensities_and_resampled_probabilities(tmp_path: Path) -> None:
    card = imported(tmp_path, "spleen").card
    assert (card.name, card.version, card.authors) == ("spleen", "0.3.1", ("A group",))
    assert card.input.spacing == (4.0, 4.0, 5.0)
    assert card.input.resampling == ResamplingRule(1, when="before_intensity", align="first")
    window, scaled = card.input.intensity
    assert window == Window(-57, 164)
    assert isinstance(scaled, ShiftScale)
    assert (scaled.shift, scaled.scale) == pytest.approx((57, 1 / 221))
    assert card.tiling == Tiling((32, 32, 32), 4, 0.5, "constant", Padding(to="patch"), windows="monai")
    assert (card.output.activation, card.output.resample, card.output.order) == ("softmax", "probabilities", 1)
    assert [(label.value, label.name) for label in card.output.table.labels] == [(1, "spleen")]


def test_merged_regions_get_values_channels_and_priority(tmp_path: Path) -> None:
    card = imported(tmp_path, "brats").card
    assert [channel.name for channel in card.input.channels] == ["T1c", "T1", "T2", "FLAIR"]
    assert card.input.orientation is None
    assert card.input.intensity == (ZScore("nonzero"),)
    labels = [(label.value, label.name, label.channel) for label in card.output.table.labels]
    assert labels == [(2, "Whole tumor", 1), (1, "Tumor core", 0), (4, "Enhancing tumor", 2)]
    assert (card.output.activation, card.output.threshold) == ("sigmoid", 0.5)


def test_the_largest_component_of_each_label_and_nearest_labels(tmp_path: Path) -> None:
    card = imported(tmp_path, "prostate").card
    assert card.input.intensity == (Rescale(0, 1), ZScore("all"))
    assert card.output.postprocessing == (KeepLargest((1,)), KeepLargest((2,)))
    assert (card.output.activation, card.output.resample, card.output.order) == ("softmax", "labels", 0)


def test_replicate_padding_gaussian_windows_and_a_choice_in_the_configuration(tmp_path: Path) -> None:
    card = imported(tmp_path, "whole_body").card
    assert card.input.spacing == (4.6, 4.6, 4.6)
    assert card.input.intensity == (ZScore("nonzero"), Rescale(-1, 1))
    assert card.tiling == Tiling((48, 48, 48), 4, 0.25, "gaussian", Padding("edge", to="patch"), windows="monai")


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_of_each_kind_survives_writing_and_reading(tmp_path: Path, kind: str) -> None:
    card = imported(tmp_path, kind).card
    assert read_card(json.loads(json.dumps(write_card(card)))) == card


# Words


@pytest.mark.parametrize(
    ("word", "steps"),
    [
        (
            on_image("ScaleIntensityRangePercentilesd", lower=1, upper=99, b_min=0, b_max=1, clip=True),
            (ClipPercentiles(1, 99), Rescale(0, 1)),
        ),
        (on_image("ScaleIntensityd"), (Rescale(0, 1),)),
        (on_image("ScaleIntensity", minv=None, maxv=None, factor=0.5), (ShiftScale(0.0, 1.5),)),
        (on_image("NormalizeIntensityD", subtrahend=100, divisor=20), (ZScore("all", 100.0, 20.0),)),
        (on_image("monai.transforms.NormalizeIntensityDict", nonzero=True), (ZScore("nonzero"),)),
        (on_image("CastToTyped", dtype="$torch.float32"), ()),
        (on_image("ScaleIntensityd", minv=0) | {"keys": "label"}, ()),
        (on_image("scripts.own.Transformd", _disabled_=True), ()),
    ],
)
def test_an_intensity_word_becomes_steps(tmp_path: Path, word: dict[str, Any], steps: tuple[object, ...]) -> None:
    assert steps_of(tmp_path, word).card.input.intensity == steps


@pytest.mark.parametrize(
    ("words", "crop"),
    [
        ([on_image("CropForegroundd", source_key="image")], Crop("above", 0.0)),
        ([on_image("CropForegroundd", select_fn="$lambda x: x > -500", margin=4)], Crop("above", -500.0, 4)),
        ([on_image("CropForegroundd", select_fn="$lambda v: v != 0", margin=[1, 2, 1])], Crop("nonzero", 0.0, 2)),
        (
            [
                on_image("ScaleIntensityRanged", a_min=-250, a_max=400, b_min=0, b_max=1, clip=True),
                on_image("CropForegroundd"),
            ],
            Crop("above", -250.0),
        ),
    ],
)
def test_the_foreground_is_that_of_stored_values(tmp_path: Path, words: list[dict[str, Any]], crop: Crop) -> None:
    found = steps_of(tmp_path, *words).card.input.crop
    assert found is not None
    assert (found.to, found.margin) == (crop.to, crop.margin)
    assert found.threshold == pytest.approx(crop.threshold)


def test_a_volume_is_inferred_whole_and_padded_to_a_divisor(tmp_path: Path) -> None:
    def change(configuration: dict[str, Any]) -> None:
        configuration["inferer"] = {"_target_": "SimpleInferer"}
        configuration["preprocessing"].append(on_image("DivisiblePadd", k=16))

    assert imported(tmp_path, "spleen", change).card.tiling == Tiling((None, None, None), 16, 0.0, "constant")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (on_image("Resized", spatial_size=[64, 64, 64]), "stretches every volume"),
        (on_image("scripts.transforms.Owned"), "own code"),
        (on_image("os.Spacingd", pixdim=[1, 1, 1]), "os.Spacingd"),
        (on_image("Spacingd", pixdim=[1, 1, 0]), "three positive lengths"),
        (on_image("Spacingd", pixdim=[1, 1, 1], mode="nearest"), "mode bilinear"),
        (on_image("Spacingd", pixdim=CODE), "code"),
        (on_image("ScaleIntensityRanged", a_min="low", a_max=1, b_min=0, b_max=1), "arguments that"),
        (on_image("NormalizeIntensityd", subtrahend=3), "subtrahend and divisor"),
        (on_image("NormalizeIntensityd", unknown=3), "unknown"),
        (on_image("CropForegroundd", select_fn=CODE), "code and is not run"),
        (on_image("CropForegroundd", select_fn="$lambda x: x.open()"), "code and is not run"),
    ],
)
def test_a_word_that_is_not_understood_is_refused_by_its_name_and_place(
    tmp_path: Path, word: dict[str, Any], said: str
) -> None:
    message = refusal(tmp_path, "spleen", lambda c: c.update(preprocessing=[c["preprocessing"][0], word]))
    assert said in message
    assert "preprocessing::transforms::1" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["inferer"].update(_target_="scripts.Own"), "SlidingWindowInferer or SimpleInferer"),
        (lambda c: c["inferer"].update(padding_mode="circular"), "padding_mode"),
        (lambda c: c["inferer"].update(mode="gaussian", sigma_scale=0.2), "sigma_scale"),
        (lambda c: c["inferer"].update(overlap=[0.5, 0.5, 0.25]), "one overlap"),
        (lambda c: c["inferer"].update(roi_size="$print(1)"), "code"),
        (lambda c: c["postprocessing"].pop(2), "AsDiscrete"),
        (lambda c: c["postprocessing"][0].update(softmax=False, other="$lambda x: x"), "softmax"),
        (lambda c: c["postprocessing"].insert(0, {"_target_": "MeanEnsembled", "keys": "pred"}), "MeanEnsembled"),
        (lambda c: c["postprocessing"].append({"_target_": "Lambdad", "func": CODE}), "code and is not run"),
        (lambda c: c["network_def"].update(_target_="scripts.networks.UNesT"), "own code"),
        (lambda c: c["network_def"].update(_target_="os.system"), "own code"),
        (lambda c: c["network_def"].update(act={"_target_": "torch.nn.ReLU"}), "component in a component"),
        (lambda c: c.update(network_def="$__import__('os').system('touch sprung')"), "code"),
        (lambda c: c["network_def"].update(in_channels=CODE), "code"),
        (lambda c: c.pop("network_def"), "network_def"),
    ],
)
def test_what_a_card_cannot_say_is_refused(tmp_path: Path, change: Change, said: str) -> None:
    assert said in refusal(tmp_path, "spleen", change)


def test_the_words_of_several_lists_are_taken_together(tmp_path: Path) -> None:
    def change(configuration: dict[str, Any]) -> None:
        first, *others = configuration["preprocessing"]
        configuration |= {"a": [first], "b": others, "d": "$torch.device('cpu')"}
        configuration["b"].append(on_image("EnsureTyped", device="@d"))
        configuration["preprocessing"] = {"_target_": "monai.transforms.Compose", "transforms": "$@a + @b"}

    assert imported(tmp_path, "spleen", change).card.input == imported(tmp_path / "b", "spleen").card.input


def test_an_argument_of_older_versions_without_an_effect_is_left_out(tmp_path: Path) -> None:
    swin = {"_target_": "SwinUNETR", "img_size": 96, "in_channels": 1, "out_channels": 2, "feature_size": 12}
    found = imported(tmp_path, "spleen", lambda c: c.update(network_def=swin))
    assert isinstance(found.network, Checkpoint)
    assert found.network.network == {key: value for key, value in swin.items() if key != "img_size"}
    assert found.card.tiling.divisor == 32


def test_clicks_are_refused_with_the_reason(tmp_path: Path) -> None:
    word = {"_target_": "AddGuidanceFromPointsDeepEditd", "ref_image": "image"}
    said = refusal(tmp_path, "spleen", lambda c: c["preprocessing"].append(word))
    assert "asks for clicks" in said


def test_torchscript_is_taken_where_the_network_needs_code(tmp_path: Path) -> None:
    configuration = KINDS["spleen"]()
    configuration["network_def"] = {"_target_": "DiNTS", "in_channels": 1, "node_a": "$torch.load('search.pt')"}
    folder = write_bundle(tmp_path / "dints", configuration, metadata("spleen"), b"weights")
    about = metadata("spleen")
    about["network_data_format"]["outputs"]["pred"]["num_channels"] = 2
    (folder / "configs" / "metadata.json").write_text(json.dumps(about), encoding="utf-8")
    (folder / "models" / "model.ts").write_bytes(b"script")
    found = read(folder)
    assert found.network == Checkpoint(folder / "models" / "model.ts")
    assert any("model.ts is taken" in note for note in found.notes)


def test_other_weights_that_the_configuration_loads_are_taken(tmp_path: Path) -> None:
    loader = {"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/' + 'tuned.pt'"}
    folder = write_bundle(tmp_path / "a", KINDS["spleen"]() | {"handlers": [loader]}, metadata("spleen"), b"weights")
    (folder / "models" / "tuned.pt").write_bytes(b"tuned")
    network = read(folder).network
    assert isinstance(network, Checkpoint)
    assert network.path == folder / "models" / "tuned.pt"


def test_weights_outside_the_bundle_are_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "a", KINDS["spleen"](), metadata("spleen"))
    (tmp_path / "secret.pt").write_bytes(b"secret")
    (folder / "models" / "model.pt").symlink_to(tmp_path / "secret.pt")
    with pytest.raises(ModelError, match="leads out of it"):
        read(folder)


def test_an_output_may_be_chosen(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "a", KINDS["spleen"](), metadata("spleen"), b"weights")
    network = read(folder, output="out").network
    assert isinstance(network, Checkpoint)
    assert network.network["_output_"] == "out"


def test_an_archive_with_a_path_out_of_it_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "a", KINDS["spleen"](), metadata("spleen"), b"weights")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(tmp_path))
        archive.writestr("../sprung", "x")
    assert BundleImporter().recognises(tmp_path / "a.zip")
    with pytest.raises(ModelError, match="leads out of the folder"):
        read(tmp_path / "a.zip")
    assert not list(tmp_path.rglob("sprung"))


# MONAI's own run


def test_monais_run_of_weights_that_do_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "a", KINDS["spleen"](), metadata("spleen"), b"no weights")
    scan = volume(tmp_path / "scan.nii.gz", (12, 10, 8), (3.0, 3.0, 4.0), "RAS", seed=0)
    with pytest.raises(ModelError, match="a bundle that MONAI runs") as caught:
        BundleImporter().segment(folder, ImportChoices(), [scan], tmp_path / "mask.nii.gz", tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mask.nii.gz").exists()


def test_a_run_by_monai_needs_monai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path / "a", KINDS["spleen"](), metadata("spleen"), b"weights")
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(UsageError, match="expected MONAI"):
        BundleImporter().segment(folder, ImportChoices(), [], tmp_path / "mask.nii.gz", tmp_path)


def test_monais_run_gives_the_regions_of_a_bundle_that_writes_a_mask_for_each(tmp_path: Path) -> None:
    """Two regions of a network of one convolution: values above 100, and above 200."""
    configuration = copy.deepcopy(KINDS["brats"]())
    configuration["network_def"] = {"_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 1}
    configuration["network_def"] |= {"out_channels": 2, "channels": [2, 2], "strides": [1]}
    configuration["preprocessing"] = KINDS["spleen"]()["preprocessing"][:2]
    del configuration["postprocessing"][3]
    folder = write_bundle(tmp_path / "a", configuration, None, b"weights")
    network = torch.nn.Conv3d(1, 2, 1)
    network.load_state_dict({"weight": torch.ones(2, 1, 1, 1, 1), "bias": torch.tensor([-100.5, -200.5])})
    torch.jit.script(network).save(folder / "models" / "model.ts")  # type: ignore[no-untyped-call]
    (folder / "models" / "model.pt").unlink()
    scan = volume(tmp_path / "scan.nii.gz", (24, 20, 16), (3.0, 3.0, 4.0), "RAS", seed=0)
    mask = tmp_path / "mask.nii.gz"
    framework, _ = BundleImporter().segment(folder, ImportChoices(), [scan], mask, tmp_path)
    values = np.asarray(nib.load(scan).dataobj)
    assert framework == "monai"
    np.testing.assert_array_equal(np.asarray(nib.load(mask).dataobj), 1 * (values > 100) + 1 * (values > 200))
    assert set(np.unique(values > 200)) == {False, True}


# Expressions


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("@a", 3),
        ("len(@b) + @a", 5),
        ("list(range(1, 4)) + [@a, 9]", [1, 2, 3, 3, 9]),
        ("int(@a / 2) * -1", -1),
        ("[1.5, 1.5] if @a > 2 else [3, 3]", [1.5, 1.5]),
        ("@c['x'][0]", "y"),
        ("@c#x::0 + '.pt'", "y.pt"),
        ("monai.utils.CommonKeys.IMAGE", "image"),
        ("{'k': None, 'l': True}", {"k": None, "l": True}),
        ("sum(@b) % 4", 3),
    ],
)
def test_literal_expressions_are_computed(expression: str, value: object) -> None:
    known = {"@a": 3, "@b": [3, 4], "@c": {"x": ["y"]}, "@c#x::0": "y"}
    assert compute(expression, known.__getitem__) == value


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('touch sprung')",
        "open('sprung', 'w')",
        "().__class__.__bases__[0]",
        "(lambda: 1)()",
        "[x for x in range(3)]",
        "f'{1}'",
        "eval('1')",
        "len(**{})",
        "@a.to(@b)",
        "torch.load('x')",
        "'a' * 10**9",
        "'a' * 1000000000",
        "2 ** 1000000",
        "range(10**9)",
        "range(1000000000)",
        "[0] * 100000 * 100000",
        "'%1000000000d' % 1",
        "9999999999 * 9999999999 * 9999999999",
        "1 / 0",
        "@a[7]",
        "(" * 500,
        "-" * 5000 + "1",
        "import os",
        "1 + 'a'",
        "x",
    ],
)
def test_everything_else_is_refused_and_not_run(expression: str) -> None:
    with pytest.raises(NotLiteralError):
        compute(expression, lambda _: [1, 2])
    assert not Path("sprung").exists()


def test_references_that_multiply_are_refused(tmp_path: Path) -> None:
    """Ten references to ten references, nine deep."""
    bomb = {f"l{i}": [f"@l{i + 1}"] * 10 for i in range(9)} | {"l9": 1}

    def change(configuration: dict[str, Any]) -> None:
        configuration.update(bomb)
        configuration["network_def"]["kernel_size"] = "@l0"

    assert "more than 100000 values" in refusal(tmp_path, "spleen", change)


# The network alone, for `export`


def test_a_bundles_network_is_read_with_its_references(tmp_path: Path) -> None:
    config = {
        "labels": {"count": 3},
        "sizes": [4, 8],
        "network_def": {
            "_target_": "UNet",
            "in_channels": "$1 + 1",
            "out_channels": "@labels#count",
            "channels": ["@sizes::1", 8],
            "act": "RELU",
        },
    }
    found = checkpoint_from_bundle(write_bundle(tmp_path / "a", config, weights=b"weights"))
    assert found.path == tmp_path / "a" / "models" / "model.pt"
    network = {"_target_": "UNet", "in_channels": 2, "out_channels": 3, "channels": [8, 8], "act": "RELU"}
    assert found.network == network


@pytest.mark.parametrize("suffix", ["yaml", "yml"])
def test_a_configuration_may_be_yaml(tmp_path: Path, suffix: str) -> None:
    folder = write_bundle(tmp_path / "a", {}, weights=b"weights")
    (folder / "configs" / "inference.json").unlink()
    (folder / "configs" / f"inference.{suffix}").write_text(
        "n: 2\nnetwork_def:\n  _target_: UNet\n  in_channels: '@n'", encoding="utf-8"
    )
    assert checkpoint_from_bundle(folder).network == {"_target_": "UNet", "in_channels": 2}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"network_def": {"_target_": "UNet", "in_channels": CODE}}, "code"),
        ({"network_def": "%other.json#network_def"}, "macro"),
        ({"network_def": {"_target_": "UNet", "in_channels": "@absent"}}, "@absent"),
        ({"a": "@b", "b": "@a", "network_def": {"_target_": "UNet", "in_channels": "@a"}}, "itself"),
        ({"a": ["@a"], "network_def": {"_target_": "UNet", "in_channels": "@a"}}, "itself"),
        ({"a": "$@b + 1", "b": "$@a", "network_def": {"_target_": "UNet", "in_channels": "@a"}}, "itself"),
        ({"network_def": [1]}, "_target_"),
        ({}, "network_def"),
    ],
)
def test_a_bundle_that_needs_code_or_is_wrong_is_refused(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        checkpoint_from_bundle(write_bundle(tmp_path / "a", config, weights=b"weights"))
    assert said in str(caught.value)
    assert not (Path.cwd() / "sprung").exists()


def test_a_bundle_with_torchscript_only_needs_no_network(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "a", {})
    (folder / "models" / "model.ts").write_bytes(b"script")
    assert checkpoint_from_bundle(folder) == Checkpoint(folder / "models" / "model.ts")


@pytest.mark.parametrize("content", ["{", "[1, 2]", "\0", "null"])
def test_another_content_of_the_configuration_is_refused(tmp_path: Path, content: str) -> None:
    folder = write_bundle(tmp_path / "a", {}, weights=b"weights")
    (folder / "configs" / "inference.json").write_text(content, encoding="utf-8")
    for opened in (checkpoint_from_bundle, read):
        with pytest.raises(ModelError):
            opened(folder)


@pytest.mark.parametrize("missing", ["configs/inference.json", "models/model.pt"])
def test_an_incomplete_bundle_is_refused(tmp_path: Path, missing: str) -> None:
    folder = write_bundle(tmp_path / "a", {"network_def": {"_target_": "UNet"}}, weights=b"weights")
    (folder / missing).unlink()
    with pytest.raises(ModelError):
        checkpoint_from_bundle(folder)
    with pytest.raises(ModelError, match="no such folder"):
        checkpoint_from_bundle(tmp_path / "none")
