"""Someone who reads a page from top to bottom and types in what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.conftest import environment
from tests.rest.serving import PATIENCE, Server, free_port, is_ready

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_FENCE = re.compile(r'^( *)```(\w+)(?: title="(.*?)")?\n(.*?)^\1```$', re.DOTALL | re.MULTILINE)
_ANY_FENCE = re.compile(r"^ *```(\w*).*?\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_SHELLS = {"", "bash", "sh"}
_PORT = "3000"


@dataclass(frozen=True)
class Block:
    """A block of code: its language, the file that it is, if any, and its text."""

    language: str
    title: str
    text: str

    @property
    def serves(self) -> bool:
        """Whether it starts a service that goes on."""
        return re.search(r"^(\w+=\S+ )*voxport serve ", self.text, re.MULTILINE) is not None


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order; ``page`` is its text."""
    return [
        Block(language, title, re.sub(f"^{indent}", "", text, flags=re.MULTILINE))
        for indent, language, title, text in _FENCE.findall(page)
    ]


class Reader:
    """A folder in which pages are followed; services are started on a port of their own, and end with the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = ""
        self._server: Server | None = None

    def follow(self, page: str) -> None:
        """Do what a page of docs/ says: write its files, run its commands, compare what it shows.

        AssertionError where a command fails, or prints something else than is shown.
        """
        try:
            self._follow(blocks((DOCS / page).read_text(encoding="utf-8")))
        finally:
            self._stop()

    def _follow(self, found: list[Block]) -> None:
        for block in found:
            if block.title:
                (self.folder / block.title).write_text(block.text, encoding="utf-8")
            elif block.language == "text" and self.said:
                assert self.said.strip() == block.text.strip(), block.text
            elif block.serves:
                self._serve(block)
            elif block.language in ("bash", "python"):
                self._run(block)
            if block.language not in ("bash", "python"):
                self.said = ""

    def _run(self, block: Block) -> None:
        program = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
        done = subprocess.run(
            [*program, self._at(block.text)],
            **self._place(),
            text=True,
            encoding="utf-8",
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}{done.stderr}"
        self.said = done.stdout

    def _serve(self, block: Block) -> None:
        self._stop()
        url = f"http://127.0.0.1:{free_port()}"
        log = self.folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", block.text.replace(_PORT, url.rpartition(":")[2])],
                **self._place(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._server = Server(process, url, log)
        self._server.wait_until(is_ready)
        self.said = ""

    def _stop(self) -> None:
        if self._server is not None:
            os.killpg(self._server.process.pid, signal.SIGTERM)
            self._server.process.wait(PATIENCE)
            self._server = None

    def _at(self, text: str) -> str:
        return text if self._server is None else text.replace(_PORT, self._server.url.rpartition(":")[2])

    def _place(self) -> dict[str, Any]:
        own = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "NO_PROXY": "127.0.0.1",
            "BENTOML_HOME": str(self.folder / "bentoml"),
            "LC_ALL": "C.UTF-8",
            "VOXPORT_SERVING__LOOK_FOR_MODELS_SECONDS": "0.2",
        }
        return {"cwd": self.folder, "env": environment(self.folder) | own}


def command_lines() -> Iterator[tuple[str, str]]:
    """Each line of README and docs/ that calls voxport, with the page that it is on."""
    for page in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]:
        for language, text in _ANY_FENCE.findall(page.read_text(encoding="utf-8")):
            for line in text.replace("\\\n", " ").splitlines() if language in _SHELLS else ():
                # what follows in README's list says what it is for
                call = re.search(r"(?:^|[ /;&])voxport ([a-z].*)$", re.split(r"\s{3,}(?=[a-z])", line.strip())[0])
                if call:
                    yield page.name, call[1]
