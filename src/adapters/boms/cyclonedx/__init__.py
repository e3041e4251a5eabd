"""Bills of materials in CycloneDX 1.6 (ECMA-424), as JSON."""

from __future__ import annotations

import json
import platform
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from ....domain.cards.writing import write_card
from ....ports.boms import BomWriter
from ....ports.model import Model
from ...arrays import package

_SUBJECT = "bills of materials"
_DEBIAN = Path("/var/lib/dpkg/status")


class CyclonedxBoms(BomWriter):
    """`BomWriter` by cyclonedx-python-lib.

    An installation is every Python distribution that this process can import, Python, and where the system is a
    Debian, as in the image, its packages.
    """

    def __init__(self, version: str, debian: Path = _DEBIAN, found: Sequence[Distribution] = ()) -> None:
        self._version, self._debian = version, debian
        self._found = found

    def model_bom(self, model: Model) -> bytes:
        components, card = package("cyclonedx.model.component", "signing", _SUBJECT), model.card
        hashes = package("cyclonedx.model", "signing", _SUBJECT)
        subject = components.Component(
            name=card.name,
            version=card.version,
            type=components.ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=card.reference,
            description=card.description,
            licenses=_licences(card.licence),
            hashes=[hashes.HashType(alg=hashes.HashAlgorithm.SHA_256, content=model.sha256)],
        )
        data = self._written(subject, [])
        # the library has no model cards yet
        data["metadata"]["component"] |= {"modelCard": _model_card(model), **_authors(card.authors)}
        return _final(data)

    def installation_bom(self) -> bytes:
        components = package("cyclonedx.model.component", "signing", _SUBJECT)
        application, library = components.ComponentType.APPLICATION, components.ComponentType.LIBRARY
        subject = components.Component(
            name="voxport", version=self._version, type=application, bom_ref="voxport", licenses=_licences("Apache-2.0")
        )
        found = {_normal(d.metadata["Name"]): d for d in self._found or distributions() if d.metadata["Name"]}
        parts = {
            name: _component(library, "pypi", name, distribution.version, _licence_of(distribution))
            for name, distribution in sorted(found.items())
            if name != "voxport"
        }
        python = _component(components.ComponentType.PLATFORM, "generic", "python", platform.python_version(), "")
        system = [_component(library, "deb", *pair, "", "debian") for pair in _debian_packages(self._debian)]
        needs = {subject: [python, *(parts[n] for n in _needed(found.get("voxport")) if n in parts)]}
        needs |= {part: [parts[n] for n in _needed(found[name]) if n in parts] for name, part in parts.items()}
        return _final(self._written(subject, [python, *parts.values(), *system], needs))

    def _written(
        self, subject: Any, components: Iterable[Any], needs: Mapping[Any, Iterable[Any]] | None = None
    ) -> dict[str, Any]:
        """Return a bill as plain data, of this subject, its components and who needs whom."""
        bom = package("cyclonedx.model.bom", "signing", _SUBJECT).Bom(components=components)
        bom.metadata.component = subject
        tool = package("cyclonedx.model.component", "signing", _SUBJECT)
        bom.metadata.tools.components.add(
            tool.Component(name="voxport", version=self._version, type=tool.ComponentType.APPLICATION, bom_ref="tool")
        )
        for part, needed in (needs or {subject: []}).items():
            bom.register_dependency(part, needed)
        output = package("cyclonedx.output.json", "signing", _SUBJECT).JsonV1Dot6(bom)
        written: dict[str, Any] = json.loads(output.output_as_string())
        return written


def _component(kind: Any, ecosystem: str, name: str, version: str, licence: str, namespace: str | None = None) -> Any:
    url = package("packageurl", "signing", _SUBJECT).PackageURL(ecosystem, namespace, name, version)
    make = package("cyclonedx.model.component", "signing", _SUBJECT).Component
    licences = _licences(licence)
    return make(name=name, version=version, type=kind, bom_ref=str(url), purl=url, licenses=licences)


def _licences(text: str) -> list[Any]:
    """Return a licence as the library has it: an SPDX identifier or expression where the text is one, else its name."""
    make = package("cyclonedx.contrib.license.factories", "signing", _SUBJECT).LicenseFactory().make_from_string
    return [make(" ".join(text.split())[:200])] if text.strip() else []


def _licence_of(distribution: Distribution) -> str:
    """Return the licence that a distribution states; many old ones have its whole text, which counts as none."""
    fields = (name for name in ("License-Expression", "License") if name in distribution.metadata)
    stated = next((distribution.metadata[name] for name in fields), "")
    if stated and "\n" not in stated and len(stated) <= 60:
        return stated
    classes = [c for c in distribution.metadata.get_all("Classifier") or () if c.startswith("License :: ")]
    return classes[0].rpartition(" :: ")[2] if classes else ""


def _normal(name: str) -> str:
    """Return the name by which distributions are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _needed(distribution: Distribution | None) -> Iterator[str]:
    """Yield what a distribution needs on this machine, without its extras; each name once."""
    requirement = package("packaging.requirements", "signing", _SUBJECT).Requirement
    seen = set()
    for text in (distribution.requires if distribution is not None else None) or ():
        stated = requirement(text)
        name = _normal(stated.name)
        if name not in seen and (stated.marker is None or stated.marker.evaluate({"extra": ""})):
            seen.add(name)
            yield name


def _debian_packages(status: Path) -> Iterator[tuple[str, str]]:
    """Yield name and version of each installed package of a Debian; nothing elsewhere."""
    try:
        text = status.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for paragraph in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
        if fields.get("Status", "").endswith(" installed") and {"Package", "Version"} <= set(fields):
            yield fields["Package"], fields["Version"]


def _model_card(model: Model) -> dict[str, Any]:
    """Return a card in CycloneDX's words; what has none there becomes a property."""
    card, written = model.card, write_card(model.card)
    shown = {
        "weights_sha256": model.weights_sha256,
        **{f"provenance.{key}": value for key, value in dict(written.get("provenance") or {}).items()},
        **({"citation": card.citation} if card.citation else {}),
    }
    inputs = [f"channel {c.name}" for c in card.input.channels]
    outputs = [f"label {label.value}: {label.name}" for label in card.output.table.labels]
    metrics = [
        {"type": "label agreement with the source network", "value": str(entry.parity.label_agreement), "slice": ways}
        for entry in (card.parity.runtimes if card.parity else ())
        for ways in [f"{entry.runtime} {entry.precision}"]
    ]
    return {
        "modelParameters": {
            "task": "segmentation of 3-D volumes",
            "inputs": [{"format": text} for text in inputs],
            "outputs": [{"format": text} for text in outputs],
        },
        **({"quantitativeAnalysis": {"performanceMetrics": metrics}} if metrics else {}),
        "considerations": {"useCases": [card.intended_use]},
        "properties": [
            {"name": f"voxport:{key}", "value": value if isinstance(value, str) else json.dumps(value)}
            for key, value in shown.items()
        ],
    }


def _authors(names: Iterable[str]) -> dict[str, Any]:
    return {"authors": [{"name": name} for name in names]} if tuple(names) else {}


def _final(data: dict[str, Any]) -> bytes:
    """Return a bill as JSON, without its time and with a serial number of its content, so that it can be compared."""
    del data["metadata"]["timestamp"], data["serialNumber"]
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(data, sort_keys=True))
    return (json.dumps(data | {"serialNumber": number.urn}, indent=2, sort_keys=True) + "\n").encode()
