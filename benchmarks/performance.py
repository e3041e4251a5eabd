"""All of docs/performance.md in one command: speed beside others, growth, less work, cold start, size of the install.

``python benchmarks/performance.py`` measures everything, part by part, each in processes of its own, for an hour
on an idle machine with two processors; then it writes performance.json and, wholly out of that, performance.md and
performance.svg beside it. ``--quick`` shows in a few minutes that all of it runs; ``--only growth`` measures one part
again, and ``--write-only`` nothing.
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
    """Measure, write numbers and page after each part; exit code 1 if a part failed, which the page then says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small volumes, few repeats: whether all of it runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts again, the others as the JSON has them")
    parser.add_argument("--write-only", action="store_true", help="the page and the plot anew, from the JSON as it is")
    parser.add_argument(
        "--json", type=Path, default=DOCS / "performance.json", help="the page and the plot go beside it"
    )
    wanted = parser.parse_args()
    found: dict[str, Any] = json.loads(wanted.json.read_text()) if wanted.write_only or wanted.only else {}
    if wanted.write_only:
        _write(found, wanted.json)
        return
    machine = _machine()
    if wanted.only and (found["quick"], _lasting(found["machine"])) != (wanted.quick, _lasting(machine)):
        raise SystemExit(f"{wanted.json}: expected numbers of this machine, made as now, got others; measure all parts")
    found |= {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "quick": wanted.quick, "machine": machine}
    found = {"speed": {}, "failed": [], "took_seconds": {}} | found
    for name in wanted.only or PARTS:
        _measure(name, found, ["--quick"] if wanted.quick else [])
        _write(found, wanted.json)
    if found["failed"]:
        raise SystemExit(f"failed: {', '.join(found['failed'])}")


def _machine() -> dict[str, Any]:
    asked = subprocess.run([sys.executable, "-c", _MACHINE], cwd=HERE, check=True, capture_output=True, text=True)
    machine: dict[str, Any] = json.loads(asked.stdout)
    return machine


def _lasting(machine: dict[str, Any]) -> dict[str, Any]:
    """What is the same each time: not how busy the machine is."""
    return {name: told for name, told in machine.items() if name != "load average"}


def _write(found: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(found, indent=1) + "\n")
    file.with_suffix(".md").write_text(page(found))
    file.with_suffix(".svg").write_text(svg(found))


def _measure(name: str, found: dict[str, Any], less: list[str]) -> None:
    """Run a part, and put what it tells in its place."""
    script, *options = PARTS[name]
    began = time.perf_counter()
    told = _told(name, [script, *(less if script in _TAKE_QUICK else []), *options])
    found["took_seconds"][name] = round(time.perf_counter() - began, 1)
    found["failed"] = [other for other in found["failed"] if other != name] + ([name] if told is None else [])
    place = found["speed"] if script == "speed.py" else found
    if told is None:
        place.pop(name, None)
    else:
        place[name] = told


def _told(name: str, command: list[str]) -> dict[str, Any] | None:
    """What a benchmark wrote as JSON; None if it failed."""
    print(f"== {name}", file=sys.stderr, flush=True)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        script, *options = command
        ended = subprocess.run([sys.executable, str(HERE / script), *options, "--json", str(file)], check=False)
        if ended.returncode != 0:
            print(f"{name} ended with {ended.returncode}", file=sys.stderr)
            return None
        told: dict[str, Any] = json.loads(file.read_text())
    return told


if __name__ == "__main__":
    main()
