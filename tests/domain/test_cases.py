"""Files become cases by their names: nnU-Net's, or those of a pattern."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.domain import cases as domain_cases
from voxport.domain.cases import CaseFiles, CasePattern, without_clashes
from voxport.domain.errors import InputError, UsageError
from voxport.domain.volume_names import NIFTI, OME_ZARR, SEGMENTATION_NRRD, TIFF, VolumeNames


def numbered_cases(names: Iterable[str], channels: int) -> tuple[CaseFiles, ...]:
    return domain_cases.numbered_cases(names, channels, VolumeNames((NIFTI, TIFF, OME_ZARR)))


def sound(cases: tuple[CaseFiles, ...]) -> dict[str, tuple[str, ...]]:
    """The files of each case that has no problem."""
    return {case.name: case.files for case in cases if case.problem is None}


def problems(cases: tuple[CaseFiles, ...]) -> dict[str, str]:
    return {case.name: str(case.problem) for case in cases if case.problem is not None}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.nii", True),
        ("a.nii.gz", True),
        ("folder/A.NII.GZ", True),
        ("a.nii.txt", False),
        ("nii.gz", False),
        (".nii", False),
        ("folder.nii/notes", False),
        ("a.img", False),
    ],
)
def test_volumes_are_recognised_by_their_endings(name: str, wanted: bool) -> None:
    assert VolumeNames((NIFTI,)).is_volume(name) == wanted


def test_a_file_is_a_case_named_by_its_path_without_the_ending() -> None:
    names = ["b.nii", "sub 1/T1.w.nii.gz", "A.NII.GZ"]
    found = {"A": ("A.NII.GZ",), "b": ("b.nii",), "sub 1/T1.w": ("sub 1/T1.w.nii.gz",)}
    cases = numbered_cases(names, 1)
    assert sound(cases) == found
    assert [case.name for case in cases] == sorted(found)
    assert sound(numbered_cases(names, 3)) == found  # 4-D files may hold several channels


def test_numbered_files_are_the_channels_of_a_case_in_the_order_of_numbers() -> None:
    names = ["x/b_0001.nii.gz", "a_0000.nii", "x/b_0000.nii.gz", "a_0001.nii.gz"]
    assert sound(numbered_cases(names, 2)) == {
        "a": ("a_0000.nii", "a_0001.nii.gz"),
        "x/b": ("x/b_0000.nii.gz", "x/b_0001.nii.gz"),
    }


def test_one_channel_may_be_numbered_too() -> None:
    assert sound(numbered_cases(["a_0000.nii.gz", "b_0000.nii.gz"], 1)) == {
        "a": ("a_0000.nii.gz",),
        "b": ("b_0000.nii.gz",),
    }


def test_numbers_that_are_no_channels_belong_to_the_name() -> None:
    names = ["scan_2023.nii.gz", "scan_2024.nii.gz", "a_00000.nii", "_0000.nii"]
    expected = {name.partition(".")[0]: (name,) for name in names}
    assert sound(numbered_cases(names, 2)) == expected


@pytest.mark.parametrize(
    ("names", "channels", "told"),
    [
        (["a_0000.nii"], 2, "one file for each of 2 channels (_0000, _0001), got a_0000.nii;"),
        (["a_0001.nii"], 2, "got a_0001.nii;"),
        (["a_0000.nii", "a_0002.nii"], 2, "got a_0000.nii, a_0002.nii;"),
        (["a_0000.nii", "a_0001.nii"], 1, "one file (_0000), got a_0000.nii, a_0001.nii;"),
        (["a_0000.nii", "a_0000.nii.gz", "a_0001.nii"], 2, "got a_0000.nii, a_0000.nii.gz, a_0001.nii;"),
        ([f"a_{n:04d}.nii" for n in range(9)], 2, "a_0003.nii and 5 more;"),
        (["a.nii", "a.nii.gz"], 1, "one case of this name, got a.nii, a.nii.gz;"),
        (["a.nii", "a_0000.nii"], 1, "one case of this name, got a.nii, a_0000.nii;"),
        (["a_7000.nii", "a_7000.nii.gz"], 2, "one case of this name, got a_7000.nii, a_7000.nii.gz;"),
    ],
)
def test_a_case_with_too_few_or_too_many_files_has_a_problem_and_others_have_none(
    names: list[str], channels: int, told: str
) -> None:
    cases = numbered_cases([*names, "good.nii"], channels)
    assert sound(cases) == {"good": ("good.nii",)}
    (problem,) = problems(cases).values()
    assert told in problem


def test_files_of_different_formats_are_cases_of_their_own_that_keep_their_endings() -> None:
    names = ["a.tif", "a.nii.gz", "a.ome.zarr", "b.ome.tif", "c/d.nii", "c/d.tif", "c/d.ome.tif"]
    cases = numbered_cases(names, 1)
    assert sound(cases) == {
        **{name: (name,) for name in ("a.tif", "a.nii.gz", "a.ome.zarr", "c/d.nii")},
        "b": ("b.ome.tif",),
    }
    assert "got c/d.ome.tif, c/d.tif;" in problems(cases)["c/d.ome.tif"]


def test_a_search_takes_no_masks_of_the_format_for_masks() -> None:
    names = VolumeNames((NIFTI, SEGMENTATION_NRRD))
    assert not names.is_volume("a.seg.nrrd")
    assert ".seg.nrrd" in names.writable
    assert "seg.nrrd" not in names.searched


BIDS = "sub-{case}/anat/sub-{case}_{channel}.nii.gz"


def test_a_pattern_gives_case_and_channel_in_the_networks_order() -> None:
    names = [f"sub-{sub}/anat/sub-{sub}_{kind}.nii.gz" for sub in ("02", "01") for kind in ("FLAIR", "T1w", "T2w")]
    assert sound(CasePattern(BIDS, ("T1w", "FLAIR")).cases([*names, "sub-01/dwi/sub-01_T1w.nii.gz"])) == {
        "01": ("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz"),
        "02": ("sub-02/anat/sub-02_T1w.nii.gz", "sub-02/anat/sub-02_FLAIR.nii.gz"),
    }


def test_a_field_that_occurs_again_must_agree() -> None:
    assert CasePattern(BIDS, ("T1w",)).cases(["sub-1/anat/sub-2_T1w.nii.gz"]) == ()
    twice = CasePattern("{channel}/{case}_{channel}.nii", ("a", "b"))
    assert sound(twice.cases(["a/x_a.nii", "b/x_b.nii", "a/x_b.nii"])) == {"x": ("a/x_a.nii", "b/x_b.nii")}


def test_missing_and_doubled_channels_are_reported_for_each_case() -> None:
    pattern = CasePattern("{case}/*_{channel}.nii", ("T1w", "FLAIR"))
    names = ["a/x_T1w.nii", "b/x_T1w.nii", "b/y_T1w.nii", "b/x_FLAIR.nii", "c/x_T1w.nii", "c/x_FLAIR.nii"]
    cases = pattern.cases(names)
    assert list(sound(cases)) == ["c"]
    told = problems(cases)
    assert "for each of 2 channels (T1w, FLAIR), got a/x_T1w.nii;" in told["a"]
    assert "got b/x_T1w.nii, b/y_T1w.nii, b/x_FLAIR.nii;" in told["b"]
    single = problems(CasePattern("{case}/*.nii").cases(["a/1.nii", "a/2.nii"]))
    assert "expected one file, got a/1.nii, a/2.nii;" in single["a"]


def test_stars_stand_for_anything_within_a_name_and_two_for_folders() -> None:
    names = ["a.nii", "x/a.nii", "x/y/a-1.nii"]
    assert [c.files for c in CasePattern("*/{case}.nii").cases(names)] == [("x/a.nii",)]
    assert [c.name for c in CasePattern("./**/{case}.nii").cases(names[1:])] == ["a", "a-1"]
    assert [c.name for c in CasePattern("**/y/{case}-*.nii").cases(names)] == ["a"]
    assert [c.name for c in CasePattern("**/{case}.nii").cases(["a.nii"])] == ["a"]


def test_special_characters_of_regular_expressions_are_literal() -> None:
    pattern = CasePattern("(a+b)[{case}].{channel}.nii", ("T1.w", "(x)"))
    assert sound(pattern.cases(["(a+b)[1].T1.w.nii", "(a+b)[1].(x).nii", "aab1xT1xwxnii"])) == {
        "1": ("(a+b)[1].T1.w.nii", "(a+b)[1].(x).nii")
    }


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("", ()),
        ("*.nii", ()),
        ("{Case}.nii", ()),
        ("{case}_{subject}.nii", ()),
        ("{case}_{channel}.nii", ()),
        ("{case}.nii", ("T1w",)),
        ("{case}_{channel}.nii", ("T1w", "")),
        ("{case}_{channel}.nii", ("T1w", "T1w")),
    ],
)
def test_an_invalid_pattern_is_refused(text: str, channels: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="expected"):
        CasePattern(text, channels)


_words = st.text("ab_0-.", min_size=1, max_size=5)


@given(st.sets(st.tuples(_words, _words), max_size=8), st.integers(1, 3))
def test_no_file_is_lost_and_none_is_in_two_cases(words: set[tuple[str, str]], channels: int) -> None:
    names = [f"{folder}/{stem}.nii" for folder, stem in words]
    cases = numbered_cases(names, channels)
    assert sorted(name for case in cases for name in case.files) == sorted(names)
    assert len({case.name for case in cases}) == len(cases)


@given(st.dictionaries(_words, st.lists(st.sampled_from(["T1w", "T2w"]), unique=True, min_size=1), max_size=5))
def test_a_pattern_finds_what_was_named_by_it(cases: dict[str, list[str]]) -> None:
    names = [f"{case}/{case}.{channel}.nii" for case, channels in cases.items() for channel in channels]
    found = CasePattern("{case}/{case}.{channel}.nii", ("T2w", "T1w")).cases(names)
    assert {case.name: set(case.files) for case in found} == {
        case: {f"{case}/{case}.{channel}.nii" for channel in channels} for case, channels in cases.items()
    }
    assert {case.name for case in found if case.problem is None} == {c for c, held in cases.items() if len(held) == 2}


def test_only_the_first_of_cases_with_one_output_is_valid() -> None:
    bad = InputError("z", expected="a", got="b", do="c")
    cases = (CaseFiles("a", ("1",)), CaseFiles("b", ("2",)), CaseFiles("c", ("3",)), CaseFiles("d", ("4",), bad))
    outputs = {"a": ["/out/a", "/out/a.x"], "b": ["/out/a.x"], "c": ["/in/1"], "d": ["/out/d"]}
    first, second, third, fourth = without_clashes(cases, outputs, ["/in/1"])
    assert first == cases[0]
    assert "got those of case a;" in str(second.problem)
    assert "got an input;" in str(third.problem)
    assert fourth == cases[3]
    assert [case.files for case in (second, third)] == [("2",), ("3",)]
    free = without_clashes((cases[3], CaseFiles("e", ("5",))), {"d": ["/out/d"], "e": ["/out/d"]})
    assert free[1].problem is None
