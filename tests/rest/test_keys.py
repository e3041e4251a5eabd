"""API keys: how they are written, kept and compared."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from voxport.domain.errors import UsageError
from voxport.entrypoints.rest.keys import KeyHash, holder, parse_keys

ONE = "correct-horse-battery-staple"
TWO = "0123456789abcdef0123456789abcdef"
KEYS = parse_keys([ONE, TWO])


def headers(*pairs: tuple[str, str | bytes]) -> Headers:
    raw = [(name.encode(), value if isinstance(value, bytes) else value.encode("latin-1")) for name, value in pairs]
    return Headers(raw=raw)


def test_a_key_may_be_given_as_its_hash() -> None:
    assert parse_keys([f"sha256:{sha256(ONE.encode()).hexdigest()}"]) == (KeyHash.of(ONE),)
    assert parse_keys([f"sha256:{sha256(ONE.encode()).hexdigest().upper()}"]) == (KeyHash.of(ONE),)


def test_spaces_around_a_key_do_not_count() -> None:
    assert parse_keys([f" {ONE} ", TWO]) == KEYS
    assert parse_keys([]) == ()


def test_the_shortest_key_has_16_characters() -> None:
    assert parse_keys(["x" * 16]) == (KeyHash.of("x" * 16),)


def test_a_key_given_twice_counts_once() -> None:
    assert parse_keys([ONE, f"sha256:{sha256(ONE.encode()).hexdigest()}"]) == (KeyHash.of(ONE),)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "short",
        "x" * 15,
        "sha256:",
        "sha256:1234",
        "sha256:" + "g" * 64,
        "a key with spaces",
        "schlüssel-schlüssel",
        "line\nbreak" * 3,
    ],
)
def test_an_entry_that_is_no_key_is_named_by_its_position_and_not_quoted(entry: str) -> None:
    with pytest.raises(UsageError, match="API key 2: expected") as caught:
        parse_keys([ONE, entry])
    assert not entry.removeprefix("sha256:") or entry.removeprefix("sha256:") not in str(caught.value)


def test_the_plain_key_and_its_digest_are_not_shown() -> None:
    assert ONE not in repr(KEYS)
    assert repr(KeyHash.of(ONE)) == "KeyHash()"


def test_the_principal_is_the_digest_s_beginning() -> None:
    assert KeyHash.of(ONE).principal == sha256(ONE.encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    "sent",
    [
        headers(("authorization", f"Bearer {TWO}")),
        headers(("authorization", f"bearer  {TWO} ")),
        headers(("x-api-key", TWO)),
        headers(("x-api-key", f" {TWO}\t")),
        headers(("x-api-key", TWO), ("authorization", f"Bearer {TWO}")),
        headers(("x-api-key", TWO), ("authorization", "Basic dXNlcjpwYXNz")),
    ],
)
def test_a_key_is_taken_from_either_header(sent: Headers) -> None:
    assert holder(KEYS, sent) == KeyHash.of(TWO)


@pytest.mark.parametrize(
    "sent",
    [
        headers(),
        headers(("authorization", "")),
        headers(("authorization", "Bearer")),
        headers(("authorization", "Bearer ")),
        headers(("authorization", ONE)),
        headers(("authorization", f"Basic {ONE}")),
        headers(("x-api-key", "")),
        headers(("x-api-key", f"Bearer {ONE}")),
        headers(("x-api-key", f"{ONE},{TWO}")),
        headers(("x-api-key", ONE), ("authorization", f"Bearer {TWO}")),
        headers(("x-api-key", ""), ("authorization", f"Bearer {TWO}")),
        headers(("x-api-key", ONE), ("x-api-key", TWO)),
        headers(("x-api-key", KeyHash.of(ONE).digest.hex())),
        headers(("x-api-key", "sha256:" + KeyHash.of(ONE).digest.hex())),
        headers(("x-api-key", ONE.upper())),
    ],
)
def test_anything_else_is_refused(sent: Headers) -> None:
    assert holder(KEYS, sent) is None


NOT_QUITE = st.sampled_from([ONE, TWO]).flatmap(
    lambda key: st.one_of(
        st.integers(0, len(key) - 1).map(lambda cut: key[:cut].encode()),
        st.binary(min_size=1, max_size=4).map(lambda tail: key.encode() + tail),
        st.tuples(st.integers(0, len(key) - 1), st.integers(1, 255)).map(
            lambda change: bytes(c ^ change[1] if i == change[0] else c for i, c in enumerate(key.encode()))
        ),
    )
)


@given(value=st.binary(max_size=80) | NOT_QUITE)
def test_no_other_value_opens_the_service(value: bytes) -> None:
    assume(value.strip(b" \t") not in (ONE.encode(), TWO.encode()))
    assert holder(KEYS, headers(("x-api-key", value))) is None
    assert holder(KEYS, headers(("authorization", b"Bearer " + value))) is None
    assert holder(KEYS, headers(("x-api-key", value), ("authorization", f"Bearer {ONE}"))) is None
