"""The Open Inference Protocol, asked by the client that people have and by hand, on a started server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import onnx
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException
from voxport.adapters.models.bento import BentoTensorModels
from voxport.entrypoints.cli.main import app
from voxport.testing.tensors import write_sum_onnx

from tests.cli.conftest import AFFINE
from tests.rest.conftest import named_model
from tests.rest.serving import Server, running_server

LENGTH = "Inference-Header-Content-Length"


def _write_text_network(path: Path) -> None:
    """Class logits of int64 tokens: how many of them are even, and how many odd."""
    two = helper.make_tensor("two", TensorProto.INT64, [], [2])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Mod", ["tokens", "two"], ["odd"]),
        helper.make_node("ReduceSum", ["odd", "axes"], ["odds"], keepdims=1),
        helper.make_node("Shape", ["tokens"], ["length"], start=1, end=2),
        helper.make_node("Sub", ["length", "odds"], ["evens"]),
        helper.make_node("Concat", ["evens", "odds"], ["counts"], axis=1),
        helper.make_node("Cast", ["counts"], ["logits"], to=TensorProto.FLOAT),
    ]
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", "length"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph(nodes, "text", inputs, outputs, [two, axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def _write_words_network(path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in ("words", "same"))
    graph = helper.make_graph([helper.make_node("Identity", ["words"], ["same"])], "words", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with two voxport models, and with three of other kinds in BentoML's store."""
    folder = tmp_path_factory.mktemp("v2")
    named_model(folder / "models", "edges")
    named_model(folder / "models", "pair", channels=2)
    store = BentoTensorModels(folder / "bentoml")
    write_sum_onnx(folder / "sum.onnx")
    _write_text_network(folder / "text.onnx")
    _write_words_network(folder / "words.onnx")
    batched = {"run": {"batchable": True, "batch_dim": 0, "max_batch_size": 16}}
    store.save_model("sums:1", folder / "sum.onnx", signatures=batched)
    store.save_model("sums:2", folder / "sum.onnx")
    store.save_model("text:1", folder / "text.onnx")
    store.save_model("words:1", folder / "words.onnx")
    env = {"VOXPORT_BENTOML_HOME": str(folder / "bentoml")}
    with running_server(folder, "--models", str(folder / "models"), "-m", "edges", env=env) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://"), network_timeout=120) as client:
        yield client


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def _tensor(name: str, array: NDArray[Any], *, binary: bool) -> triton.InferInput:
    kinds = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8", "object": "BYTES"}
    tensor = triton.InferInput(name, list(array.shape), kinds[array.dtype.name])
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def test_the_client_sees_a_server_that_lives_and_is_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "voxport"
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]


def test_models_with_and_without_a_card_say_what_they_take(client: triton.InferenceServerClient) -> None:
    edges = client.get_model_metadata("edges")
    assert (edges["name"], edges["versions"]) == ("edges", ["1.0.0"])
    assert edges["inputs"] == [{"name": "volume", "datatype": "FP32", "shape": [-1, -1, -1]}]
    assert [output["name"] for output in edges["outputs"]] == ["labels", "probabilities"]
    text = client.get_model_metadata("text", "1")
    assert text["inputs"] == [{"name": "tokens", "datatype": "INT64", "shape": [-1, -1]}]
    assert text["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 2]}]
    assert client.get_model_metadata("sums")["versions"] == ["1", "2"]
    assert client.is_model_ready("edges")
    assert client.is_model_ready("sums", "1")
    assert not client.is_model_ready("nothing")


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_a_volume_gets_the_labels_of_the_command_line(
    client: triton.InferenceServerClient, server: Server, tmp_path: Path, binary: bool
) -> None:
    values = np.random.default_rng(3).integers(0, 256, (21, 18, 13), np.uint8)
    image = nib.Nifti1Image(values, AFFINE)
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "scan.nii.gz")
    model = server.log.parent / "models" / "edges-1.0.0.onnx"
    files = [str(tmp_path / name) for name in ("scan.nii.gz", "mask.nii.gz", "p.nii.gz")]
    command = ["segment", files[0], "-m", str(model), "-o", files[1], "--probabilities", files[2], "--quiet"]
    app(args=command, standalone_mode=False)
    affine = nib.load(tmp_path / "scan.nii.gz").affine
    parameters = {"affine": ",".join(repr(float(v)) for v in affine.ravel()), "unit": "um"}
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("labels", "probabilities")]
    found = client.infer("edges", [_tensor("volume", values, binary=binary)], outputs=wanted, parameters=parameters)
    mask = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    np.testing.assert_array_equal(found.as_numpy("labels"), mask)
    probabilities = np.moveaxis(np.asarray(nib.load(tmp_path / "p.nii.gz").dataobj), -1, 0)
    np.testing.assert_allclose(found.as_numpy("probabilities"), probabilities, rtol=0, atol=1e-6)


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_int64_tokens_are_inferred(client: triton.InferenceServerClient, binary: bool) -> None:
    tokens = np.array([[1, 2, 3, 4], [2, 2, 2, 2], [7, 7, 8, 9]], np.int64)
    found = client.infer("text", [_tensor("tokens", tokens, binary=binary)], request_id="my-request")
    np.testing.assert_array_equal(found.as_numpy("logits"), [[2, 2], [4, 0], [1, 3]])
    assert found.get_response()["id"] == "my-request"
    assert found.get_response()["model_version"] == "1"


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_texts_go_there_and_back(client: triton.InferenceServerClient, binary: bool) -> None:
    words = np.array(["vein", "Gefäß", ""], object)
    wanted = [triton.InferRequestedOutput("same", binary_data=binary)]
    found = client.infer("words", [_tensor("words", words, binary=binary)], outputs=wanted).as_numpy("same")
    assert [w.decode() if isinstance(w, bytes) else w for w in found] == list(words)


def test_single_patches_give_logits(client: triton.InferenceServerClient) -> None:
    patch = np.random.default_rng(0).random((2, 1, 8, 8, 8)).astype(np.float32)
    found = client.infer("edges", [_tensor("image", patch, binary=True)], parameters={"raw": True}).as_numpy("logits")
    alone = [
        client.infer("edges", [_tensor("image", patch[i : i + 1], binary=True)], parameters={"raw": True})
        for i in range(2)
    ]
    assert found.shape[:1] + found.shape[2:] == (2, 8, 8, 8)
    np.testing.assert_allclose(found, np.concatenate([a.as_numpy("logits") for a in alone]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2**17], ids=["in memory", "from a file"])
def test_small_and_large_bodies_give_every_value_and_are_counted(
    client: triton.InferenceServerClient, http: httpx.Client, rows: int
) -> None:
    def counted() -> float:
        lines = http.get("/metrics").text.splitlines()
        count = 'voxport_tensor_seconds_count{model="sums:2",runtime="onnx"} '
        return next((float(line.removeprefix(count)) for line in lines if line.startswith(count)), 0.0)

    before = counted()
    a, b = np.random.default_rng(rows).random((2, rows, 2)).astype(np.float32)
    found = client.infer("sums", [_tensor("a", a, binary=True), _tensor("b", b, binary=True)], "2")
    np.testing.assert_array_equal(found.as_numpy("sum"), a + b)
    assert counted() == before + 1


def test_concurrent_calls_share_batches_and_get_their_own_answers(client: triton.InferenceServerClient) -> None:
    pairs = [(np.full((1, 3), i, np.float32), np.full((1, 3), 2 * i, np.float32)) for i in range(40)]
    url = client._parsed_url.host, client._parsed_url.port
    with triton.InferenceServerClient(f"{url[0]}:{url[1]}", concurrency=20, network_timeout=120) as many:
        waiting = [
            many.async_infer("sums", [_tensor("a", a, binary=True), _tensor("b", b, binary=True)], model_version="1")
            for a, b in pairs
        ]
        for (a, b), call in zip(pairs, waiting, strict=True):
            found = call.get_result()
            np.testing.assert_array_equal(found.as_numpy("sum"), a + b)
            np.testing.assert_array_equal(found.as_numpy("difference"), a - b)


@pytest.mark.parametrize(
    ("model", "parameters", "named"),
    [
        ("edges", {"spacing": "1,1"}, "spacing"),
        ("edges", {"spacing": "1,1,1", "unit": "inch"}, "unit"),
        ("edges", {"affine": "0," * 15 + "0"}, "affine"),
        ("edges", {"spacing": "1,1,1", "colour": "red"}, "colour"),
        ("edges", {"spacing": "1,1,1", "overlap": 7}, "overlap"),
        ("pair", {"spacing": "1,1,1"}, "2 channel"),
        ("nothing", {}, "nothing"),
    ],
)
def test_what_makes_no_sense_is_named(
    client: triton.InferenceServerClient, model: str, parameters: dict[str, Any], named: str
) -> None:
    volume = _tensor("volume", np.zeros((9, 9, 9), np.float32), binary=True)
    with pytest.raises(InferenceServerException, match=named):
        client.infer(model, [volume], parameters=parameters)


def _entry(**changes: Any) -> dict[str, Any]:
    entry = {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}
    return {key: value for key, value in (entry | changes).items() if value is not None}


B = {"name": "b", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("inputs", "outputs", "named"),
    [
        ([_entry(shape=[10**12])], None, "1000000000000"),
        ([_entry(shape=[10**6, 10**6, 10**6])], None, "1000000000000000000"),
        ([_entry(shape=[-1, 2])], None, "shape"),
        ([_entry(shape=[1.5, 2])], None, "shape"),
        ([_entry(shape=[True, 2])], None, "shape"),
        ([_entry(shape=[1] * 40)], None, "shape"),
        ([_entry(datatype="FP16"), B], None, "a: float16"),
        ([_entry(datatype="FP128")], None, "datatype"),
        ([_entry(data=[1.0, "x"])], None, "data"),
        ([_entry(data=[[1.0], [2.0, 3.0]])], None, "data"),
        ([_entry(datatype="INT64", data=[1.5, 2])], None, "data"),
        ([_entry(data=None)], None, "data"),
        ([_entry(name=5)], None, "name"),
        ([_entry(name="")], None, "name"),
        ([_entry(), _entry()], None, "once"),
        ([_entry()], None, "no b"),
        ([_entry(), B, _entry(name="c")], None, "an input c"),
        ([_entry(), B], [{"name": "product"}], "product"),
        ([_entry(), B], [{"name": 7}], "outputs"),
        ([_entry(name=f"x{i}") for i in range(1000)], None, "64 tensors"),
        ([_entry(parameters={"binary_data_size": 10**12}, data=None)], None, "binary_data_size"),
        ([_entry(parameters={"binary_data_size": "many"}, data=None)], None, "binary_data_size"),
        ([_entry(parameters=[])], None, "parameters"),
        ("text", None, "inputs"),
        ([], None, "inputs"),
    ],
)
def test_hostile_requests_are_answered_in_the_protocols_form(
    http: httpx.Client, inputs: Any, outputs: Any, named: str
) -> None:
    body = {"inputs": inputs} | ({} if outputs is None else {"outputs": outputs})
    answer = http.post("/v2/models/sums/infer", json=body)
    assert answer.status_code in (413, 422), answer.text
    assert named in answer.json()["error"]
    assert answer.json()["detail"] == answer.json()["error"]


@pytest.mark.parametrize(
    ("head", "raw", "length", "named"),
    [
        ({"inputs": [_entry(data=None, parameters={"binary_data_size": 8}), B]}, b"1234", None, "binary_data_size"),
        ({"inputs": [_entry(data=None, parameters={"binary_data_size": 4}), B]}, b"1234", None, "8 bytes"),
        ({"inputs": [_entry(), B]}, b"left over", None, "bytes more"),
        ({"inputs": [_entry(), B]}, b"", "10", "JSON"),
        ({"inputs": [_entry(), B]}, b"", "99999999", "at most the body"),
        ({"inputs": [_entry(), B]}, b"", "-1", LENGTH),
        ({"inputs": [_entry(), B]}, b"", "9" * 30, LENGTH),
        (
            {"inputs": [{"name": "a", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 8}}]},
            (2**31).to_bytes(4, "little") + b"text",
            None,
            "texts",
        ),
    ],
    ids=range(8),
)
def test_lengths_that_lie_are_found_out(
    http: httpx.Client, head: dict[str, Any], raw: bytes, length: str | None, named: str
) -> None:
    first = json.dumps(head).encode()
    headers = {LENGTH: length or str(len(first))}
    answer = http.post("/v2/models/sums/infer", content=first + raw, headers=headers)
    assert answer.status_code == 422, answer.text
    assert named in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/nothing", 404),
        ("GET", "/v2/models/sums/versions/9", 404),
        ("POST", "/v2/models/nothing/infer", 404),
        ("GET", "/v2/models/sums/infer", 405),
        ("GET", "/v2/nowhere", 404),
        ("GET", "/v2/models/..%2F..%2Fetc", 404),
    ],
)
def test_other_paths_and_methods_are_refused_in_the_protocols_form(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = http.request(method, path, json={"inputs": [B]} if method == "POST" else None)
    assert answer.status_code == status
    assert answer.json()["error"] == answer.json()["detail"]


def test_memory_does_not_grow_with_hostile_requests(http: httpx.Client, server: Server) -> None:
    import psutil

    def resident() -> int:
        family = [psutil.Process(server.process.pid)]
        family += family[0].children(recursive=True)
        return sum(process.memory_info().rss for process in family)

    def attack() -> None:
        http.post("/v2/models/sums/infer", json={"inputs": [_entry(shape=[10**12])]})
        http.post("/v2/models/sums/infer", content=b'{"inputs": ' + b"[" * 10**6 + b"]" * 10**6 + b"}")
        http.post("/v2/models/sums/infer", content=b'{"inputs": [' + b"[],[]," * 10**6 + b"[]]}")

    def grown() -> int:
        before = resident()
        for _ in range(10):
            attack()
        return resident() - before

    attack()
    # A worker that is attacked for the first time takes its working memory then; a leak grows every time.
    assert any(grown() < 64 * 2**20 for _ in range(3))


def test_the_pages_examples_run_as_printed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/inference-protocol.md, with the address of the test's server."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "inference-protocol.md").read_text(encoding="utf-8")
    segmenting, saving = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    nib.save(nib.Nifti1Image(np.ones((9, 8, 7), np.float32), AFFINE), tmp_path / "scan.nii.gz")
    write_sum_onnx(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOXPORT_BENTOML_HOME", str(tmp_path / "bentoml"))
    seen: dict[str, Any] = {}
    address = server.url.removeprefix("http://")
    exec(segmenting.replace("127.0.0.1:3000", address).replace("two-photon-vessels", "edges"), seen)
    assert seen["labels"].shape == (9, 8, 7)
    exec(saving, seen)
    assert [spec.name for spec in seen["session"].inputs] == ["a", "b"]
