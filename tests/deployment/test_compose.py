"""The compose file is one, and keeps what it promises."""

from __future__ import annotations

import ipaddress
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from compose_spec import PyCompose
from voxport.entrypoints.cli.main import app
from voxport.settings import Settings

from tests.docs.test_settings import APART, settings

from .composed import COMPOSE, DEPLOYMENT, Host, image_environment, interpolated, services, variables

OURS = ("api", "worker", "demo")
BLOCKS = ("scheduler", "cluster-worker")
KNOWN = {variable for variable, _ in settings(Settings)} | APART


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def commands() -> Iterator[tuple[str, Any, list[str]]]:
    """The command of the command line that each of our services runs, where there is one, and its arguments."""
    line: Any = typer.main.get_command(app)
    for name in OURS:
        word, *arguments = services()[name]["command"]
        if command := line.commands.get(word):
            yield name, command, arguments


def test_docker_compose_valid_yaml() -> None:
    """All of the file is as the specification has it, and all that it refers to is there."""
    # merged as Docker merges it, which the library does not
    compose = PyCompose.from_yaml(yaml.safe_dump(yaml.safe_load(interpolated())))
    compose.validate()
    assert set(compose.service_names()) == {*OURS, *BLOCKS, "postgres", "prometheus", "grafana"}


@pytest.mark.parametrize("broken", ["imagee: x", "networks: [nowhere]", "restart: sometimes"])
def test_a_broken_file_is_found(broken: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the library's own
        PyCompose.from_yaml(f"services:\n  api:\n    image: x\n    {broken}\n").validate()


def test_docker_compose_has_bentoml_service() -> None:
    """``api`` runs ``voxport serve``, which becomes ``bentoml serve``, in an image with the extra that has BentoML."""
    from voxport.entrypoints.cli import serving

    (command,) = (command for name, command, _ in commands() if name == "api")
    assert command.callback.__name__ == serving.serve_command.__name__
    installed = "'.[serving,demo,microscopy,medical,cluster,signing]'"
    assert installed in (DEPLOYMENT / "Dockerfile").read_text(encoding="utf-8")
    assert services()["api"]["environment"]["VOXPORT_JOBS__WORKER"] == "false"


def test_commands_are_commands() -> None:
    found = {name: command.make_context(name, list(arguments)) for name, command, arguments in commands()}
    assert {"api", "worker"} <= set(found)


def test_ports_are_those_that_the_commands_listen_on() -> None:
    for name, command, arguments in commands():
        context = command.make_context(name, list(arguments))
        (*_, inside) = services()[name].get("ports", ["none"])[0].split(":")
        if "port" in context.params:
            assert context.params["host"] == "0.0.0.0"
            assert inside == str(context.params["port"])
            assert f"127.0.0.1:{inside}/" in services()[name]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", ["api", "demo", "grafana"])
def test_ports_are_open_to_this_machine_only_unless_it_is_said(name: str) -> None:
    (port,) = services()[name]["ports"]
    assert ipaddress.ip_address(port.split(":")[0]).is_loopback
    (port,) = services({"VOXPORT_BIND": "0.0.0.0"})[name]["ports"]
    assert port.startswith("0.0.0.0:")


def test_no_other_service_has_ports() -> None:
    assert {name for name, service in services().items() if "ports" in service} == {"api", "demo", "grafana"}


def test_postgres_is_reached_by_those_who_need_it_alone() -> None:
    file = yaml.safe_load(interpolated())
    assert file["services"]["postgres"]["networks"] == ["back"]
    assert file["networks"]["back"]["internal"] is True
    assert {name for name, service in file["services"].items() if "back" in service["networks"]} == {
        "postgres",
        "api",
        "worker",
    }


def test_what_starts_without_a_profile() -> None:
    profiles = {name: service.get("profiles") for name, service in services().items()}
    assert {name for name, profile in profiles.items() if profile is None} == set(OURS)
    assert profiles["postgres"] == ["scale"]
    assert profiles["prometheus"] == profiles["grafana"] == ["monitoring"]
    assert profiles["scheduler"] == profiles["cluster-worker"] == ["cluster"]
    for name in OURS:
        for needed, how in services()[name].get("depends_on", {}).items():
            assert profiles[needed] is None or how["required"] is False


@pytest.mark.parametrize("name", sorted(services()))
def test_every_service_is_kept_up_bounded_and_looked_after(name: str) -> None:
    service = services()[name]
    assert service["restart"] == "unless-stopped"
    assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"])
    assert service["healthcheck"]["retries"] >= 1
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["logging"]["options"]["max-size"]
    assert re.search(r":[\w.-]*\d", service["image"]), "a tag that does not move"


@pytest.mark.parametrize("name", [*OURS, *BLOCKS])
def test_our_own_services_may_do_little(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["user"] == "10001:10001"
    assert "/scratch" in service["volumes"]
    assert service["tmpfs"]
    assert image_environment()["TMPDIR"] == "/scratch"


@pytest.mark.parametrize("name", OURS)
def test_variables_are_settings(name: str) -> None:
    given = set(services()[name]["environment"]) | set(image_environment())
    ours = {variable for variable in given if variable.startswith("VOXPORT_")}
    assert ours <= KNOWN
    read = {secret.upper() for secret in services()[name]["secrets"]}
    assert read <= KNOWN


def test_no_secret_is_a_variable() -> None:
    for name, service in services().items():
        for variable in service.get("environment", {}):
            assert not re.search(r"(PASSWORD|KEY|SECRET|TOKEN)S?$", variable), (name, variable)
            assert variable not in {"VOXPORT_API_KEYS", "VOXPORT_API_KEY", "VOXPORT_JOBS__DATABASE"}


def test_every_variable_is_in_the_example_with_its_default() -> None:
    lines = (DEPLOYMENT / ".env.example").read_text(encoding="utf-8").splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert example == variables()


def test_settings_that_can_be_set_have_the_defaults_of_the_settings() -> None:
    defaults = dict(settings(Settings))
    for variable, value in variables().items():
        if variable.startswith(("VOXPORT_SERVING__", "VOXPORT_JOBS__C")):
            assert float(value) == defaults[variable], variable


def test_files_that_are_mounted_are_there() -> None:
    for service in services().values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and source not in {"./models", "./shared"}:
                assert (DEPLOYMENT / source).exists(), source


def test_secrets_are_made_once(host: Host) -> None:
    assert host.prepare().returncode == 0
    folder = host.deployment / "secrets"
    names = {path.name for path in folder.iterdir()}
    assert names == {Path(secret["file"]).name for secret in yaml.safe_load(COMPOSE)["secrets"].values()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = {name: host.secret(name) for name in names}
    assert len({before["voxport_api_key"], before["postgres_password"], before["grafana_password"]}) == 3
    assert before["voxport_jobs__database"] == "sqlite:////data/jobs/jobs.sqlite"
    (host.deployment / ".env").write_text("VOXPORT_PORT=3333\n", encoding="utf-8")
    assert host.prepare().returncode == 0
    assert {name: host.secret(name) for name in names} == before
    assert (host.deployment / ".env").read_text(encoding="utf-8") == "VOXPORT_PORT=3333\n"


def test_the_database_becomes_postgres_where_it_is_asked_for(host: Host) -> None:
    host.prepare()
    assert host.prepare("--postgres").returncode == 0
    password = host.secret("postgres_password")
    assert host.secret("voxport_jobs__database") == f"postgresql://voxport:{password}@postgres:5432/voxport"
    environment = services()["postgres"]["environment"]
    assert (environment["POSTGRES_USER"], environment["POSTGRES_DB"]) == ("voxport", "voxport")


def test_an_unknown_option_is_refused(host: Host) -> None:
    result = host.prepare("--mysql")
    assert result.returncode == 2
    assert result.stderr == "prepare: expected --postgres or nothing, got --mysql\n"
    assert not (host.deployment / "secrets").exists()


def test_the_service_takes_the_key_that_the_demo_and_prometheus_send(host: Host) -> None:
    from voxport.entrypoints.rest.keys import KeyHash, parse_keys

    host.prepare()
    assert parse_keys([host.secret("voxport_api_keys")]) == (KeyHash.of(host.secret("voxport_api_key")),)
    scrape = yaml.safe_load((DEPLOYMENT / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"][0]
    assert scrape["authorization"]["credentials_file"] == "/run/secrets/voxport_api_key"
    assert "voxport_api_key" in services()["prometheus"]["secrets"]
    assert scrape["static_configs"][0]["targets"] == ["api:3000"]
