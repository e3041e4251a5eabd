"""Ratings choose the cases to segment again; a table that does not fit is refused in one line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain.cases import CaseFiles
from voxport.domain.errors import InputError
from voxport.services.batch.ratings import rejected

CASES = [CaseFiles(name, (f"{name}.nii",)) for name in ("a", "ward 3/b", 'c, "d"')]


def names(file: Path, text: str | bytes, cases: list[CaseFiles] = CASES) -> list[str]:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [case.name for case in rejected(file, cases)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('case,rating,comment\na,accept,\nward 3/b,reject,"too, ""thick"""\n"c, ""d""",,look\n', ["ward 3/b"]),
        ("\ufeffcase,rating\r\na,reject\r\n", ["a"]),
        ("rating,more,case\nreject,1,a\n reject ,2,ward 3/b\n", ["a", "ward 3/b"]),
        ("case,rating\na,accept\n", []),
        ('case,rating,comment\na,reject,"two\nlines"\n', ["a"]),
    ],
)
def test_rejected_cases_are_found_in_the_order_of_the_cases(tmp_path: Path, text: str, wanted: list[str]) -> None:
    assert names(tmp_path / "ratings.csv", text) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,rating\nz,reject\n", "expected cases of this folder, got 'z'"),
        ("case,rating\n" + "".join(f"z{i},\n" for i in range(9)), "got 'z0', 'z1', 'z2' and 6 others"),
        ("case,rating\na,rejected\n", "row 2: expected accept, reject or nothing, got 'rejected'"),
        ("case,rating\na,reject\na,accept\n", "row 3: expected one row a case, got another of 'a'"),
        ("case;rating\na;reject\n", "expected the columns case and rating, got case;rating"),
        ("case,comment\na,x\n", "expected the columns case and rating, got case, comment"),
        ("case,rating\na\n", "expected the columns case and rating"),
        ("case,rating\n", "expected a row for each case, got none"),
        ("", "expected a row for each case, got none"),
        (b"\xff\xfe\x00case", "expected a CSV file in UTF-8"),
        ('case,rating\n"a,reject\n', "expected a CSV file in UTF-8"),
        ("case,rating\n" + "a" * 200_000 + ",reject\n", "expected a CSV file in UTF-8"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError) as error:
        names(tmp_path / "ratings.csv", text)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_file_that_is_missing_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        rejected(tmp_path / "none.csv", CASES)
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(InputError, match="a large file"):
        rejected(tmp_path / "large.csv", CASES)
    with pytest.raises(InputError):
        rejected(tmp_path, CASES)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
        st.sampled_from(["accept", "reject", ""]),
        min_size=1,
    )
)
def test_any_names_come_back(tmp_path_factory: pytest.TempPathFactory, ratings: dict[str, str]) -> None:
    file = tmp_path_factory.getbasetemp() / "any-ratings.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("case", "rating"), *ratings.items()])
    cases = [CaseFiles(name, ("file",)) for name in ratings]
    assert [case.name for case in rejected(file, cases)] == [n for n, rating in ratings.items() if rating == "reject"]
