"""A watched folder gives a case once its files have stayed as they are, by a clock that the tests set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from voxport.domain.cases import CaseFiles
from voxport.domain.errors import InputError
from voxport.services.batch.watch import Watch

NONE = InputError("scans", expected="volumes", got="no volumes", do="check the folder")


class Watched:
    """A watched folder, what is found in it, and the time there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now, self.lines = folder, 0.0, list[str]()
        self.found: Sequence[CaseFiles] | InputError = ()
        self.watch = Watch(self.find, folder, settle_seconds=10, now=lambda: self.now, say=self.lines.append)

    def find(self) -> Sequence[CaseFiles]:
        if isinstance(self.found, InputError):
            raise self.found
        return self.found

    def names_after(self, seconds: float) -> list[str]:
        """The cases that are given when so much more time has passed."""
        self.now += seconds
        return [case.name for case in self.watch()]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_case_is_given_once_when_its_file_has_stayed_as_it_is(watched: Watched) -> None:
    (watched.folder / "a.nii").write_bytes(b"whole")
    watched.found = [CaseFiles("a", ("a.nii",))]
    assert watched.names_after(0) == []
    assert watched.names_after(9) == []
    assert watched.names_after(1) == ["a"]
    assert watched.names_after(100) == []


def test_a_folder_in_which_no_case_is_found_counts_as_empty(watched: Watched) -> None:
    watched.found = NONE
    assert watched.names_after(0) == []
    (watched.folder / "a.nii").write_bytes(b"whole")
    watched.found = [CaseFiles("a", ("a.nii",))]
    assert watched.names_after(10) == []
    assert watched.names_after(10) == ["a"]
    assert watched.lines == []


def test_a_folder_that_is_missing_at_the_beginning_is_an_error(tmp_path: Path) -> None:
    def find() -> Sequence[CaseFiles]:
        raise NONE

    with pytest.raises(InputError, match="no volumes"):
        Watch(find, tmp_path / "scans", settle_seconds=10)


def test_a_file_that_vanishes_is_waited_for_and_told_once(watched: Watched) -> None:
    watched.found = [CaseFiles("a", ("a.nii",))]
    assert watched.names_after(0) == []
    assert watched.names_after(59) == []
    assert watched.lines == []
    assert watched.names_after(1) == []
    assert watched.names_after(100) == []
    assert watched.lines == ["a waits: one of its files cannot be read"]
    (watched.folder / "a.nii").write_bytes(b"whole")
    assert watched.names_after(1) == []
    assert watched.names_after(10) == ["a"]


def test_a_case_with_a_problem_says_what_it_lacks(watched: Watched) -> None:
    lacks = InputError("a", expected="2 channels", got="1", do="complete the case")
    watched.found = [CaseFiles("a", ("a_0000.nii",), lacks)]
    assert watched.names_after(0) == []
    assert watched.names_after(60) == []
    assert watched.lines == ["a waits: expected 2 channels, got 1"]


def test_a_folder_waits_for_all_files_below_it(watched: Watched) -> None:
    series = watched.folder / "series"
    (series / "deep").mkdir(parents=True)
    (series / "1.dcm").write_bytes(b"first")
    watched.found = [CaseFiles("series", ("series",))]
    assert watched.names_after(0) == []
    (series / "deep" / "2.dcm").write_bytes(b"second")
    assert watched.names_after(10) == []
    assert watched.names_after(9) == []
    assert watched.names_after(1) == ["series"]


def test_a_folder_that_gets_a_file_later_is_given_again(watched: Watched) -> None:
    series = watched.folder / "series"
    series.mkdir()
    (series / "1.dcm").write_bytes(b"first")
    watched.found = [CaseFiles("series", ("series",))]
    assert watched.names_after(0) == []
    assert watched.names_after(10) == ["series"]
    (series / "2.dcm").write_bytes(b"")
    assert watched.names_after(1) == []
    assert watched.names_after(10) == ["series"]


def test_an_empty_folder_is_a_case_as_it_is(watched: Watched) -> None:
    (watched.folder / "series").mkdir()
    watched.found = [CaseFiles("series", ("series",))]
    assert watched.names_after(0) == []
    assert watched.names_after(10) == ["series"]
