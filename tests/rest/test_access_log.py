"""Request ids, headers of every answer, and the request log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from voxport.entrypoints.rest.shield import access_logger

from .shielded import KEY, Lines, ask, call, chunk, kind_of, make_shield


def test_every_answer_carries_a_fresh_request_id_that_the_log_has_too() -> None:
    lines = Lines()
    shield = make_shield(lines)
    mine = {"Voxport-Request": "mine"}
    answers = [ask(shield, "GET", path, headers=mine) for path in ("/v1/models/a", "/nothing", "/fail", "/metrics")]
    answers.append(ask(shield, "GET", "/echo", headers={"Host": "evil.example"}))
    ids = [answer.headers.get_list("Voxport-Request") for answer in answers]
    assert [[entry["request"]] for entry in lines.entries] == ids
    assert len({str(UUID(only)) for (only,) in ids}) == len(answers)
    assert all(answer.headers["Cache-Control"] == "no-store" for answer in answers)
    assert all(answer.headers["X-Content-Type-Options"] == "nosniff" for answer in answers)


def test_the_application_knows_the_request_s_id() -> None:
    response = ask(make_shield(), "POST", "/echo", content=b"abc")
    assert response.json()["request_id"] == response.headers["Voxport-Request"]


def test_a_failure_is_told_without_its_reason_and_logged_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async def api(*_: Any) -> None:
        raise RuntimeError("a secret")

    lines = Lines()
    response = ask(make_shield(lines, api=api), "GET", "/fail")
    assert kind_of(response) == "internal"
    assert "secret" not in response.text
    assert lines.entries[0]["status"] == 500
    assert response.headers["Voxport-Request"] in caplog.text
    assert "a secret" in caplog.text


def test_the_log_has_one_line_of_known_fields_a_request() -> None:
    lines = Lines()
    shield = make_shield(lines)
    ask(shield, "GET", "/v1/models/patient-42?name=patient-42", headers={"User-Agent": "patient-42"})
    ask(shield, "POST", "/form", files={"volume": ("patient-42.nii.gz", b"patient-42")})
    ask(shield, "PUT", "/v1/models/patient-42")
    assert "patient-42" not in "".join(lines.text)
    first, second, third = lines.entries
    known = ["time", "request", "method", "route", "status", "seconds", "bytes_in", "bytes_out", "principal"]
    assert list(first) == list(second) == list(third) == known
    assert (first["method"], first["route"], first["status"]) == ("GET", "/v1/models/{name}", 200)
    assert (first["bytes_in"], first["bytes_out"]) == (0, len('{"name":"patient-42"}'))
    assert (second["route"], third["status"]) == ("/form", 405)
    assert second["bytes_in"] > len(b"patient-42")
    assert 0 < first["seconds"] < 60
    assert first["time"].endswith("+00:00")


@pytest.mark.parametrize("method", ["GET\r\n{}", "EVIL", "\u2028"])
@pytest.mark.parametrize("path", ["/a\n{}", "/\u2028", "/v1/models/a\r\n{}", '/"'])
def test_nobody_writes_lines_into_the_log(method: str, path: str) -> None:
    lines = Lines()
    headers = [(b"host", b"localhost"), (b"user-agent", b"a\n{}"), (b"x-api-key", KEY.encode() + b"\n")]
    call(make_shield(lines), [chunk(0, more=False)], method=method, path=path, headers=headers)
    (line,) = lines.text
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["method"] == "other"
    assert json.loads(line)["route"] in ("unmatched", "/v1/models/{name}")


@pytest.fixture
def fresh_logger() -> Iterator[None]:
    """The access logger as a new process finds it."""
    log = logging.getLogger("voxport.access")
    kept = log.handlers[:]
    log.handlers.clear()
    yield
    log.handlers[:] = kept


@pytest.mark.usefixtures("fresh_logger")
def test_the_access_logger_writes_json_lines_to_standard_error_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert access_logger() is access_logger()
    access_logger().info("something\nelse")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "something\nelse"
