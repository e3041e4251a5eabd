"""Write docs/performance.md from the measurements of performance.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bars import LEAST_DICE, bars, least_dice, startup_seconds
from comparing import at_equal_dice
from networks import NETWORKS

NAMES = {name: network.title for name, network in NETWORKS.items()} | {"bundled": "the bundled model"}
_LARGEST_DISTRIBUTIONS = 15
_WHO = {
    "monai:eager": "MONAI, eager",
    "monai:channels_last": "MONAI, channels last",
    "monai:compile": "MONAI, torch.compile",
    "nnunet:": "nnU-Net's predictor",
    "nnunet:mirrored": "nnU-Net's predictor, mirroring",
}
_VERDICTS = {True: "met", False: "**not met**", None: "not measured"}


def page(
    found: Mapping[str, Any], elsewhere: Sequence[Mapping[str, Any]] = (), layers: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Return the page as Markdown; ``elsewhere`` are results of speed.py on other processors."""
    parts = [_head(found), _machine(found["machine"]), _bars(found), "![Ratios, memory and time](performance.svg)"]
    parts += [_speed(NAMES[name], each) for name, each in found.get("speed", {}).items()]
    parts += [_processors(found, elsewhere)] if elsewhere else []
    parts += [_layers(layers)] if layers else []
    parts += [part(found[name]) for name, part in _PARTS.items() if name in found]
    return "\n\n".join(parts) + "\n"


def _head(found: Mapping[str, Any]) -> str:
    quick = "\n\n**Measured with `--quick`: a test that all parts run, not how fast.**" if found["quick"] else ""
    return (
        "# Performance\n"
        "From `.nii.gz` to `.nii.gz` on a CPU, beside the usual alternatives "
        "with the same network, tiles, overlap, blending and threads.\n"
        "`python benchmarks/performance.py` repeats all measurements and writes this page; "
        "the numbers are in [performance.json](performance.json).\n"
        "Contenders run in turns; medians are compared. "
        "Images are synthetic; the SegResNet is trained on such images for a minute." + quick
    )


def _machine(machine: Mapping[str, str]) -> str:
    return "## The machine\n" + _table(("", ""), [(name, text) for name, text in machine.items() if text])


def _bars(found: Mapping[str, Any]) -> str:
    rows = [(bar.target, bar.found, _VERDICTS[bar.met]) for bar in bars(found)]
    return "## Targets\n" + _table(("target", "result", ""), rows)


def _speed(name: str, speed: Mapping[str, Any]) -> str:
    contenders = speed["contenders"]
    whole = [(kind, entry) for kind, entry in contenders.items() if "ratio" in entry]
    rows = [
        (
            who(kind),
            f"{entry['seconds']:.2f}",
            f"{entry['ratio']:.2f}",
            _dice(entry),
            _number(entry.get("dice_of_truth"), ".5f"),
            f"{entry['label_agreement']:.5f}",
            _percent(entry.get("share_of_floor")),
            _percent(entry.get("share_outside_network")),
            f"{entry['peak_bytes'] / 1e9:.2f}",
        )
        for kind, entry in whole
    ]
    heads = ("", "seconds", "times MONAI", "Dice", "Dice of truth", "agreement", "of the bare loop")
    heads += ("outside the network", "peak GB")
    parts = [
        f"## {name[0].upper()}{name[1:]}: {_by(speed['shape'])} voxels",
        f"Tiles of {_by(speed['patch'])}, overlap {speed['overlap']:g}, {speed['threads']} threads, medians of "
        f"{speed['repeats']}. Dice (smallest of all labels; **bold** below {LEAST_DICE}) and agreement are "
        "relative to voxport in fp32. int8 is included if `voxport tune` accepts it; `auto` is what voxport takes.",
        _table(heads, rows),
    ]
    auto = contenders.get("voxport:auto")
    if auto is not None:
        parts.append(f"`auto` uses {auto['scored_with']}, with tiles of {_by(auto['tile'])}.")
    if speed["missing"]:
        parts.append("Missing: " + "; ".join(f"{who(kind)} ({why})" for kind, why in speed["missing"].items()) + ".")
    parts += [_stages(whole), _floors(contenders)]
    return "\n\n".join(part for part in parts if part)


def _processors(found: Mapping[str, Any], elsewhere: Sequence[Mapping[str, Any]]) -> str:
    text = [
        "## Other processors\n"
        "Times as fast as MONAI in eager mode on the same processor, and Dice against voxport in fp32. A limited "
        "processor has more instructions, which oneDNN and PyTorch were told not to use; ONNX Runtime cannot be told.\n"
        "Each column is a run of `benchmarks/speed.py`; the numbers are in [speed](speed). Before 2026-11-29 the "
        "bundled model was its second edition; since then, `fp32` computes it in integers, and MONAI in floats."
    ]
    for network, name in NAMES.items():
        runs = [run for run in (found.get("speed", {}).get(network), *elsewhere) if run and run["network"] == network]
        if not runs:
            continue
        kinds = dict.fromkeys(kind for run in runs for kind in run["contenders"] if kind != "flops:")
        rows = [(who(kind), *(_on(run["contenders"].get(kind, {})) for run in runs)) for kind in kinds]
        equal = [at_equal_dice(run["contenders"]) for run in runs]
        if any(equal):
            cells = (f"{way[1]['ratio']:.2f}, {who(way[0])}" if way else "" for way in equal)
            rows.append(("the fastest at MONAI's Dice of truth", *cells))
        text.append(f"{name[0].upper()}{name[1:]}, {_by(runs[0]['shape'])} voxels:")
        heads = [f"{_processor(run['machine'])}, {run.get('date', found.get('date'))}" for run in runs]
        text.append(_table(("", *heads), rows))
    return "\n\n".join(text)


def _processor(machine: Mapping[str, str]) -> str:
    able = machine["instructions"]
    return f"{machine['processors']}, {able if ' to ' in able else able.split()[-1]}"


def _on(entry: Mapping[str, Any]) -> str:
    """Return a contender's cell: its ratio and Dice, or what a bare loop or a matrix product reached."""
    if "ratio" in entry:
        return f"{entry['ratio']:.2f} ({_dice(entry)}), {entry['seconds']:.1f} s"
    speed = _number(entry.get("gflops_per_second"), ".0f")
    share = _percent(entry.get("share_of_peak"))
    return " GFLOP/s, ".join(filter(None, (speed, share and f"{share} of the peak"))) if share else speed


def _layers(found: Sequence[Mapping[str, Any]]) -> str:
    text = [
        "## Layers\n"
        "Where OpenVINO's time goes: `benchmarks/layers.py`, one patch, seconds without counters. *As stored* is the "
        "file's own graph; voxport rewrites group normalisation when it loads fp32 and when it quantises. *Two "
        "at once*: two patches, each with half of the threads; seconds are of one. Products are convolutions and "
        "matrix products. The share of the peak is of PyTorch's fastest matrix product, in bf16 for "
        "bf16 and int8. The numbers are in [layers](layers)."
    ]
    for run in found:
        text.append(
            f"{_processor(run['machine'])}, {run['date']}, {run['threads']} threads, {_by(run['patch'])} voxels:"
        )
        rows = []
        for network, entry in run["networks"].items():
            for way, measured in entry["ways"].items():
                speed = entry["gflops"] / measured["seconds"]
                best = run["peak"].get("fp32" if way.startswith("fp32") else "bf16")
                layers = measured["layers"]
                rest = ", ".join(f"{kind} {_percent(part)}" for kind, part in layers.items() if kind != "products")
                rows.append(
                    (
                        f"{NAMES[network]}, {way}",
                        f"{measured['seconds']:.3f}",
                        f"{speed:.0f}",
                        _percent(speed / best if best else None),
                        _percent(layers.get("products")),
                        rest,
                    )
                )
        text.append(_table(("", "seconds", "GFLOP/s", "of the peak", "products", "other layers"), rows))
    return "\n\n".join(text)


def _stages(whole: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    staged = [(kind, entry) for kind, entry in whole if "stages" in entry]
    if not staged:
        return ""
    names = list(staged[0][1]["stages"])
    rows = [
        (who(kind), *(f"{entry['stages'][name]:.2f}" for name in names), f"{entry['network_seconds']:.2f}")
        for kind, entry in staged
    ]
    text = "Seconds of each stage, and of the network within `score`:\n\n"
    return text + _table(("", *names, "network"), rows)


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
    text = "Bare loops over the same tiles, and the fastest matrix product of PyTorch on this machine:\n\n"
    return text + _table(("", "seconds", "Mvoxel/s", "GFLOP/s", "of the peak"), rows)


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
        "## Memory and time by volume size\n"
        f"A network of two small convolutions, tiles of {_by(tiling['patch'])} with overlap {tiling['overlap']:g}, "
        f"`--memory {growth['memory']}`, {growth['threads']} threads; whole processes including start.\n"
        "Seconds are medians of the runs. Peak is resident memory including mapped files; "
        "anonymous memory excludes them.\n\n"
        + _table(heads, rows)
        + f"\n\nFitted line: {growth['start_seconds']:.2f} s, and {growth['seconds_a_megavoxel']:.4f} s "
        "per million voxels; "
        f"largest deviation {100 * growth['largest_deviation']:.1f} %. "
        f"Spread of the peaks: {100 * growth['peak_spread']:.0f} %."
    )


def _startup(startup: Mapping[str, Any]) -> str:
    rows = [(f"`{name}`", f"{seconds:.3f}") for name, seconds in startup_seconds(startup).items()]
    return "## Cold start\nMedians over fresh processes.\n\n" + _table(("", "seconds"), rows)


def _install(installs: Mapping[str, Any]) -> str:
    text = ["## Size of the installation\n`serving` installs the API, jobs and workers; `demo` the page."]
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
        text.append(
            f"`pip install '.[{extras}]' -c constraints.txt` in a fresh environment: "
            f"{total / 1e6:.0f} MB on disk in {len(each)} distributions including pip, "
            f"{install['compiled_bytes'] / 1e6:.0f} MB of compiled modules; {install['content_bytes'] / 1e6:.0f} MB "
            f"without rounding to blocks; {'with' if install['torch'] else 'without'} torch."
        )
        text.append(_table(("", "MB", "share"), rows))
    return "\n\n".join(text)


def _less_work(found: Mapping[str, Any]) -> str:
    head = (
        "## Less work for the same labels\n"
        "Labels at each overlap compared with those at the largest, and volumes with constant tiles."
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
        f"{found['model']}, {found['blending']} blending, {_by(found['shape'])} voxels, {_configuration(found)}:",
        _table(("overlap", "tiles", "seconds", "agreement", "Dice", "voxels that differ"), rows),
        f"From {min(same):g} on, all labels are equal." if len(same) > 1 else "Labels differ at every smaller overlap.",
    ]
    return "\n\n".join(parts)


def _background(found: Mapping[str, Any]) -> str:
    rows = [
        (name, str(row["tiles"]), str(row["repeated"]), f"{row['seconds']:.2f}") for name, row in found["rows"].items()
    ]
    text = (
        f"{found['model']}, overlap {found['overlap']:g}, {_by(found['shape'])} voxels, {_configuration(found)}: the "
        f"full volume, and one that is zero except for a corner of {_percent(found['kept'])}. Equal constant tiles are "
        "inferred once; labels are bit-identical:\n\n"
    )
    return text + _table(("", "tiles", "repeated", "seconds"), rows)


def _configuration(found: Mapping[str, Any]) -> str:
    return f"{found['runtime']} {found['precision']}"


_PARTS = {"growth": _growth, "less_work": _less_work, "startup": _startup, "install": _install}


def who(kind: str) -> str:
    """Return the display name of a contender."""
    family, _, how = kind.partition(":")
    named = {"voxport": "voxport", "bare": "bare loop", "peak": "matrix product"}
    return _WHO.get(kind) or f"{named[family]}, {how.replace('-', ' ').replace('@', ', overlap ')}"


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
