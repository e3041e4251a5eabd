from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from voxport.domain.errors import ModelError
from voxport.ports.runtime import InferenceRuntime, RuntimeOptions
from voxport.testing.affine import Floats
from voxport.testing.fakes import FakeRuntime, box_mean
from voxport.testing.runtime import RuntimeContract


class TestFakeRuntime(RuntimeContract):
    def open_affine(self, folder: Path, weights: Floats, bias: Floats, options: RuntimeOptions) -> InferenceRuntime:
        del folder
        return FakeRuntime.affine(weights, bias, options=options)


def test_the_shape_of_each_batch_is_kept() -> None:
    runtime = FakeRuntime(lambda batch: batch + 1)
    runtime.infer(np.zeros((2, 1, 3, 4, 5), np.float32))
    runtime.infer(np.zeros((1, 1, 3, 3, 3), np.float32))
    assert runtime.calls == [(2, 1, 3, 4, 5), (1, 1, 3, 3, 3)]


def test_a_declared_size_refuses_others() -> None:
    runtime = FakeRuntime(lambda batch: batch, input_shape=(None, 1, 8, 8, 8))
    assert runtime.infer(np.zeros((3, 1, 8, 8, 8), np.float32)).shape == (3, 1, 8, 8, 8)
    with pytest.raises(ModelError, match="8"):
        runtime.infer(np.zeros((1, 1, 8, 8, 7), np.float32))


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_the_box_is_a_uniform_filter_with_zeros_around(radius: int) -> None:
    batch = np.random.default_rng(0).standard_normal((1, 2, 5, 1, 7), np.float32)
    size = 2 * radius + 1
    expected = ndimage.uniform_filter(batch.astype(float), (1, 1, size, size, size), mode="constant")
    np.testing.assert_allclose(box_mean(batch, radius), expected, atol=1e-6)


def test_context_reaches_exactly_the_radius() -> None:
    point = np.zeros((1, 1, 9, 9, 9), np.float32)
    point[0, 0, 4, 4, 4] = 1
    logits = FakeRuntime(lambda batch: batch, radius=2).infer(point)
    assert np.count_nonzero(logits) == 5**3
    assert logits[0, 0, 2, 2, 2] > 0


def test_a_tile_with_enough_context_scores_as_the_whole_to_the_last_bit() -> None:
    whole = np.random.default_rng(0).standard_normal((1, 1, 12, 9, 9), np.float32)
    runtime = FakeRuntime(lambda batch: batch, radius=2)
    tile = runtime.infer(whole[:, :, 2:11])
    np.testing.assert_array_equal(tile[:, :, 2:-2], runtime.infer(whole)[:, :, 4:9])
