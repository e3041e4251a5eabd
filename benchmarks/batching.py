"""Measure shared batches: small concurrent requests to one model over /v2, with and without them.

The network is a long short-term memory, as of a text model: it reads its weights at every step, and a batch reads
them once for all its rows. Both models are the same file on one server, asked in turns; each answer is compared with
that of NumPy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import tritonclient.http.aio as triton
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tritonclient.http import InferInput

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from voxport.adapters.models.bento import BentoTensorModels

from benchmarks.material import machine
from tests.rest.conftest import named_model
from tests.rest.serving import Server, running_server

FEATURES, HIDDEN, STEPS = 64, 768, 128
TOLERANCE = 1e-3
Weights = tuple[NDArray[np.float32], NDArray[np.float32]]  # (4 HIDDEN, FEATURES) and (4 HIDDEN, HIDDEN)


def write_lstm(path: Path) -> Weights:
    """Write a long short-term memory as ONNX, from (n, STEPS, FEATURES) to its last state (n, HIDDEN); its weights."""
    rng = np.random.default_rng(0)
    shapes = (4 * HIDDEN, FEATURES), (4 * HIDDEN, HIDDEN)
    w, r = (rng.uniform(-1, 1, shape).astype(np.float32) / np.sqrt(np.float32(HIDDEN)) for shape in shapes)
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "w", "r"], ["", "last", ""], hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["last", "direction"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", STEPS, FEATURES])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", HIDDEN])
    tensors = {"w": w[None], "r": r[None], "direction": np.array([0])}
    graph = helper.make_graph(nodes, "lstm", [x], [y], [numpy_helper.from_array(t, n) for n, t in tensors.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return w, r


def expected(weights: Weights, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The network's answer, by NumPy; gates in the order of ONNX: input, output, forget, cell."""
    w, r = weights
    hidden = cell = np.zeros((len(rows), HIDDEN), np.float32)
    for step in range(STEPS):
        gates = np.split(rows[:, step] @ w.T + hidden @ r.T, 4, axis=1)
        taken, given, kept = (1 / (1 + np.exp(-gate)) for gate in gates[:3])
        cell = kept * cell + taken * np.tanh(gates[3])
        hidden = given * np.tanh(cell)
    return hidden


async def ask(server: Server, model: str, rows: NDArray[np.float32], at_once: int) -> tuple[float, NDArray[np.float32]]:
    """Seconds until every row is answered by a request of its own, and the answers.

    The client is asyncio's: the one of gevent waits 10 ms between two requests.
    """
    found = np.empty((len(rows), HIDDEN), np.float32)
    waiting = iter(range(len(rows)))

    async def caller(client: triton.InferenceServerClient) -> None:
        for number in waiting:
            tensor = InferInput("x", [1, STEPS, FEATURES], "FP32")
            tensor.set_data_from_numpy(rows[number : number + 1])
            found[number] = (await client.infer(model, [tensor])).as_numpy("y")

    async with triton.InferenceServerClient(server.url.removeprefix("http://"), conn_limit=at_once) as client:
        began = time.perf_counter()
        await asyncio.gather(*(caller(client) for _ in range(at_once)))
        return time.perf_counter() - began, found


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
        weights = write_lstm(folder / "lstm.onnx")
        named_model(folder / "models", "edges")
        store = BentoTensorModels(folder / "bentoml")
        batched = {"run": {"batchable": True, "batch_dim": 0, "max_batch_size": wanted.at_once}}
        store.save_model("shared", folder / "lstm.onnx", signatures=batched)
        store.save_model("alone", folder / "lstm.onnx")
        env = {"VOXPORT_BENTOML_HOME": str(folder / "bentoml")}
        with running_server(folder, "--models", str(folder / "models"), "-m", "edges", env=env) as server:
            for number in range(wanted.rounds + 1):
                rows = np.random.default_rng(number).random((wanted.requests, STEPS, FEATURES)).astype(np.float32)
                right = expected(weights, rows)
                for model, taken in seconds.items():
                    spent, found = asyncio.run(ask(server, model, rows, wanted.at_once))
                    assert np.abs(found - right).max() <= TOLERANCE * np.abs(right).max(), model
                    if number:  # the first round loads the models
                        taken.append(spent)
    rates = {model: wanted.requests / statistics.median(taken) for model, taken in seconds.items()}
    ratios = [alone / shared for shared, alone in zip(seconds["shared"], seconds["alone"], strict=True)]
    findings: dict[str, Any] = {
        "machine": machine(),
        "requests_per_second": rates,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "at_once": wanted.at_once,
    }
    print(f"{findings['machine']['processors']} ({findings['machine']['instructions']})")
    print(f"shared batches: {rates['shared']:.0f} requests/s; alone: {rates['alone']:.0f} requests/s")
    print(f"ratio: {findings['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f}); all answers equal")
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(findings, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
