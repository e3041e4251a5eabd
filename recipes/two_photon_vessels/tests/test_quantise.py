"""The network in integers: one file, the same bits in every runtime."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import voxport as package
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from voxport.contract.card import read_card
from voxport.ports.exporter import Checkpoint
from voxport.services.models.export import ExportResult
from voxport.testing.progress import RecordingProgress

from ..model import VesselNet, picture_views
from ..quantise import LARGEST_WEIGHT, LIGHT_LEVELS, SMOKE, Bytes, IntegerVesselNet, best_steps, quantise
from ..train import SMOKE as SMOKE_TRAINING
from ..train import train

CARD = Path(__file__).parents[1] / "card.yaml"


@dataclass(frozen=True)
class Run:
    """What a smoke run leaves: the network, and the file exported from it."""

    weights: Path
    network: IntegerVesselNet
    exported: ExportResult

    @property
    def graph(self) -> onnx.ModelProto:
        return onnx.load(self.exported.model.path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    train(SMOKE_TRAINING, folder, workers=1)
    weights = quantise(SMOKE, SMOKE_TRAINING, folder, workers=1)
    network = IntegerVesselNet(SMOKE_TRAINING.widths)
    network.load_state_dict(torch.load(weights, weights_only=True))
    described = {"_target_": f"{IntegerVesselNet.__module__}.IntegerVesselNet", "widths": list(SMOKE_TRAINING.widths)}
    card = read_card(yaml.safe_load(CARD.read_text(encoding="utf-8")))
    application = package.Application.build()
    exported = application.export(Checkpoint(weights, described), card, folder / "vessels.onnx", RecordingProgress())
    return Run(weights, network.eval(), exported)


def test_a_repeated_run_gives_the_same_weights(run: Run) -> None:
    again = quantise(SMOKE, SMOKE_TRAINING, run.weights.parent, workers=1)
    first, second = run.network.state_dict(), torch.load(again, weights_only=True)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_file_is_certified_in_fp32_without_any_difference(run: Run) -> None:
    verification = run.exported.verification
    fp32 = [r for r in (verification.entry, *verification.others) if r.precision == "fp32"]
    assert {r.runtime for r in fp32} >= {"onnx"}
    assert [r.parity.max_probability_difference for r in fp32] == [0.0] * len(fp32)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_runtime_gives_the_bits_of_the_fake_quantised_network(run: Run, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    application = package.Application.build()
    loaded = application.load_model(run.exported.model, runtime=runtime, precision="fp32")
    picture = np.random.default_rng(4).random((2, 1, 48, 32, 7), np.float32)
    with torch.inference_mode():
        expected = run.network(torch.from_numpy(picture)).numpy()
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(loaded.runtime.infer(picture), expected)


@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE"])
def test_openvino_gives_the_same_bits_with_fewer_instructions(run: Run, tmp_path: Path, instructions: str) -> None:
    """Both lack VNNI, and add pairs of products in 16 bits."""
    pytest.importorskip("openvino")
    picture = np.random.default_rng(5).random((1, 1, 48, 32, 7), np.float32)
    np.save(tmp_path / "picture.npy", picture)
    code = (
        "import numpy, voxport\n"
        "application = voxport.Application.build()\n"
        f"model = application.find_model({str(run.exported.model.path)!r})\n"
        "loaded = application.load_model(model, runtime='openvino', precision='fp32')\n"
        "numpy.save('logits.npy', loaded.runtime.infer(numpy.load('picture.npy')))\n"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    with torch.inference_mode():
        expected = run.network(torch.from_numpy(picture)).numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), expected)


def convolutions(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, Any, onnx.NodeProto]]:
    """Each convolution, its integer weights, and the node that made its bytes."""
    makers = {name: node for node in model.graph.node for name in node.output}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            weight, source = makers[node.input[1]], makers[node.input[0]]
            while source.op_type in ("Reshape", "Transpose"):
                source = makers[source.input[0]]
            assert (source.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
            yield node, onnx.numpy_helper.to_array(tensors[weight.input[0]]), makers[source.input[0]]


def test_every_convolution_reads_bytes_and_has_weights_of_seven_bits(run: Run) -> None:
    found = list(convolutions(run.graph))
    plain = [m for m in VesselNet().modules() if isinstance(m, torch.nn.Conv3d | torch.nn.ConvTranspose3d)]
    assert len(found) == len(plain)
    for node, weights, maker in found:
        assert maker.op_type == "QuantizeLinear", node.name
        assert weights.dtype == np.int8
        assert np.abs(weights.astype(int)).max() <= LARGEST_WEIGHT


def test_no_pair_of_products_saturates_a_sum_in_16_bits(run: Run) -> None:
    largest = max(2 * 255 * np.abs(weights.astype(int)).max() for _, weights, _ in convolutions(run.graph))
    assert largest <= 2**15 - 1


def test_every_partial_sum_is_exact_in_fp32(run: Run) -> None:
    """Bytes are not negative, so a partial sum lies between those of the negative and of the positive weights."""
    for layer in run.network.convolutions():
        integers = (layer.plain.weight / layer.along_channels(layer.step)).detach().transpose(0, layer.axis).flatten(1)
        assert torch.equal(integers, integers.round())
        for sign in (1, -1):
            assert 255 * (sign * integers).clamp(min=0).sum(dim=1).max() < 2**24


def test_every_step_is_a_power_of_two(run: Run) -> None:
    steps = [value for name, value in run.network.state_dict().items() if name.endswith("step")]
    assert steps
    assert all(torch.equal(torch.frexp(step).mantissa, torch.full_like(step, 0.5)) for step in steps)


def test_no_level_of_light_is_near_the_middle_of_two_steps() -> None:
    """A logarithm or root that is wrong by 2^-20, 16 units in the last place of a float32, gives the same byte."""
    light = torch.arange(LIGHT_LEVELS + 1, dtype=torch.float64)[None, None, :, None, None] / LIGHT_LEVELS
    _, root, logarithm = picture_views(light)[0]
    for values in (root, logarithm):
        inside = values[values < 255.5 / 256]
        from_middle = torch.abs(torch.remainder(inside * 256, 1.0) - 0.5) / 256
        assert from_middle.min() > 2.0**-20


def test_bytes_are_rectified_and_rounded_to_the_nearest_step() -> None:
    rounding = Bytes()
    rounding.step.fill_(0.25)
    found = rounding(torch.tensor([-3.0, 0.1, 0.13, 1.0, 100.0]))
    assert found.tolist() == [0.0, 0.0, 0.25, 1.0, 63.75]


@given(largest=st.floats(1e-3, 1e3), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None)
def test_the_best_step_covers_most_values(largest: float, seed: int) -> None:
    values = torch.rand((3, 64), generator=torch.Generator().manual_seed(seed)) * largest
    steps = best_steps(values, 0, 255)
    assert all(math.log2(step).is_integer() for step in steps.tolist())
    rounded = torch.clamp(torch.round(values / steps[:, None]), 0, 255) * steps[:, None]
    assert (rounded - values).abs().mean() <= largest / 255


def test_integers_stay_near_the_network_in_floats() -> None:
    torch.manual_seed(0)
    plain = VesselNet((8, 8, 16, 16)).eval()
    picture = torch.rand(1, 1, 48, 32, 7)
    with torch.inference_mode():
        expected = plain(picture)
    network = IntegerVesselNet(plain.widths, plain)
    network.fit(iter([picture]))
    for convolution in network.convolutions():
        convolution.round()
    with torch.inference_mode():
        found = network(picture)
    assert (found - expected).abs().mean() < 0.1 * expected.std()
