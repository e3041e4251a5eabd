"""CycloneDX bills by the contract; each is valid by the published schema, whatever a card or a package says."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxport.adapters.boms.cyclonedx import CyclonedxBoms
from voxport.ports.boms import BomWriter
from voxport.testing.boms import MODEL, BomWriterContract

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


@cache
def validator() -> Any:
    from cyclonedx.schema import SchemaVersion  # takes seconds to import
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6)


def valid(bill: bytes) -> dict[str, Any]:
    """A bill as plain data, which the schema takes."""
    assert validator().validate_str(bill.decode()) is None
    read: dict[str, Any] = json.loads(bill)
    return read


class TestCyclonedxBoms(BomWriterContract):
    def make_writer(self) -> BomWriter:
        return CyclonedxBoms("1.2.3", Path("nowhere"))


@pytest.mark.requirement("R-SBOM")
@settings(max_examples=15)
@given(licence=TEXT, use=TEXT, description=TEXT, author=TEXT, where=TEXT)
def test_the_bill_of_any_card_is_valid(licence: str, use: str, description: str, author: str, where: str) -> None:
    card = replace(MODEL.card, licence=licence, intended_use=use, description=description, authors=(author,))
    card = replace(card, provenance={"source": where, "files": [{"name": where}]}, citation=where)
    bill = valid(CyclonedxBoms("1.2.3").model_bom(replace(MODEL, card=card)))
    described = bill["metadata"]["component"]
    assert described["modelCard"]["considerations"]["useCases"] == [use]
    assert described["authors"] == [{"name": author}]
    named = {p["name"]: p["value"] for p in described["modelCard"]["properties"]}
    assert named["voxport:provenance.source"] == named["voxport:citation"] == where


@pytest.mark.requirement("R-SBOM")
def test_the_installations_bill_is_valid_and_names_every_distribution_once(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(
        "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9+deb12u10\nDescription: C\n Package: no\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nbroken\n",
        encoding="utf-8",
    )
    bill = valid(CyclonedxBoms("1.2.3", status).installation_bom())
    found = [c["purl"] for c in bill["components"]]
    assert len(found) == len(set(found))
    installed = {d.metadata["Name"].lower().replace("_", "-").replace(".", "-") for d in distributions()}
    assert {c["name"] for c in bill["components"]} == (installed - {"voxport"}) | {"python", "libc6"}
    assert "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10" in found
    needs = {d["ref"].split("@")[0]: d.get("dependsOn", []) for d in bill["dependencies"]}
    assert any(name.startswith("pkg:pypi/numpy@") for name in needs["voxport"])
    assert any(name.startswith("pkg:pypi/numpy@") for name in needs["pkg:pypi/scipy"])
    assert not any(name.startswith("pkg:pypi/pytest@") for name in needs["pkg:pypi/scipy"])  # of an extra


def test_odd_packages_have_a_place_in_a_valid_bill(tmp_path: Path) -> None:
    for name, more in (
        ("Odd.Name", "License: a licence\n of several lines\nRequires-Dist: other_one; extra == 'x'\n"),
        ("other_one", 'License-Expression: MIT\nRequires-Dist: odd-name>=1; python_version > "3"\n'),
        ("third", "Classifier: License :: OSI Approved :: BSD License\nRequires-Dist: missing\n"),
        ("fourth", "License: $%& not SPDX\n"),
    ):
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{more}", encoding="utf-8")
    odd = tuple(Distribution.discover(path=[str(tmp_path)]))
    bill = valid(CyclonedxBoms("1.2.3", tmp_path / "none", odd).installation_bom())
    licences = {c["name"]: c.get("licenses", [{}])[0].get("license") for c in bill["components"]}
    assert licences["odd-name"] is None
    assert licences["other-one"] == {"id": "MIT"}
    assert licences["third"] == {"name": "BSD License"}
    assert licences["fourth"] == {"name": "$%& not SPDX"}
    needs = {d["ref"]: d.get("dependsOn") for d in bill["dependencies"]}
    assert needs["pkg:pypi/other-one@1"] == ["pkg:pypi/odd-name@1"]
    assert needs["pkg:pypi/odd-name@1"] is None
