"""bioimage.io packages: what they say in a card's words, and their test tensors; and packages that mean harm."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import voxport
import yaml
from onnx import TensorProto, helper, numpy_helper
from voxport.adapters.importers.bioimageio import BioimageioImporter
from voxport.adapters.models.onnx_files import OnnxModelFiles
from voxport.application import Application
from voxport.domain.errors import ModelError, UsageError
from voxport.domain.intensity import ClipPercentiles, Rescale, ShiftScale, Step, Window, ZScore
from voxport.ports.exporter import Checkpoint
from voxport.ports.importer import ImportChoices, Imported
from voxport.testing.importer import ModelImporterContract
from voxport.testing.progress import RecordingProgress

Description = dict[str, Any]
SHAPE = (1, 1, 8, 12, 16)  # of the test tensors: batch, channel, z, y, x
VALUES = np.random.default_rng(3).normal(100, 20, SHAPE).astype(np.float32)


def kernel(order: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Weights ``(1, 1, 1, 3, 1)`` along y, for space axes in some order."""
    shape = [1, 1, *(3 if axis == "y" else 1 for axis in order)]
    return np.array([0.5, 2, -0.5], np.float32).reshape(shape)


def write_weights(path: Path, order: str = "zyx") -> None:
    edges: list[str | int] = ["n", 1, *order]
    pads = [int(axis == "y") for axis in order]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weights"], ["logits"], pads=[*pads, *pads])],
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, edges)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, edges)],
        [numpy_helper.from_array(kernel(order), "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def expected_output(values: np.ndarray[Any, Any], axis: int = 3) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Sigmoid of the correlation along y of the z-scored values."""
    scored = (values - values.mean()) / values.std()
    padded = np.pad(scored, [(int(i == axis), int(i == axis)) for i in range(5)])
    n = values.shape[axis]
    parts = [np.take(padded, np.arange(i, i + n), axis) * w for i, w in enumerate((0.5, 2, -0.5))]
    return (1 / (1 + np.exp(-sum(parts)))).astype(np.float32)


def write_package(folder: Path, change: Callable[[Description], None] = lambda _: None) -> Path:
    """Write a package of format 0.5 that segments by z-score, a convolution along y, and a sigmoid."""
    write_weights(folder / "weights.onnx")
    np.save(folder / "in.npy", VALUES)
    np.save(folder / "out.npy", expected_output(VALUES))
    (folder / "README.md").write_text("# Validation\nNone.\n", encoding="utf-8")
    size = {"min": 8, "step": 4}
    space = [
        {"type": "space", "id": name, "size": dict(size), "unit": "micrometer", "scale": 1.0 if name == "z" else 0.5}
        for name in "zyx"
    ]
    result = [
        {**axis, "size": {"tensor_id": "raw", "axis_id": axis["id"]}, **({"halo": 2} if axis["id"] == "y" else {})}
        for axis in space
    ]
    channel = {"type": "channel", "id": "channel"}
    description: Description = {
        "type": "model",
        "format_version": "0.5.3",
        "name": "Nuclei in 3D",
        "description": "Finds nuclei.",
        "authors": [{"name": "A. Author"}],
        "cite": [{"text": "A paper", "doi": "10.1234/abcd"}],
        "license": "MIT",
        "documentation": "README.md",
        "inputs": [
            {
                "id": "raw",
                "axes": [{"type": "batch"}, {**channel, "channel_names": ["nuclei"]}, *space],
                "preprocessing": [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["x", "y", "z"]}}],
                "test_tensor": {"source": "in.npy", "sha256": sha256(folder / "in.npy")},
                "data": {"type": "float32"},
            }
        ],
        "outputs": [
            {
                "id": "mask",
                "axes": [{"type": "batch"}, {**channel, "channel_names": ["nucleus"]}, *result],
                "postprocessing": [{"id": "sigmoid"}],
                "test_tensor": {"source": "out.npy", "sha256": sha256(folder / "out.npy")},
                "data": {"type": "float32"},
            }
        ],
        "weights": {"onnx": {"source": "weights.onnx", "sha256": sha256(folder / "weights.onnx"), "opset_version": 17}},
    }
    change(description)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    return folder


def read(source: Path, choices: ImportChoices | None = None) -> Imported:
    unpacked = source.parent / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    return BioimageioImporter(OnnxModelFiles()).read(source, choices or ImportChoices(), unpacked)


def run_import(source: Path, tmp_path: Path) -> Any:
    application = Application.build(models_dir=tmp_path / "models")
    return application.import_model(source, tmp_path / "model.onnx", RecordingProgress())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "package"
    made.mkdir()
    return made


class TestBioimageioImporter(ModelImporterContract):
    def make_importer(self) -> BioimageioImporter:
        return BioimageioImporter(OnnxModelFiles())

    def make_source(self, folder: Path) -> Path:
        return write_package(folder)

    def damage(self, source: Path) -> None:
        path = source / "rdf.yaml"
        path.write_bytes(path.read_bytes()[:200])


# bioimageio.spec 0.5.12 gives serializers of pydantic an argument that pydantic 2.14 refuses: these leave it out.
_ORACLE = """
import sys
from bioimageio.spec._internal import io_packaging
from bioimageio.spec.model import v0_4
def file(value, handler, info):
    found = handler(value)
    found["source"] = _package(value.source, info, sha256=value.sha256)
    return found
def weights(value, handler, info):
    return handler(value)
io_packaging.package_file_descr_serializer.__code__ = file.__code__
v0_4.package_weights.__code__ = weights.__code__
from bioimageio.core import test_description
summary = test_description(sys.argv[1])
print(summary.format())
sys.exit(summary.status != "passed")
"""


def run_oracle(source: Path) -> None:
    """Run ``bioimageio test`` on a package, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _ORACLE, str(source)], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_the_tests_own_package_is_one_that_bioimageio_runs(folder: Path) -> None:
    run_oracle(write_package(folder) / "rdf.yaml")


def test_a_package_is_read_as_a_card(folder: Path) -> None:
    card = read(write_package(folder)).card
    assert (card.reference, card.licence, card.authors) == ("nuclei-in-3d:1.0.0", "MIT", ("A. Author",))
    assert card.citation == "A paper 10.1234/abcd"
    assert (card.input.spacing, card.input.spacing_unit, card.input.axes) == ((0.5, 0.5, 1.0), "um", "ZYX")
    assert (card.tiling.patch, card.tiling.divisors) == ((16, 12, 8), (4, 4, 4))
    assert [label.name for label in card.output.table.labels] == ["nucleus"]
    assert card.output.activation == "sigmoid"


def test_a_package_with_test_tensors_imports_and_its_labels_are_its_authors(folder: Path, tmp_path: Path) -> None:
    done = run_import(write_package(folder), tmp_path)
    assert done.exported.model.card.parity is not None
    with voxport.load(str(tmp_path / "model.onnx")) as segmenter:
        found = segmenter(VALUES[0, 0].transpose(), spacing=(0.5, 0.5, 1), unit="um")
    np.testing.assert_array_equal(found.labels.array, expected_output(VALUES)[0, 0].transpose() >= 0.5)


@pytest.mark.parametrize("form", ["folder", "zip", "file", "zip with a folder"])
def test_a_folder_a_zip_and_its_description_are_the_same_package(folder: Path, tmp_path: Path, form: str) -> None:
    source = write_package(folder)
    expected = read(source).card
    if form == "file":
        source = source / "rdf.yaml"
    elif form.startswith("zip"):
        base = tmp_path if form == "zip with a folder" else folder
        parts = sorted(folder.iterdir())
        source = tmp_path / "package.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for part in parts:
                archive.write(part, part.relative_to(base))
    assert BioimageioImporter(OnnxModelFiles()).recognises(source)
    assert read(source).card == expected


def test_test_tensors_that_do_not_fit_the_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    np.save(folder / "wrong.npy", expected_output(VALUES) + 0.1)

    def change(description: Description) -> None:
        description["outputs"][0]["test_tensor"] = {"source": "wrong.npy", "sha256": sha256(folder / "wrong.npy")}

    with pytest.raises(ModelError, match="test tensor of mask"):
        run_import(write_package(folder, change), tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_axes_in_another_order_are_transposed_in_the_graph(folder: Path, tmp_path: Path) -> None:
    source = write_package(folder)
    description = yaml.safe_load((source / "rdf.yaml").read_text(encoding="utf-8"))
    write_weights(source / "weights.onnx", "yxz")
    description["weights"]["onnx"]["sha256"] = sha256(source / "weights.onnx")
    for side, name in (("inputs", "in.npy"), ("outputs", "out.npy")):
        tensor = description[side][0]
        tensor["axes"] = [tensor["axes"][i] for i in (0, 1, 3, 4, 2)]
        np.save(source / name, np.load(source / name).transpose(0, 1, 3, 4, 2))
        tensor["test_tensor"]["sha256"] = sha256(source / name)
    (source / "rdf.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    run_import(source, tmp_path)
    with voxport.load(str(tmp_path / "model.onnx")) as segmenter:
        found = segmenter(VALUES[0, 0].transpose(), spacing=(0.5, 0.5, 1), unit="um")
    np.testing.assert_array_equal(found.labels.array, expected_output(VALUES)[0, 0].transpose() >= 0.5)


def test_a_package_of_format_0_4_is_read(folder: Path, tmp_path: Path) -> None:
    source = write_package(folder)
    description = yaml.safe_load((source / "rdf.yaml").read_text(encoding="utf-8"))
    zeros = [0, 0, 0, 0, 0]
    description |= {
        "format_version": "0.4.10",
        "test_inputs": ["in.npy"],
        "test_outputs": ["out.npy"],
        "inputs": [
            {
                "name": "raw",
                "axes": "bczyx",
                "data_type": "float32",
                "shape": {"min": [1, 1, 8, 8, 8], "step": [0, 0, 4, 4, 4]},
                "preprocessing": [{"name": "zero_mean_unit_variance", "kwargs": {"mode": "per_sample", "axes": "xyz"}}],
            }
        ],
        "outputs": [
            {
                "name": "mask",
                "axes": "bczyx",
                "data_type": "float32",
                "halo": zeros,
                "shape": {"reference_tensor": "raw", "scale": [1, 1, 1, 1, 1], "offset": zeros},
                "postprocessing": [{"name": "sigmoid"}],
            }
        ],
    }
    (source / "rdf.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    card = run_import(source, tmp_path).exported.model.card
    assert card.input.spacing is None
    assert card.input.intensity == (ZScore(),)


def test_external_data_becomes_part_of_the_file(folder: Path, tmp_path: Path) -> None:
    source = write_package(folder)
    model = onnx.load(source / "weights.onnx")
    onnx.save(model, source / "weights.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    description = yaml.safe_load((source / "rdf.yaml").read_text(encoding="utf-8"))
    description["weights"]["onnx"]["sha256"] = sha256(source / "weights.onnx")
    (source / "rdf.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    assert (source / "weights.bin").is_file()
    run_import(source, tmp_path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_weights_are_exported(folder: Path, tmp_path: Path) -> None:
    layer = torch.nn.Conv3d(1, 1, (1, 3, 1), padding=(0, 1, 0), bias=False)
    layer.weight.data = torch.from_numpy(kernel("zyx"))
    torch.jit.save(torch.jit.trace(layer, torch.zeros(SHAPE)), folder / "weights.pt")  # type: ignore[no-untyped-call]

    def change(description: Description) -> None:
        entry = {"source": "weights.pt", "sha256": sha256(folder / "weights.pt"), "pytorch_version": "2.0"}
        description["weights"] = {"torchscript": entry}

    assert isinstance(read(write_package(folder, change)).network, Checkpoint)
    run_import(folder, tmp_path)


def preprocessed(steps: list[Description]) -> Callable[[Description], None]:
    def change(description: Description) -> None:
        description["inputs"][0]["preprocessing"] = steps

    return change


SPACE = {"axes": ["x", "y", "z"]}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"id": "clip", "kwargs": {"min": -100, "max": 400}}], (Window(-100, 400),)),
        ([{"id": "clip", "kwargs": {"min_percentile": 1, "max_percentile": 99}}], (ClipPercentiles(1, 99),)),
        ([{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}], ()),
        ([{"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 3, "std": 2}}], (ZScore("all", 3, 2),)),
        ([{"id": "scale_linear", "kwargs": {"gain": 0.5, "offset": -1}}], (ShiftScale(-2, 0.5),)),
        ([{"id": "scale_range", "kwargs": SPACE}], (Rescale(0, 1),)),
        (
            [
                {"id": "scale_range", "kwargs": {**SPACE, "min_percentile": 1, "max_percentile": 99.8}},
                {"id": "clip", "kwargs": {"min": 0, "max": 1}},
            ],
            (ClipPercentiles(1, 99.8), Rescale(0, 1)),
        ),
        ([{"id": "zero_mean_unit_variance"}], (ZScore(),)),
    ],
)
def test_steps_before_the_network_become_intensity_steps(
    folder: Path, steps: list[Description], expected: tuple[Step, ...]
) -> None:
    assert read(write_package(folder, preprocessed(steps))).card.input.intensity == expected


@pytest.mark.parametrize(
    "step",
    [
        {"id": "binarize", "kwargs": {"threshold": 3}},
        {"id": "sigmoid"},
        {"id": "softmax"},
        {"id": "ensure_dtype", "kwargs": {"dtype": "uint8"}},
        {"id": "scale_range", "kwargs": {**SPACE, "min_percentile": 1, "max_percentile": 99}},
        {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["x", "y"]}},
        {"id": "zero_mean_unit_variance", "kwargs": {"mode": "per_dataset", "axes": "xyz"}},
        {"id": "custom", "source": "steps.py", "callable": "run", "sha256": "0"},
    ],
)
def test_a_step_that_a_card_cannot_say_is_refused_by_name(folder: Path, step: Description) -> None:
    with pytest.raises(ModelError, match=f"preprocessing.*{step['id']}"):
        read(write_package(folder, preprocessed([step])))


def test_statistics_behind_another_step_are_refused(folder: Path) -> None:
    steps: list[Description] = [{"id": "clip", "kwargs": {"min": 0, "max": 1}}, {"id": "zero_mean_unit_variance"}]
    with pytest.raises(ModelError, match="behind another step"):
        read(write_package(folder, preprocessed(steps)))


def write_output(folder: Path, array: np.ndarray[Any, Any], steps: list[Description], names: list[str]) -> Path:
    np.save(folder / "stated.npy", array.astype(np.float32))

    def change(description: Description) -> None:
        output = description["outputs"][0]
        output["postprocessing"] = steps
        output["axes"][1]["channel_names"] = names
        output["test_tensor"] = {"source": "stated.npy"}

    return write_package(folder, change)


HALF = np.full((1, 2, *SHAPE[2:]), 0.5)
BINARY = {"id": "binarize", "kwargs": {"threshold": 0.3}}


@pytest.mark.parametrize(
    ("array", "steps", "names", "expected"),
    [
        (HALF, [{"id": "softmax"}], ["background", "cell"], ("softmax", ["cell"], 0.5)),
        (HALF, [{"id": "sigmoid"}], ["cell", "edge"], ("sigmoid", ["cell", "edge"], 0.5)),
        (HALF, [{"id": "sigmoid"}, BINARY], ["cell", "edge"], ("sigmoid", ["cell", "edge"], 0.3)),
        (HALF, [], ["background", "cell"], ("none", ["cell"], 0.5)),
        (HALF * 0.8, [], ["cell", "edge"], ("none", ["cell", "edge"], 0.5)),
        (HALF * 8 - 9, [], ["background", "cell"], ("softmax", ["cell"], 0.5)),
        (HALF[:, :1] * 6, [], ["labels"], ("labels", ["label 3"], 0.5)),
    ],
)
def test_steps_after_the_network_and_its_values_give_the_activation(
    folder: Path, array: np.ndarray[Any, Any], steps: list[Description], names: list[str], expected: tuple[Any, ...]
) -> None:
    output = read(write_output(folder, array, steps, names)).card.output
    assert (output.activation, [label.name for label in output.table.labels], output.threshold) == expected


@pytest.mark.parametrize("steps", [[], [{"id": "scale_range"}], [{"id": "sigmoid"}, {"id": "sigmoid"}]])
def test_an_output_that_cannot_be_labels_is_refused(folder: Path, steps: list[Description]) -> None:
    with pytest.raises(ModelError, match=r"outputs|postprocessing"):
        read(write_output(folder, HALF[:, :1] * 8 - 2.5, steps, ["cell"]))


def test_a_network_for_2d_images_is_refused_with_what_to_do(folder: Path) -> None:
    def change(description: Description) -> None:
        for side in ("inputs", "outputs"):
            del description[side][0]["axes"][2]

    with pytest.raises(ModelError, match=r"axes batch, channel, z, y and x.*batch channel y x"):
        read(write_package(folder, change))


def test_several_outputs_need_a_choice(folder: Path) -> None:
    def change(description: Description) -> None:
        description["outputs"].append({**description["outputs"][0], "id": "other"})

    write_package(folder, change)
    model = onnx.load(folder / "weights.onnx")
    model.graph.node.append(helper.make_node("Identity", ["logits"], ["second"]))
    second = onnx.ValueInfoProto.FromString(model.graph.output[0].SerializeToString())
    second.name = "second"
    model.graph.output.append(second)
    onnx.save(model, folder / "weights.onnx")
    description = yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))
    description["weights"]["onnx"]["sha256"] = sha256(folder / "weights.onnx")
    (folder / "rdf.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    with pytest.raises(UsageError, match="mask, other"):
        read(folder)
    assert read(folder, ImportChoices(output="other")).card.output.tensor == "1"


def hostile(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "rdf.yaml"
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")

    return change


def weights(**entry: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        description = yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))
        description["weights"] = {"onnx": {**description["weights"]["onnx"], **entry}}
        (folder / "rdf.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")

    return change


def link_outside(folder: Path) -> None:
    shutil.move(folder / "weights.onnx", folder.parent / "secret.onnx")
    (folder / "weights.onnx").symlink_to(folder.parent / "secret.onnx")


def state_dict(folder: Path) -> None:
    description = yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))
    description["weights"] = {"pytorch_state_dict": {"source": "weights.pt", "architecture": {"source": "net.py"}}}
    (folder / "rdf.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    (folder / "net.py").write_text("raise SystemExit", encoding="utf-8")


def external_outside(folder: Path) -> None:
    path = folder / "weights.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    shutil.move(folder / "weights.bin", folder.parent / "weights.bin")
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../weights.bin"
    path.write_bytes(model.SerializeToString())
    weights(sha256=sha256(path))(folder)


def pickled(folder: Path) -> None:
    np.save(folder / "in.npy", np.array([{"a": 1}], object), allow_pickle=True)
    description = yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))
    description["inputs"][0]["test_tensor"] = {"source": "in.npy"}
    (folder / "rdf.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (hostile("run: !!python/object/apply:os.system ['touch ran']\n"), "plain data"),
        (weights(source="https://example.org/weights.onnx"), "nothing is fetched"),
        (weights(source="../secret.onnx"), "leads out"),
        (weights(source="/etc/passwd"), "leads out"),
        (weights(sha256="0" * 64), "sha256"),
        (link_outside, "leads out"),
        (external_outside, "leads out"),
        (state_dict, "the package's own code"),
        (pickled, "numbers"),
    ],
)
def test_harm_is_refused_in_one_line_and_nothing_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None], reason: str
) -> None:
    monkeypatch.chdir(folder)
    write_package(folder)
    harm(folder)
    with pytest.raises(ModelError, match=reason) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("field", ["inputs", "outputs", "weights", "authors", "config", "cite", "format_version"])
@pytest.mark.parametrize(
    "value", [None, 3, "text", [], [1], {}, {"onnx": 3}, [{"axes": 3}], [{"id": "a", "axes": [1]}]]
)
def test_a_description_of_another_form_is_read_or_refused_in_one_line(folder: Path, field: str, value: Any) -> None:
    def change(description: Description) -> None:
        description[field] = value

    error = None
    try:
        read(write_package(folder, change))
    except (ModelError, UsageError) as caught:
        error = str(caught)
    assert "\n" not in (error or "")
    assert (error is None) == (field in ("authors", "config", "cite"))


def test_a_zip_with_names_outside_its_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    write_package(folder)
    source = tmp_path / "slip.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.write(folder / "rdf.yaml", "rdf.yaml")
        archive.writestr("../evil.txt", "x")
    with pytest.raises(ModelError, match="leads out"):
        read(source)
    assert not list(tmp_path.rglob("evil.txt"))
