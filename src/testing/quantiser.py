"""Contract suite of `Quantiser`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ..domain.errors import ModelError
from ..ports.quantiser import Quantiser
from .affine import BIAS, WEIGHTS, Floats, affine_card, affine_logits, affine_model, write_affine_onnx


class QuantiserContract:
    """Subclass and implement the hooks."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.quantiser = self.make_quantiser()
        self.path, self.destination = tmp_path / "affine.onnx", tmp_path / "int8.onnx"
        write_affine_onnx(self.path, WEIGHTS, BIAS)
        self.model = affine_model(self.path, affine_card(2, 3))
        random = np.random.default_rng(0)
        self.inputs = [random.uniform(-1, 1, (1, 2, 4, 5, 6)).astype(np.float32) for _ in range(3)]

    def make_quantiser(self) -> Quantiser:
        """Return the adapter."""
        raise NotImplementedError

    def infer(self, network: Path, batch: Floats) -> Floats:
        """Return logits of the quantised file."""
        raise NotImplementedError

    def quantise(self, *spared: float) -> list[int]:
        """Quantise the affine network; by default the whole of it."""
        return list(self.quantiser.quantise(self.model, self.inputs, self.destination, spared=spared or (0.0,)))

    def test_the_quantised_network_is_within_a_step_of_eight_bits(self) -> None:
        assert self.quantise() == [1]
        batch = self.inputs[1]
        exact = affine_logits(batch, WEIGHTS, BIAS)
        found = self.infer(self.destination, batch)
        # inputs span 2 in 255 steps, weights 4 at the most: 2 channels x (half a step x 2 + half a step x 1) = 0.05
        np.testing.assert_allclose(found, exact, rtol=0, atol=0.05)
        assert not np.array_equal(found, exact)

    def test_it_takes_other_sizes_and_batches_than_it_was_calibrated_with(self) -> None:
        self.quantise()
        assert self.infer(self.destination, np.zeros((2, 2, 3, 7, 2), np.float32)).shape == (2, 3, 3, 7, 2)

    def test_the_model_file_stays_as_it_was(self) -> None:
        before = self.path.read_bytes()
        self.quantise()
        assert self.path.read_bytes() == before

    def test_where_all_is_spared_nothing_is_written(self) -> None:
        assert self.quantise(1.0) == []
        assert not self.destination.exists()

    def test_a_file_is_written_once_for_the_same_convolutions(self) -> None:
        assert self.quantise(0.0, 0.5, 1.0) == [1]
        assert self.destination.exists()

    @pytest.mark.parametrize("content", [b"", b"no model"])
    def test_a_file_that_is_no_network_is_a_model_error_of_one_line(self, content: bytes) -> None:
        self.path.write_bytes(content)
        with pytest.raises(ModelError, match="bf16") as caught:
            self.quantise()
        assert "\n" not in str(caught.value)
        assert not self.destination.exists()

    def test_inputs_that_do_not_fit_are_a_model_error(self) -> None:
        with pytest.raises(ModelError):
            next(self.quantiser.quantise(self.model, [np.zeros((1, 5, 4, 4, 4), np.float32)], self.destination))
