"""All of docs/performance.md in one command: speed beside others, growth, cold start, the size of the install.

``python benchmarks/performance.py`` measures everything, part by part, each in processes of its own, for forty minutes
on an idle machine with two processors; then it writes performance.json and, wholly out of that, performance.md and
performance.svg beside it. ``--quick`` shows in a few minutes that all of it runs; ``--write-only`` measures nothing.
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
_MACHINE = "import json; from material import machine; print(json.dumps(machine()))"


def main() -> None:
    """Measure, write the numbers, write the page; exit code 1 if a part failed, which the page then says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small volumes, few repeats: whether all of it runs")
    parser.add_argument("--write-only", action="store_true", help="the page and the plot anew, from the JSON as it is")
    parser.add_argument(
        "--json", type=Path, default=DOCS / "performance.json", help="the page and the plot go beside it"
    )
    wanted = parser.parse_args()
    found: dict[str, Any] = json.loads(wanted.json.read_text()) if wanted.write_only else _measured(wanted.quick)
    if not wanted.write_only:
        wanted.json.write_text(json.dumps(found, indent=1) + "\n")
    wanted.json.with_suffix(".md").write_text(page(found))
    wanted.json.with_suffix(".svg").write_text(svg(found))
    if found["failed"] and not wanted.write_only:
        raise SystemExit(f"failed: {', '.join(found['failed'])}")


def _measured(quick: bool) -> dict[str, Any]:
    asked = subprocess.run([sys.executable, "-c", _MACHINE], cwd=HERE, check=True, capture_output=True, text=True)
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "quick": quick,
        "machine": json.loads(asked.stdout),
        "speed": {},
        "failed": [],
        "took_seconds": {},
    }
    less = ["--quick"] if quick else []
    parts = {
        "startup": ["startup.py", *(["--repeats", "3"] if quick else [])],
        "install": ["install.py"],
        "growth": ["growth.py", *less],
        # tuning takes longest
        "segresnet": ["speed.py", "--network", "segresnet", *(less or ["--tune"])],
        "bundled": ["speed.py", "--network", "bundled", "--tune", *less],
    }
    for name, command in parts.items():
        began = time.perf_counter()
        told = _told(name, command)
        found["took_seconds"][name] = round(time.perf_counter() - began, 1)
        if told is None:
            found["failed"].append(name)
        elif command[0] == "speed.py":
            found["speed"][name] = told
        else:
            found[name] = told
    return found


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
