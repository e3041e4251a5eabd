"""``python .ci/reference.py``: write the pages of docs/ that say what the code says, from the code."""

from __future__ import annotations

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
from voxport.entrypoints.cli.main import app

DOCS = Path(__file__).resolve().parents[1] / "docs"
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


PAGES = {"cli.md": cli_page, "ports.md": ports_page}

if __name__ == "__main__":
    for page, write in PAGES.items():
        (DOCS / page).write_text(write(), encoding="utf-8")
        sys.stdout.write(f"{DOCS / page}\n")
