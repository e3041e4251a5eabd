"""docs/performance.md, wholly out of what performance.py measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bars import LEAST_DICE, NAMES, bars, least_dice, startup_seconds

_LARGEST_DISTRIBUTIONS = 15
_WHO = {"monai:eager": "MONAI, eager", "monai:compile": "MONAI, torch.compile", "nnunet:": "nnU-Net's predictor"}
_VERDICTS = {True: "met", False: "**not met**", None: "not measured"}


def page(found: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    parts = [_head(found), _machine(found["machine"]), _bars(found), "![Ratios, memory and time](performance.svg)"]
    parts += [_speed(NAMES[name], each) for name, each in found.get("speed", {}).items()]
    parts += [part(found[name]) for name, part in _PARTS.items() if name in found]
    return "\n\n".join(parts) + "\n"


def _head(found: Mapping[str, Any]) -> str:
    quick = "\n\n**Made with `--quick`: it shows that all of it runs, not how fast.**" if found["quick"] else ""
    return (
        "# Performance\n"
        "From `.nii.gz` to `.nii.gz` on a CPU, beside what a user would take instead: "
        "the same network, tiles, overlap, blending and threads.\n"
        "`python benchmarks/performance.py` measures all of it again, on any machine, and writes this page; "
        "its numbers are in [performance.json](performance.json).\n"
        "Contenders take turns, and medians count. "
        "Pictures are synthetic; the SegResNet is trained on such, for a minute." + quick
    )


def _machine(machine: Mapping[str, str]) -> str:
    return "## The machine\n" + _table(("", ""), [(name, told) for name, told in machine.items() if told])


def _bars(found: Mapping[str, Any]) -> str:
    rows = [(bar.asked, bar.found, _VERDICTS[bar.met]) for bar in bars(found)]
    return "## What is asked, and what is found\n" + _table(("asked", "found", ""), rows)


def _speed(name: str, speed: Mapping[str, Any]) -> str:
    contenders = speed["contenders"]
    whole = [(kind, entry) for kind, entry in contenders.items() if "ratio" in entry]
    rows = [
        (
            who(kind),
            f"{entry['seconds']:.2f}",
            f"{entry['ratio']:.2f}",
            _dice(entry),
            f"{entry['label_agreement']:.5f}",
            _percent(entry.get("share_of_floor")),
            _percent(entry.get("share_outside_network")),
            f"{entry['peak_bytes'] / 1e9:.2f}",
        )
        for kind, entry in whole
    ]
    heads = ("", "seconds", "times MONAI", "Dice", "agreement", "of the bare loop", "outside the network", "peak GB")
    parts = [
        f"## {name[0].upper()}{name[1:]}: {_by(speed['shape'])} voxels",
        f"Tiles of {_by(speed['patch'])}, overlap {speed['overlap']:g}, {speed['threads']} threads, medians of "
        f"{speed['repeats']}. Dice (the least of all labels; **bold** below {LEAST_DICE}) and agreement are with "
        "voxport in fp32. int8 runs where `voxport tune` keeps it; `auto` is what that chose.",
        _table(heads, rows),
    ]
    auto = contenders.get("voxport:auto")
    if auto is not None:
        parts.append(f"`auto` takes {auto['scored_with']}, with tiles of {_by(auto['tile'])}.")
    if speed["missing"]:
        parts.append("Not here: " + "; ".join(f"{who(kind)} ({why})" for kind, why in speed["missing"].items()) + ".")
    parts += [_stages(whole), _floors(contenders)]
    return "\n\n".join(part for part in parts if part)


def _stages(whole: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    staged = [(kind, entry) for kind, entry in whole if "stages" in entry]
    if not staged:
        return ""
    names = list(staged[0][1]["stages"])
    rows = [
        (who(kind), *(f"{entry['stages'][name]:.2f}" for name in names), f"{entry['network_seconds']:.2f}")
        for kind, entry in staged
    ]
    told = "Where the time goes, in seconds; the network works for the last column's, within `score`:\n\n"
    return told + _table(("", *names, "network"), rows)


def _floors(contenders: Mapping[str, Any]) -> str:
    rows = [
        (
            who(kind),
            _number(entry.get("seconds") if kind.startswith("bare:") else None, ".2f"),
            _number(entry.get("mvoxels_per_second"), ".2f"),
            _number(entry.get("gflops_per_second"), ".0f"),
            _percent(entry.get("share_of_peak")),
        )
        for kind, entry in contenders.items()
        if kind.startswith(("bare:", "peak:"))
    ]
    told = "Bare loops over the same tiles, and the largest matrix product that PyTorch reaches here:\n\n"
    return told + _table(("", "seconds", "Mvoxel/s", "GFLOP/s", "of the peak"), rows)


def _growth(growth: Mapping[str, Any]) -> str:
    rows = [
        (
            _by(size["shape"]),
            f"{size['voxels'] / 1e6:.0f}",
            f"{size['seconds']:.1f}",
            f"{size['seconds'] / size['voxels'] * 1e6:.4f}",
            f"{size['peak_bytes'] / 1e6:.0f}",
            f"{size['anonymous_bytes'] / 1e6:.0f}",
            str(size["blending"]),
            str(len(size["all_seconds"])),
        )
        for size in growth["sizes"]
    ]
    tiling = growth["tiling"]
    heads = ("voxels", "millions", "seconds", "s/million", "peak MB", "anonymous MB", "blending", "runs")
    return (
        "## Memory and time as volumes grow\n"
        f"A network of two small convolutions, tiles of {_by(tiling['patch'])} with overlap {tiling['overlap']:g}, "
        f"`--memory {growth['memory']}`, {growth['threads']} threads; whole processes, start included.\n"
        "Seconds are medians of the runs. Peak is all that is resident, pages of mapped files too; "
        "anonymous memory is without them.\n\n"
        + _table(heads, rows)
        + f"\n\nThe line: {growth['start_seconds']:.2f} s, and {growth['seconds_a_megavoxel']:.4f} s "
        "for each million voxels; "
        f"the farthest size is {100 * growth['largest_deviation']:.1f} % off it. "
        f"Peaks are {100 * growth['peak_spread']:.0f} % apart."
    )


def _startup(startup: Mapping[str, Any]) -> str:
    rows = [(f"`{name}`", f"{seconds:.3f}") for name, seconds in startup_seconds(startup).items()]
    return "## Cold start\nMedians over fresh processes.\n\n" + _table(("", "seconds"), rows)


def _install(installs: Mapping[str, Any]) -> str:
    told = ["## The serving install\n`serving` is the API, jobs and their workers; `demo` is the page."]
    for extras, install in installs.items():
        each = list(install["distributions"].items())
        rest = each[_LARGEST_DISTRIBUTIONS:]
        total = install["total_bytes"]
        rows = [
            (f"{name} {of['version']}", f"{of['bytes'] / 1e6:.1f}", _percent(of["bytes"] / total))
            for name, of in each[:_LARGEST_DISTRIBUTIONS]
        ]
        others = sum(of["bytes"] for _, of in rest)
        rows.append((f"{len(rest)} others", f"{others / 1e6:.1f}", _percent(others / total)))
        told.append(
            f"`pip install '.[{extras}]' -c constraints.txt` in a fresh environment: "
            f"{total / 1e6:.0f} MB on the disk in {len(each)} distributions, pip included, "
            f"{install['compiled_bytes'] / 1e6:.0f} MB of it compiled modules; {install['content_bytes'] / 1e6:.0f} MB "
            f"before files are rounded up to blocks; torch is {'' if install['torch'] else 'not '}among them."
        )
        told.append(_table(("", "MB", "share"), rows))
    return "\n\n".join(told)


def _less_work(found: Mapping[str, Any]) -> str:
    head = (
        "## Less work for the same labels\n"
        "Labels at each overlap beside those at the largest, and what lies in tiles of one value only."
    )
    return "\n\n".join([head, *map(_overlaps, found["overlaps"]), _background(found["background"])])


def _overlaps(found: Mapping[str, Any]) -> str:
    rows = [
        (
            f"{row['overlap']:g}",
            str(row["tiles"]),
            f"{row['seconds']:.2f}",
            f"{row['label_agreement']:.6f}",
            f"{row['dice']:.5f}",
            str(row["voxels_that_differ"]),
        )
        for row in found["rows"]
    ]
    same = [row["overlap"] for row in found["rows"] if row["voxels_that_differ"] == 0]
    parts = [
        f"{found['model']}, {found['blending']} blending, {_by(found['shape'])} voxels, {_scored_with(found)}:",
        _table(("overlap", "tiles", "seconds", "agreement", "Dice", "voxels that differ"), rows),
        f"With {min(same):g} all labels are the same." if len(same) > 1 else "No smaller one gives all labels.",
    ]
    return "\n\n".join(parts)


def _background(found: Mapping[str, Any]) -> str:
    rows = [
        (name, str(row["tiles"]), str(row["repeated"]), f"{row['seconds']:.2f}") for name, row in found["rows"].items()
    ]
    told = (
        f"{found['model']}, overlap {found['overlap']:g}, {_by(found['shape'])} voxels, {_scored_with(found)}; as it "
        f"is, and with all zero but a corner of {_percent(found['kept'])}. A tile of one value is scored once; labels "
        "are the same bit for bit, as the network answers the same input with the same scores:\n\n"
    )
    return told + _table(("", "tiles", "not scored again", "seconds"), rows)


def _scored_with(found: Mapping[str, Any]) -> str:
    return f"{found['runtime']} {found['precision']}"


_PARTS = {"growth": _growth, "less_work": _less_work, "startup": _startup, "install": _install}


def who(kind: str) -> str:
    """A contender as people call it."""
    family, _, how = kind.partition(":")
    named = {"voxport": "voxport", "bare": "bare loop", "peak": "matrix product"}
    return _WHO.get(kind) or f"{named[family]}, {how.replace('-', ' ')}"


def _dice(entry: Mapping[str, Any]) -> str:
    dice = least_dice(entry)
    text = _number(dice, ".5f")
    return f"**{text}**" if dice is not None and dice < LEAST_DICE else text


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _by(edges: Iterable[int]) -> str:
    return " x ".join(map(str, edges))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)] if len(heads) > 3 else ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
