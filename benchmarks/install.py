"""Measure the size of the serving installation, and of each distribution, in fresh environments.

Sizes are disk usage in whole blocks, including pip and compiled modules (``.pyc``); content and compiled sizes are
reported as well.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BOUNDS_BYTES = {"serving": 700_000_000}
EXTRAS = ("serving", "serving,demo", "serving,demo,microscopy")  # the last as the README's first command
# Runs in the measured environment: sizes of each distribution's recorded files, and of all files.
_LOOK = """
import importlib.metadata as metadata, json, pathlib, sys, sysconfig
site = pathlib.Path(sysconfig.get_paths()["purelib"])
taken, found = set(), {}
for distribution in metadata.distributions(path=[str(site)]):
    size = 0
    for file in distribution.files or []:
        path = pathlib.Path(distribution.locate_file(file)).resolve()
        if path not in taken and path.is_file():
            taken.add(path)
            size += path.stat().st_blocks * 512
    name = distribution.metadata["Name"].lower().replace("_", "-")
    found[name] = {"version": distribution.version, "bytes": size}
files = [path for path in pathlib.Path(sys.prefix).rglob("*") if path.is_file() and not path.is_symlink()]
sizes = {
    "total_bytes": sum(path.stat().st_blocks * 512 for path in files),
    "content_bytes": sum(path.stat().st_size for path in files),
    "compiled_bytes": sum(path.stat().st_blocks * 512 for path in files if path.suffix == ".pyc"),
}
print(json.dumps({**sizes, "distributions": found}))
"""


def main() -> None:
    """Install each set of extras, measure, print the largest distributions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extras", nargs="+", default=EXTRAS)
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    result = {}
    for extras in wanted.extras:
        with TemporaryDirectory() as name:
            result[extras] = summary(_installed(Path(name), extras), BOUNDS_BYTES.get(extras))
        _show(extras, result[extras])
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _installed(folder: Path, extras: str) -> dict[str, Any]:
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    python = str(folder / "env" / "bin" / "python")
    install = [python, "-m", "pip", "install", "-qq", f"{_copied(folder)}[{extras}]"]
    subprocess.run([*install, "-c", str(ROOT / "constraints.txt")], check=True, stdout=sys.stderr)
    looked = subprocess.run([python, "-c", _LOOK], check=True, capture_output=True, text=True, encoding="utf-8")
    found: dict[str, Any] = json.loads(looked.stdout)
    return found


def _copied(folder: Path) -> Path:
    """Copy the package's sources, because a build writes to its source folder."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def summary(found: dict[str, Any], bound_bytes: int | None) -> dict[str, Any]:
    """Return the total and its bound, whether torch is installed, and all distributions, largest first."""
    largest = sorted(found["distributions"].items(), key=lambda item: -item[1]["bytes"])
    return {
        **{name: value for name, value in found.items() if name.endswith("_bytes")},
        "bound_bytes": bound_bytes,
        "torch": "torch" in found["distributions"],
        "distributions": dict(largest),
    }


def _show(extras: str, result: dict[str, Any]) -> None:
    bound = result["bound_bytes"]
    print(f"voxport[{extras}]: {result['total_bytes'] / 1e6:.0f} MB", end=f" of {bound / 1e6:.0f}, " if bound else ", ")
    print(f"{len(result['distributions'])} distributions, torch is {'' if result['torch'] else 'not '}there")
    for name, each in list(result["distributions"].items())[:15]:
        print(f"{name:28} {each['version']:>14} {each['bytes'] / 1e6:9.1f} MB")


if __name__ == "__main__":
    main()
