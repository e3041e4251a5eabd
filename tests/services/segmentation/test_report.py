"""A report says where a mask came from, as plain data."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxport.contract.card import read_card
from voxport.domain.inference.patches import Tiling
from voxport.domain.intensity import Rescale
from voxport.domain.parity import Certificate, Parity, RuntimeParity
from voxport.domain.reading import Reading
from voxport.domain.report import grid_mapping
from voxport.domain.run import Outputs, RunOptions, option_text
from voxport.domain.tuning import Choice
from voxport.services.models.loading import LoadedModel
from voxport.services.segmentation.report import (
    curl_line,
    read_segment_line,
    run_report,
    same_again,
    same_again_there,
    segment_line,
    stated_reading,
)
from voxport.services.segmentation.segment import Segmentation

from tests.services.conftest import Bench, brighter_than, calls_of, load, make_card, make_grid, noise

CARD = make_card(spacing=(0.8, 1.0, 2.0), unit="um", intensity=[Rescale(0, 1)], tiling=Tiling((8, 8, 8), overlap=0.25))
Run = tuple[Segmentation, LoadedModel, dict[str, Any]]


@pytest.fixture
def run(bench: Bench) -> Run:
    """A run, what scored, and the report of it after a trip through JSON."""
    bench.put(noise((12, 10, 9)), make_grid((12, 10, 9), (0.5, 1.0, 2.0), "um", "LPS"))
    loaded = load(brighter_than(0.5), CARD, warning="not certified")
    done = bench.segment(loaded, outputs=Outputs("mask", "probabilities", "s.json"))
    report = run_report(done, loaded, version="1.2.3", command="voxport segment scan")
    return done, loaded, json.loads(json.dumps(report, allow_nan=False))


def test_it_has_every_section(run: Run) -> None:
    assert list(run[2]) == [
        "schema",
        "command",
        "inputs",
        "outputs",
        "model",
        "runtime",
        "tuned",
        "versions",
        "grid",
        "model_grid",
        "tiles",
        "statistics",
        "seconds",
        "network_seconds",
        "warnings",
    ]
    assert run[2]["schema"] == "voxport/report/1"
    assert run[2]["command"] == "voxport segment scan"


@pytest.mark.requirement("R-REPORT")
def test_files_are_named_with_their_hashes(run: Run, bench: Bench) -> None:
    _, _, report = run
    assert report["inputs"] == [{"name": "scan", "sha256": bench.volumes.open("scan").sha256()}]
    hashes = {entry["name"]: entry["sha256"] for entry in report["outputs"]}
    assert set(hashes) == {"mask", "probabilities", "s.json"}
    assert hashes["mask"] == bench.volumes.open("mask").sha256()


@pytest.mark.requirement("R-REPORT")
def test_the_model_is_named_with_its_hashes_and_its_whole_card(run: Run) -> None:
    model = run[2]["model"]
    assert (model["name"], model["version"], model["file"]) == ("affine", "1.0.0", "model.onnx")
    assert (model["sha256"], model["weights_sha256"]) == ("a" * 64, "b" * 64)
    assert read_card(model["card"]) == CARD
    assert model["certified"] is False


@pytest.mark.parametrize(("precision", "certified"), [("fp32", True), ("bf16", False)])
def test_it_says_whether_this_runtime_was_certified(run: Run, precision: str, certified: bool) -> None:
    done, loaded, _ = run
    entry = RuntimeParity("fake", precision, "1", Parity(1.0, (1.0,), 0.0))
    card = CARD.with_parity(Certificate("b" * 64, "2026-01-01", (), (entry,)))
    proved = replace(loaded, model=replace(loaded.model, card=card))
    assert run_report(done, proved, version="1", command="")["model"]["certified"] is certified


def test_the_runtime_and_the_versions_are_named(run: Run) -> None:
    _, _, report = run
    runtime = {"name": "fake", "library": "1", "device": "cpu", "precision": "fp32", "reason": "asked for"}
    assert report["runtime"] == runtime
    assert set(report["versions"]) == {"voxport", "python", "numpy", "scipy", "platform"}
    assert (report["versions"]["voxport"], report["versions"]["numpy"]) == ("1.2.3", np.__version__)


def test_the_grids_are_those_of_the_volume_and_of_the_model(run: Run) -> None:
    done, _, report = run
    assert report["grid"]["shape"] == [12, 10, 9]
    assert (report["grid"]["axis_codes"], report["grid"]["unit"]) == ("LPS", "um")
    assert report["grid"]["spacing"] == [0.5, 1.0, 2.0]
    np.testing.assert_array_equal(report["grid"]["affine_ras"], done.grid.affine)
    assert report["model_grid"]["axis_codes"] == "RAS"
    assert report["model_grid"]["shape"] == [8, 10, 9]
    assert grid_mapping(done.grid) == report["grid"]


def test_the_tiles_the_times_the_statistics_and_the_warnings_are_those_of_the_run(run: Run) -> None:
    done, _, report = run
    plan = done.prepared.plan
    assert report["tiles"] == {
        "count": plan.tile_count,
        "tile": [8, 8, 8],
        "padded": [8, 10, 9],
        "axis": "xyz"[plan.axis],
        "blending": "gaussian",
        "resampled": True,
        "repeated": 0,
    }
    assert set(report["seconds"]) == {"read", "prepare", "score", "measure", "write"}
    assert report["statistics"]["labels"][0]["voxels"] == done.statistics[0].voxels
    assert report["statistics"]["unit"] == "um"
    assert report["warnings"] == ["not certified"]


# A tuned model


TUNED = Choice("fake", "fp32", 3, (4, 8, 8), 2)


def test_a_tuning_is_used_reported_and_written_to_the_command(bench: Bench) -> None:
    bench.put(noise((12, 10, 9)))
    loaded = replace(load(brighter_than(0.5), make_card()), tuned=TUNED)
    done = bench.segment(loaded)
    assert done.prepared.plan.tile == (4, 8, 8)
    assert {call[0] for call in calls_of(loaded)} <= {1, 2}
    assert (2, 1, 4, 8, 8) in calls_of(loaded)
    report = run_report(done, loaded, version="1", command="")
    assert report["tuned"] == {"runtime": "fake", "precision": "fp32", "threads": 3, "patch": [4, 8, 8], "batch": 2}
    command = same_again(["scan"], "affine", "mask", loaded, done)
    assert "--threads 3" in command
    assert "--patch 4,8,8 " in command
    assert "--batch 2" in command
    assert "--threads 1" in same_again(["scan"], "affine", "mask", loaded, done, threads=1)


def test_a_requested_option_precedes_a_tuned_one(bench: Bench) -> None:
    bench.put(noise((12, 10, 9)))
    loaded = replace(load(brighter_than(0.5), make_card()), tuned=TUNED)
    done = bench.segment(loaded, patch=(8, 8, 8))
    assert done.prepared.plan.tile == (8, 8, 8)
    assert {call[0] for call in calls_of(loaded)} == {1}
    assert bench.segment(loaded, batch=3).prepared.batch == 3


def test_a_tuned_patch_that_exceeds_memory_is_replaced_by_the_cards(bench: Bench) -> None:
    """Halo blending, whose tiles are all that it holds; 200 KB for them fit 8 x 8 x 8, and not 32 x 32 x 32."""
    bench.put(noise((32, 32, 32)))
    loaded = replace(load(brighter_than(0.5), make_card()), tuned=replace(TUNED, patch=(32, 32, 32), batch=1))
    assert bench.segment(loaded).prepared.plan.tile == (32, 32, 32)
    assert bench.segment(loaded, memory_bytes=200_000).prepared.plan.tile == (8, 8, 8)


def test_the_report_names_the_quantised_network(bench: Bench) -> None:
    bench.put(noise((12, 10, 9)))
    loaded = replace(load(brighter_than(0.5), make_card()), quantised_sha256="c" * 64)
    assert run_report(bench.segment(loaded), loaded, version="1", command="")["runtime"]["quantised_sha256"] == "c" * 64


def test_the_report_has_the_time_inside_the_network(run: Run) -> None:
    done, _, report = run
    assert 0 < report["network_seconds"] <= report["seconds"]["score"]
    assert report["network_seconds"] == round(done.network_seconds, 4)


def test_requests_and_commands_for_a_server_spell_out_what_was_chosen() -> None:
    report = {
        "model": {"name": "edges", "version": "1.0.0"},
        "tiles": {"tile": [8, 8, 16], "blending": "halo"},
    }
    command = same_again_there("https://lab.example", ["a b.nii"], "mask.nii.gz", report, RunOptions(threshold=0.3))
    assert command == (
        "voxport segment 'a b.nii' --server https://lab.example -m edges:1.0.0 -o mask.nii.gz "
        "--patch 8,8,16 --blending halo --threshold 0.3"
    )
    request = curl_line("https://lab.example", ["a b.nii", "c.nii"], "mask.nii.gz", report, Reading(), with_key=False)
    assert request == (
        "curl -sS --fail-with-body -F 'volume=@a b.nii' -F volume=@c.nii -F model=edges:1.0.0 -F patch=8,8,16 "
        "-F blending=halo -o mask.nii.gz https://lab.example/segment"
    )
    stated = Reading((0.5, 0.5, 2.0), "um", "ZYX", timepoint=0)
    request = curl_line("https://lab.example", ["a.tif"], "mask.nii.gz", report, stated, with_key=False)
    assert "-F blending=halo -F spacing=0.5,0.5,2.0 -F unit=um -F axes=ZYX -F timepoint=0 -o mask.nii.gz" in request
    keyed = curl_line("https://lab.example", ["c.nii"], "mask.nii.gz", report, Reading(), with_key=True)
    assert keyed.endswith('-H "Authorization: Bearer $VOXPORT_API_KEY"')


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=3),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)
def test_a_line_is_read_back_whatever_the_names(inputs: list[str], mask: str) -> None:
    command = segment_line(inputs, {"-m": "model", "-o": mask, "--level": None})
    assert read_segment_line(command, len(inputs)) == (inputs, {"-m": "model", "-o": mask})


@given(
    st.builds(
        Reading,
        st.none() | st.tuples(*[st.floats(1e-6, 1e6)] * 3),
        st.sampled_from([None, "nm", "mm"]),
        st.sampled_from([None, "ZYX", "TCXY"]),
        st.none() | st.text("abc,0 '-", min_size=1),
        *[st.none() | st.integers(0, 99)] * 2,
        st.none() | st.text("a/b .-", min_size=1),
    )
)
def test_what_a_line_states_of_the_volumes_is_read_back(reading: Reading) -> None:
    flags = {f"--{name}": None if value is None else option_text(value) for name, value in vars(reading).items()}
    _, options = read_segment_line(segment_line(["scan"], {"-m": "model", **flags}), 1)
    assert stated_reading(options) == reading
