"""How a batch names cases and their results: as voxport does, in BIDS or as nnU-Net does."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...domain.cards.model_card import ModelCard
from ...domain.cases import CaseFiles, CasePattern
from ...domain.errors import InputError, UsageError
from ...domain.labels.label_file import label_file_bytes
from ...domain.volume_names import PACKED

_BIDS_VERSION = "1.10.0"
_BIDS_NAME = re.compile(r"(sub-[a-zA-Z0-9+]+(?:_[a-zA-Z]+-[a-zA-Z0-9+]+)*)_[a-zA-Z0-9]+")
# not raw data
_BIDS_APART = ("derivatives", "sourcedata", "code", "stimuli")


@dataclass(frozen=True)
class Layout:
    """Results are named as their case, and lie as it does: ``ward 3/scan7.nii.gz``.

    Args:
        mask: ending of masks.
        version: of voxport.
        volumes: folder of the volumes.
        out: folder of the results.
    """

    mask: str = PACKED
    version: str = ""
    volumes: Path = Path()
    out: Path = Path()

    def pattern(self, channels: int) -> CasePattern | None:  # noqa: ARG002 - layouts differ
        """Return the pattern of the volumes of a network's channels; None for the names that nnU-Net numbers."""
        return None

    def checked(self, case: CaseFiles) -> CaseFiles | None:
        """Return a case, perhaps with a problem; None for one that is of no interest."""
        return case

    def place(self, case: CaseFiles, output: str) -> str:
        """Return the path of a result below the folder of results."""
        return f"{case.name}{self._ending(output)}"

    def about(self, case: CaseFiles) -> Mapping[str, Any]:  # noqa: ARG002 - layouts differ
        """Return what the layout adds to the report of a case."""
        return {}

    def shared_files(self, card: ModelCard) -> Mapping[str, bytes]:  # noqa: ARG002 - layouts differ
        """Return the files of all cases together, by path below the folder of results."""
        return {}

    def _ending(self, output: str) -> str:
        others = {"probabilities": f".probabilities{PACKED}", "preview": ".preview.png", "report": ".report.json"}
        return self.mask if output == "mask" else others[output]


class NnunetLayout(Layout):
    """``CASE_0000`` and ``CASE_0001`` are the channels of a case; masks, and nothing else, lie in one folder."""

    def pattern(self, channels: int) -> CasePattern | None:
        """See Layout."""
        return CasePattern("**/{case}_{channel}.*", tuple(f"{number:04d}" for number in range(channels)))

    def place(self, case: CaseFiles, output: str) -> str:
        """See Layout."""
        name = f"{PurePosixPath(case.name).name}{self._ending(output)}"
        return name if output == "mask" else f"voxport/{name}"


class BidsLayout(Layout):
    """A dataset of BIDS gives one of derivatives: ``sub-01/anat/sub-01_desc-voxport_dseg.nii.gz``.

    The report of a case is the JSON sidecar of its mask.
    """

    def checked(self, case: CaseFiles) -> CaseFiles | None:
        """See Layout."""
        path = PurePosixPath(case.files[0])
        if path.parts[0] in _BIDS_APART:
            return None
        if case.problem is None and _entities(path) is None:
            do = "rename it, or leave `layout` out"
            problem = InputError(case.name, expected="a name of BIDS such as sub-01_T1w", got=path.name, do=do)
            return replace(case, problem=problem)
        return case

    def place(self, case: CaseFiles, output: str) -> str:
        """See Layout."""
        path = PurePosixPath(case.files[0])
        others = {"probabilities": f"probseg{PACKED}", "preview": "preview.png", "report": "dseg.json"}
        ending = f"dseg{self.mask}" if output == "mask" else others[output]
        return str(path.with_name(f"{_entities(path) or path.name}_desc-voxport_{ending}"))

    def about(self, case: CaseFiles) -> Mapping[str, Any]:
        """See Layout."""
        return {"Sources": [f"bids:raw:{name}" for name in case.files], "Manual": False}

    def shared_files(self, card: ModelCard) -> Mapping[str, bytes]:
        """See Layout. The tables hold for all cases, as files of BIDS are inherited."""
        description = {
            "Name": f"Segmentations by {card.name}",
            "BIDSVersion": _BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [
                {"Name": "voxport", "Version": self.version},
                {"Name": card.name, "Version": card.version, "Description": card.description},
            ],
            "DatasetLinks": {"raw": os.path.relpath(os.path.realpath(self.volumes), os.path.realpath(self.out))},
        }
        return {
            "dataset_description.json": _json(description),
            "desc-voxport_dseg.tsv": label_file_bytes("dseg.tsv", card.output.table),
            "desc-voxport_probseg.json": _json({"LabelMap": list(card.output.channel_names)}),
            ".bidsignore": b"statistics.csv\ncohort.html\n**/*_preview.png\n**/*.html\n",
        }


_LAYOUTS: Mapping[str, Callable[..., Layout]] = {"plain": Layout, "bids": BidsLayout, "nnunet": NnunetLayout}


def layout_named(name: str, **how: Any) -> Layout:
    """Return the layout ``plain``, ``bids`` or ``nnunet``; ``how`` are the fields of Layout. Raises UsageError."""
    if name not in _LAYOUTS:
        raise UsageError("layout", expected=f"one of {', '.join(_LAYOUTS)}", got=name, do="choose another")
    return _LAYOUTS[name](**how)


def _entities(path: PurePosixPath) -> str | None:
    """Return the entities of a file's name in BIDS, without its description; None for another name."""
    match = _BIDS_NAME.fullmatch(path.name.partition(".")[0])
    if match is None:
        return None
    return "_".join(part for part in match[1].split("_") if not part.startswith("desc-"))


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()
