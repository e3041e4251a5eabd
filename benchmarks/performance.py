"""Run all benchmarks of docs/performance.md: speed, growth, less work, cold start, size of the installation.

``python benchmarks/performance.py`` takes an hour on an idle machine with two processors. Each part runs in its own
processes. The command writes performance.json, and performance.md and performance.svg from it. ``--quick`` tests all
parts in a few minutes, ``--only growth`` measures one part again, and ``--write-only`` measures nothing.
``speed.py --json docs/speed/PROCESSOR-NETWORK.json`` on another processor adds a column.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from page import page
from plots import svg

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
# results of speed.py on other processors: speed.py --json docs/speed/PROCESSOR-NETWORK.json
_ELSEWHERE = DOCS / "speed"
# results of layers.py
_LAYERS = DOCS / "layers"
PARTS = {
    "startup": ["startup.py"],
    "install": ["install.py"],
    "growth": ["growth.py"],
    "less_work": ["less_work.py"],
    # tuning takes longest
    "segresnet": ["speed.py", "--network", "segresnet", "--tune"],
    "bundled": ["speed.py", "--network", "bundled", "--tune"],
}
_TAKE_QUICK = ("growth.py", "less_work.py", "speed.py")
_MACHINE = "import json; from material import machine; print(json.dumps(machine()))"


def main() -> None:
    """Measure, and write numbers and page after each part. Exits with 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small volumes and few repeats, to test all parts")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="measure these parts again, and keep the others")
    parser.add_argument("--write-only", action="store_true", help="write page and plot from the existing JSON")
    parser.add_argument(
        "--json", type=Path, default=DOCS / "performance.json", help="numbers; page and plot are written beside it"
    )
    wanted = parser.parse_args()
    found: dict[str, Any] = (
        json.loads(wanted.json.read_text(encoding="utf-8")) if wanted.write_only or wanted.only else {}
    )
    if wanted.write_only:
        _write(found, wanted.json)
        return
    machine = _machine()
    if wanted.only and (found["quick"], _lasting(found["machine"])) != (wanted.quick, _lasting(machine)):
        raise SystemExit(
            f"{wanted.json}: expected numbers of this machine in the same mode, got others; measure all parts"
        )
    found |= {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "quick": wanted.quick, "machine": machine}
    found = {"speed": {}, "failed": [], "took_seconds": {}} | found
    for name in wanted.only or PARTS:
        _measure(name, found, ["--quick"] if wanted.quick else [])
        _write(found, wanted.json)
    if found["failed"]:
        raise SystemExit(f"failed: {', '.join(found['failed'])}")


def _machine() -> dict[str, Any]:
    asked = subprocess.run(
        [sys.executable, "-c", _MACHINE], cwd=HERE, check=True, capture_output=True, text=True, encoding="utf-8"
    )
    machine: dict[str, Any] = json.loads(asked.stdout)
    return machine


def _lasting(machine: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of a machine that do not depend on its load."""
    return {name: result for name, result in machine.items() if name != "load average"}


def _write(found: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    elsewhere, layers = (
        [json.loads(other.read_text(encoding="utf-8")) for other in sorted(folder.glob("*.json"))]
        for folder in (_ELSEWHERE, _LAYERS)
    )
    file.with_suffix(".md").write_text(page(found, elsewhere, layers), encoding="utf-8")
    file.with_suffix(".svg").write_text(svg(found), encoding="utf-8")


def _measure(name: str, found: dict[str, Any], less: list[str]) -> None:
    """Run a part and store its result."""
    script, *options = PARTS[name]
    began = time.perf_counter()
    result = _result(name, [script, *(less if script in _TAKE_QUICK else []), *options])
    found["took_seconds"][name] = round(time.perf_counter() - began, 1)
    found["failed"] = [other for other in found["failed"] if other != name] + ([name] if result is None else [])
    place = found["speed"] if script == "speed.py" else found
    if result is None:
        place.pop(name, None)
    else:
        place[name] = result


def _result(name: str, command: list[str]) -> dict[str, Any] | None:
    """Return the JSON that a benchmark wrote, or None if it failed."""
    print(f"== {name}", file=sys.stderr, flush=True)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        script, *options = command
        ended = subprocess.run([sys.executable, str(HERE / script), *options, "--json", str(file)], check=False)
        if ended.returncode != 0:
            print(f"{name} ended with {ended.returncode}", file=sys.stderr)
            return None
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return result


if __name__ == "__main__":
    main()
