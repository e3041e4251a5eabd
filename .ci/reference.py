"""``python .ci/reference.py``: write the pages of docs/ that say what the code says, from the code."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import typer.main
import voxport.ports
import yaml
from voxport.entrypoints.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_MADE = "<!-- written by .ci/reference.py: change the code, and run it again -->\n"


def cli_page() -> str:
    """docs/cli.md: every command with its arguments and options."""
    group: Any = typer.main.get_command(app)
    blocks = [
        f"# The command line\n{_MADE}{group.help} `voxport COMMAND --help` shows the same as below.\n\n"
        f"{group.epilog}\n\n"
        "`--debug`, anywhere on the line, shows the traceback of an error. `voxport --version` shows the version."
    ]
    for name, command in _commands(group):
        arguments = [_argument(param) for param in command.params if param.param_type_name == "argument"]
        usage = " ".join(["voxport", name, *arguments, "[OPTIONS]"])
        blocks.append(f"## voxport {name}\n{_sentence(command.help)}\n\n```text\n{usage}\n```")
        if rows := [_row(param) for param in command.params if param.name != "help"]:
            blocks.append("| option | meaning | default |\n|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(blocks) + "\n"


def _commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _argument(param: Any) -> str:
    name = param.metavar or param.name.upper()
    return name if param.required else f"[{name}]"


def _row(param: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])
    if param.param_type_name == "argument":
        names = f"`{param.metavar or param.name.upper()}`"
    shown = param.show_default if isinstance(param.show_default, str) else param.default
    default = "required" if param.required else "" if shown in (None, False, ()) else f"`{shown}`"
    if isinstance(param.show_default, str) and not param.required:
        default = param.show_default
    help_text = re.sub(r"\s+", " ", param.help or "").replace("|", "\\|")
    return f"| {names} | {help_text} | {default} |"


def _sentence(text: str | None) -> str:
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(text or ""))


def ports_page() -> str:
    """docs/ports.md: every port with what an adapter has to do."""
    blocks = [
        f"# The ports\n{_MADE}What the application needs from outside, as protocols in `voxport.ports`. An adapter "
        "is a class with these methods; "
        "[the embedding page](embedding.md) shows how to write one, prove it and use it."
    ]
    for module in sorted(found.name for found in pkgutil.iter_modules(voxport.ports.__path__)):
        loaded = import_module(f"voxport.ports.{module}")
        for name, kind in vars(loaded).items():
            if getattr(kind, "_is_protocol", False) and kind.__module__ == loaded.__name__:
                blocks.append(f"## {name}\n`voxport.ports.{module}.{name}`: {_first(kind)}")
                if rows := [f"| `{member}` | {_first(value)} |" for member, value in _members(kind)]:
                    blocks.append("| member | what it does |\n|---|---|\n" + "\n".join(rows))
    return "\n\n".join(blocks) + "\n"


def _members(kind: type) -> Iterator[tuple[str, object]]:
    for name, value in vars(kind).items():
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            yield name, value


def _first(value: object) -> str:
    """The first paragraph of a docstring, on one line."""
    text = inspect.getdoc(value) or ""
    return re.sub(r"\s+", " ", text.split("\n\n")[0]).replace("``", "`").replace("|", "\\|")


def assurance_page() -> str:
    """docs/assurance.md: each requirement with the tests that are marked with it, and the known anomalies."""
    source = yaml.safe_load((ROOT / ".ci" / "assurance.yaml").read_text(encoding="utf-8"))
    shown: dict[str, list[str]] = {identifier: [] for identifier in source["requirements"]}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for identifier, test in _marked(path):
            shown[identifier].append(
                f"`{path.relative_to(ROOT).as_posix()}`: {test.removeprefix('test_').replace('_', ' ')}"
            )
    rows = [f"| {key} | {text} | {'<br>'.join(shown[key])} |" for key, text in source["requirements"].items()]
    anomalies = [f"| {entry['what']} | {entry['effect']} | {entry['do']} |" for entry in source["anomalies"]]
    return (
        f"# Requirements, tests and known anomalies\n{_MADE}"
        "**voxport is no medical device.** No authority has cleared it, nobody has validated it for diagnosis or "
        "treatment, and no standard for medical software was followed in full. Its masks are for research, and for "
        "people who check them. This page is for those who have to show what they build on.\n\n"
        "## Requirements and the tests that show them\nEach test runs in `./check`; `pytest -m requirement` runs "
        "them alone.\n\n"
        "| | requirement | tests |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
        "## Known anomalies\n| what | what follows | what to do |\n|---|---|---|\n" + "\n".join(anomalies) + "\n\n"
        "## What a release is made of\n`voxport sbom` lists the packages of an installation in CycloneDX 1.6; the "
        "image holds its own as `/opt/voxport/sbom.cdx.json`. `voxport models bom MODEL` writes the entry of a model, "
        "from its card. `python .ci/provenance.py FILE...` writes a statement of provenance (SLSA 1.0) for what was "
        "built: hashes, commit and pinned packages. [Signed models](secure.md#signed-models) says how models are "
        "signed.\n"
    )


def _marked(path: Path) -> Iterator[tuple[str, str]]:
    """Each requirement and test of a module's markers."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for mark in getattr(node, "decorator_list", ()):
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.requirement":
                yield ast.literal_eval(mark.args[0]), node.name


PAGES = {"cli.md": cli_page, "ports.md": ports_page, "assurance.md": assurance_page}

if __name__ == "__main__":
    for page, write in PAGES.items():
        (DOCS / page).write_text(write(), encoding="utf-8")
        sys.stdout.write(f"{DOCS / page}\n")
