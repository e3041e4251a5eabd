"""Fail unless the branch coverage of the domain and of the services is at least 95 %."""

from __future__ import annotations

import json
import sys
from pathlib import Path

FLOOR_PERCENT = 95.0
PARTS = ("domain", "services")


def main() -> int:
    """Print each part's coverage of lines and branches together; 1 if one is below the floor."""
    files = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["files"]
    low = False
    for part in PARTS:
        found = [f["summary"] for name, f in files.items() if f"/{part}/" in f"/{name}"]
        total = sum(s["num_statements"] + s["num_branches"] for s in found)
        covered = sum(s["covered_lines"] + s["covered_branches"] for s in found)
        percent = 100 * covered / total if total else 0.0
        branches = sum(s["num_branches"] for s in found)
        taken = sum(s["covered_branches"] for s in found)
        branch_percent = 100 * taken / branches if branches else 0.0
        print(f"coverage of {part}: {percent:.1f} % of lines and branches, {branch_percent:.1f} % of branches")
        low = low or min(percent, branch_percent) < FLOOR_PERCENT
    return int(low)


if __name__ == "__main__":
    sys.exit(main())
