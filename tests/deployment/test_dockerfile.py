"""The Dockerfile, as far as it can be tried without an engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import environment

from .composed import DEPLOYMENT, ROOT, image_environment, instructions, services


def named(kind: str) -> list[str]:
    return [rest for name, rest in instructions() if name == kind]


def test_the_base_is_pinned_and_the_same_for_both_stages() -> None:
    bases = [rest.split()[0] for rest in named("FROM")]
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", bases[0])
    (label,) = named("LABEL")
    assert f'base.name="docker.io/library/{bases[0]}"' in label


def test_labels_are_those_of_the_open_container_initiative() -> None:
    (label,) = named("LABEL")
    keys = {key.removeprefix("org.opencontainers.image.") for key in re.findall(r"(\S+?)=", label)}
    assert keys == {"title", "description", "version", "revision", "licenses", "base.name"}


def test_the_version_is_the_packages() -> None:
    import voxport

    assert f"VERSION={voxport.__version__}" in named("ARG")
    assert services()["api"]["image"] == f"voxport:{voxport.__version__}"


def test_it_runs_as_nobody_in_particular() -> None:
    assert named("USER") == ["10001:10001"]
    order = [name for name, _ in instructions()]
    assert order.index("USER") > max(position for position, name in enumerate(order) if name == "RUN")


def test_what_it_copies_is_let_through() -> None:
    sources = {word for rest in named("COPY") if "--from" not in rest for word in rest.split()[:-1]}
    lines = (DEPLOYMENT / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert sources == {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    assert all((ROOT / source).exists() for source in sources)


def test_its_health_check_is_the_services() -> None:
    (check,) = named("HEALTHCHECK")
    command = check.partition("CMD ")[2]
    assert ["CMD", *yaml.safe_load(command)] == services()["api"]["healthcheck"]["test"]


def test_what_it_writes_has_a_place() -> None:
    made = shlex.split(" ".join(named("RUN")))
    places = {"/data", "/models", "/scratch"}
    assert places <= set(made)
    for variable in ("HOME", "TMPDIR", "BENTOML_HOME", "VOXPORT_MODELS_DIR", "VOXPORT_JOBS__BLOBS"):
        assert any(image_environment()[variable].startswith(place) for place in {*places, "/tmp"})


@pytest.mark.package_index
def test_what_it_installs_works_and_has_no_torch(tmp_path: Path) -> None:
    """Its install lines in a clean virtual environment, from what its COPY lines name; then the sample is segmented."""
    place, context = tmp_path / "opt" / "voxport", tmp_path / "src"
    context.mkdir()
    for source in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / source, context)
    shutil.copytree(ROOT / "src", context / "src", ignore=shutil.ignore_patterns("__pycache__"))
    lines = [rest.replace("/opt/voxport", str(place)) for rest in named("RUN") if "/opt/voxport" in rest]
    assert [line.split()[0] for line in lines] == ["python", f"{place}/bin/pip", f"{place}/bin/voxport"]
    for line in lines:
        shell = ["sh", "-c", re.sub(r"^python\b", shlex.quote(sys.executable), line)]
        # what is run is compiled when it is first imported; the image has all of it compiled
        quick = os.environ | {"PIP_COMPILE": "0"}
        done = subprocess.run(
            shell, cwd=context, env=quick, capture_output=True, text=True, encoding="utf-8", check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
    assert (place / "sbom.cdx.json").stat().st_size > 10_000
    installed = {path.name for path in place.glob("lib/python3.*/site-packages/*")}
    assert {"voxport", "bentoml", "gradio", "dbos", "onnxruntime"} <= installed
    assert not {"torch", "monai", "onnxscript", "pytest"} & installed
    assert not any(name.startswith("nvidia") and name != "nvidia_ml_py-13.615.71.dist-info" for name in installed)
    command = [str(place / "bin" / "voxport"), "segment", "--sample", "--report", "report.json"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sample_mask.nii.gz").exists()
    # the fastest that the bundled model is certified for, without any tuning
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["runtime"]["name"] == "openvino"
