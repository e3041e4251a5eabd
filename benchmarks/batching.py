"""Measure shared batches: small concurrent requests to one model over /v2, with and without them.

The network is a perceptron whose time is dominated by reading its weights: a batch reads them once for all its rows.
Both models are the same file on one server, asked in turns; each answer is compared with NumPy's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import tritonclient.http as triton
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from voxport.adapters.models.bento import BentoTensorModels

from tests.rest.conftest import named_model
from tests.rest.serving import Server, running_server

WIDTH, LAYERS = 1024, 6
TOLERANCE = 1e-3


def write_perceptron(path: Path) -> list[NDArray[np.float32]]:
    """Write the network as ONNX; its weights."""
    rng = np.random.default_rng(0)
    weights = [(rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32) for _ in range(LAYERS)]
    nodes, name = [], "x"
    for layer in range(LAYERS):
        last = layer == LAYERS - 1
        nodes.append(helper.make_node("MatMul", [name, f"w{layer}"], ["y" if last else f"m{layer}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]))
        name = f"r{layer}"
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", WIDTH]) for n in "xy"]
    tensors = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = helper.make_graph(nodes, "perceptron", values[:1], values[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return weights


def expected(weights: list[NDArray[np.float32]], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The network's answer, by NumPy."""
    for weight in weights[:-1]:
        rows = np.maximum(rows @ weight, 0)
    return rows @ weights[-1]


def ask(server: Server, model: str, rows: NDArray[np.float32], at_once: int) -> tuple[float, NDArray[np.float32]]:
    """Seconds until every row is answered by a request of its own, and the answers."""
    address = server.url.removeprefix("http://")
    with triton.InferenceServerClient(address, concurrency=at_once, network_timeout=300) as client:
        began = time.perf_counter()
        waiting = []
        for row in rows:
            tensor = triton.InferInput("x", [1, WIDTH], "FP32")
            tensor.set_data_from_numpy(row[None])
            waiting.append(client.async_infer(model, [tensor]))
        found = [call.get_result().as_numpy("y") for call in waiting]
        return time.perf_counter() - began, np.concatenate(found)


def main() -> None:
    """Print requests a second with and without shared batches, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    seconds: dict[str, list[float]] = {"shared": [], "alone": []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        weights = write_perceptron(folder / "perceptron.onnx")
        named_model(folder / "models", "edges")
        store = BentoTensorModels(folder / "bentoml")
        batched = {"run": {"batchable": True, "batch_dim": 0, "max_batch_size": wanted.at_once}}
        store.save_model("shared", folder / "perceptron.onnx", signatures=batched)
        store.save_model("alone", folder / "perceptron.onnx")
        env = {"VOXPORT_BENTOML_HOME": str(folder / "bentoml")}
        with running_server(folder, "--models", str(folder / "models"), "-m", "edges", env=env) as server:
            for number in range(wanted.rounds + 1):
                rows = np.random.default_rng(number).random((wanted.requests, WIDTH)).astype(np.float32)
                right = expected(weights, rows)
                for model, taken in seconds.items():
                    spent, found = ask(server, model, rows, wanted.at_once)
                    assert np.abs(found - right).max() <= TOLERANCE * np.abs(right).max(), model
                    if number:  # the first round loads the models
                        taken.append(spent)
    rates = {model: wanted.requests / statistics.median(taken) for model, taken in seconds.items()}
    ratios = [alone / shared for shared, alone in zip(seconds["shared"], seconds["alone"], strict=True)]
    findings: dict[str, Any] = {
        "requests_per_second": rates,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "at_once": wanted.at_once,
    }
    print(f"shared batches: {rates['shared']:.0f} requests/s; alone: {rates['alone']:.0f} requests/s")
    print(f"ratio: {findings['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f}); all answers equal")
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(findings, indent=2) + "\n")


if __name__ == "__main__":
    main()
