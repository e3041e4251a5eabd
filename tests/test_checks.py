"""The checks themselves: signals that children of tests inherit, and skips that CI allows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from . import skips

ROOT = Path(__file__).resolve().parents[1]
REPORTS = """
import signal, subprocess, sys
from tests.conftest import let_children_handle_signals
child = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"]
subprocess.run(child)
let_children_handle_signals()
signal.raise_signal(signal.SIGINT)
subprocess.run(child)
"""


def test_children_of_tests_do_not_inherit_an_ignored_ctrl_c() -> None:
    """Where the checks run in the background, which still ignore it themselves."""
    done = subprocess.run(
        [sys.executable, "-u", "-c", REPORTS],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert done.stdout.split() == ["True", "False"]


def run_with_a_skip(folder: Path, reason: str, **variables: str) -> subprocess.CompletedProcess[str]:
    body = f"import pytest\n\n\ndef test_one():\n    pytest.skip({reason!r})\n\n\ndef test_two():\n    pass\n"
    (folder / "test_some.py").write_text(body, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "tests.skips", "-p", "no:cacheprovider", str(folder)]
    env = {name: value for name, value in os.environ.items() if name != "CI"} | variables
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, encoding="utf-8", check=False)


def test_a_skip_that_is_not_listed_fails_in_ci(tmp_path: Path) -> None:
    done = run_with_a_skip(tmp_path, "no such thing here", CI="true")
    assert done.returncode == 1
    assert "test_some.py::test_one: no such thing here" in done.stdout


@pytest.mark.parametrize(
    ("reason", "variables"),
    [("no such thing here", {}), ("this machine has no IPv6", {"CI": "true"}), ("no real volumes at /x", {"CI": "1"})],
)
def test_other_skips_only_give_their_reason(tmp_path: Path, reason: str, variables: dict[str, str]) -> None:
    done = run_with_a_skip(tmp_path, reason, **variables)
    assert done.returncode == 0, done.stdout
    assert reason in done.stdout
    assert "not listed" not in done.stdout


def test_each_listed_skip_says_where_the_test_runs_and_is_used() -> None:
    reasons = skips.listed_reasons(skips.LISTED.read_text(encoding="utf-8"))
    code = "\n".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__)
    )
    assert [reason for reason in reasons if reason.rstrip("*") not in code] == []
    with pytest.raises(AssertionError, match="where"):
        skips.listed_reasons("a reason")


def test_every_pinned_package_takes_the_oldest_python() -> None:
    """Else a machine whose distribution has an early 3.11 cannot install what `constraints.txt` asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = f"{project['requires-python'].removeprefix('>=')}.0"
    pins = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    installed = {canonicalize_name(found.name): found for found in distributions()}
    wrong = []
    for pin in pins:
        found = installed.get(canonicalize_name(pin.partition("==")[0]))
        wanted = None if found is None else found.metadata.json.get("requires_python")
        if wanted and not SpecifierSet(str(wanted)).contains(oldest):
            wrong.append(f"{pin} needs Python {wanted}")
    assert len(pins) > 300
    assert wrong == []
