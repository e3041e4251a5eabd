"""The importer of nnU-Net's results: what its files say, in a card's words; and sources that want to run code."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from voxport.adapters.importers.nnunet import NnunetImporter
from voxport.adapters.runtimes.torch import load_network, read_content
from voxport.domain.cards.model_card import Crop, ResamplingRule
from voxport.domain.errors import ModelError, UsageError
from voxport.domain.intensity import Rescale, ShiftScale, Window, ZScore
from voxport.domain.labels.postprocessing import KeepLargest
from voxport.ports.exporter import Checkpoint
from voxport.ports.importer import ImportChoices, Imported
from voxport.testing.importer import ModelImporterContract

from .nnunet_results import Recipe, balls, exported_zip, write_results

CHEAP = Recipe(steps=0)
PLAIN = "remove_all_but_largest_component_from_segmentation"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("trained"), CHEAP, *balls((16, 16, 16)), (1, 1, 1))


class TestNnunetImporter(ModelImporterContract):
    trained: Path

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _trained(cls, trained: Path) -> None:
        cls.trained = trained

    def make_importer(self) -> NnunetImporter:
        return NnunetImporter(read_content)

    def make_source(self, folder: Path) -> Path:
        source = folder / self.trained.name
        (source / "fold_0").mkdir(parents=True)
        for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
            (source / name).write_bytes((self.trained / name).read_bytes())
        return source

    def damage(self, source: Path) -> None:
        path = source / "plans.json"
        path.write_bytes(path.read_bytes()[:100])


def write_source(
    folder: Path,
    recipe: Recipe = CHEAP,
    *,
    plans: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
    values: Mapping[str, Any] | None = None,
) -> Path:
    """Write a trainer's folder without weights; ``values`` change the configuration."""
    source = folder / "Dataset001_Balls" / f"nnUNetTrainer__nnUNetPlans__{recipe.configuration}"
    written = {**recipe.plans, **(plans or {})}
    written["configurations"][recipe.configuration].update(values or {})
    source.mkdir(parents=True)
    (source / "plans.json").write_text(json.dumps(written), encoding="utf-8")
    (source / "dataset.json").write_text(json.dumps({**recipe.dataset, **(dataset or {})}), encoding="utf-8")
    for fold in recipe.folds:
        (source / f"fold_{fold}").mkdir()
        (source / f"fold_{fold}" / "checkpoint_final.pth").touch()
    return source


def read(source: Path, recipe: Recipe = CHEAP, trainer: str = "nnUNetTrainer", **chosen: Any) -> Imported:
    content = {
        "trainer_name": trainer,
        "init_args": {"configuration": recipe.configuration},
        "inference_allowed_mirroring_axes": recipe.mirroring,
    }
    unpacked = source.parent / "unpacked"
    unpacked.mkdir(exist_ok=True)
    return NnunetImporter(lambda _: content).read(source, ImportChoices(**chosen), unpacked)


def imported(folder: Path, recipe: Recipe = CHEAP, **changes: Any) -> Imported:
    return read(write_source(folder, recipe, **changes), recipe)


def network_of(found: Imported) -> Mapping[str, Any]:
    assert isinstance(found.network, Checkpoint)
    return found.network.network


def test_a_card_says_what_the_plans_say(tmp_path: Path) -> None:
    recipe = replace(CHEAP, patch=(8, 16, 32), spacing=(3.0, 2.0, 1.0), strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)))
    found = imported(tmp_path, recipe)
    card = found.card
    assert (card.input.axes, card.input.orientation) == ("ZYX", None)
    assert (card.input.spacing, card.input.spacing_unit) == ((1.0, 2.0, 3.0), "mm")
    assert card.input.crop == Crop("nonzero")
    assert card.input.resampling == ResamplingRule(3, "auto", "after_intensity", "extent")
    assert (card.tiling.patch, card.tiling.divisor) == ((32, 16, 8), (4, 4, 2))
    assert (card.tiling.overlap, card.tiling.blending, card.tiling.padding.to) == (0.5, "gaussian", "patch")
    assert (card.tiling.mirror, card.tiling.windows) == ((0, 1, 2), "nnunet")
    assert (card.output.activation, card.output.order, card.output.resample) == ("softmax", 1, "logits")
    assert [(label.value, label.name) for label in card.output.table.labels] == [(1, "core"), (2, "shell")]
    assert card.reference == "dataset001-balls-3d-fullres:1.0.0"
    assert found.missing == ("licence", "intended_use")


@pytest.mark.parametrize(
    ("transpose", "expected"),
    [((0, 1, 2), (3, 2, 1)), ((1, 0, 2), (3, 1, 2)), ((2, 0, 1), (1, 3, 2)), ((2, 1, 0), (1, 2, 3))],
)
def test_the_axes_of_transposed_plans_are_brought_to_x_y_z(
    tmp_path: Path, transpose: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    recipe = replace(CHEAP, transpose=transpose, spacing=(1.0, 2.0, 3.0), patch=(4, 8, 12), mirroring=(0, 1))
    found = imported(tmp_path, recipe)
    assert found.card.input.spacing == expected
    assert found.card.tiling.patch == tuple(4 * n for n in expected)
    assert found.card.tiling.mirror == tuple(axis for axis in range(3) if expected[axis] != 3)
    plain = transpose in ((0, 1, 2), (2, 1, 0))
    assert network_of(found).get("_transpose_") == (None if plain else list(transpose))
    assert found.card.input.axes == ("XYZ" if transpose == (2, 1, 0) else "ZYX")


def test_a_configuration_for_slices_keeps_the_spacing_across_them(tmp_path: Path) -> None:
    recipe = replace(
        CHEAP, configuration="2d", patch=(16, 24), spacing=(1.5, 1.0), strides=((1, 1), (2, 2)), features=(4, 8),
        mirroring=(0, 1),
    )  # fmt: skip
    found = imported(tmp_path, recipe)
    assert found.card.input.spacing == (1.0, 1.5, None)
    assert (found.card.tiling.patch, found.card.tiling.divisor) == ((24, 16, 1), (2, 2, 1))
    assert found.card.tiling.mirror == (0, 1)
    assert network_of(found)["_slices_"] == "x"


@pytest.mark.parametrize(
    ("scheme", "masked", "steps"),
    [
        ("CTNormalization", False, (Window(-120, 220), ZScore(mean=40, std=60))),
        ("ZScoreNormalization", False, (ZScore("all"),)),
        ("ZScoreNormalization", True, (ZScore("crop"),)),
        ("NoNormalization", False, ()),
        ("RescaleTo01Normalization", False, (Rescale(0, 1),)),
        ("RGBTo01Normalization", False, (ShiftScale(0, 1 / 255),)),
    ],
)
def test_each_normalisation_has_its_steps(tmp_path: Path, scheme: str, masked: bool, steps: tuple[Any, ...]) -> None:
    recipe = replace(CHEAP, channels=("a", "b"), schemes=("NoNormalization", scheme), masked=(False, masked))
    found = imported(tmp_path, recipe)
    assert [(c.name, c.source, c.intensity) for c in found.card.input.channels] == [("a", 0, ()), ("b", 1, steps)]
    assert network_of(found)["input_channels"] == 2


def test_regions_are_labels_of_a_channel_each_in_their_order(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    found = imported(tmp_path, replace(CHEAP, labels=labels, regions=(1, 2, 3)))
    output = found.card.output
    assert output.activation == "sigmoid"
    assert [(label.value, label.name) for label in output.table.labels] == [(1, "whole"), (2, "core"), (3, "enhancing")]
    assert output.table.labels[0].also == {"region": [1, 2, 3]}
    assert network_of(found)["num_classes"] == 3
    assert any("ignore" in note for note in found.notes)


@pytest.mark.parametrize("order", [None, [1, 2], [1, 1, 2], [0, 1, 2], "123"])
def test_regions_need_an_order(tmp_path: Path, order: object) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    with pytest.raises(ModelError, match="regions_class_order: expected 3 different labels"):
        imported(tmp_path, dataset={"labels": labels, "regions_class_order": order})


def test_plans_without_an_architecture_name_the_same_network(tmp_path: Path) -> None:
    for network in ("PlainConvUNet", "ResidualEncoderUNet"):
        recipe = replace(CHEAP, network=network)
        new = network_of(imported(tmp_path / network / "new", recipe))
        old = network_of(imported(tmp_path / network / "old", replace(recipe, old_plans=True)))
        assert {**new, "dropout_op": None, "dropout_op_kwargs": None} == new
        assert {**old, "dropout_op": None, "dropout_op_kwargs": None} == new


def test_a_network_that_has_moved_since_is_found(tmp_path: Path) -> None:
    architecture = CHEAP.plans["configurations"]["3d_fullres"]["architecture"]
    moved = "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet"
    found = imported(tmp_path, values={"architecture": {**architecture, "network_class_name": moved}})
    assert network_of(found)["_target_"] == "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"n_stages": 10**9}, "n_stages: expected numbers up to 2048, got 1000000000"),
        ({"features_per_stage": [8, 10**6]}, "features_per_stage: expected numbers up to 2048"),
        ({"n_conv_per_stage": [1] * 1000}, "n_conv_per_stage: expected at most 16 stages, got 1000 values"),
    ],
)
def test_a_network_beyond_all_sense_is_not_built(tmp_path: Path, arguments: dict[str, Any], expected: str) -> None:
    architecture = CHEAP.plans["configurations"]["3d_fullres"]["architecture"]
    changed = {**architecture, "arch_kwargs": {**architecture["arch_kwargs"], **arguments}}
    with pytest.raises(ModelError) as caught:
        imported(tmp_path, values={"architecture": changed})
    assert expected in str(caught.value)


def test_the_trainer_with_batch_normalisation_changes_the_network(tmp_path: Path) -> None:
    found = read(write_source(tmp_path), trainer="nnUNetTrainerBN")
    assert network_of(found)["norm_op"] == {"_class_": "torch.nn.BatchNorm3d"}


def test_a_configuration_has_what_it_inherits(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    plans = json.loads((source / "plans.json").read_text(encoding="utf-8"))
    plans["configurations"]["larger"] = {"inherits_from": "3d_fullres", "patch_size": [32, 32, 32]}
    (source / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    assert read(source, replace(CHEAP, configuration="larger")).card.tiling.patch == (32, 32, 32)


def test_a_cascade_is_refused_with_the_reason(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    with pytest.raises(ModelError, match="a cascade, which takes the segmentation of 3d_lowres as input"):
        read(source, replace(CHEAP, configuration="3d_cascade_fullres"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"preprocessor_name": "Mine"}, "preprocessor_name: expected DefaultPreprocessor, got Mine"),
        ({"normalization_schemes": ["Mine"]}, "normalization_schemes: expected one of CTNormalization"),
        ({"resampling_fn_data": "mine"}, "resampling_fn_data: expected resample_data_or_seg_to_shape"),
        ({"resampling_fn_data_kwargs": {"order": 2}}, "resampling_fn_data_kwargs: expected order 1 or 3"),
        ({"resampling_fn_data_kwargs": {"force_separate_z": True}}, "force_separate_z null or false"),
        ({"resampling_fn_data_kwargs": {"order_z": 1, "order": 3}}, "order_z 0"),
        ({"resampling_fn_data": "no_resampling_hack"}, "resampling_fn_probabilities: expected the rule of"),
        ({"patch_size": [16, 16, -1]}, "patch_size: expected two or three positive numbers"),
        ({"spacing": "1x1x1"}, "spacing: expected two or three positive numbers"),
        ({"use_mask_for_norm": []}, "use_mask_for_norm: expected 1 values"),
        ({"inherits_from": "3d_cascade_fullres"}, "inherited in a circle"),
        ({"inherits_from": "absent"}, "configuration: expected one of 3d_fullres"),
        ({"architecture": {}}, "arch_kwargs: expected the network's arguments"),
        ({"architecture": None, "UNet_class_name": "Mine"}, "UNet_class_name: expected PlainConvUNet or"),
    ],
)
def test_what_a_card_cannot_say_is_refused_by_name(tmp_path: Path, values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ModelError) as caught:
        imported(tmp_path, values=values)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("plans", "dataset", "expected"),
    [
        ({"image_reader_writer": "Mine"}, {}, "image_reader_writer: expected one of SimpleITKIO"),
        ({"label_manager": "Mine"}, {}, "label_manager: expected LabelManager"),
        ({"transpose_forward": [0, 1, 1]}, {}, "transpose_forward: expected the axes 0, 1 and 2"),
        ({"configurations": {"2d": {}}}, {}, "configuration: expected one of 2d, got 3d_fullres"),
        ({"foreground_intensity_properties_per_channel": {}}, {}, "expected statistics of channel 0"),
        ({}, {"labels": {"core": 1}}, "labels: expected names with numbers, and background 0"),
        ({}, {"labels": {"background": 0, "core": 2}}, "labels: expected the values 0, 1, 2, ... without a gap"),
        ({}, {"labels": {"background": 0, "core": "1"}}, "labels: expected whole numbers"),
        ({}, {"channel_names": {"1": "CT"}}, "channel_names: expected channels numbered from 0"),
    ],
)
def test_files_that_are_not_nnunets_are_refused_by_name(
    tmp_path: Path, plans: dict[str, Any], dataset: dict[str, Any], expected: str
) -> None:
    source = write_source(tmp_path, dataset=dataset)
    (source / "plans.json").write_text(json.dumps({**CHEAP.plans, **plans}), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        read(source)
    assert expected in str(caught.value)


def test_other_resampling_is_said(tmp_path: Path) -> None:
    none = dict.fromkeys(("data", "seg", "probabilities"), "no_resampling_hack")
    found = imported(tmp_path / "none", replace(CHEAP, resampling=none)).card.input
    assert (found.spacing, found.spacing_unit) == (None, None)
    linear = dict.fromkeys(("data", "seg", "probabilities"), "resample_torch_fornnunet")
    found = imported(tmp_path / "torch", replace(CHEAP, resampling=linear)).card.input
    assert found.resampling == ResamplingRule(1, "auto", "after_intensity", "extent")


@pytest.mark.parametrize("reader", ["SimpleITKIOWithReorient", "NibabelIOWithReorient"])
def test_a_reader_that_reorients_gives_the_card_an_orientation(tmp_path: Path, reader: str) -> None:
    found = imported(tmp_path, replace(CHEAP, reader=reader))
    assert found.card.input.orientation == "RAS"
    assert not any("axis order" in note for note in found.notes)


def test_mirroring_is_the_checkpoints_unless_it_is_left_out(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    assert read(source, replace(CHEAP, mirroring=(0,))).card.tiling.mirror == (2,)
    assert read(source, replace(CHEAP, mirroring=None)).card.tiling.mirror == ()
    assert read(source, mirroring=False).card.tiling.mirror == ()


def test_folds_are_members_of_one_network(tmp_path: Path) -> None:
    source = write_source(tmp_path, replace(CHEAP, folds=("0", "1", "2", "all")))
    found = read(source)
    assert network_of(found)["_members_"] == ["../fold_1/checkpoint_final.pth", "../fold_2/checkpoint_final.pth"]
    assert found.card.provenance["folds"] == ["0", "1", "2"]
    assert "_members_" not in network_of(read(source, folds=("1",)))
    assert read(source, folds=("all",)).card.provenance["folds"] == ["all"]
    with pytest.raises(
        UsageError, match=r"folds: expected folds of 0, 1, 2, all, which have checkpoint_final\.pth, got 7"
    ):
        read(source, folds=("1", "7"))
    with pytest.raises(ModelError, match=r"expected checkpoint_best[.]pth in a fold, got checkpoint_final[.]pth"):
        read(source, checkpoint="best")
    (source / "fold_1" / "checkpoint_best.pth").touch()
    assert read(source, checkpoint="best").card.provenance["folds"] == ["1"]


def test_of_several_configurations_one_is_chosen(tmp_path: Path) -> None:
    write_source(tmp_path)
    flat = replace(CHEAP, configuration="2d", patch=(16, 16), spacing=(1, 1), strides=((1, 1), (2, 2)), features=(4, 8))
    other = write_source(tmp_path / "other", flat)
    dataset = tmp_path / "Dataset001_Balls"
    other.rename(dataset / other.name)
    with pytest.raises(UsageError, match="configuration: expected one of 2d, 3d_fullres, got none"):
        read(dataset)
    with pytest.raises(UsageError, match="configuration: expected one of 2d, 3d_fullres, got 3d_lowres"):
        read(dataset, configuration="3d_lowres")
    for source in (dataset, tmp_path):
        assert read(source, configuration="3d_fullres").card.name == "dataset001-balls-3d-fullres"


def test_the_zip_of_the_export_command_is_read(trained: Path, tmp_path: Path) -> None:
    archive = exported_zip(trained, tmp_path / "model.zip")
    (tmp_path / "unpacked").mkdir()
    importer = NnunetImporter(read_content)
    assert importer.recognises(archive)
    found = importer.read(archive, ImportChoices(), tmp_path / "unpacked")
    assert isinstance(found.network, Checkpoint)
    image = torch.rand(1, 1, 16, 16, 16)
    expected = load_network(trained / "fold_0" / "checkpoint_final.pth", found.network.network)(image)
    torch.testing.assert_close(load_network(found.network.path, found.network.network)(image), expected)


def test_the_largest_component_is_kept_as_nnunet_found_it_best(tmp_path: Path) -> None:
    source = write_source(tmp_path, replace(CHEAP, folds=("0", "1")))
    inner = source / "crossval_results_folds_0_1"
    inner.mkdir()
    written = {
        "postprocessing_fns": [PLAIN, PLAIN],
        "postprocessing_kwargs": [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 2}],
    }
    (inner / "postprocessing.json").write_text(json.dumps(written), encoding="utf-8")
    assert read(source).card.output.postprocessing == (KeepLargest((1, 2)), KeepLargest((2,)))
    assert read(source, folds=("0",)).card.output.postprocessing == ()
    (inner / "postprocessing.json").write_text(
        json.dumps({**written, "postprocessing_fns": ["os.system", PLAIN]}), encoding="utf-8"
    )
    with pytest.raises(ModelError, match=f"postprocessing_fns: expected {PLAIN}, got os.system"):
        read(source)


class Runs:
    """A pickle that leaves a file where it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def test_a_pickle_beside_the_results_is_not_read(tmp_path: Path) -> None:
    source, trace = write_source(tmp_path), tmp_path / "it ran"
    (source / "postprocessing.pkl").write_bytes(pickle.dumps(Runs(trace)))
    found = read(source)
    assert found.card.output.postprocessing == ()
    assert any("postprocessing.pkl is a pickle and is not read" in note for note in found.notes)
    assert not trace.exists()


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_checkpoint_that_runs_code_is_refused_also_for_nnunets_own_inference(tmp_path: Path, how: str) -> None:
    source, trace = write_source(tmp_path), tmp_path / "it ran"
    path = source / "fold_0" / "checkpoint_final.pth"
    if how == "torch":
        torch.save({"network_weights": Runs(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Runs(trace), protocol=2))
    importer = NnunetImporter(read_content)
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "work").mkdir()
    with pytest.raises(ModelError, match=r"a pickle that runs posix\.mkdir when it is read, which is refused"):
        importer.read(source, ImportChoices(), tmp_path / "unpacked")
    with pytest.raises(ModelError, match="refused"):
        importer.segment(source, ImportChoices(), [], tmp_path / "mask.nii.gz", tmp_path / "work")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "torch.hub.load", "builtins.eval", "nnunetv2.Mine"])
@pytest.mark.parametrize("key", ["network_class_name", "conv_op"])
def test_a_class_of_another_package_is_refused_by_name(tmp_path: Path, name: str, key: str) -> None:
    architecture = CHEAP.plans["configurations"]["3d_fullres"]["architecture"]
    if key == "conv_op":
        architecture["arch_kwargs"]["conv_op"] = name
    else:
        architecture["network_class_name"] = name
    with pytest.raises(
        ModelError, match=f"{key}: expected a class of torch.nn or .*, got {name}, which is not imported"
    ):
        imported(tmp_path, values={"architecture": architecture})


@pytest.mark.parametrize(
    "argument", [{"nonlin_kwargs": {"_class_": "os.system"}}, {"_members_": ["/etc/passwd"]}, {"_target_": "os.system"}]
)
def test_an_argument_with_a_meaning_for_the_loader_is_refused(tmp_path: Path, argument: dict[str, Any]) -> None:
    architecture = CHEAP.plans["configurations"]["3d_fullres"]["architecture"]
    architecture["arch_kwargs"].update(argument)
    with pytest.raises(ModelError):
        imported(tmp_path, values={"architecture": architecture})


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    secret = tmp_path / "secret.json"
    secret.write_text("{}", encoding="utf-8")
    (source / "dataset.json").unlink()
    (source / "dataset.json").symlink_to(secret)
    with pytest.raises(ModelError, match="leads out"):
        read(source)


def test_a_zip_with_a_name_outside_is_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    archive = exported_zip(source, tmp_path / "model.zip")
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("../outside.txt", "x")
    with pytest.raises(ModelError, match="leads out of the folder"):
        read(archive)
    assert not (tmp_path.parent / "outside.txt").exists()


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    parts = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in parts:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(values: Any, path: tuple[Any, ...], value: object) -> Any:
    copy = json.loads(json.dumps(values))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


@pytest.mark.parametrize("name", ["plans.json", "dataset.json", "postprocessing.json"])
@pytest.mark.parametrize("value", [None, -1, 1.5, True, "x", "", [], [[1]], {}, {"x": 1}], ids=repr)
def test_any_other_value_is_taken_or_refused_in_one_line(tmp_path: Path, name: str, value: object) -> None:
    source = write_source(tmp_path)
    written = {"postprocessing_fns": [PLAIN], "postprocessing_kwargs": [{"labels_or_regions": 1}]}
    (source / "postprocessing.json").write_text(json.dumps(written), encoding="utf-8")
    whole, refused = json.loads((source / name).read_text(encoding="utf-8")), list[str]()
    for path in places(whole):
        (source / name).write_text(json.dumps(changed(whole, path, value)), encoding="utf-8")
        try:
            read(source)
        except (ModelError, UsageError) as error:
            refused.append(str(error))
        except Exception as error:
            raise AssertionError(f"{path}: {error!r}") from error
    assert refused
    assert not any("\n" in message for message in refused)
