"""Slots: bounded, first come first served, and left however a run ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from voxport.domain.errors import BusyError, CancelledError
from voxport.services.jobs.admission import Slots

PATIENCE = 30.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another thread brings about."""
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("never came about")


def test_no_more_callers_hold_a_slot_than_there_are() -> None:
    slots, most, lock = Slots(2, 50), 0, threading.Lock()

    def run(_: int) -> None:
        nonlocal most
        with slots.hold():
            with lock:
                most = max(most, slots.held)
            threading.Event().wait(0.002)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(run, range(30)))
    assert most == 2
    assert (slots.held, slots.waiting) == (0, 0)


def test_waiting_callers_are_let_in_in_their_order() -> None:
    slots, order, release = Slots(1, 5), [], threading.Event()

    def run(number: int) -> None:
        with slots.hold():
            order.append(number)
            assert release.wait(PATIENCE)

    with ThreadPoolExecutor(5) as pool:
        for number in range(5):
            pool.submit(run, number)
            until(lambda n=number: slots.held + slots.waiting == n + 1)  # type: ignore[misc]
        release.set()
    assert order == [0, 1, 2, 3, 4]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again() -> None:
    slots, release = Slots(1, 1), threading.Event()

    def run() -> None:
        with slots.hold():
            assert release.wait(PATIENCE)

    with ThreadPoolExecutor(2) as pool:
        for count in (1, 2):
            pool.submit(run)
            until(lambda n=count: slots.held + slots.waiting == n)  # type: ignore[misc]
        with pytest.raises(BusyError, match="1 being scored and 1 waiting") as refused, slots.hold():
            pass
        assert 1 <= refused.value.retry_after_seconds <= 60
        release.set()
    with slots.hold() as waited:
        assert waited < PATIENCE


def test_a_caller_may_give_up_while_it_waits() -> None:
    slots, release = Slots(1, 5), threading.Event()

    def run() -> None:
        with slots.hold():
            assert release.wait(PATIENCE)

    def give_up() -> None:
        raise CancelledError

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run)
        until(lambda: slots.held == 1)
        with pytest.raises(CancelledError), slots.hold(give_up):
            pass
        assert slots.waiting == 0
        release.set()


def test_a_run_that_fails_gives_its_slot_back() -> None:
    slots = Slots(1, 0)
    with pytest.raises(KeyError), slots.hold():
        raise KeyError
    with slots.hold():
        assert slots.held == 1
