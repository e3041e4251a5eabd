"""Contract suite of `InferenceRuntime`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ..domain.errors import ModelError, UsageError
from ..ports.runtime import InferenceRuntime, RuntimeOptions
from .affine import BIAS, WEIGHTS, Floats, affine_logits

_SHAPES = ((1, 1, 1), (1, 5, 3), (7, 2, 9), (16, 16, 16))


class RuntimeContract:
    """Subclass and implement the hook, which writes the model file without the adapter.

    ``tolerance`` is the largest error of a logit in ``precision``. The logits of the suite's network are at most about
    10, which bf16 with its 8 bits represents to about 0.05.
    """

    tolerance = 1e-5
    precision = "fp32"

    @pytest.fixture(autouse=True)
    def _opened(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.runtime = self.open_affine(tmp_path, WEIGHTS, BIAS, RuntimeOptions(self.precision))

    def open_affine(self, folder: Path, weights: Floats, bias: Floats, options: RuntimeOptions) -> InferenceRuntime:
        """Write a model with ``scores = weights @ image + bias`` to ``folder``, and open it in the adapter.

        ``weights`` are ``(K, C)``, ``bias`` is ``(K,)``.
        """
        raise NotImplementedError

    def test_says_what_it_is(self) -> None:
        said = (self.runtime.name, self.runtime.version, self.runtime.device, self.runtime.precision)
        assert all(said)
        assert {type(text) for text in said} == {str}
        assert self.runtime.precision == self.precision

    def test_declares_five_axes_and_no_other_channels_than_the_networks(self) -> None:
        assert len(self.runtime.input_shape) == 5
        assert self.runtime.input_shape[1] in (None, 2)
        assert all(size is None or size > 0 for size in self.runtime.input_shape)

    @pytest.mark.parametrize("shape", _SHAPES)
    def test_logits_are_the_networks(self, shape: tuple[int, int, int]) -> None:
        batch = _batch(1, 2, shape)
        self._assert_affine(self.runtime.infer(batch), batch)

    def test_a_network_with_one_input_and_one_output_channel_works(self) -> None:
        weights, bias = np.array([[3.0]], np.float32), np.array([-1.0], np.float32)
        runtime = self.open_affine(self.folder, weights, bias, RuntimeOptions(self.precision))
        batch = _batch(2, 1, (3, 4, 5))
        self._assert_affine(runtime.infer(batch), batch, weights, bias)
        runtime.close()

    def test_a_batch_gives_the_logits_of_its_cases_one_at_a_time(self) -> None:
        batch = _batch(3, 2, (5, 4, 6))
        alone = np.concatenate([self.runtime.infer(batch[i : i + 1]) for i in range(3)])
        np.testing.assert_allclose(self.runtime.infer(batch), alone, rtol=0, atol=self.tolerance)

    def test_inference_twice_gives_the_same_bits(self) -> None:
        batch = _batch(2, 2, (6, 5, 4))
        np.testing.assert_array_equal(self.runtime.infer(batch), self.runtime.infer(batch))

    def test_logits_are_contiguous_float32_of_the_inputs_size(self) -> None:
        logits = self.runtime.infer(_batch(2, 2, (3, 4, 5)))
        assert logits.dtype == np.float32
        assert logits.flags.c_contiguous
        assert logits.shape == (2, 3, 3, 4, 5)

    def test_the_input_stays_as_it_was(self) -> None:
        batch = _batch(1, 2, (4, 4, 4))
        before = batch.copy()
        self.runtime.infer(batch)
        np.testing.assert_array_equal(batch, before)

    def test_logits_do_not_change_during_later_calls(self) -> None:
        logits = self.runtime.infer(_batch(1, 2, (4, 4, 4)))
        before = logits.copy()
        self.runtime.infer(_batch(1, 2, (4, 4, 4), seed=1))
        np.testing.assert_array_equal(logits, before)

    def test_read_only_and_strided_views_are_taken(self) -> None:
        batch = np.flip(_batch(1, 2, (6, 5, 4)).transpose(0, 1, 4, 3, 2), axis=2)
        batch.flags.writeable = False
        self._assert_affine(self.runtime.infer(batch), batch)

    def test_concurrent_callers_get_their_own_logits(self) -> None:
        batches = [_batch(1 + i % 2, 2, (4 + i % 3, 5, 6), seed=i) for i in range(24)]
        with ThreadPoolExecutor(8) as pool:
            inferred = list(pool.map(self.runtime.infer, batches))
        for batch, logits in zip(batches, inferred, strict=True):
            self._assert_affine(logits, batch)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_another_number_of_channels_is_refused_by_number(self, channels: int) -> None:
        with pytest.raises(ModelError) as caught:
            self.runtime.infer(_batch(1, channels, (4, 4, 4)))
        assert "2" in caught.value.expected
        assert str(channels) in caught.value.got

    @pytest.mark.parametrize("shape", [(2, 4, 4, 4), (1, 1, 2, 4, 4, 4), (4, 4)])
    def test_another_rank_is_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ModelError) as caught:
            self.runtime.infer(np.zeros(shape, np.float32))
        assert str(shape[0]) in caught.value.got

    @pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int32"])
    def test_another_dtype_is_refused_by_name(self, dtype: str) -> None:
        with pytest.raises(ModelError) as caught:
            self.runtime.infer(np.zeros((1, 2, 4, 4, 4), dtype))
        assert "float32" in caught.value.expected
        assert dtype in caught.value.got

    def test_a_refused_batch_does_not_spoil_the_next(self) -> None:
        with pytest.raises(ModelError):
            self.runtime.infer(_batch(1, 5, (4, 4, 4)))
        batch = _batch(1, 2, (4, 4, 4))
        self._assert_affine(self.runtime.infer(batch), batch)

    def test_an_unknown_precision_is_refused_with_what_is_offered(self) -> None:
        with pytest.raises(UsageError) as caught:
            self.open_affine(self.folder, WEIGHTS, BIAS, RuntimeOptions(precision="fp3"))
        assert "fp3" in caught.value.got
        assert self.runtime.precision in caught.value.expected

    def test_one_thread_gives_the_same_logits(self) -> None:
        runtime = self.open_affine(self.folder, WEIGHTS, BIAS, RuntimeOptions(self.precision, threads=1))
        batch = _batch(1, 2, (4, 5, 6))
        np.testing.assert_allclose(runtime.infer(batch), self.runtime.infer(batch), rtol=0, atol=self.tolerance)
        runtime.close()

    def test_two_models_open_at_once_do_not_mix(self) -> None:
        other = self.open_affine(self.folder, -WEIGHTS, BIAS, RuntimeOptions(self.precision))
        batch = _batch(1, 2, (3, 3, 3))
        self._assert_affine(other.infer(batch), batch, -WEIGHTS)
        self._assert_affine(self.runtime.infer(batch), batch)
        other.close()

    def test_closing_twice_does_nothing_and_a_closed_runtime_infers_nothing(self) -> None:
        self.runtime.close()
        self.runtime.close()
        with pytest.raises(ModelError):
            self.runtime.infer(_batch(1, 2, (4, 4, 4)))

    def _assert_affine(self, logits: Floats, batch: Floats, weights: Floats = WEIGHTS, bias: Floats = BIAS) -> None:
        np.testing.assert_allclose(logits, affine_logits(batch, weights, bias), rtol=0, atol=self.tolerance)


def _batch(cases: int, channels: int, shape: tuple[int, int, int], seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((cases, channels, *shape), np.float32)
