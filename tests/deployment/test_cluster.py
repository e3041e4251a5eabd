"""Files that start a Dask cluster: SLURM's script is run, the others are checked against the programs they start."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask.config
import distributed  # noqa: F401 - its settings
import numpy as np
import pytest
import typer.main
import yaml
from voxport.adapters.volumes.ome_zarr import OmeZarrStore
from voxport.domain.geometry.grid import Box, Grid
from voxport.entrypoints.cli.console import parse_bytes
from voxport.entrypoints.cli.main import app
from voxport.settings import Settings

from tests.cli.conftest import environment
from tests.docs.test_settings import settings
from tests.rest.conftest import named_model
from tests.rest.serving import PATIENCE

from .composed import DEPLOYMENT, interpolated, services

SLURM = DEPLOYMENT / "cluster" / "slurm.sh"
DOCUMENTS = list(yaml.safe_load_all((DEPLOYMENT / "cluster" / "kubernetes.yaml").read_text(encoding="utf-8")))
# Runs a step as SLURM would on one node: its options are all of the form --name or --name=value.
SRUN = """#!/bin/bash
echo "$@" >> steps
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""


def parsed(words: Sequence[str]) -> dict[str, Any]:
    """The parameters of a command of Dask or voxport. Raises click's errors for options that it lacks."""
    from distributed.cli.dask_scheduler import main as scheduler
    from distributed.cli.dask_worker import main as worker

    program, name, *arguments = words
    known: dict[str, Any] = {"scheduler": scheduler, "worker": worker}
    if program == "voxport":
        line: Any = typer.main.get_command(app)
        known = line.commands
    parameters: dict[str, Any] = known[name].make_context(name, list(arguments)).params
    return parameters


def kinds(kind: str) -> list[Any]:
    return [document for document in DOCUMENTS if document["kind"] == kind]


def pods() -> Iterator[tuple[str, Any, Any]]:
    """Each pod of the manifest: the name of what starts it, its template's labels, and its specification."""
    for document in (*kinds("Deployment"), *kinds("Job")):
        template = document["spec"]["template"]
        yield document["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def steps() -> Iterator[list[str]]:
    """The commands of SLURM's steps."""
    joined = SLURM.read_text(encoding="utf-8").replace("\\\n", " ").replace("$memory", "1GB")
    for line in joined.splitlines():
        if found := re.search(r"\b((dask|voxport) (scheduler|worker|segment) .*) &$", line):
            yield [word.strip('"') for word in found[1].split()]


def test_a_command_that_is_none_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed(["dask", "worker", "tcp://a:1", "--thread-count=1"])
    with pytest.raises(Exception, match="No such option"):
        parsed(["voxport", "segment", "a", "-o", "b", "--clusters", "local:1"])


def test_slurms_script_is_one() -> None:
    assert subprocess.run(["bash", "-n", str(SLURM)], check=False).returncode == 0
    assert SLURM.stat().st_mode & 0o111
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, "--severity=warning", str(SLURM)], check=True)
    lines = SLURM.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert options
    assert max(options) < first, "sbatch reads its options up to the first command"


def test_slurms_steps_are_commands() -> None:
    found = [parsed([word for word in step if word != "$@"]) for step in steps()]
    assert len(found) == 3
    assert found[1]["nthreads"] == 1
    assert found[1]["nanny"] is False


def test_slurms_script_refuses_a_line_without_a_mask() -> None:
    done = subprocess.run(["bash", str(SLURM), "scan.nii"], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2
    assert done.stderr == "slurm.sh: expected VOLUME MASK [OPTION...], got 1 argument(s)\n"


def test_slurms_script_segments(tmp_path: Path) -> None:
    """On this machine in place of a node; the mask has the bytes of one process, and the key is deleted."""
    grid = Grid((24, 20, 16), np.diag([0.5, 0.5, 2.0, 1.0]), "um")
    with OmeZarrStore().create(str(tmp_path / "in.ome.zarr"), grid, np.dtype(np.uint8)) as sink:
        sink.write(Box.whole(grid.shape), np.random.default_rng(0).integers(0, 255, grid.shape, np.uint8))
        sink.commit()
    (tmp_path / "models").mkdir()
    (tmp_path / "one").mkdir()
    named_model(tmp_path / "models", "cells", patch=(8, 8, 8), overlap=0.5)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").write_text(SRUN, encoding="utf-8")
    for name, module in (("dask", "-m dask"), ("voxport", "-m voxport"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n', encoding="utf-8")
    for program in programs.iterdir():
        program.chmod(0o755)
    place = environment(tmp_path)
    place["PATH"] = f"{programs}:{place['PATH']}"
    slurm = {"SLURM_NTASKS": "1", "SLURM_CPUS_PER_TASK": "1", "SLURM_MEM_PER_CPU": "8000"}
    more = ["-m", "models/cells-1.0.0.onnx", "--block", "12"]
    for name, command, given in (
        ("one", ["voxport", "segment", "in.ome.zarr", "-o", "one/mask.ome.zarr", *more[:2], "--threads", "1"], {}),
        ("slurm", ["bash", str(SLURM), "in.ome.zarr", "mask.ome.zarr", *more], slurm),
    ):
        with (tmp_path / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=tmp_path, env=place | given, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            code = process.wait(PATIENCE)
        finally:
            with suppress(ProcessLookupError):  # as SLURM ends the steps with the job
                os.killpg(process.pid, signal.SIGKILL)
        assert code == 0, (tmp_path / f"{name}.log").read_text(encoding="utf-8")[-3000:]
    assert contents(tmp_path / "mask.ome.zarr") == contents(tmp_path / "one" / "mask.ome.zarr")
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith((".voxport", "mask"))} == {"mask.ome.zarr"}
    (client,) = [line for line in (tmp_path / "steps").read_text(encoding="utf-8").splitlines() if "segment" in line]
    assert "--cluster tls://" in client
    assert "--memory 7200MB" in client


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_manifest_has_what_a_cluster_takes() -> None:
    assert [document["kind"] for document in DOCUMENTS] == [
        "PersistentVolumeClaim",
        "NetworkPolicy",
        "Service",
        "Deployment",
        "Deployment",
        "Job",
    ]
    versions = {"Deployment": "apps/v1", "Job": "batch/v1", "NetworkPolicy": "networking.k8s.io/v1"}
    for document in DOCUMENTS:
        assert document["apiVersion"] == versions.get(document["kind"], "v1")
        assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
    assert kinds("PersistentVolumeClaim")[0]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_labels_select_what_they_name() -> None:
    for document in kinds("Deployment"):
        spec = document["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    (service,) = kinds("Service")
    assert [name for name, labels, _ in pods() if labels == service["spec"]["selector"]] == ["voxport-scheduler"]
    (policy,) = kinds("NetworkPolicy")
    ours = policy["spec"]["podSelector"]
    assert all(ours["matchLabels"].items() <= labels.items() for _, labels, _ in pods())
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": ours}]}], "whoever reaches the scheduler runs code"


@pytest.mark.parametrize(("name", "pod"), [(name, pod) for name, _, pod in pods()])
def test_pods_may_do_little(name: str, pod: Any) -> None:
    safe = pod["securityContext"]
    assert (safe["runAsNonRoot"], safe["runAsUser"]) == (True, 10001), name
    assert safe["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["image"] == services()["api"]["image"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    bounds = container["resources"]
    assert bounds["requests"]["memory"] == bounds["limits"]["memory"]
    assert {"cpu", "memory"} == set(bounds["requests"]) == set(bounds["limits"])
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    assert {"/scratch", "/tmp"} <= set(mounts.values())
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "emptyDir" not in volume]
    assert set(claims) <= {kinds("PersistentVolumeClaim")[0]["metadata"]["name"]}


def test_pods_that_go_on_are_looked_after() -> None:
    for document in kinds("Deployment"):
        (container,) = document["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for probe in ("readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["path"] == "/health"
            served = parsed([*container["command"], *container["args"]])["dashboard_address"]
            assert served == f":{ports[asked['port']]}"


def known_variables() -> set[str]:
    """Variables that voxport reads, and one of Dask's, which it has a setting for."""
    assert dask.config.get("distributed.worker.profile.enabled") is True
    return {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"} | {variable for variable, _ in settings(Settings)}


def test_what_pods_run_are_commands() -> None:
    found = {name: parsed([*pod["containers"][0]["command"], *pod["containers"][0]["args"]]) for name, _, pod in pods()}
    (service,) = kinds("Service")
    address = f"tcp://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert found["voxport-workers"]["scheduler"] == found["voxport-segment"]["cluster"] == address
    assert found["voxport-scheduler"]["port"] == str(service["spec"]["ports"][0]["port"])
    assert (found["voxport-workers"]["nthreads"], found["voxport-workers"]["nanny"]) == (1, False)
    (worker,) = (pod["containers"][0] for name, _, pod in pods() if name == "voxport-workers")
    limit = worker["resources"]["limits"]
    assert parse_bytes(str(found["voxport-segment"]["memory"])) < parse_bytes(limit["memory"])
    known = known_variables()
    for _, _, pod in pods():
        variables = {entry["name"]: entry["value"] for entry in pod["containers"][0].get("env", [])}
        assert set(variables) <= known
        assert variables.get("VOXPORT_THREADS", limit["cpu"]) == limit["cpu"]


def test_composes_cluster_is_one() -> None:
    file, found = yaml.safe_load(interpolated()), {}
    for name in ("scheduler", "cluster-worker"):
        service = services()[name]
        found[name] = parsed([*service["entrypoint"], *service["command"]])
        assert found[name]["dashboard_address"] in service["healthcheck"]["test"][-1]
    assert found["cluster-worker"]["scheduler"] == f"tcp://scheduler:{found['scheduler']['port']}"
    assert (found["cluster-worker"]["nthreads"], found["cluster-worker"]["nanny"]) == (1, False)
    on = {name for name, service in file["services"].items() if "blocks" in service["networks"]}
    assert on == {"scheduler", "cluster-worker"}, "whoever reaches the scheduler runs code"
    assert file["networks"]["blocks"]["internal"] is True
    assert set(services()["cluster-worker"]["environment"]) <= known_variables()
    limits = services()["cluster-worker"]["deploy"]["resources"]["limits"]
    assert str(services()["cluster-worker"]["environment"]["VOXPORT_THREADS"]) == str(limits["cpus"])
