"""Pages on a folder are made from the reports and masks in it, wherever they were moved, without the network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from voxport.application import Application
from voxport.domain.errors import CancelledError, InputError, OutputError, UsageError
from voxport.domain.run import Outputs, RunOptions
from voxport.domain.viewing.pages import CasePage, CohortCase, CohortPage, ComparisonPage
from voxport.services.pages.folder import PagePorts, PagesMade, measured, write_pages
from voxport.testing.affine import affine_card
from voxport.testing.pages import page_report
from voxport.testing.progress import RecordingProgress

from tests.cli.conftest import make_model


class Recorded:
    """A PageWriter that keeps pages."""

    def __init__(self) -> None:
        self.cases: list[CasePage] = []
        self.cohorts: list[CohortPage] = []

    def case(self, page: CasePage) -> bytes:
        self.cases.append(page)
        return page.name.encode(errors="replace")

    def cohort(self, page: CohortPage) -> bytes:
        self.cohorts.append(page)
        return page.name.encode(errors="replace")

    def comparison(self, page: ComparisonPage) -> bytes:
        raise NotImplementedError


Write = Callable[..., PagesMade]


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def write(recorded: Recorded) -> Write:
    """Writes pages, which are recorded."""
    from voxport.contract.report import check_report

    def run(folder: Path, **more: Any) -> PagesMade:
        ports = Application.build().container.page_ports()
        ports = PagePorts(ports.volumes, ports.pictures, ports.artifacts, recorded)
        return write_pages(folder, RecordingProgress(), ports=ports, check=check_report, **more)

    return run


def put_scan(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (9, 8, 7), np.uint8)
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1, 3, 1])), path)
    return path


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two runs of ``segment`` left in ``out``, of volumes in ``in``."""
    folder = tmp_path_factory.mktemp("runs")
    model = make_model(folder / "model.onnx")
    application = Application.build(tunings_dir=folder / "tunings")
    (folder / "out" / "sub").mkdir(parents=True)
    with application.loaded_segmenter(str(model), runtime="onnx", precision="fp32") as segmenter:
        for seed, name in enumerate(("a", "sub/b")):
            scan, out = put_scan(folder / "in" / f"{name}.nii.gz", seed), folder / "out" / name
            outputs = Outputs(f"{out}.nii.gz", report=f"{out}.report.json")
            report = segmenter.segment([str(scan)], None, outputs, RunOptions(), RecordingProgress())
            application.write_report(outputs, report)
    return folder


@pytest.fixture
def runs(run_once: Path, tmp_path: Path) -> Path:
    """A copy of the runs: the volumes are where the reports say, the results are elsewhere."""
    shutil.copytree(run_once / "out", tmp_path / "out")
    return tmp_path / "out"


def change(report: Path, **changes: Any) -> None:
    data = json.loads(report.read_text(encoding="utf-8"))
    report.write_text(json.dumps(data | changes), encoding="utf-8")


def test_pages_lie_beside_reports_and_link_from_the_cohorts(runs: Path, write: Write, recorded: Recorded) -> None:
    made = write(runs)
    assert (made.cohort, made.cases, made.notes) == (runs / "cohort.html", 2, ())
    assert (runs / "a.report.html").read_bytes() == b"a"
    assert (runs / "sub" / "b.report.html").is_file()
    (cohort,) = recorded.cohorts
    assert cohort.name == "out"
    assert [(case.name, case.link) for case in cohort.cases] == [("a", "a.report.html"), ("sub/b", "sub/b.report.html")]
    assert all(case.thumbnail for case in cohort.cases)
    assert all(page.figures and page.figures.slices and not page.notes for page in recorded.cases)
    assert [page.key for page in recorded.cases] == [case.key for case in cohort.cases]


def test_a_rating_holds_for_one_mask(runs: Path, write: Write, recorded: Recorded) -> None:
    write(runs)
    change(runs / "a.report.json", outputs=[{"name": "x", "sha256": "5" * 64}])
    write(runs)
    before, _, after, _ = (page.key for page in recorded.cases)
    assert before != after
    assert after.startswith("5555")


def test_a_volume_that_has_gone_leaves_a_page_without_pictures(
    run_once: Path, runs: Path, write: Write, recorded: Recorded
) -> None:
    hidden = run_once / "in" / "hidden.nii.gz"
    (run_once / "in" / "a.nii.gz").rename(hidden)
    try:
        made = write(runs)
        (note,) = made.notes
        assert note.startswith("a: no pictures: ")
        assert "expected a volume on this machine" in note
        assert recorded.cases[0].figures is None
        assert recorded.cohorts[0].cases[0].thumbnail is None
        change(runs / "a.report.json", inputs=[{"name": "hidden.nii.gz", "sha256": "1" * 64}])
        found = write(runs, volumes=run_once / "in")
        assert found.notes == (f"a: {hidden} has changed since the report was written",)
        assert recorded.cases[2].figures is not None
    finally:
        hidden.rename(run_once / "in" / "a.nii.gz")


def test_a_mask_that_has_changed_is_drawn_and_said(runs: Path, write: Write) -> None:
    shutil.copy(runs / "sub" / "b.nii.gz", runs / "a.nii.gz")
    assert write(runs).notes == (f"a: {runs / 'a.nii.gz'} has changed since the report was written",)
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4)), runs / "a.nii.gz")
    (note,) = write(runs).notes
    assert "expected a mask on the grid 9x8x7" in note


@pytest.mark.parametrize(
    "command",
    [
        "voxport segment http://example.org/a.nii.gz -m model -o a.nii.gz",
        "voxport segment 's3://bucket/a.zarr' -m model -o a.nii.gz",
        "voxport segment /etc/passwd -m model -o a.nii.gz",
        "voxport segment a.nii.gz -o a.nii.gz --spacing 1,2",
        "voxport segment a.nii.gz -o a.nii.gz --level x",
        "voxport segment a.nii.gz -o",
        "voxport segment 'a",
        f"voxport segment {'a' * 5000} -o a.nii.gz",
        f"voxport segment a.nii.gz -o {'a' * 5000}",
        "rm -rf /",
        "",
    ],
)
def test_a_foreign_command_is_neither_run_nor_followed_elsewhere(runs: Path, write: Write, command: str) -> None:
    change(runs / "a.report.json", command=command)
    (note,) = write(runs).notes
    assert note.startswith("a: no pictures: ")


@pytest.mark.parametrize(
    "change_report",
    [
        lambda data: data | {"statistics": {}},
        lambda data: data | {"seconds": {"read": "soon"}},
        lambda data: data | {"grid": data["grid"] | {"shape": [1, 2]}},
        lambda data: data | {"model": data["model"] | {"card": {}}},
        lambda data: data | {"warnings": "none"},
    ],
)
def test_a_broken_report_is_left_out(
    runs: Path, write: Write, recorded: Recorded, change_report: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> None:
    report = runs / "a.report.json"
    report.write_text(json.dumps(change_report(json.loads(report.read_text(encoding="utf-8")))), encoding="utf-8")
    made = write(runs)
    assert made.cases == 1
    assert len(made.notes) == 1
    assert made.notes[0].startswith("left out: ")
    assert str(report) in made.notes[0]
    assert recorded.cohorts[0].notes == made.notes


def test_other_files_are_passed_over(runs: Path, write: Write) -> None:
    (runs / "list.json").write_text("[1]", encoding="utf-8")
    (runs / "broken.json").write_text('{"schema": "voxport/rep', encoding="utf-8")
    (runs / "other.json").write_text('{"schema": "other/1"}', encoding="utf-8")
    (runs / "gone.json").symlink_to(runs / "nothing")
    shutil.copytree(runs / "sub", runs / ".hidden")
    assert write(runs).cases == 2


def test_the_reports_name_of_a_case_counts_unless_it_is_anothers(runs: Path, write: Write, recorded: Recorded) -> None:
    change(runs / "a.report.json", case="ward 3/a")
    write(runs)
    change(runs / "sub" / "b.report.json", case="ward 3/a")
    write(runs)
    assert [page.name for page in recorded.cases] == ["ward 3/a", "sub/b", "a", "sub/b"]


def test_cases_can_be_left_out(runs: Path, write: Write, recorded: Recorded) -> None:
    assert write(runs, without=["a"]).cases == 1
    assert [case.name for case in recorded.cohorts[0].cases] == ["sub/b"]


def test_a_link_is_an_address_below_the_folder_whatever_the_name(runs: Path, write: Write, recorded: Recorded) -> None:
    name = os.fsdecode(b"javascript:alert(1)#\xff?")
    (runs / "a.report.json").rename(runs / f"{name}.json")
    write(runs)
    assert recorded.cohorts[0].cases[0].link == "javascript%3Aalert%281%29%23%FF%3F.html"


def test_a_folder_without_reports_is_an_error(tmp_path: Path, write: Write) -> None:
    with pytest.raises(InputError, match="expected a folder of results, got no folder"):
        write(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected reports of runs, got none"):
        write(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_report_where_the_cohorts_page_goes_is_an_error(runs: Path, write: Write) -> None:
    (runs / "a.report.json").rename(runs / "cohort.json")
    with pytest.raises(UsageError, match="rename the report"):
        write(runs)
    assert not list(runs.rglob("*.html"))


def test_a_folder_that_cannot_be_written_is_an_error_before_anything_is_drawn(runs: Path, write: Write) -> None:
    (runs / "cohort.html").mkdir()
    with pytest.raises(OutputError):
        write(runs)
    assert not (runs / "a.report.html").exists()


def test_it_can_be_stopped(runs: Path) -> None:
    from voxport.contract.report import check_report

    class Stop(RecordingProgress):
        def advance(self, tiles: int) -> None:  # noqa: ARG002 - the port's
            raise CancelledError

    ports = Application.build().container.page_ports()
    with pytest.raises(CancelledError):
        write_pages(runs, Stop(), ports=ports, check=check_report)
    assert not (runs / "cohort.html").exists()


def test_every_number_of_a_label_has_a_distribution() -> None:
    def case(name: str, **more: Any) -> CohortCase:
        report = page_report(labels=1)
        report["statistics"]["labels"][0] |= more
        return CohortCase(name, name, report, "link")

    none = [{"mean": None, "std": None, "min": None, "max": None}]
    two = [{"mean": 1.0}, {"mean": float("nan")}]
    found = measured(
        [
            case("a", uncertainty=0.25),
            case("b", volume=7.0, uncertainty=True, length=10**400, width=float("inf")),
            case("c", channels=none),
            case("d", channels=two),
        ]
    )
    by_name = {each.measure: each for each in found}
    assert list(by_name) == ["volume", "components", "uncertainty", "mean intensity", "mean intensity of channel 1"]
    assert by_name["volume"].values == {"a": 5.0, "b": 7.0, "c": 5.0, "d": 5.0}
    assert by_name["volume"].unit == "um³"
    assert by_name["uncertainty"].values == {"a": 0.25}
    assert by_name["mean intensity"].values == {"a": 1.5, "b": 1.5}
    assert by_name["mean intensity of channel 1"].values == {"d": 1.0}
    assert all(each.fence is None for each in found)


def test_an_outlier_is_known_by_its_case(runs: Path, write: Write, recorded: Recorded) -> None:
    report = json.loads((runs / "a.report.json").read_text(encoding="utf-8"))
    for i in range(6):
        (label,) = report["statistics"]["labels"]
        label["volume"] = 1e6 if i == 5 else 10.0 + i
        (runs / f"c{i}.json").write_text(json.dumps(report), encoding="utf-8")
    write(runs, without=["a", "sub/b"])
    outlying = {case.name: case.outlying for case in recorded.cohorts[0].cases}
    assert outlying == {**{f"c{i}": () for i in range(5)}, "c5": (f"{label['name']}: volume",)}


def test_the_card_names_the_labels(runs: Path, write: Write, recorded: Recorded) -> None:
    write(runs)
    figures = recorded.cases[0].figures
    assert figures is not None
    assert [toggle.name for toggle in figures.toggles] == [
        label.name for label in affine_card(1, 2).output.table.labels
    ]
