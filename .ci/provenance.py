"""``python .ci/provenance.py FILE...``: state what built files are made of, as in-toto and SLSA 1.0 have it.

The statement names each file with its hash, the commit that the files were built from, the pinned packages, and who
built them. It is not signed: whoever publishes it signs it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def statement(files: Sequence[Path], builder: str, root: Path = ROOT) -> dict[str, Any]:
    """Return the statement of files that were built from the commit that ``root`` is at.

    Raises:
        SystemExit: files of the project differ from that commit.
    """
    if changed := _git(root, "status", "--porcelain", "--untracked-files=no"):
        sys.exit(f"expected a clean checkout, got changes: {changed.splitlines()[0].strip()}; commit them first")
    pins = root / "constraints.txt"
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file.name, "digest": {"sha256": _sha256(file)}} for file in files],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:voxport:build:python-m-build:1",
                "externalParameters": {"command": "python -m build", "python": platform.python_version()},
                "resolvedDependencies": [
                    {"name": "source", "digest": {"gitCommit": _git(root, "rev-parse", "HEAD")}},
                    {"name": pins.name, "digest": {"sha256": _sha256(pins)}},
                ],
            },
            "runDetails": {"builder": {"id": builder}},
        },
    }


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, encoding="utf-8", check=True)
    return done.stdout.strip()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Parse the arguments and write the statement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--builder", default="urn:voxport:builder:local", help="a URI of who built the files")
    parser.add_argument("-o", "--output", type=Path, help="the file to write; standard output without it")
    given = parser.parse_args()
    text = json.dumps(statement(given.files, given.builder), indent=2) + "\n"
    if given.output is None:
        sys.stdout.write(text)
    else:
        given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
