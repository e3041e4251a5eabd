"""What may follow what in a job's life, and what becomes of it when a run fails."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.errors import (
    BusyError,
    CancelledError,
    FormatError,
    InputError,
    LimitError,
    ModelError,
    NoSpaceError,
    OutputError,
    UnknownModelError,
    UsageError,
    VoxportError,
    kind_of,
)
from voxport.domain.job import (
    ENDED,
    FOLLOWING,
    JOB_STATES,
    Job,
    JobCase,
    JobState,
    StoredFile,
    abandoned,
    asked_to_cancel,
    begun,
    eta_seconds,
    finished,
    median_seconds,
    read_case,
    read_results,
    results_mapping,
    settled,
    tried_again,
    wait_seconds,
)
from voxport.domain.plain import plain

MASK = StoredFile("mask.nii.gz", "f/1/mask.nii.gz", "a" * 64)
CASE = JobCase("f", (StoredFile("scan.nii", "f/inputs/0", "b" * 64),), "vessels:1.0.0", {"overlap": 0.5})
WAITING = Job("id", "ada", CASE, 100.0)
RUNNING = begun(WAITING, 110.0)


def words(error: type[VoxportError]) -> VoxportError:
    return error("it", expected="one thing", got="another", do="change it")


def after(job: Job, error: BaseException) -> Job:
    return settled(job, 120.0, error, attempts_allowed=3)


def test_a_jobs_usual_life() -> None:
    assert (RUNNING.state, RUNNING.started, RUNNING.attempts) == ("running", 110.0, 1)
    assert RUNNING.held_by(1)
    assert not RUNNING.held_by(0)
    done = finished(replace(RUNNING, tiles_total=8), 120.0, {"mask": MASK})
    assert (done.state, done.ended, done.results, done.tiles_done) == ("done", 120.0, {"mask": MASK}, 8)
    assert not done.held_by(1)
    assert done.has_ended


@pytest.mark.parametrize(("state", "following"), list(product(JOB_STATES, JOB_STATES)))
def test_only_allowed_transitions_are_possible(state: JobState, following: JobState) -> None:
    job = replace(WAITING, state=state)
    if following in FOLLOWING[state]:
        assert job.to(following).state == following
    else:
        with pytest.raises(ValueError, match=f"{following} cannot follow {state}"):
            job.to(following)


def test_an_ended_job_can_only_be_queued_again_and_every_state_is_reachable() -> None:
    assert all(FOLLOWING[state] <= {"queued"} for state in ENDED)
    assert set().union(*FOLLOWING.values()) == set(JOB_STATES)


@pytest.mark.parametrize("error", [InputError, ModelError, UsageError, LimitError, FormatError])
def test_what_the_case_is_to_blame_for_fails_at_once(error: type[VoxportError]) -> None:
    job = after(RUNNING, words(error))
    assert (job.state, job.failed_attempts, job.ended) == ("failed", 0, 120.0)
    assert job.failure is not None
    assert job.failure.kind == kind_of(words(error))
    assert job.failure.detail == "it: expected one thing, got another; change it"


@pytest.mark.parametrize(
    "error",
    [
        OutputError.cannot_write("blobs", "full"),
        OSError(28, "No space left on device", "/a/secret/path"),
        BusyError("model", expected="it", got="one being loaded", retry_after_seconds=5),
        words(NoSpaceError),
    ],
)
def test_what_the_surroundings_are_to_blame_for_is_tried_again_for_ever(error: Exception) -> None:
    job = RUNNING
    for attempt in range(1, 20):
        assert job.held_by(attempt)
        job = after(job, error)
        assert (job.state, job.failed_attempts) == ("queued", 0)
        assert job.failure is not None
        assert "secret" not in job.failure.detail
        job = begun(job, 130.0)


def test_a_model_that_this_worker_has_not_is_looked_for_on_others() -> None:
    once = after(RUNNING, words(UnknownModelError))
    assert (once.state, once.failed_attempts) == ("queued", 1)
    parked = after(begun(after(begun(once, 130.0), words(UnknownModelError)), 140.0), words(UnknownModelError))
    assert parked.state == "parked"
    assert parked.failure is not None
    assert parked.failure.kind == "unknown-model"


def test_failed_attempts_add_up_whether_the_run_raised_or_the_worker_was_lost() -> None:
    once = after(RUNNING, ZeroDivisionError("secret"))
    twice = abandoned(begun(once, 1), 2, attempts_allowed=3)
    thrice = after(begun(twice, 3), MemoryError())
    assert [job.state for job in (once, twice, thrice)] == ["queued", "queued", "parked"]
    assert [job.failure.kind for job in (once, twice, thrice) if job.failure] == ["internal", "worker-lost", "internal"]
    assert once.failure is not None
    assert "secret" not in once.failure.detail
    assert thrice.ended == 120.0
    assert tried_again(thrice).failed_attempts == 0


def test_a_run_that_is_stopped_is_no_failed_attempt() -> None:
    job = after(replace(RUNNING, tiles_done=3), CancelledError())
    assert (job.state, job.failed_attempts, job.failure, job.tiles_done) == ("queued", 0, None, 0)


@pytest.mark.parametrize("error", [CancelledError(), ZeroDivisionError(), OSError(), words(InputError)])
def test_a_job_to_be_cancelled_ends_cancelled_for_every_outcome_of_its_run(error: Exception) -> None:
    asked = asked_to_cancel(RUNNING, 115.0)
    assert (asked.state, asked.cancelling) == ("running", True)
    assert after(asked, error).state == "cancelled"
    assert abandoned(asked, 120.0, attempts_allowed=1).state == "cancelled"
    assert finished(asked, 120.0, {}).state == "done"
    assert not after(asked, error).cancelling


@pytest.mark.parametrize("state", sorted(ENDED))
def test_cancelling_changes_nothing_that_has_ended(state: JobState) -> None:
    job = replace(WAITING, state=state)
    assert asked_to_cancel(job, 1.0) is job


@pytest.mark.parametrize("state", ["queued", "running", "done"])
def test_what_did_not_fail_is_not_tried_again(state: JobState) -> None:
    with pytest.raises(UsageError, match=f"one that is {state}"):
        tried_again(replace(WAITING, state=state))


def test_waits_double_up_to_a_minute() -> None:
    assert [wait_seconds(n, 2.0) for n in (1, 2, 3, 5, 6, 1000)] == [2, 4, 8, 32, 60, 60]


def test_the_remaining_time_by_worked_numbers() -> None:
    def left(job: Job, now: float) -> float | None:
        return eta_seconds(job, now, typical_seconds=30.0, concurrency=2)

    assert [left(replace(WAITING, position=n), 0) for n in (0, 1, 2, 5)] == [30, 30, 60, 90]
    assert left(RUNNING, 120.0) == 20
    assert left(RUNNING, 500.0) == 0
    assert left(replace(RUNNING, tiles_done=1, tiles_total=4), 120.0) == 30
    assert left(finished(RUNNING, 120.0, {}), 130.0) is None
    estimated = replace(WAITING, position=4, case=replace(CASE, estimate_seconds=7.0))
    assert left(estimated, 0) == 67
    assert eta_seconds(estimated, 0, typical_seconds=None, concurrency=2) == 21
    assert eta_seconds(replace(WAITING, position=4), 0, typical_seconds=None, concurrency=2) is None


def test_the_median_is_of_the_jobs_with_both_times() -> None:
    assert median_seconds([(0.0, 3.0), (0.0, 1.0), (0.0, 500.0), (5.0, None), (None, None)]) == 3.0
    assert median_seconds([]) is None


texts = st.text(max_size=9)
files = st.builds(StoredFile, texts, texts, texts)
cases = st.builds(
    JobCase,
    texts,
    st.lists(files, max_size=3).map(tuple),
    texts,
    st.dictionaries(texts, st.none() | st.integers() | st.floats(allow_nan=False) | st.lists(st.integers())),
    st.lists(texts).map(tuple),
)


@given(cases, st.dictionaries(texts, files))
def test_cases_and_results_survive_json(case: JobCase, results: dict[str, StoredFile]) -> None:
    assert read_case(json.loads(json.dumps(plain(case)))) == case
    assert read_results(json.loads(json.dumps(results_mapping(results)))) == results


def test_the_same_work_is_the_same_bytes_in_the_same_way_wherever_they_are_kept() -> None:
    moved = replace(CASE, folder="g", inputs=(replace(CASE.inputs[0], blob="g/inputs/0"),))
    assert CASE.same_work(moved)
    assert not CASE.same_work(replace(CASE, model="vessels:2.0.0"))
    assert not CASE.same_work(replace(CASE, options={}))
    assert not CASE.same_work(replace(CASE, inputs=(replace(CASE.inputs[0], sha256="c" * 64),)))
