"""Waiting for a job while streams break, servers restart and time passes; nothing sleeps, the clock is turned."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import httpx
import pytest
from voxport.client import RemoteError, RemoteJob, UnreachableError
from voxport.client.connection import Connection
from voxport.client.following import Clock
from voxport.client.jobs import Jobs
from voxport.domain.errors import BusyError, TimeLimitError, UnknownJobError, VoxportError

from .conftest import problem

ID = "5f2c1f0e-6f7b-4a53-9d0c-0e8f0a8f3b57"
Answer = httpx.Response | Exception
Piece = bytes | Exception | Callable[[], None]
TOLD: dict[str, Any] = {
    "id": ID,
    "state": "running",
    "cancelling": False,
    "model": "two-photon-vessels:1.1.0",
    "inputs": [{"name": "volume_1.nii.gz", "sha256": "1" * 64}],
    "outputs": ["mask", "statistics", "preview", "report"],
    "submitted": "2026-03-01T12:00:00.000Z",
    "started": "2026-03-01T12:00:01.000Z",
    "ended": None,
    "position": None,
    "attempts": 1,
    "tiles": {"done": 0, "total": 9},
    "eta_seconds": None,
    "expires": None,
    "problem": None,
    "results": {},
}
RESULTS = {output: {"href": "", "sha256": "2" * 64} for output in ("mask", "report")}
DONE = TOLD | {"state": "done", "results": RESULTS}


def at(done: int) -> dict[str, Any]:
    """The job after so many tiles."""
    return TOLD | {"tiles": {"done": done, "total": 9}}


@dataclass
class Turned:
    """A clock that goes on only while somebody sleeps, or a stream says so."""

    seconds: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        assert 0 <= seconds < 1e6
        self.slept.append(seconds)
        self.seconds += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, self.sleep)


class Stream(httpx.SyncByteStream):
    """Events one by one; what is callable is called in its place, what is an error is raised."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, bytes):
                yield piece
            else:
                piece()


def told(job: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json=job)


def event(job: dict[str, Any]) -> bytes:
    return f"event: job\ndata: {json.dumps(job)}\n\n".encode()


def stream(*pieces: Piece) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Stream(pieces))


REFUSED, CUT, SILENT = httpx.ConnectError("refused"), httpx.ReadError("cut"), httpx.ReadTimeout("silence")
PROXY = httpx.Response(502, html="<h1>Bad Gateway</h1>")


@dataclass
class Script:
    """Answers in their order, the last one again and again; what was asked is kept."""

    answers: Sequence[Answer | Callable[[], Answer]]
    turned: Turned = field(default_factory=Turned)
    asked: list[str] = field(default_factory=list)
    silences: list[float] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        given = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append("events" if request.url.path.endswith("/events") else "job")
        self.silences.append(request.extensions["timeout"]["read"])
        answer = given if isinstance(given, httpx.Response | Exception) else given()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def jobs(self, timeout_seconds: float = 600.0) -> Jobs:
        connection = Connection("http://server", None, timeout_seconds, httpx.MockTransport(self.answer))
        return Jobs(connection, self.turned.clock())


def waited(script: Script, **asked: Any) -> list[tuple[str, int]]:
    """What was heard until the job was done."""
    calls: list[RemoteJob] = []
    done = script.jobs().wait(ID, on_progress=calls.append, **asked)
    assert done == calls[-1]
    assert done.state == "done"
    return [(job.state, job.tiles_done) for job in calls]


def test_a_stream_is_followed_to_the_end_of_the_job() -> None:
    events = stream(b": alive\n\n", event(at(1)), event(at(1)), event(at(5)), event(DONE))
    script = Script([told(at(0)), events])
    assert waited(script) == [("running", 0), ("running", 1), ("running", 5), ("done", 0)]
    assert script.asked == ["job", "events"]
    assert script.turned.slept == []
    assert events.is_closed


def test_a_job_that_has_ended_is_not_followed() -> None:
    script = Script([told(DONE)])
    assert waited(script) == [("done", 0)]
    assert script.asked == ["job"]


@pytest.mark.parametrize("end", [[], [CUT], [SILENT], [httpx.RemoteProtocolError("incomplete")], [b"event: job\nda"]])
def test_a_stream_that_ends_too_early_is_taken_up_again(end: list[bytes | Exception]) -> None:
    script = Script([told(at(0)), stream(event(at(1)), *end), told(at(2)), stream(event(at(3)), event(DONE))])
    assert waited(script) == [("running", 0), ("running", 1), ("running", 2), ("running", 3), ("done", 0)]
    assert script.asked == ["job", "events"] * 2
    # so that a server which hangs up at once is not asked as fast as can be
    assert script.turned.slept == [1.0]


@pytest.mark.parametrize("away", [REFUSED, CUT, SILENT, PROXY, problem(503, "unavailable"), problem(429, "rate")])
def test_a_server_that_is_away_for_a_while_is_waited_for(away: Answer) -> None:
    script = Script([told(at(0)), stream(event(at(1)), CUT), *[away] * 5, told(at(2)), stream(event(DONE))])
    assert waited(script) == [("running", 0), ("running", 1), ("running", 2), ("done", 0)]
    assert script.asked == ["job", "events", *["job"] * 6, "events"]
    pauses = [10.0] * 5 if isinstance(away, httpx.Response) and away is not PROXY else [1.0, 2.0, 4.0, 8.0, 10.0]
    assert script.turned.slept == [1.0, *pauses]


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    busy = problem(503, "unavailable", **{"Retry-After": "5"})
    script = Script([busy, busy, problem(503, "unavailable", **{"Retry-After": "0"}), told(DONE)])
    assert waited(script) == [("done", 0)]
    # none of it is no reason to ask as fast as can be
    assert script.turned.slept == [5.0, 5.0, 4.0]


@pytest.mark.parametrize(
    ("away", "error"),
    [
        (REFUSED, UnreachableError),
        (PROXY, UnreachableError),
        (problem(503, "unavailable", **{"Retry-After": "5"}), BusyError),
        (problem(503, "unavailable", **{"Retry-After": "9" * 400}), BusyError),
    ],
)
def test_patience_ends(away: Answer, error: type[VoxportError]) -> None:
    script = Script([told(at(0)), stream(event(at(1))), away])
    with pytest.raises(error):
        script.jobs().wait(ID, patience_seconds=60)
    assert sum(script.turned.slept) <= 61
    script = Script([away])
    with pytest.raises(error):
        script.jobs().wait(ID, patience_seconds=0)
    assert script.turned.slept == []


def test_patience_begins_anew_when_the_server_is_back() -> None:
    aways: list[list[Answer]] = [[*[REFUSED] * 5, told(at(1)), stream(event(at(2)), CUT)] for _ in range(4)]
    script = Script([*chain(*aways), told(DONE)])
    assert waited(script, patience_seconds=30)[-1] == ("done", 0)
    assert sum(script.turned.slept) > 90


def test_a_stream_that_cannot_be_opened_is_waited_out() -> None:
    script = Script([told(at(0)), REFUSED, told(at(1)), problem(429, "rate"), told(at(2)), stream(event(DONE))])
    assert waited(script) == [("running", 0), ("running", 1), ("running", 2), ("done", 0)]


def test_streams_that_tell_nothing_are_given_up() -> None:
    silent = [[told(at(0)), stream(b": alive\n\n", SILENT)] for _ in range(3)]
    script = Script([*chain(*silent), *map(told, [at(1), at(2), at(2)]), told(DONE)])
    assert waited(script) == [("running", 0), ("running", 1), ("running", 2), ("done", 0)]
    assert script.asked == [*["job", "events"] * 3, *["job"] * 4]


def test_who_waits_for_long_asks_less_often() -> None:
    silent = [[stream(SILENT), told(at(0))] for _ in range(3)]
    script = Script([told(at(0)), *chain(*silent), *[told(at(0))] * 60, told(DONE)])
    waited(script)
    assert script.turned.slept[0] == 1.0
    assert script.turned.slept[-1] == 10.0
    assert script.turned.slept == sorted(script.turned.slept)


@pytest.mark.parametrize("seconds", [0, 0.5, 3, 45, 46, 200])
def test_a_wait_ends_in_time(seconds: float) -> None:
    script = Script([told(at(3))])

    def nothing_new() -> httpx.Response:
        if script.asked[-1] == "job":
            return told(at(3))
        keep_alives: list[Piece] = [lambda: script.turned.sleep(15), b": alive\n\n"] * 100
        return stream(event(at(3)), *keep_alives)

    script.answers = [nothing_new]
    began = script.turned.seconds
    with pytest.raises(TimeLimitError, match=rf"an end within {seconds:g} s, got one that is running; wait for it"):
        script.jobs().wait(ID, timeout_seconds=seconds)
    assert script.turned.seconds - began == pytest.approx(seconds)
    assert script.asked[-1] == "job"
    assert ("events" in script.asked) == (seconds > 45)


def test_no_request_is_silent_beyond_the_end_of_the_wait() -> None:
    script = Script([told(at(3))])
    with pytest.raises(TimeLimitError):
        script.jobs().wait(ID, timeout_seconds=30)
    assert script.silences[0] == 30
    assert max(script.silences[1:]) < 30
    assert min(script.silences) == 1
    script = Script([told(at(3)), stream(event(DONE))])
    script.jobs(timeout_seconds=5).wait(ID)
    # a stream is silent for longer than any answer should be
    assert script.silences == [5, 45]


def test_a_server_that_is_away_does_not_lengthen_the_wait() -> None:
    script = Script([REFUSED])
    with pytest.raises(TimeLimitError, match="a server that does not answer"):
        script.jobs().wait(ID, timeout_seconds=20)
    assert sum(script.turned.slept) == pytest.approx(20)


def test_a_job_that_is_deleted_meanwhile_is_unknown() -> None:
    script = Script([told(at(0)), stream(event(at(1))), problem(404, "unknown-job")])
    with pytest.raises(UnknownJobError):
        script.jobs().wait(ID)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (stream(b"event: job\ndata: {\n\n"), "JSON"),
        (stream(b"event: job\ndata: [1]\n\n"), "JSON object"),
        (stream(event({})), "a job, got one without"),
        (stream(event(at(-1))), "one whose"),
        (stream(event(TOLD | {"id": "another"})), f"job {ID}, got job another"),
        (stream(*[b"data: " + bytes(2**16)] * 20), "events of a bearable size"),
        (stream(*[b"data: " + b"x" * 2**10 + b"\n"] * 1100), "events of a bearable size"),
        (httpx.Response(200, json=TOLD), "text/event-stream, got application/json"),
        (httpx.Response(500, text="?"), "500"),
        (problem(406, "not-acceptable"), "a detail"),
    ],
)
def test_a_stream_that_is_wrong_is_not_followed(answer: httpx.Response, said: str) -> None:
    script = Script([told(at(0)), answer])
    with pytest.raises(RemoteError, match=said) as caught:
        script.jobs().wait(ID)
    assert not isinstance(caught.value, UnreachableError)
    assert len(str(caught.value).splitlines()) == 1
    assert script.asked == ["job", "events"]


def test_events_of_other_names_are_passed_over() -> None:
    odd = b"event: news\ndata: nonsense\n\ndata: nonsense\n\nevent: job\n\nid: 7\nretry: 1\n\n"
    assert waited(Script([told(at(0)), stream(odd, event(DONE))])) == [("running", 0), ("done", 0)]


def test_an_error_of_the_listener_is_its_own() -> None:
    def on_progress(job: RemoteJob) -> None:
        if job.tiles_done:
            raise UnreachableError("listener", expected="calm", got="noise", do="hush")

    events = stream(event(at(1)), event(DONE))
    with pytest.raises(UnreachableError, match="listener"):
        Script([told(at(0)), events]).jobs().wait(ID, on_progress=on_progress)
    assert events.is_closed
