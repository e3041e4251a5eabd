"""Every requirement has tests that show it, and every marker a requirement."""

from __future__ import annotations

import re

import yaml

from .reading import DOCS, ROOT

PAGE = (DOCS / "assurance.md").read_text(encoding="utf-8")


def test_every_requirement_has_a_test() -> None:
    required = yaml.safe_load((ROOT / ".ci" / "assurance.yaml").read_text(encoding="utf-8"))["requirements"]
    rows = dict(re.findall(r"^\| (R-[A-Z]+) \| .*? \| (.*) \|$", PAGE, flags=re.MULTILINE))
    assert set(rows) == set(required)
    assert all("`tests/" in tests for tests in rows.values()), rows


def test_it_says_what_voxport_is_not() -> None:
    assert "voxport is no medical device" in PAGE
