"""OpenvinoRuntime keeps the InferenceRuntime contract in each precision, refuses what it cannot load, and is silent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import voxport.adapters.runtimes.openvino as module
from onnx import TensorProto, helper
from voxport.adapters.quantisers.onnx import OnnxQuantiser
from voxport.adapters.runtimes.onnx import OnnxRuntimeSettings, open_onnx_runtime
from voxport.adapters.runtimes.openvino import (
    OpenvinoSettings,
    open_openvino_runtime,
    open_openvino_session,
    openvino,
)
from voxport.domain.errors import LimitError, ModelError, UsageError
from voxport.ports.runtime import InferenceRuntime, NetworkRuntime, RuntimeOptions
from voxport.testing.affine import BIAS, WEIGHTS, Floats, affine_card, affine_logits, affine_model, write_affine_onnx
from voxport.testing.runtime import RuntimeContract

from tests.odd_networks import write_network_for_four

BUNDLED = Path(module.__file__).resolve().parents[3] / "bundled" / "two-photon-vessels-0.3.0.onnx"
has_bf16 = "BF16" in openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _opened(path: Path, options: RuntimeOptions | None = None, **settings: object) -> InferenceRuntime:
    model = affine_model(path, affine_card(1, 2))
    return open_openvino_runtime(model, options or RuntimeOptions(), OpenvinoSettings(**settings))  # type: ignore[arg-type]


class TestOpenvinoRuntime(RuntimeContract):
    settings = OpenvinoSettings()

    def open_affine(self, folder: Path, weights: Floats, bias: Floats, options: RuntimeOptions) -> InferenceRuntime:
        path = folder / "affine.onnx"
        write_affine_onnx(path, weights, bias)
        model = affine_model(path, affine_card(weights.shape[1], weights.shape[0]))
        return open_openvino_runtime(model, options, self.settings)


@pytest.mark.skipif(not has_bf16, reason="this processor has no bf16")
class TestOpenvinoRuntimeInBf16(TestOpenvinoRuntime):
    tolerance = 0.1
    precision = "bf16"


class TestOpenvinoRuntimeOverAQuantisedNetwork(TestOpenvinoRuntime):
    """The contract's network is not quantised: it is computed in the best that there is for what is not."""

    tolerance = 0.1
    precision = "int8"


class TestOpenvinoRuntimeWithTwoStreams(TestOpenvinoRuntime):
    settings = OpenvinoSettings(streams=2)


class TestOpenvinoRuntimeWithACache(TestOpenvinoRuntime):
    def open_affine(self, folder: Path, weights: Floats, bias: Floats, options: RuntimeOptions) -> InferenceRuntime:
        self.settings = OpenvinoSettings(cache=folder / "cache" / "openvino")
        super().open_affine(folder, weights, bias, options).close()
        again = super().open_affine(folder, weights, bias, options)
        assert list((folder / "cache" / "openvino").iterdir())
        return again


@pytest.mark.parametrize("shape", [(1, 1, 32, 32, 16), (2, 1, 48, 16, 32)])
def test_the_bundled_network_scores_as_with_onnx_runtime(shape: tuple[int, ...]) -> None:
    model = affine_model(BUNDLED, affine_card(1, 2))
    batch = np.random.default_rng(0).random(shape, np.float32)
    expected = open_onnx_runtime(model, RuntimeOptions(threads=1), OnnxRuntimeSettings()).infer(batch)
    np.testing.assert_allclose(_opened(BUNDLED).infer(batch), expected, rtol=0, atol=1e-4)


def test_a_size_scores_the_same_to_the_last_bit_whatever_was_scored_before() -> None:
    runtime = _opened(BUNDLED)
    first, second = (np.random.default_rng(0).random((1, 1, *s), np.float32) for s in ((32, 16, 16), (16, 32, 16)))
    before = runtime.infer(first)
    runtime.infer(second)
    np.testing.assert_array_equal(runtime.infer(first), before)


def _save(path: Path, node: onnx.NodeProto, kind: int, dims: list[str | int | None]) -> None:
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", kind, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.mark.parametrize(
    ("kind", "dims", "node"),
    [
        (TensorProto.FLOAT, ["n", 1, "a", "b"], helper.make_node("Relu", ["x"], ["y"])),
        (TensorProto.DOUBLE, ["n", 1, "a", "b", "c"], helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)),
    ],
    ids=["rank 4", "float64"],
)
def test_a_network_with_another_kind_of_input_is_refused(
    tmp_path: Path, kind: int, dims: list[str | int | None], node: onnx.NodeProto
) -> None:
    path = tmp_path / "odd.onnx"
    _save(path, node, kind, dims)
    with pytest.raises(ModelError, match="one float32 input") as caught:
        _opened(path)
    assert "x: f" in caught.value.got


@pytest.mark.parametrize("content", [b"", b"no model"])
def test_a_file_that_cannot_be_loaded_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx") as caught:
        _opened(path)
    assert "\n" not in str(caught.value)


def test_fixed_axes_are_declared_and_kept_to(tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    _save(path, helper.make_node("Relu", ["x"], ["y"]), TensorProto.FLOAT, ["n", 1, 8, 16, 4])
    runtime = _opened(path)
    assert runtime.input_shape == (None, 1, 8, 16, 4)
    with pytest.raises(ModelError, match="any, 1, 8, 16, 4"):
        runtime.infer(np.zeros((1, 1, 8, 8, 4), np.float32))


def test_a_network_that_fails_on_a_batch_is_a_model_error_and_the_next_batch_is_scored(tmp_path: Path) -> None:
    path = tmp_path / "reshape.onnx"
    write_network_for_four(path)
    runtime = _opened(path)
    with pytest.raises(ModelError, match="patch and divisor") as caught:
        runtime.infer(np.zeros((1, 1, 3, 4, 4), np.float32))
    assert "\n" not in str(caught.value)
    assert runtime.infer(np.ones((1, 1, 4, 4, 4), np.float32)).sum() == 64


def test_too_little_memory_is_a_limit_error() -> None:
    class Compiled:
        compiled = openvino().Core().compile_model(str(BUNDLED), "CPU")
        inputs, outputs = compiled.inputs, compiled.outputs

        def create_infer_request(self) -> object:
            return self

        def infer(self, *_: object, **__: object) -> None:
            raise RuntimeError("Check 'ptr' failed: Failed to allocate 8589934592 bytes of memory")

    with pytest.raises(LimitError, match="smaller patch"):
        NetworkRuntime(module.OpenvinoSession(Compiled(), Compiled(), "m.onnx"), "m.onnx").infer(
            np.zeros((1, 1, 16, 16, 16), np.float32)
        )


class _WithoutBf16:
    """A core on a processor that has no bf16."""

    def get_property(self, device: str, name: str) -> list[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return ["FP32", "INT8", "BIN"]


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int4"])
def test_a_precision_that_the_processor_lacks_is_refused_with_those_it_has(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr(openvino(), "Core", _WithoutBf16)
    with pytest.raises(UsageError, match="fp32, int8") as caught:
        _opened(BUNDLED, RuntimeOptions(precision))
    assert caught.value.got == precision


def test_where_openvino_is_missing_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxport.adapters.runtimes.openvino.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="pip install openvino"):
        _opened(BUNDLED)


SENDING = (
    "import sys, os, subprocess, threading\n"
    "events = ('socket.connect', 'socket.getaddrinfo', 'urllib.Request', 'os.fork', 'subprocess.Popen')\n"
    "sys.addaudithook(lambda event, arguments: os._exit(99) if event in events else None)\n"
)


def _python(code: str, home: Path) -> int:
    """Exit code of a process whose home is ``home``, and which runs in no continuous integration that it knows of."""
    env = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")} | {"HOME": str(home)}
    return subprocess.run([sys.executable, "-c", code], env=env, cwd=home, check=False).returncode


def test_openvino_by_itself_reports_its_import_and_marks_the_users_home(tmp_path: Path) -> None:
    """Without this the next test would prove nothing."""
    assert (
        _python(f"{SENDING}import openvino, time\nfor thread in threading.enumerate()[1:]: thread.join(9)", tmp_path)
        == 99
    )
    assert (tmp_path / "intel").exists()


@pytest.mark.parametrize("after", ["", "import openvino.tools.ovc\n", "from openvino import convert_model\n"])
def test_importing_it_our_way_reports_nothing_and_leaves_the_home_alone(tmp_path: Path, after: str) -> None:
    code = (
        f"{SENDING}from voxport.adapters.runtimes.openvino import openvino\n"
        f"try:\n    openvino().Core()\n    {after or 'pass'}\nexcept ImportError:\n    pass\n"
        "for thread in threading.enumerate()[1:]: thread.join(9)"
    )
    assert _python(code, tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


LIMITED = {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2"}


def test_where_onednn_is_limited_to_avx2_there_is_no_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO offers it on a processor that has it, and its results are arbitrary numbers."""
    write_affine_onnx(tmp_path / "affine.onnx", WEIGHTS, BIAS)
    for name, limit in LIMITED.items():
        monkeypatch.setenv(name, limit)
    with pytest.raises(UsageError, match="bf16"):
        open_openvino_session(tmp_path / "affine.onnx", RuntimeOptions("bf16"), OpenvinoSettings())


def test_int8_of_a_reduced_range_is_right_where_sums_of_products_saturate(tmp_path: Path) -> None:
    """OpenVINO limited to AVX2, in a process of its own: inputs span 2 in 255 steps, weights 4 in 128."""
    write_affine_onnx(tmp_path / "affine.onnx", WEIGHTS, BIAS)
    model = affine_model(tmp_path / "affine.onnx", affine_card(2, 3))
    batch = np.random.default_rng(0).uniform(-1, 1, (1, 2, 4, 5, 6)).astype(np.float32)
    next(OnnxQuantiser(reduce_range=True).quantise(model, [batch], tmp_path / "int8.onnx"))
    np.save(tmp_path / "batch.npy", batch)
    code = """
from pathlib import Path
import numpy as np
from voxport.adapters.runtimes.openvino import OpenvinoSettings, open_openvino_session
from voxport.ports.runtime import RuntimeOptions
session = open_openvino_session(Path("int8.onnx"), RuntimeOptions("int8"), OpenvinoSettings())
(result,) = session.run({"image": np.load("batch.npy")}).values()
np.save("found.npy", result)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | LIMITED, check=True)
    exact = affine_logits(batch, WEIGHTS, BIAS)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), exact, rtol=0, atol=0.05)
