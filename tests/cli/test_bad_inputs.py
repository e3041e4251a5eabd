"""Every bad input ends in one line and its exit code, and no file appears under the output's name."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import onnx
import pytest
import yaml
from voxport.domain.cards.writing import write_card
from voxport.testing.affine import affine_card, write_affine_onnx
from voxport.testing.bad_files import bad_nifti_files

from .conftest import Command, environment, make_model

with TemporaryDirectory() as _folder:
    FAULTS = sorted(bad_nifti_files(Path(_folder)))


def refused(result: subprocess.CompletedProcess[str], code: int, folder: Path, *words: str) -> None:
    """The process ended with ``code``, one line with the words, no traceback, and left nothing behind."""
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("voxport: ")
    assert "expected" in lines[0]
    assert result.stdout == ""
    for word in words:
        assert word in lines[0]
    assert not [path.name for path in folder.rglob("*") if "mask" in path.name or path.name.endswith(".part")]


@pytest.mark.requirement("R-REFUSE")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_volume_that_cannot_be_segmented(voxport: Command, model: Path, tmp_path: Path, fault: str) -> None:
    bad = bad_nifti_files(tmp_path)[fault]
    refused(voxport("segment", bad, "-m", model, "-o", "mask.nii.gz"), 3, tmp_path, bad.name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted_unless_told_what_to_take(
    voxport: Command, model: Path, tmp_path: Path, value: float
) -> None:
    values = np.random.default_rng(0).random((9, 9, 9)).astype(np.float32)
    values[0, 0, :5] = value
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "nan.nii")
    result = voxport("segment", "nan.nii", "-m", model, "-o", "mask.nii.gz")
    refused(result, 3, tmp_path, "5 voxels", "--nan-as")
    result = voxport("segment", "nan.nii", "-m", model, "-o", "mask.nii.gz", "--nan-as", "0")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "mask.nii.gz").exists()


def test_a_wrong_channel_count(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    refused(voxport("segment", scan, scan, "-m", model, "-o", "mask.nii.gz"), 3, tmp_path, "1 channel", "got 2")


def test_channels_on_different_grids(voxport: Command, scan: Path, tmp_path: Path) -> None:
    two = make_model(tmp_path / "two.onnx", channels=2)
    nib.save(nib.Nifti1Image(np.zeros((21, 18, 13), np.uint8), np.eye(4)), tmp_path / "other.nii")
    result = voxport("segment", scan, "other.nii", "-m", two, "-o", "mask.nii.gz")
    refused(result, 3, tmp_path, "other.nii", "grid")


def test_too_many_voxels(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    result = voxport("segment", scan, "-m", model, "-o", "mask.nii.gz", env={"VOXPORT_MAX_VOXELS": "1000"})
    refused(result, 5, tmp_path, "1000")


def test_too_little_memory(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    result = voxport("segment", scan, "-m", model, "-o", "mask.nii.gz", "--memory", "1MB")
    refused(result, 5, tmp_path, "--memory")


def _no_model(path: Path) -> None:
    path.write_bytes(b"PNG or so")


def _empty_model(path: Path) -> None:
    path.write_bytes(b"")


def _without_card(path: Path) -> None:
    write_affine_onnx(path, np.eye(2, 1, dtype=np.float32), np.zeros(2, np.float32))


def _truncated_model(path: Path) -> None:
    make_model(path)
    path.write_bytes(path.read_bytes()[:-300])


def _other_weights(path: Path) -> None:
    """A certificate that was made for another file."""
    make_model(path)
    proto = onnx.load(path)
    for prop in proto.metadata_props:
        card = yaml.safe_load(prop.value)
        card["parity"] = {"weights_sha256": "0" * 64, "date": "2026-01-01", "probes": [], "runtimes": []}
        prop.value = yaml.safe_dump(card, default_flow_style=True, width=10**6).strip()
    onnx.save(proto, path)


@pytest.mark.parametrize(
    "write", [_no_model, _empty_model, _without_card, _truncated_model, _other_weights], ids=lambda f: f.__name__
)
def test_a_model_file_that_is_not_one(voxport: Command, scan: Path, tmp_path: Path, write: Any) -> None:
    write(tmp_path / "wrong.onnx")
    refused(voxport("segment", scan, "-m", "wrong.onnx", "-o", "mask.nii.gz"), 4, tmp_path, "wrong.onnx")


@pytest.mark.parametrize("reference", ["missing.onnx", "nosuchmodel", "folder/missing.onnx"])
def test_a_model_that_is_not_there(voxport: Command, scan: Path, tmp_path: Path, reference: str) -> None:
    refused(voxport("segment", scan, "-m", reference, "-o", "mask.nii.gz"), 4, tmp_path, reference)


def test_a_default_model_that_is_not_there(voxport: Command, scan: Path, tmp_path: Path) -> None:
    result = voxport("segment", scan, "-o", "mask.nii.gz", env={"VOXPORT_MODEL": "nosuchmodel"})
    refused(result, 4, tmp_path, "nosuchmodel", "two-photon-vessels")


def test_a_card_with_an_unknown_key_is_named_by_its_path(
    voxport: Command, scan: Path, model: Path, tmp_path: Path
) -> None:
    card = write_card(affine_card(1, 2))
    card["input"]["orientaton"] = "RAS"
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    result = voxport("segment", scan, "-m", model, "--card", "card.yaml", "-o", "mask.nii.gz")
    refused(result, 4, tmp_path, "input.orientaton is an unknown key", "orientation")


def test_a_card_whose_channels_are_not_the_networks(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(write_card(affine_card(2, 2))), encoding="utf-8")
    result = voxport("segment", scan, scan, "-m", model, "--card", "card.yaml", "-o", "mask.nii.gz")
    refused(result, 4, tmp_path, "2 input channel(s)", "a network with 1")


def test_a_card_whose_labels_are_not_the_networks(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(write_card(affine_card(1, 4))), encoding="utf-8")
    result = voxport("segment", scan, "-m", model, "--card", "card.yaml", "-o", "mask.nii.gz")
    refused(result, 4, tmp_path, "labels [1, 2, 3]", "2 channels")


OUTPUTS = {
    "-o": ".nii.gz",
    "--probabilities": ".nii.gz",
    "--statistics": ".json",
    "--preview": ".png",
    "--report": ".json",
}


def with_output(option: str, name: str) -> list[str]:
    """Options that ask for one more output, or for the mask alone."""
    return [option, name] if option == "-o" else ["-o", "mask_of_labels.nii.gz", option, name]


@pytest.mark.parametrize("option", OUTPUTS)
@pytest.mark.parametrize("name", ["missing/mask", "m" * 260])
def test_an_output_that_cannot_be_written_is_found_before_a_volume_is_read(
    voxport: Command, model: Path, tmp_path: Path, name: str, option: str
) -> None:
    output = name + OUTPUTS[option]
    refused(voxport("segment", "no.nii", "-m", model, *with_output(option, output)), 1, tmp_path, Path(output).name)


@pytest.mark.parametrize("option", OUTPUTS)
def test_the_longest_name_that_a_file_may_have_is_written(
    voxport: Command, scan: Path, model: Path, tmp_path: Path, option: str
) -> None:
    name = "m" * (255 - len(OUTPUTS[option])) + OUTPUTS[option]
    result = voxport("segment", scan, "-m", model, *with_output(option, name))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / name).is_file()


@pytest.mark.parametrize(
    ("option", "name", "endings"),
    [
        ("-o", "mask.xyz", ".nii, .nii.gz, .hdr, .img"),
        ("-o", "mask", ".nii, .nii.gz, .hdr, .img"),
        ("--probabilities", "mask.mgz", ".nii, .nii.gz, .hdr, .img"),
        ("--statistics", "mask.xlsx", ".json or .csv"),
        ("--preview", "mask.jpg", ".png"),
    ],
)
@pytest.mark.parametrize("place", [[], ["--server", "http://127.0.0.1:9"]], ids=["here", "on a server"])
def test_a_name_of_another_format_is_a_usage_error_before_a_volume_is_read(
    voxport: Command, tmp_path: Path, option: str, name: str, endings: str, place: list[str]
) -> None:
    result = voxport("segment", "no.nii", *with_output(option, name), *place)
    refused(result, 2, tmp_path, f"voxport: {option}: expected a name in {endings}", f", got {name}")


SPELLINGS = ["{0}", "./{0}", "folder/../{0}", "link/{0}", "{1}"]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("second", [option for option in OUTPUTS if option not in ("-o", "--statistics", "--preview")])
def test_two_results_never_share_a_place_however_it_is_spelled(
    voxport: Command, scan: Path, model: Path, tmp_path: Path, second: str, spelling: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    first, name = ("-o", "m.nii") if second == "--probabilities" else ("--statistics", "s.json")
    others = [] if first == "-o" else ["-o", "mask.nii"]
    result = voxport(
        "segment", scan, "-m", model, first, name, *others, second, spelling.format(name, tmp_path / name.upper())
    )
    refused(result, 2, tmp_path, "of its own")


@pytest.mark.parametrize("kept", ["model.onnx", "card.yaml", "scan.nii.gz"])
@pytest.mark.parametrize("how", ["name", "symbolic link", "hard link"])
def test_no_result_replaces_the_model_the_card_or_an_input(
    voxport: Command, scan: Path, model: Path, tmp_path: Path, kept: str, how: str
) -> None:
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(write_card(affine_card(1, 2))), encoding="utf-8")
    before, name = (tmp_path / kept).read_bytes(), kept
    if how != "name":
        name = "alias.json"
        (tmp_path / name).symlink_to(kept) if how == "symbolic link" else (tmp_path / name).hardlink_to(tmp_path / kept)
    result = voxport("segment", scan.name, "-m", model.name, "--card", "card.yaml", "-o", "m.nii", "--report", name)
    refused(result, 2, tmp_path, "--report: expected a place of its own")
    assert (tmp_path / kept).read_bytes() == before


@pytest.mark.parametrize(("stored", "output"), [("T1.IMG", "T1.HDR"), ("T1.hdr", "T1.img"), ("T1.HDR", "./T1.hdr")])
def test_no_mask_replaces_half_of_a_pair(
    voxport: Command, model: Path, tmp_path: Path, stored: str, output: str
) -> None:
    image = nib.Nifti1Pair(np.zeros((9, 9, 9), np.uint8), np.eye(4))
    nib.save(image, tmp_path / "T1.hdr")
    if stored.isupper():
        (tmp_path / "T1.hdr").rename(tmp_path / "T1.HDR")
        (tmp_path / "T1.img").rename(tmp_path / "T1.IMG")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("T1.*")}
    refused(voxport("segment", stored, "-m", model, "-o", output), 2, tmp_path, "-o: expected a place of its own")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("T1.*")} == before


def test_statistics_of_another_format(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    result = voxport("segment", scan, "-m", model, "-o", "mask.nii.gz", "--statistics", "s.xlsx")
    refused(result, 2, tmp_path, ".json or .csv")


def test_two_outputs_of_one_name(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    result = voxport("segment", scan, "-m", model, "-o", "mask.nii.gz", "--preview", "mask.nii.gz")
    refused(result, 2, tmp_path, "mask.nii.gz")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--overlap", "0.9"),
        ("--overlap", "-0.1"),
        ("--patch", "8,8"),
        ("--patch", "8,0,8"),
        ("--memory", "much"),
        ("--runtime", "openwhat"),
        ("--precision", "fp4"),
        ("--blending", "linear"),
    ],
)
def test_an_option_out_of_its_range(
    voxport: Command, scan: Path, model: Path, tmp_path: Path, option: str, value: str
) -> None:
    result = voxport("segment", scan, "-m", model, "-o", "mask.nii.gz", f"{option}={value}")
    refused(result, 2, tmp_path, option)


@pytest.mark.parametrize("option", ["-o", "--probabilities"])
def test_an_output_that_would_replace_an_input(
    voxport: Command, scan: Path, model: Path, tmp_path: Path, option: str
) -> None:
    before = scan.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    others = [] if option == "-o" else ["-o", "mask.nii"]
    result = voxport("segment", scan, "-m", model, option, f"link/{scan.name}", *others)
    refused(result, 2, tmp_path, scan.name)
    assert scan.read_bytes() == before


@pytest.mark.parametrize(
    "command",
    [
        "segment LONG -m MODEL -o mask.nii",
        "segment SCAN -m LONG -o mask.nii",
        "segment SCAN -m MODEL -o LONG.nii",
        "segment SCAN -m MODEL -o mask.nii --card LONG",
        "segment SCAN -m MODEL -o mask.nii --report LONG",
        "batch LONG -m MODEL -o out",
        "export LONG --card MODEL -o out.onnx",
    ],
)
@pytest.mark.parametrize("name", ["l" * 300, "l" * 300 + "/x"])
def test_a_name_that_is_too_long_is_one_line_wherever_it_is_given(
    voxport: Command, scan: Path, model: Path, tmp_path: Path, command: str, name: str
) -> None:
    words = command.replace("LONG", name).replace("SCAN", str(scan)).replace("MODEL", str(model)).split()
    result = voxport(*words)
    refused(result, result.returncode, tmp_path)
    assert result.returncode in (1, 2, 3, 4)
    assert "unexpected" not in result.stderr


def test_a_wrong_setting_is_named(voxport: Command, scan: Path, model: Path, tmp_path: Path) -> None:
    result = voxport("segment", scan, "-m", model, "-o", "mask.nii.gz", env={"VOXPORT_MAX_VOXELS": "lots"})
    refused(result, 2, tmp_path, "max_voxels")


@pytest.mark.parametrize("arguments", [("segment",), ("segment", "x.nii"), ("nonsense",), ("segment", "--nonsense")])
def test_a_command_line_that_is_none(voxport: Command, arguments: tuple[str, ...]) -> None:
    result = voxport(*arguments)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "--help" in result.stderr


def test_debug_shows_the_traceback_and_keeps_the_failure(voxport: Command, scan: Path) -> None:
    result = voxport("segment", scan, "-m", "missing.onnx", "-o", "mask.nii.gz", "--debug")
    assert result.returncode != 0
    assert "Traceback" in result.stderr
    assert "missing.onnx" in result.stderr


def test_a_read_only_folder(scan: Path, model: Path, tmp_path: Path) -> None:
    # a read-only mount holds for root as well, which a folder's mode does not
    result = _segment_into_mount("ro", scan, model, tmp_path)
    refused(result, 1, tmp_path, "mask.nii.gz", "ead-only")


def test_a_full_disk(tmp_path: Path) -> None:
    big = tmp_path / "big.nii"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).integers(0, 255, (64, 64, 64), np.uint8), np.eye(4)), big)
    model = make_model(tmp_path / "model.onnx", patch=(32, 32, 32))
    result = _segment_into_mount("size=64k", big, model, tmp_path)
    refused(result, 1, tmp_path, "mask.nii.gz", "o space")


def test_a_file_size_limit_is_met_like_a_full_disk(model: Path, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.arange(8000, dtype=np.uint16).reshape(20, 20, 20), np.eye(4)), tmp_path / "scan.nii")
    result = subprocess.run(
        [sys.executable, "-m", "voxport", "segment", "scan.nii", "-m", str(model), "-o", "mask.nii"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    refused(result, 1, tmp_path, "mask.nii")


@pytest.mark.parametrize(
    ("options", "fill", "words"),
    [
        ("size=16m", "", "at most 8.39 MB for a run, half of what is free"),
        ("size=40m", "head -c 20m /dev/zero > {place}/ballast;", "at most 10.5 MB for a run"),
        ("ro", "", "place: expected room for"),
    ],
)
def test_a_scratch_folder_without_room_for_the_sums(tmp_path: Path, options: str, fill: str, words: str) -> None:
    wide = tmp_path / "wide.nii"
    nib.save(nib.Nifti1Image(np.zeros((512, 512, 24), np.uint8), np.eye(4)), wide)
    model = make_model(tmp_path / "model.onnx", patch=(128, 128, 8))
    (tmp_path / "place").mkdir()
    command = f"{sys.executable} -m voxport segment {wide} -m {model} -o mask.nii.gz"
    fill = fill.format(place=tmp_path / "place")
    result = subprocess.run(
        [
            "unshare",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            f"mount -t tmpfs -o {options} none place; {fill} {command}",
        ],
        cwd=tmp_path,
        env=environment(tmp_path) | {"PATH": os.environ["PATH"], "VOXPORT_SCRATCH_DIR": str(tmp_path / "place")},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    refused(result, 5, tmp_path, words, "scratch folder")


def _segment_into_mount(options: str, volume: Path, model: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Segment into a file system of its own; what is left there is listed on stdout."""
    place = folder / "place"
    place.mkdir()
    command = f"{sys.executable} -m voxport segment {volume} -m {model} -o {place}/mask.nii.gz"
    script = f"mount -t tmpfs -o {options} none {place} && {{ {command}; code=$?; ls -A {place}; exit $code; }}"
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=folder,
        env=environment(folder) | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
