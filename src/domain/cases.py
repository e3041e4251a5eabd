"""Assign the files of a folder to cases by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .errors import InputError, UsageError
from .volume_names import VolumeNames

_NUMBERED = re.compile(r"(.+)_(\d{4})", re.DOTALL)
_FIELD = re.compile(r"\{([^{}]*)\}")
_PIECES = re.compile(r"(\{case\}|\{channel\}|\*\*/|\*)")
_MOST_NAMES = 4
_HINT = "complete the case, or say by a `pattern` which files are one"
# the volumes of one case, by the place among its channels that their names give them
_Places = dict[int, list[str]]


@dataclass(frozen=True)
class CaseFiles:
    """A case: its name, which may contain slashes, and its files in the network's order, as paths below the folder.

    ``problem`` is the reason why it cannot be segmented, or None.
    """

    name: str
    files: tuple[str, ...]
    problem: InputError | None = None


def numbered_cases(names: Iterable[str], channels: int, endings: VolumeNames) -> tuple[CaseFiles, ...]:
    """Return cases named as nnU-Net's, sorted.

    ``A_0000`` and ``A_0001`` are the channels of case ``A``; any other file is a case of its own. A number beyond the
    network's ``channels``, as in ``scan_2024``, is part of the name. ``a.tif`` and ``a.nii``, of different formats, are
    two cases, which keep their endings.
    """
    wanted = [f"_{number:04d}" for number in range(channels)]
    numbered: dict[str, _Places] = {}
    single: dict[str, list[str]] = {}
    for name in sorted(names):
        match = _NUMBERED.fullmatch(stem := endings.stem(name))
        if match is None:
            single.setdefault(stem, []).append(name)
        else:
            numbered.setdefault(match[1], {}).setdefault(int(match[2]), []).append(name)
    cases: list[CaseFiles] = []
    for case, places in numbered.items():
        if 0 in places or max(places) < channels:
            twin = single.pop(case, [])
            cases.append(_twins(case, [*twin, *_flat(places)]) if twin else _channel_case(case, places, wanted))
        else:
            for number, files in places.items():
                single.setdefault(f"{case}_{number:04d}", []).extend(files)
    for case, files in single.items():
        formats: dict[str, list[str]] = {}
        for name in files:
            formats.setdefault(endings.format(name), []).append(name)
        for alike in formats.values():
            own = alike[0] if len(formats) > 1 else case
            cases.append(_twins(own, alike) if alike[1:] else CaseFiles(own, tuple(alike)))
    return tuple(sorted(cases, key=lambda case: case.name))


@dataclass(frozen=True)
class CasePattern:
    """A path with ``{case}``, ``{channel}``, ``*`` (any text within a name) and ``**/`` (any folders).

    ``channels`` are the values of ``{channel}`` in the network's order; empty without that field.

    Raises:
        UsageError: ``{case}`` is missing, a field is unknown, or channels are missing, empty, repeated or too many.
    """

    text: str
    channels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fields = _FIELD.findall(self.text)
        if "case" not in fields or set(fields) - {"case", "channel"}:
            expected = "a path with {case}, and perhaps {channel} and *"
            raise UsageError("pattern", expected=expected, got=self.text or "none", do="correct it")
        if ("channel" in fields) != bool(self.channels):
            expected = "{channel} in the pattern and `channels` A,B beside it, or neither"
            got = f"{self.text} and {'no channels' if not self.channels else ','.join(self.channels)}"
            raise UsageError("pattern", expected=expected, got=got, do="add the other")
        if not all(self.channels) or len(set(self.channels)) != len(self.channels):
            expected = "names that differ, such as T1w,FLAIR"
            raise UsageError("channels", expected=expected, got=",".join(self.channels), do="correct it")

    @property
    def ends_literally(self) -> bool:
        """Whether the pattern states the suffix of its files."""
        return "." in _PIECES.split(self.text)[-1]

    def cases(self, names: Iterable[str]) -> tuple[CaseFiles, ...]:
        """Return the cases among these volumes, sorted; other files are ignored."""
        matches = self._expression().fullmatch
        found: dict[str, _Places] = {}
        for name in sorted(names):
            if match := matches(name):
                place = self.channels.index(match["channel"]) if self.channels else 0
                found.setdefault(match["case"], {}).setdefault(place, []).append(name)
        wanted = self.channels or ("",)
        return tuple(_channel_case(case, found[case], wanted) for case in sorted(found))

    def _expression(self) -> re.Pattern[str]:
        """Return the pattern as a regular expression; a repeated field must match the same text."""
        parts = {
            "{case}": r"(?P<case>[^/]+)",
            "{channel}": f"(?P<channel>{'|'.join(map(re.escape, self.channels))})",
            "**/": r"(?:[^/]+/)*",
            "*": r"[^/]*",
        }
        expression = ""
        for piece in _PIECES.split(self.text.removeprefix("./")):
            expression += parts.get(piece, re.escape(piece))
            if piece in ("{case}", "{channel}"):
                parts[piece] = f"(?P={piece[1:-1]})"
        return re.compile(expression, re.DOTALL)


def without_clashes(
    cases: Sequence[CaseFiles], outputs: Mapping[str, Sequence[str]], taken: Iterable[str] = ()
) -> tuple[CaseFiles, ...]:
    """Return the cases, with a problem for those that would overwrite an input or an earlier case's output.

    ``outputs`` holds the output paths of a case by its name, ``taken`` the paths of all inputs.
    """
    owners = dict.fromkeys(taken, "an input")
    checked = []
    for case in cases:
        places = outputs[case.name]
        owner = next((owners[place] for place in places if place in owners), None)
        if owner is None and case.problem is None:
            owners |= dict.fromkeys(places, f"those of case {case.name}")
        elif owner is not None:
            expected = "results with names of their own"
            do = "rename it, choose another folder for the results, or say by a `pattern` which files are cases"
            case = replace(case, problem=InputError(case.name, expected=expected, got=owner, do=do))
        checked.append(case)
    return tuple(checked)


def _channel_case(case: str, places: _Places, wanted: Sequence[str]) -> CaseFiles:
    """Return a case that must have exactly one file for each channel."""
    files = tuple(_flat(places))
    if sorted(places) == list(range(len(wanted))) and len(files) == len(wanted):
        return CaseFiles(case, files)
    named = f" ({', '.join(wanted)})" if any(wanted) else ""
    expected = f"one file{f' for each of {len(wanted)} channels' if len(wanted) > 1 else ''}{named}"
    return CaseFiles(case, files, InputError(case, expected=expected, got=_listed(files), do=_HINT))


def _twins(case: str, files: Sequence[str]) -> CaseFiles:
    problem = InputError(case, expected="one case of this name", got=_listed(files), do="rename or remove one")
    return CaseFiles(case, tuple(files), problem)


def _flat(places: _Places) -> list[str]:
    return [name for place in sorted(places) for name in places[place]]


def _listed(files: Sequence[str]) -> str:
    more = f" and {len(files) - _MOST_NAMES} more" if len(files) > _MOST_NAMES else ""
    return ", ".join(files[:_MOST_NAMES]) + more
