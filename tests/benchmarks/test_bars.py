"""What performance.md says is met."""

from __future__ import annotations

from typing import Any

from benchmarks.bars import bars


def way(ratio: float, dice: float, **more: Any) -> dict[str, Any]:
    return {"ratio": ratio, "seconds": 10 / ratio, "dice": {"1": 1.0, "2": dice}, **more}


def verdicts(**found: Any) -> list[bool | None]:
    return [bar.met for bar in bars(found)]


def contenders(**ways: dict[str, Any]) -> dict[str, Any]:
    return {"contenders": {f"voxport:{name.replace('_', '-')}": each for name, each in ways.items()}}


def test_an_unmeasured_target_is_neither_met_nor_missed() -> None:
    assert set(verdicts()) == {None}


def test_only_configurations_with_the_labels_of_fp32_count() -> None:
    fast = {"openvino_bf16": way(4.0, 0.9989), "onnx_fp32": way(1.2, 1.0, share_of_floor=0.7)}
    ratio, fp32, floor = bars({"speed": {"segresnet": contenders(**fast)}})[:3]
    assert (ratio.met, fp32.met, floor.met) == (False, True, True)
    assert ratio.found.startswith("1.20 times, onnx-fp32")


def test_every_target_can_be_met() -> None:
    ways = contenders(openvino_bf16=way(4.0, 0.9995, share_of_floor=0.6), openvino_fp32=way(1.15, 1.0))
    found = verdicts(
        speed={"segresnet": ways, "bundled": ways},
        growth={"peak_spread": 0.1, "flat": True, "largest_deviation": 0.1, "linear": True},
        startup={"to the first tile, onnx fp32": 1.5, "first tile scored, onnx fp32": 2.5},
        install={"serving": {"bound_bytes": 700e6, "total_bytes": 699e6, "torch": False}},
    )
    assert found == [True] * len(found)


def test_every_target_can_be_missed() -> None:
    ways = contenders(openvino_bf16=way(2.9, 0.9995, share_of_floor=0.5), openvino_fp32=way(1.1, 1.0))
    found = verdicts(
        speed={"segresnet": ways, "bundled": ways},
        growth={"peak_spread": 0.2, "flat": False, "largest_deviation": 0.2, "linear": False},
        startup={"to the first tile": {"seconds": 1.6}},
        install={"serving": {"bound_bytes": 700e6, "total_bytes": 600e6, "torch": True}},
    )
    assert found == [False] * len(found)


def test_an_installation_without_a_bound_has_no_target() -> None:
    told = {"bound_bytes": None, "total_bytes": 9e9, "torch": False}
    assert len(bars({"install": {"serving,demo": told}})) == len(bars({"install": {}}))
