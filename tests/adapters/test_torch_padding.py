"""An InstanceNorm network on volumes smaller than its patch labels as MONAI's sliding window does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from voxport.domain.inference.patches import Padding, Tiling

from tests.services.conftest import Bench, load, make_card, make_grid


def instance_norm_network() -> torch.nn.Module:
    """Convolution, InstanceNorm over the whole patch, convolution: padding changes every voxel."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3, padding=1),
        torch.nn.InstanceNorm3d(4),
        torch.nn.LeakyReLU(),
        torch.nn.Conv3d(4, 2, 3, padding=1),
    ).eval()


@pytest.mark.parametrize("shape", [(24, 20, 15), (32, 17, 9), (7, 40, 11), (45, 50, 33)])
def test_labels_equal_those_of_monais_sliding_window(bench: Bench, shape: tuple[int, int, int]) -> None:
    from monai.inferers.utils import sliding_window_inference

    network, patch = instance_norm_network(), (32, 32, 16)
    values = np.random.default_rng(sum(shape)).random(shape).astype(np.float32)
    # one window along each axis where it fits, as starts of several windows differ between the two
    shape_1 = tuple(min(n, p) for n, p in zip(shape, patch, strict=True))
    values = values[tuple(slice(n) for n in shape_1)]
    with torch.inference_mode():
        expected = sliding_window_inference(
            torch.from_numpy(values)[None, None], patch, 1, network, overlap=0.5, mode="gaussian"
        )

    def infer(batch: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(np.ascontiguousarray(batch))).numpy()

    right = expected[0].numpy().argmax(axis=0)
    bench.put(values, make_grid(values.shape))
    tiling = Tiling(patch, divisor=1, overlap=0.5, padding=Padding(to="patch"))
    bench.segment(load(infer, make_card(tiling=tiling)))
    np.testing.assert_array_equal(bench.array(), right)
    if shape_1 != patch:
        bench.segment(load(infer, make_card(tiling=Tiling(patch, divisor=1, overlap=0.5))))
        assert (bench.array() != right).any()  # the shrunk patch has other statistics


@pytest.fixture
def bench() -> Bench:
    return Bench()
