"""Contract suite of `PageWriter`, and pages whose every text is hostile."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from ..domain.labels.comparison import LabelAgreement
from ..domain.viewing.pages import (
    CaseFigures,
    CasePage,
    CohortCase,
    CohortPage,
    ComparedCase,
    ComparisonPage,
    Distribution,
    Histogram,
    Layer,
    SliceFigure,
    Toggle,
)
from ..ports.pages import PageWriter

HOSTILE = "\"'></title></style></script><script>parent.ran=1</script><img src=x onerror=ran=1>{{ 7*7 }}"
PICTURES = tuple(f"picture {i}".encode() for i in range(3))


def hostile(name: str) -> str:
    """Return a name that is followed by what would run where it is not shown as text."""
    return f"{name}{HOSTILE}"


def page_report(name: Callable[[str], str] = str, labels: int = 2) -> dict[str, Any]:
    """Return a report as plain data, every text of which goes through ``name``."""
    grid = {
        "shape": [5, 4, 3],
        "affine_ras": np.eye(4).tolist(),
        "spacing": [0.5, 0.5, 2.0],
        "unit": "um",
        "axis_codes": "RAS",
    }
    channels = [{"mean": 1.5, "std": None, "min": 0.0, "max": 2.0}]
    return {
        "schema": "voxport/report/1",
        "command": name("voxport segment scan.nii -o mask.nii"),
        "inputs": [{"name": name("scan.nii"), "sha256": "1" * 64}],
        "outputs": [{"name": name("mask.nii"), "sha256": "2" * 64}],
        "model": {
            "name": name("model"),
            "version": name("1.0.0"),
            "file": name("model.onnx"),
            "sha256": "3" * 64,
            "weights_sha256": "4" * 64,
            "certified": True,
            "card": {},
        },
        "runtime": {key: name(key) for key in ("name", "library", "device", "precision")},
        "tuned": None,
        "versions": {name("voxport"): name("1")},
        "grid": grid,
        "model_grid": grid,
        "tiles": {
            "count": 2,
            "tile": [5, 4, 3],
            "padded": [8, 8, 8],
            "axis": "x",
            "blending": "halo",
            "resampled": False,
        },
        "statistics": {
            "unit": "um",
            "voxel_volume": 0.5,
            "labels": [
                {
                    "value": i,
                    "name": name(f"label {i}"),
                    "voxels": 10 * i,
                    "volume": 5.0 * i,
                    "channels": channels,
                    "bounding_box": None,
                    "centroid_voxel": None,
                    "centroid_world": None,
                    "components": i,
                    "touches_border": False,
                }
                for i in range(1, labels + 1)
            ],
            **({"uncertainty": _page_uncertainty(name)} if labels else {}),
        },
        "seconds": {name("read"): 0.5},
        "network_seconds": 0.25,
        "warnings": [name("a warning")],
        "postprocessing": [{"step": name("fill_holes"), "labels": [1], "components": 1, "voxels": 3}],
        "crop": {"start": [1, 0, 0], "stop": [5, 4, 2]},
    }


def _page_uncertainty(name: Callable[[str], str]) -> dict[str, Any]:
    means = {"entropy": 0.75, "margin": 0.5, "disagreement": 0.125}
    place = {"voxel": [1, 2, 0], "slice": 0, "world": [0.5, 1.0, 0.0], "voxels": 8, **means}
    spot = {"reason": "missed", "label": "", "why": name("8 of 8 voxels are uncertain"), **place}
    return {"slice_axis": "z", **means, "places": [spot], "pieces": [], "slices": [spot | {"reason": "slice"}]}


def page_figures(name: Callable[[str], str] = str) -> CaseFigures:
    """Return figures of two slices; the bytes are no pictures."""
    letters = (name("A"), "P", "R", "L")
    return CaseFigures(
        (
            SliceFigure(
                "axial", 0, 3, (512.0, 256.0), letters, PICTURES[0], (Layer(1, PICTURES[1]),), (name("label"),)
            ),
            SliceFigure("sagittal", 2, 5, (1.0, 512.0), letters, PICTURES[0], ()),
        ),
        (Toggle(name("first"), "#ff0000"), Toggle(name("second"), "#00ff00")),
        (-10.0, 30.0),
        (0.0, 20.0),
        (Histogram(name("channel"), -10.0, 30.0, (0, 4, 9), (1.0, 2.0)), Histogram("flat", 1.0, 1.0, (0,))),
        PICTURES[2],
        left_out=3,
    )


def page_cohort(name: Callable[[str], str] = str) -> CohortPage:
    """Return a page on three cases, the last an outlier."""
    names = [name(f"case {i}") for i in range(3)]
    spread = Distribution(
        name("label"), name("volume"), name("um³"), dict(zip(names, (1.0, 2.0, 9.0), strict=True)), (0, 5)
    )
    one = Distribution("rare", "mean", "", {names[1]: 4.0}, None)
    cases = [
        CohortCase(case, f"key {case}", page_report(name), "case.html", PICTURES[2] if i else None)
        for i, case in enumerate(names)
    ]
    cases[2] = CohortCase(names[2], "key", page_report(name), "sub/case%20c.html", PICTURES[2], (spread.title,))
    return CohortPage(name("cohort"), tuple(cases), (spread, one), (name("a note"),))


def page_comparison(name: Callable[[str], str] = str) -> ComparisonPage:
    """Return a page on a case with one label whose distances are undefined."""
    label = LabelAgreement(1, name("label"), 1, 0, 0.0, 0.0, None, 0.0, None, None, 0.5, 0.0, None)
    case = ComparedCase(name("case"), (label,), name("um"), 2.0, page_figures(name).slices, (name("a note"),))
    return ComparisonPage((case, case), page_figures(name).toggles)


class Parsed(HTMLParser):
    """A page as a parser sees it: its elements with their attributes, and its text apart from style and script."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, Mapping[str, str]]] = []
        self.text, self.inside = "", ""
        self.own: dict[str, str] = {"style": "", "script": ""}
        self.feed(content.decode("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        self.inside = tag if tag in self.own else self.inside

    def handle_endtag(self, tag: str) -> None:
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.own[self.inside] += data
        else:
            self.text += data

    @property
    def addresses(self) -> list[str]:
        """What elements refer to."""
        named = ("src", "href", "srcset", "action", "data", "poster", "xlink:href")
        return [value for _, attributes in self.elements for key, value in attributes.items() if key in named]


class PageWriterContract:
    """Subclass and implement the hook."""

    def make_writer(self) -> PageWriter:
        """Return a writer."""
        raise NotImplementedError

    def pages(self, name: Callable[[str], str]) -> dict[str, bytes]:
        """Return a page of each kind, every text of which goes through ``name``."""
        writer = self.make_writer()
        full = CasePage(name("case"), page_report(name), name("key"), page_figures(name), (name("a note"),))
        return {
            "case": writer.case(full),
            "bare case": writer.case(CasePage(name("case"), page_report(name, labels=0), name("key"))),
            "cohort": writer.cohort(page_cohort(name)),
            "comparison": writer.comparison(page_comparison(name)),
        }

    def test_all_text_is_shown_as_text(self) -> None:
        plain, marked = self.pages(str), self.pages(hostile)
        for kind, content in marked.items():
            parsed, expected = Parsed(content), Parsed(plain[kind])
            assert [tag for tag, _ in parsed.elements] == [tag for tag, _ in expected.elements], kind
            names = [[set(attributes) for _, attributes in page.elements] for page in (parsed, expected)]
            assert names[0] == names[1], kind
            assert parsed.own == expected.own, kind
            assert HOSTILE in parsed.text, kind

    def test_what_a_case_states_is_on_its_page(self) -> None:
        pages = self.pages(str)
        for stated in ("voxport segment scan.nii -o mask.nii", "a warning", "1" * 64, "2" * 64, "3" * 64, "4" * 64):
            assert stated in Parsed(pages["case"]).text
        for stated in (
            "label 1",
            "label 2",
            "a note",
            "channel",
            "RAS",
            "0.5 x 0.5 x 2",
            "0.250 s",
            "3 voxels changed",
            "3 more slices",
            "1, 0, 0 to 5, 4, 2",
            "8 of 8 voxels are uncertain",
            "0.125",
        ):
            assert stated in Parsed(pages["case"]).text
        assert "a warning" in Parsed(pages["bare case"]).text
        assert "Look at these first" not in Parsed(pages["bare case"]).text
        cohort = Parsed(pages["cohort"])
        assert all(f"case {i}" in cohort.text for i in range(3))
        assert {"case.html", "sub/case%20c.html"} <= set(cohort.addresses)
        assert "label" in Parsed(pages["comparison"]).text

    def test_a_page_loads_nothing_and_runs_its_own_script_alone(self) -> None:
        for kind, content in self.pages(str).items():
            parsed = Parsed(content)
            tags = [tag for tag, _ in parsed.elements]
            assert not {"link", "iframe", "object", "embed", "base", "form"} & set(tags), kind
            links = {"case.html", "sub/case%20c.html"} if kind == "cohort" else set()
            assert all(a.startswith("data:image/png;base64,") or a in links for a in parsed.addresses), kind
            assert "url(" not in parsed.own["style"], kind
            assert not [key for _, found in parsed.elements for key in found if key.startswith("on") or key == "style"]
            policy = next(found["content"] for _, found in parsed.elements if found.get("http-equiv"))
            allowed = dict(part.split(" ", 1) for part in policy.split("; "))
            assert allowed["default-src"] == "'none'", kind
            assert allowed["img-src"] == "data:", kind
            for part in ("style", "script"):
                digest = b64encode(hashlib.sha256(parsed.own[part].encode()).digest()).decode()
                assert allowed[f"{part}-src"] == f"'sha256-{digest}'", kind

    def test_pictures_are_inside_whole(self) -> None:
        pages = self.pages(str)
        for kind, pictures in (("case", PICTURES[:2]), ("cohort", PICTURES[2:]), ("comparison", PICTURES[:2])):
            found = [a.partition(",")[2] for a in Parsed(pages[kind]).addresses if a.startswith("data:")]
            assert {b64decode(text) for text in found} == set(pictures), kind

    def test_the_same_page_gives_the_same_bytes(self) -> None:
        assert self.pages(str) == self.pages(str)

    def test_a_name_that_is_no_text_does_not_stop_the_page(self) -> None:
        for kind, content in self.pages(lambda text: f"{text}\udcff").items():
            assert re.search(r"case \d\?|case\?", content.decode("utf-8")), kind

    @pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e300, -0.0])
    def test_odd_numbers_do_not_stop_the_page(self, value: float) -> None:
        report = page_report()
        report["statistics"]["labels"][0]["channels"][0]["mean"] = value
        report["seconds"]["read"] = value
        parsed = Parsed(self.make_writer().case(CasePage("case", report, "key", page_figures())))
        assert f"{value:.6g}" in parsed.text
