"""``python deployment/bento/prepare.py FOLDER``: write the build context of ``bentoml build FOLDER``.

The folder contains the package itself, and its dependencies pinned to the tested versions.
"""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def prepare(folder: Path) -> None:
    """Fill a folder; it is emptied first if this script created it."""
    marker = folder / "bentofile.yaml"
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        sys.exit(f"prepare: {folder}: expected a folder of mine or none, got another; choose another name")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "src", folder / "voxport", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "requirements.txt").write_text("\n".join(requirements()) + "\n")
    shutil.copy(Path(__file__).with_name("bentofile.yaml"), marker)


def requirements() -> list[str]:
    """Return the dependencies of serving, pinned to constraints.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *extras["serving"], *extras["demo"]]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {_plain(line): line for line in lines if not line.startswith("#")}
    return [pins[_plain(requirement)] for requirement in listed]


def _plain(requirement: str) -> str:
    """Return a requirement's normalised name."""
    found = _NAME.match(requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("prepare: expected one folder")
    prepare(Path(sys.argv[1]))
