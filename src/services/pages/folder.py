"""Pages on all cases of a folder, from the reports and masks that runs left in it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...domain.cards.model_card import ModelCard
from ...domain.errors import InputError, UsageError, VoxportError
from ...domain.viewing.pages import CaseFigures, CohortCase, CohortPage, Distribution, fence
from ...ports.artifacts import ArtifactWriter
from ...ports.pages import PageWriter
from ...ports.pictures import PictureEncoder
from ...ports.progress import ProgressListener
from ...ports.volume_store import VolumeStore
from ..batch.folder import read_json
from ..segmentation.report import read_segment_line, stated_reading
from .cases import case_page, stored_figures

COHORT = "cohort.html"
_SCHEMA = "voxport/report/1"
_MOST_BYTES = 2**26  # of a report
_LARGEST = 1e100  # of numbers that are compared; NaN is not below it
_ENDINGS = (".report.json", "_dseg.json", ".json")

CheckReport = Callable[[Mapping[str, Any], str], ModelCard]


@dataclass(frozen=True)
class PagePorts:
    """Ports that pages are made with."""

    volumes: VolumeStore
    pictures: PictureEncoder
    artifacts: ArtifactWriter
    pages: PageWriter


@dataclass(frozen=True)
class PagesMade:
    """The page on all cases, their number, and what the reader should know."""

    cohort: Path
    cases: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Left:
    """A report in a folder, with the name of its case."""

    path: Path
    name: str
    report: Mapping[str, Any]

    @property
    def page(self) -> Path:
        return self.path.with_suffix(".html")

    @property
    def mask_sha256(self) -> str:
        """The hash of the mask: of a batch's record, else of the output that the command names, else of the first."""
        record, outputs = self.report.get("batch"), self.report["outputs"]
        if isinstance(record, dict) and isinstance(record.get("mask"), str):
            return str(record["mask"])
        named = None
        with suppress(ValueError):
            named = read_segment_line(self.report["command"], len(self.report["inputs"]))[1].get("-o")
        hashes = [file["sha256"] for file in outputs if file["name"] == named] or [file["sha256"] for file in outputs]
        return str(next(iter(hashes), ""))


def write_pages(
    folder: Path,
    progress: ProgressListener,
    *,
    ports: PagePorts,
    check: CheckReport,
    volumes: Path | None = None,
    without: Collection[str] = (),
) -> PagesMade:
    """Write a page beside each report in a folder and the folders below it, and one on all cases into the folder.

    The network does not run. A case whose volume or mask is not found has a page without pictures, and what cannot be
    read as a report is left out; notes say so.

    Args:
        folder: as ``segment`` and ``batch`` left it.
        progress: receives the stage ``draw`` with a step a case.
        ports: to make them with.
        check: checks a report, and returns its card.
        volumes: the folder that the volumes lie in, if not where they were.
        without: names of cases that are left out.

    Raises:
        InputError: no such folder, or no report in it.
        UsageError: the page of a report would lie where the cohort's does.
        OutputError: a page cannot be written.
        CancelledError
    """
    if not folder.is_dir():
        raise InputError(str(folder), expected="a folder of results", got="no folder", do="check the path")
    cohort, notes = folder / COHORT, list[str]()
    ports.artifacts.check(str(cohort))
    found = [left for left in _left_in(folder) if left.name not in without]
    taken = next((left.path for left in found if left.page == cohort), None)
    if taken is not None:
        raise UsageError(str(taken), expected="another name", got=taken.name, do="rename the report")
    progress.stage("draw", len(found))
    cases = []
    for left in found:
        try:
            card = check(left.report, str(left.path))
        except VoxportError as error:
            notes.append(f"left out: {error}")
            continue
        finally:
            progress.advance(1)
        figures, problems = _figures(left, card, folder, volumes, ports)
        page = case_page(left.name, left.report, left.mask_sha256, figures, problems)
        ports.artifacts.write(str(left.page), ports.pages.case(page))
        notes += [f"{left.name}: {problem}" for problem in problems]
        link = quote(os.fsencode(left.page.relative_to(folder).as_posix()))
        thumbnail = None if figures is None else figures.thumbnail
        cases.append(CohortCase(left.name, page.key, left.report, link, thumbnail))
    if not cases:
        do = "run voxport segment with `report`, or voxport batch, into it"
        raise InputError(str(folder), expected="reports of runs", got=notes[0] if notes else "none", do=do)
    ports.artifacts.write(str(cohort), ports.pages.cohort(_cohort(folder.resolve().name, cases, notes)))
    return PagesMade(cohort, len(cases), tuple(notes))


def _cohort(name: str, cases: Sequence[CohortCase], notes: Sequence[str]) -> CohortPage:
    distributions = measured(cases)
    outlying = {case.name: [found.title for found in distributions if case.name in found.outliers] for case in cases}
    rows = tuple(replace(case, outlying=tuple(outlying[case.name])) for case in cases)
    return CohortPage(name, rows, tuple(distributions), tuple(notes))


def measured(cases: Sequence[CohortCase]) -> list[Distribution]:
    """Return volume, components, mean intensities and all other numbers that reports state of each label."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for case in cases:
        statistics = case.report["statistics"]
        for label in statistics["labels"]:
            for measure, unit, value in _numbers(label, statistics["unit"]):
                found.setdefault((label["name"], measure, unit), {})[case.name] = value
    return [
        Distribution(label, measure, unit, values, fence(list(values.values())))
        for (label, measure, unit), values in found.items()
    ]


def _numbers(label: Mapping[str, Any], unit: str) -> Iterator[tuple[str, str, float]]:
    """Yield measure, unit and value of what is known of a label, and finite."""
    channels = label["channels"]
    means = {
        f"mean intensity{f' of channel {i}' if len(channels) > 1 else ''}": c["mean"] for i, c in enumerate(channels, 1)
    }
    others = {name: value for name, value in label.items() if name not in ("value", "voxels")}
    for name, value in {**others, **means}.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST:
            yield name, f"{unit}³" if name == "volume" and unit != "unknown" else "", float(value)


def _left_in(folder: Path) -> list[_Left]:
    """Return the reports below a folder, hidden folders excepted, in the order of their names."""
    found = []
    for at, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(at) / name for name in sorted(files) if name.endswith(".json")):
            report = read_json(path) if path.is_file() and path.stat().st_size <= _MOST_BYTES else {}
            if report.get("schema") == _SCHEMA:
                found.append(_Left(path, _plain_name(path, folder), report))
    named = Counter(left.report.get("case") for left in found)
    return [
        replace(left, name=case) if isinstance(case := left.report.get("case"), str) and named[case] == 1 else left
        for left in found
    ]


def _plain_name(report: Path, folder: Path) -> str:
    name = report.relative_to(folder).as_posix()
    return name.removesuffix(next(ending for ending in _ENDINGS if name.endswith(ending)))


def _figures(
    left: _Left, card: ModelCard, folder: Path, volumes: Path | None, ports: PagePorts
) -> tuple[CaseFigures | None, tuple[str, ...]]:
    """Draw a case if its volumes and mask are found; return what the reader should know, too."""
    inputs = left.report["inputs"]
    try:
        given, options = read_segment_line(left.report["command"], len(inputs))
        stored = [file["name"] for file in inputs]
        near = (left.path.parent, folder)
        mask = _found(options["-o"], [*(at / Path(options["-o"]).name for at in near), options["-o"]])
        named = [
            # masks often have the names of their volumes
            _found(name, [*([volumes / file] if volumes else []), name, *(at / Path(name).name for at in near)], mask)
            for name, file in zip(given, stored, strict=True)
        ]
        figures, sources, mask_sha256 = stored_figures(
            named, mask, stated_reading(options), card, ports.volumes, ports.pictures
        )
    except VoxportError as error:
        return None, (f"no pictures: {error}",)
    except (ValueError, KeyError, OSError):  # OSError: a name that is too long
        return None, ("no pictures: the report's command is not one that voxport writes",)
    changed = [name for name, file, sha in zip(named, inputs, sources, strict=True) if file["sha256"] != sha]
    changed += [mask] if mask_sha256 != left.mask_sha256 else []
    return figures, tuple(f"{name} has changed since the report was written" for name in changed)


def _found(name: str, places: Sequence[str | Path], other: str | None = None) -> str:
    """Return the first place, but ``other``, where a volume, or the file that it is in, lies. Raises InputError."""
    for place in () if "://" in name else map(Path, places):
        is_there = place.exists() or any(parent.is_file() for parent in place.parents)
        if is_there and (other is None or place.resolve() != Path(other).resolve()):
            return str(place)
    do = "say where it lies with `volumes`"
    raise InputError(name, expected="a volume on this machine", got="none there", do=do)
