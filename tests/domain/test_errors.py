"""An error is one line that says what was expected, what came and what to do."""

from __future__ import annotations

import ast
import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
import voxport
from voxport.domain.errors import (
    CancelledError,
    InputError,
    LimitError,
    ModelError,
    NoSpaceError,
    OutputError,
    UsageError,
    VoxportError,
    kind_of,
)

KINDS = (UsageError, InputError, ModelError, LimitError, OutputError)


@pytest.mark.parametrize("kind", KINDS)
def test_the_message_is_subject_expected_got_and_what_to_do_on_one_line(kind: type[VoxportError]) -> None:
    error = kind("scan.nii", expected="3 axes", got="2", do="give a volume")
    assert str(error) == "scan.nii: expected 3 axes, got 2; give a volume"
    assert (error.subject, error.expected, error.got, error.do) == ("scan.nii", "3 axes", "2", "give a volume")


@pytest.mark.parametrize("kind", [*KINDS, CancelledError])
def test_every_error_is_caught_as_a_voxport_error(kind: type[VoxportError]) -> None:
    assert issubclass(kind, VoxportError)


def test_the_kinds_are_not_caught_as_each_other() -> None:
    kinds = [*KINDS, CancelledError]
    assert [(a, b) for a in kinds for b in kinds if a is not b and issubclass(a, b)] == []


@pytest.mark.parametrize(
    ("reason", "got", "do"),
    [
        (OSError(errno.ENOSPC, "No space left"), "no space left", "make room, or choose another place"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "quota exceeded", "make room, or choose another place"),
        (OSError("odd"), "an error", "choose another place"),
        ("a folder of that name", "a folder of that name", "choose another place"),
    ],
)
def test_an_output_error_gives_the_systems_reason_in_its_own_words(reason: OSError | str, got: str, do: str) -> None:
    error = OutputError.cannot_write("mask.nii.gz", reason)
    assert isinstance(error, OutputError)
    assert error.got == got
    assert str(error) == f"mask.nii.gz: expected a place with room that can be written, got {got}; {do}"


def test_a_cancelled_run_raises_cancelled_error() -> None:
    assert str(CancelledError()) == "run: expected to finish, got a request to stop; start it again when ready"


def test_no_space_has_the_kind_limit() -> None:
    assert kind_of(NoSpaceError("scratch", expected="room", got="none", do="free some")) == "limit"


def _texts(tree: ast.AST) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line and the texts, as in the source, of each call that says what was expected and what came."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg}
            if {"expected", "got"} <= given.keys():
                yield node.lineno, given


def test_every_error_of_the_source_says_two_different_things_and_what_to_do() -> None:
    root, found, wrong = Path(voxport.__file__).parent, 0, []
    for path in root.rglob("*.py"):
        for line, given in _texts(ast.parse(path.read_text(encoding="utf-8"))):
            found += 1
            if given["expected"] == given["got"] or any(text in ("''", "None") for text in given.values()):
                wrong.append(f"{path.relative_to(root)}:{line}")
    assert found > 250
    assert wrong == []
