"""What the shield reads from a request's head before anyone is asked: bind, host, origin, form of the body."""

from __future__ import annotations

from typing import Any

import pytest

from .shielded import BEARER, KEYS, LIMIT, ask, kind_of, make_shield, with_scope

# --- where a connection came in


@pytest.mark.parametrize(
    "server",
    [
        ("127.0.0.1", 3000),
        ("127.8.8.8", 3000),
        ("::1", 3000),
        ("::1%lo", 3000),
        ("::ffff:127.0.0.1", 3000),
        ("/run/voxport.sock", None),
    ],
)
def test_without_keys_this_machine_may_ask(server: tuple[str, int | None]) -> None:
    assert ask(with_scope(make_shield(), server=server), "GET", "/v1/models/a").status_code == 200


ELSEWHERE = [
    ("10.1.2.3", 3000),
    ("0.0.0.0", 3000),
    ("::", 3000),
    ("2001:db8::1", 3000),
    ("::ffff:10.1.2.3", 3000),
    ("localhost.evil.example", 3000),
    ("10.1.2.3", None),
    ("localhost", None),
    ("/run/voxport.sock", 3000),
    ("", None),
    None,
]


@pytest.mark.parametrize("server", ELSEWHERE)
@pytest.mark.parametrize("path", ["/v1/models/a", "/livez", "/metrics"])
def test_without_keys_nothing_else_may(server: tuple[str, int | None] | None, path: str) -> None:
    response = ask(with_scope(make_shield(), server=server), "GET", path, headers=BEARER)
    assert kind_of(response) == "forbidden"
    assert response.status_code == 403


@pytest.mark.parametrize("server", ELSEWHERE)
def test_with_keys_or_insecure_everyone_may(server: tuple[str, int | None] | None) -> None:
    other = {"Host": "voxport.lab.example", "Origin": "https://voxport.lab.example"}
    keyed = with_scope(make_shield(keys=KEYS), server=server)
    assert ask(keyed, "GET", "/v1/models/a", headers={**BEARER, **other}).status_code == 200
    insecure = with_scope(make_shield(insecure=True), server=server)
    assert ask(insecure, "GET", "/v1/models/a", headers=other).status_code == 200


def test_a_proxy_on_this_machine_does_not_open_it_to_others() -> None:
    # uvicorn puts the address of X-Forwarded-For here
    shield = with_scope(make_shield(), client=("203.0.113.7", 0))
    assert kind_of(ask(shield, "GET", "/v1/models/a")) == "forbidden"


# --- which site it was meant for


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:3000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:3000"])
def test_this_machine_s_names_are_taken(host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert ask(make_shield(), "GET", "/v1/models/a", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:127",
        "localhost:evil",
        "localhost@evil.example",
        "::1",
        "0.0.0.0",
        "",
    ],
)
def test_a_foreign_host_is_refused(host: str) -> None:
    assert kind_of(ask(make_shield(), "GET", "/v1/models/a", headers={"Host": host})) == "forbidden"


@pytest.mark.parametrize("hosts", [[], [b"localhost", b"evil.example"]])
def test_there_is_exactly_one_host(hosts: list[bytes]) -> None:
    shield = with_scope(make_shield(), headers=[(b"host", host) for host in hosts])
    assert kind_of(ask(shield, "GET", "/v1/models/a")) == "forbidden"


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://localhost.evil.example", "file://localhost", ""]
)
def test_a_page_of_another_site_is_refused(origin: str) -> None:
    response = ask(make_shield(), "POST", "/echo", headers={"Origin": origin}, content=b"abc")
    assert kind_of(response) == "forbidden"


# --- the body's form and size


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"Content-Type": "application/vnd.bentoml+pickle"}, "media-type"),
        ({"Content-Type": "Application/X-Python-PICKLE; a=b"}, "media-type"),
        ({"Content-Encoding": "gzip"}, "media-type"),
        ({"Content-Encoding": "identity, gzip"}, "media-type"),
        ({"Content-Length": "-1"}, "malformed"),
        ({"Content-Length": "1_0"}, "malformed"),
        ({"Content-Length": "0x10"}, "malformed"),
        ({"Content-Length": "\u00b2"}, "malformed"),
        ({"Content-Length": "3, 3"}, "malformed"),
        ({"Content-Length": "9" * 30}, "malformed"),
        ({"Content-Length": "3", "Transfer-Encoding": "chunked"}, "malformed"),
        ({"Content-Length": str(LIMIT + 1)}, "limit"),
        ({"Content-Length": "9" * 20}, "limit"),
    ],
)
@pytest.mark.parametrize("path", ["/echo", "/metrics", "/nothing", "/livez"])
def test_a_body_of_another_form_never_reaches_a_route(headers: dict[str, str], kind: str, path: str) -> None:
    raw = [(b"host", b"localhost"), *((k.lower().encode(), v.encode("latin-1")) for k, v in headers.items())]
    reached: list[object] = []

    async def api(*arguments: Any) -> None:
        reached.append(arguments)

    response = ask(with_scope(make_shield(api=api), headers=raw), "POST", path)
    assert kind_of(response) == kind
    assert reached == []


@pytest.mark.parametrize("path", ["", "*", "http://localhost/echo", "echo"])
def test_only_absolute_paths_are_taken(path: str) -> None:
    assert kind_of(ask(with_scope(make_shield(), path=path), "POST", "/echo")) == "malformed"


def test_two_lengths_are_refused_even_when_equal() -> None:
    headers = [(b"host", b"localhost"), (b"content-length", b"3"), (b"content-length", b"3")]
    assert kind_of(ask(with_scope(make_shield(), headers=headers), "POST", "/echo")) == "malformed"
