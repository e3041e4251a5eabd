"""The scorer hands tiles over as the network wants them, and errors and interruptions come through."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from voxport.domain.errors import ModelError
from voxport.ports.runtime import NetworkShape
from voxport.services.segmentation.inference import Inferer
from voxport.testing.affine import Floats
from voxport.testing.fakes import FakeRuntime

from tests.services.conftest import ANY, make_card, noise


def two_scores(batch: Floats) -> Floats:
    """The image and its sum along the network's first axis, so that axes are told apart."""
    return np.concatenate([batch, np.cumsum(batch, axis=2)], axis=1)


def test_a_batch_gives_the_logits_of_the_network() -> None:
    batch, card = noise((2, 1, 4, 5, 6)), make_card()
    with Inferer(FakeRuntime(two_scores), card) as inferer:
        np.testing.assert_array_equal(inferer(batch), two_scores(batch))


def test_a_zyx_network_gets_its_axes_and_its_logits_come_back_in_xyz() -> None:
    batch, card = noise((2, 1, 4, 5, 6)), make_card(axes="ZYX")
    runtime = FakeRuntime(two_scores)
    with Inferer(runtime, card) as inferer:
        logits = inferer(batch)
    assert runtime.calls == [(2, 1, 6, 5, 4)]
    np.testing.assert_array_equal(logits[:, :1], batch)
    np.testing.assert_array_equal(logits[:, 1:], np.cumsum(batch, axis=4))


def test_the_network_is_handed_contiguous_arrays() -> None:
    seen = []

    def remember(batch: Floats) -> Floats:
        seen.append(batch.flags.c_contiguous)
        return two_scores(batch)

    with Inferer(FakeRuntime(remember), make_card(axes="ZYX")) as inferer:
        inferer(noise((1, 1, 4, 5, 6)))
    assert seen == [True]


@pytest.mark.parametrize(
    ("axes", "declared", "fixed"),
    [("XYZ", (None, 1, 8, None, 4), (8, None, 4)), ("ZYX", (None, 1, 8, None, 4), (4, None, 8)), ("XYZ", ANY, ANY[2:])],
)
def test_fixed_sizes_are_in_the_order_x_y_z(axes: object, declared: NetworkShape, fixed: object) -> None:
    card = make_card(axes="ZYX" if axes == "ZYX" else "XYZ")
    assert Inferer(FakeRuntime(two_scores, input_shape=declared), card).fixed == fixed


def test_a_network_with_a_fixed_batch_gets_full_batches_and_the_padding_is_dropped() -> None:
    runtime = FakeRuntime(two_scores, input_shape=(4, 1, None, None, None))
    batch = noise((3, 1, 4, 4, 4))
    with Inferer(runtime, make_card()) as inferer:
        assert inferer.batch == 4
        np.testing.assert_array_equal(inferer(batch), two_scores(batch))
        assert inferer(noise((4, 1, 4, 4, 4))).shape == (4, 2, 4, 4, 4)
    assert runtime.calls == [(4, 1, 4, 4, 4)] * 2


def test_a_network_without_a_fixed_batch_gets_one_tile_a_call() -> None:
    assert Inferer(FakeRuntime(two_scores), make_card()).batch == 1


def test_a_network_with_other_input_channels_than_the_card_is_a_model_error() -> None:
    runtime = FakeRuntime(two_scores, input_shape=(None, 2, None, None, None))
    with pytest.raises(ModelError, match=r"affine:1.0.0: expected a network with the card's 1 input channel\(s\)"):
        Inferer(runtime, make_card())


def test_a_network_with_other_output_channels_than_the_card_is_a_model_error() -> None:
    with Inferer(FakeRuntime(lambda batch: batch), make_card()) as inferer, pytest.raises(ModelError, match="labels"):
        inferer(noise((1, 1, 4, 4, 4)))


def test_an_error_in_the_network_travels_to_the_caller_as_it_is() -> None:
    class BrokenError(Exception):
        pass

    def fail(batch: Floats) -> NDArray[np.float32]:
        raise BrokenError(batch.shape)

    with Inferer(FakeRuntime(fail), make_card()) as inferer, pytest.raises(BrokenError):
        inferer(noise((1, 1, 4, 4, 4)))


def test_an_interrupted_caller_does_not_wait_for_the_network() -> None:
    """The network goes on until the test lets it; leaving the scorer must not need that."""
    began, let_go, done = threading.Event(), threading.Event(), threading.Event()
    callers: list[threading.Thread] = []

    def slow(batch: Floats) -> Floats:
        began.set()
        assert let_go.wait(20)
        done.set()
        return two_scores(batch)

    def call(inferer: Inferer) -> None:
        inferer(noise((1, 1, 4, 4, 4)))

    started = time.monotonic()

    def interrupted() -> None:
        with Inferer(FakeRuntime(slow), make_card()) as inferer:
            caller = threading.Thread(target=call, args=(inferer,))
            callers.append(caller)
            caller.start()
            assert began.wait(20)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not done.is_set()
    assert time.monotonic() - started < 10
    let_go.set()
    assert done.wait(20)
    callers[0].join(20)


def test_the_network_runs_in_a_thread_that_ends_with_the_inferer() -> None:
    threads: list[threading.Thread] = []

    def remember(batch: Floats) -> Floats:
        threads.append(threading.current_thread())
        return two_scores(batch)

    with Inferer(FakeRuntime(remember), make_card()) as inferer:
        inferer(noise((1, 1, 4, 4, 4)))
    (thread,) = threads
    assert thread.name.startswith("voxport-infer")
    assert not thread.is_alive()
