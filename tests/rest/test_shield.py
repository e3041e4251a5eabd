"""The shield, called as an ASGI application: keys, rate, size, and calls that no HTTP client makes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from .shielded import (
    BEARER,
    KEY,
    KEYS,
    LIMIT,
    OTHER_KEY,
    PRINCIPAL,
    Lines,
    ask,
    call,
    chunk,
    kind_of,
    make_shield,
    pieces,
    with_scope,
)

# --- keys


@pytest.mark.parametrize("headers", [BEARER, {"X-API-Key": KEY}, {"x-api-key": KEY, **BEARER}])
def test_a_key_names_its_principal(headers: dict[str, str]) -> None:
    lines = Lines()
    response = ask(make_shield(lines, keys=KEYS), "POST", "/echo", headers=headers, content=b"abc")
    assert response.json()["principal"] == PRINCIPAL
    assert lines.entries[0]["principal"] == PRINCIPAL


def test_without_keys_the_principal_is_anonymous() -> None:
    response = ask(make_shield(), "POST", "/echo", headers=BEARER, content=b"abc")
    assert response.json()["principal"] == "anonymous"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"X-API-Key": "wrong"},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": OTHER_KEY, **BEARER},
        {"Authorization": KEY},
    ],
)
@pytest.mark.parametrize("path", ["/echo", "/metrics", "/nothing", "/livez/", "/livez/../echo", "//livez"])
def test_without_a_right_key_nothing_is_told(headers: dict[str, str], path: str) -> None:
    lines = Lines()
    response = ask(make_shield(lines, keys=KEYS), "POST", path, headers=headers, content=b"abc")
    assert kind_of(response) == "unauthorised"
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert response.headers["Connection"] == "close"
    without_id = {name: value for name, value in response.json().items() if name != "instance"}
    nothing_sent = ask(make_shield(keys=KEYS), "GET", "/nothing").json()
    assert without_id == {name: value for name, value in nothing_sent.items() if name != "instance"}
    assert (lines.entries[0]["principal"], lines.entries[0]["bytes_in"]) == ("anonymous", 0)


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_need_no_key_and_are_not_counted(path: str) -> None:
    shield = make_shield(keys=KEYS, rate_per_minute=1)
    assert [ask(shield, "GET", path).status_code for _ in range(3)] == [200, 200, 200]


# --- rate


def test_a_request_too_many_is_told_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    shield = make_shield(keys=KEYS, rate_per_minute=2)
    assert ask(shield, "GET", "/v1/models/a", headers=BEARER).status_code == 200
    now[0] += 20
    assert ask(shield, "GET", "/v1/models/a", headers=BEARER).status_code == 200
    now[0] += 0.5
    refused = ask(shield, "POST", "/echo", headers=BEARER, content=b"abc")
    assert kind_of(refused) == "rate"
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "40"
    assert ask(shield, "GET", "/v1/models/a", headers={"X-API-Key": OTHER_KEY}).status_code == 200
    now[0] += 40
    assert ask(shield, "GET", "/v1/models/a", headers=BEARER).status_code == 200


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.7", "203.0.113.8", False),
        ("203.0.113.7", "::ffff:203.0.113.7", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("a made-up name", "another", True),
    ],
)
def test_without_keys_each_address_has_its_own_rate(one: str, other: str, same: bool) -> None:
    shield = make_shield(insecure=True, rate_per_minute=1)
    assert ask(with_scope(shield, client=(one, 1)), "GET", "/v1/models/a").status_code == 200
    second = ask(with_scope(shield, client=(other, 2)), "GET", "/v1/models/a")
    assert second.status_code == (429 if same else 200)
    assert ask(with_scope(shield, client=(one, 3)), "GET", "/v1/models/a").status_code == 429


def test_a_unix_socket_has_one_rate() -> None:
    shield = with_scope(make_shield(rate_per_minute=1), server=("/run/voxport.sock", None), client=None)
    assert [ask(shield, "GET", "/v1/models/a").status_code for _ in range(2)] == [200, 429]


# --- the body's size


def test_a_body_at_the_limit_streams_through() -> None:
    lines = Lines()
    response = ask(make_shield(lines), "POST", "/echo", content=pieces(LIMIT // 100, 100))
    assert (response.json()["bytes"], response.json()["largest"]) == (LIMIT, LIMIT // 100)
    assert lines.entries[0]["bytes_in"] == LIMIT


def test_a_length_at_the_limit_is_taken() -> None:
    assert ask(make_shield(), "POST", "/echo", content=b"x" * LIMIT).json()["bytes"] == LIMIT
    assert kind_of(ask(make_shield(), "POST", "/echo", content=b"x" * (LIMIT + 1))) == "limit"


@pytest.mark.parametrize("path", ["/echo", "/form"])
def test_a_body_that_passes_the_limit_is_answered_whatever_the_route_makes_of_it(path: str) -> None:
    """FastAPI turns any failure to read a form into its own 400."""
    lines = Lines()
    head = b'--b\r\nContent-Disposition: form-data; name="volume"; filename="v.nii.gz"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}

    async def form() -> AsyncIterator[bytes]:
        yield head
        async for piece in pieces(LIMIT // 2, 3):
            yield piece

    response = ask(make_shield(lines), "POST", path, headers=headers, content=form())
    assert kind_of(response) == "limit"
    assert response.status_code == 413
    assert str(LIMIT) in response.json()["expected"]
    assert lines.entries[0]["status"] == 413


def test_a_body_that_passes_the_limit_is_answered_even_where_the_application_goes_on() -> None:
    async def stubborn(_scope: Scope, receive: Receive, send: Send) -> None:
        failures = 0
        while failures < 2:
            try:
                await receive()
            except Exception:  # noqa: BLE001
                failures += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    assert kind_of(ask(make_shield(api=stubborn), "POST", "/echo", content=pieces(LIMIT, 2))) == "limit"


def test_each_chunk_arrives_before_the_next_is_sent() -> None:
    order: list[str] = []

    async def sent() -> AsyncIterator[bytes]:
        for index in range(3):
            order.append(f"sent {index}")
            yield str(index).encode()

    async def api(scope: Scope, receive: Receive, send: Send) -> None:
        async for part in Request(scope, receive).stream():
            order.append(f"got {part.decode()}")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    assert ask(make_shield(api=api), "POST", "/", content=sent()).status_code == 204
    assert order == ["sent 0", "got 0", "sent 1", "got 1", "sent 2", "got 2", "got "]


# --- calls that no HTTP client makes


@pytest.mark.parametrize(
    ("settings", "scope", "status"),
    [
        ({}, {"server": ("10.1.2.3", 3000)}, 403),
        ({}, {"headers": []}, 403),
        ({"keys": KEYS}, {}, 401),
        ({"keys": KEYS}, {"headers": [(b"x-api-key", b"wrong")]}, 401),
        ({}, {"headers": [(b"host", b"localhost"), (b"content-type", b"application/pickle")]}, 415),
        ({}, {"headers": [(b"host", b"localhost"), (b"content-length", b"9999999")]}, 413),
    ],
)
def test_a_refusal_is_complete_before_anything_is_read_and_the_body_is_thrown_away(
    settings: dict[str, Any], scope: dict[str, Any], status: int
) -> None:
    reached: list[object] = []

    async def api(*arguments: Any) -> None:
        reached.append(arguments)

    lines = Lines()
    body = [chunk(LIMIT), chunk(LIMIT, more=False)]
    sent = scope.get("headers", [(b"host", b"localhost")])
    if status != 413:
        sent = [*sent, (b"transfer-encoding", b"chunked")]
    start, answer, *rest = call(make_shield(lines, api=api, **settings), body, **{**scope, "headers": sent})
    assert start["status"] == status
    headers = dict(start["headers"])
    assert int(headers[b"content-length"]) == len(answer["body"])
    assert headers[b"connection"] == b"close"
    assert rest == [*body, {"type": "http.response.body", "body": b"", "more_body": False}]
    assert reached == []
    assert lines.entries[0]["bytes_in"] == 0
    assert lines.entries[0]["bytes_out"] == len(answer["body"])


def test_the_rest_of_a_refused_body_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxport.entrypoints.rest.exchange.LINGER_SECONDS", 0.01)
    sent: list[Message] = []

    async def receive() -> Message:
        return await asyncio.Future()

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": "/echo", "headers": headers, "server": ("10.1.2.3", 3000)}
    asyncio.run(make_shield()(scope, receive, send))
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_an_answer_that_comes_early_is_complete_before_the_rest_of_the_body_is_thrown_away() -> None:
    async def api(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"busy"})

    body = [chunk(10), chunk(10, more=False)]
    headers = [(b"host", b"localhost"), (b"content-length", b"20")]
    start, answer, *rest = call(make_shield(api=api), body, headers=headers)
    assert dict(start["headers"])[b"connection"] == b"close"
    assert (answer["body"], answer["more_body"]) == (b"busy", True)
    assert rest == [*body, {"type": "http.response.body", "body": b"", "more_body": False}]


def test_a_request_without_a_body_keeps_its_connection() -> None:
    (start, _) = call(make_shield(), [], method="GET", path="/nothing")
    assert b"connection" not in dict(start["headers"])


def test_an_overrun_after_the_answer_began_cuts_it() -> None:
    async def api(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for part in Request(scope, receive).stream():
            await send({"type": "http.response.body", "body": part, "more_body": True})

    lines = Lines()
    given = [chunk(10), chunk(LIMIT)]
    start, *bodies = [message for message in call(make_shield(lines, api=api), given) if message not in given]
    assert start["status"] == 200
    assert [(len(body["body"]), body["more_body"]) for body in bodies] == [(10, True)]
    assert (lines.entries[0]["bytes_in"], lines.entries[0]["bytes_out"]) == (LIMIT + 10, 10)


def test_a_caller_who_hangs_up_is_heard_and_needs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines()
    given = [chunk(10), {"type": "http.disconnect"}]
    *passed, ended = call(make_shield(lines), given)
    assert passed == given
    assert (ended["type"], ended["status"]) == ("http.response.start", 499)  # what wraps the shield waits for one
    assert lines.entries[0]["status"] is None
    assert caplog.text == ""


def test_a_cancelled_request_is_logged_too() -> None:
    async def api(*_: Any) -> None:
        raise asyncio.CancelledError

    lines = Lines()
    with pytest.raises(asyncio.CancelledError):
        call(make_shield(lines, api=api), [])
    assert lines.entries[0]["status"] is None


def test_the_lifespan_goes_to_the_server_s_application_and_a_web_socket_nowhere() -> None:
    seen: list[str] = []

    async def outer(scope: Scope, *_: Any) -> None:
        seen.append(scope["type"])

    shield = make_shield(app=outer, api=outer, insecure=True)
    assert call(shield, [], type="lifespan") == []
    assert call(shield, [], type="websocket") == [{"type": "websocket.close", "code": 1008}]
    assert seen == ["lifespan"]


def test_the_server_s_state_is_handed_on_and_stays_as_it_was() -> None:
    state = {"shared": 1}
    headers = [(b"x-api-key", KEY.encode())]
    *_, answer = call(make_shield(keys=KEYS), [chunk(1, more=False)], state=state, headers=headers)
    assert json.loads(answer["body"]).keys() >= {"shared", "request_id", "principal"}
    assert state == {"shared": 1}
