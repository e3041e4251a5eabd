"""Contenders of speed.py: ``python contenders.py KIND SPEC.json``.

Each is a process that loads a network once. A volume's name on stdin starts a run; a line of JSON on stdout ends it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from networks import NETWORKS

MOST_BARE_TILES = 16
Spec = dict[str, Any]
Answer = dict[str, Any]
Run = Callable[[str], Answer]  # of a volume


def main() -> None:
    """Load the contender, report that it is ready or missing, and run a case for each line of stdin."""
    kind, spec = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep libraries' output out of the answers
    os.chdir(spec["folder"])
    try:
        run = CONTENDERS[kind.partition(":")[0]](spec, kind.partition(":")[2])
    except Exception as error:  # noqa: BLE001 - a missing contender is a row of the table
        print(
            json.dumps({"missing": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}),
            file=out,
            flush=True,
        )
        return
    print(json.dumps({"ready": kind}), file=out, flush=True)
    for line in sys.stdin:
        answer = run(line.strip())
        print(json.dumps({**answer, "peak_bytes": peak_bytes()}), file=out, flush=True)


def peak_bytes() -> int:
    """Return the peak resident memory of this process; without /proc, including that inherited from its parent."""
    file = Path("/proc/self/status")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return 1024 * (kilobytes or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def voxport(spec: Spec, how: str) -> Run:
    """Run ``voxport segment`` without process start; ``how`` is RUNTIME-PRECISION, or auto, and may end in @OVERLAP."""
    from voxport.application import Application
    from voxport.domain.run import Outputs, RunOptions
    from voxport.testing.progress import RecordingProgress

    application = Application.build()
    way, _, overlap = how.partition("@")
    runtime, _, precision = way.partition("-")
    model = application.find_model(spec["model"])
    loaded = application.load_model(model, runtime=runtime, precision=precision or "auto", threads=spec["threads"])
    options = RunOptions(
        overlap=float(overlap or spec["overlap"]),
        patch=None if way == "auto" else tuple(spec["patch"]),
        blending="gaussian",
    )
    mask = f"{how}.nii.gz"

    def run(volume: str) -> Answer:
        began = time.perf_counter()
        done = application.segment([volume], loaded, Outputs(mask), options, RecordingProgress())
        return {
            "seconds": time.perf_counter() - began,
            "stages": done.seconds,
            "network_seconds": done.network_seconds,
            "tiles": done.prepared.plan.tile_count,
            "tile": list(done.prepared.plan.tile),
            "mask": mask,
            "scored_with": f"{loaded.runtime.name} {loaded.runtime.precision}, {loaded.runtime.version}",
        }

    return run


def bare(spec: Spec, how: str) -> Run:
    """Infer the same tiles with the runtime alone, without reading, blending or writing.

    Tiles of one size take equal time: some are inferred, and the seconds extrapolated to all.
    """
    from dataclasses import replace

    from voxport.application import Application
    from voxport.domain.inference.patches import plan_tiles

    application = Application.build()
    runtime, _, precision = how.partition("-")
    model = application.find_model(spec["model"])
    loaded = application.load_model(model, runtime=runtime, precision=precision, threads=spec["threads"])
    tiling = replace(loaded.model.card.tiling, patch=tuple(spec["patch"]), overlap=spec["overlap"])
    plan = plan_tiles(tuple(spec["shape"]), tiling)
    tile = np.random.default_rng(0).random((1, 1, *plan.tile), np.float32)

    def run(_volume: str) -> Answer:
        inferred = min(plan.tile_count, MOST_BARE_TILES)
        began = time.perf_counter()
        for _ in range(inferred):
            loaded.runtime.infer(tile)
        seconds = (time.perf_counter() - began) * plan.tile_count / inferred
        return {"seconds": seconds, "tiles": plan.tile_count, "tile": list(plan.tile), "tiles_scored": inferred}

    return run


def monai(spec: Spec, how: str) -> Run:
    """Run the usual MONAI script: nibabel, the card's intensity steps, sliding_window_inference, arg-max, nibabel."""
    import torch
    from monai.inferers import sliding_window_inference

    torch.set_num_threads(spec["threads"])
    network = torch_network(spec)
    layout = torch.channels_last_3d if how == "channels_last" else torch.contiguous_format
    network = network.to(memory_format=layout)
    called = torch.compile(network) if how == "compile" else network

    def run(volume: str) -> Answer:
        began = time.perf_counter()
        image = nib.load(volume)
        values = normal(np.asarray(image.dataobj).astype(np.float32), spec)
        with torch.inference_mode():
            batch = torch.from_numpy(values)[None, None].contiguous(memory_format=layout)
            logits = sliding_window_inference(
                batch, spec["patch"], 1, called, overlap=spec["overlap"], mode="gaussian", padding_mode=spec["padding"]
            )
            labels = logits.argmax(dim=1)[0].to(torch.uint8).numpy()
        nib.save(nib.Nifti1Image(labels, image.affine), f"monai-{how}.nii.gz")
        return {"seconds": time.perf_counter() - began, "mask": f"monai-{how}.nii.gz"}

    return run


def nnunet(spec: Spec, how: str) -> Run:
    """Run nnU-Net's predictor, ``mirrored`` or not, with reading and writing as in `monai`."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

    torch.set_num_threads(spec["threads"])
    predictor = nnUNetPredictor(
        tile_step_size=1 - spec["overlap"],
        use_gaussian=True,
        use_mirroring=how == "mirrored",
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        torch_network(spec),
        PlansManager({}),
        ConfigurationManager({"patch_size": spec["patch"], "architecture": {}}),
        None,
        {"labels": {"background": 0, "foreground": 1}},
        "",
        (0, 1, 2) if how == "mirrored" else None,
    )

    def run(volume: str) -> Answer:
        began = time.perf_counter()
        image = nib.load(volume)
        values = normal(np.asarray(image.dataobj).astype(np.float32), spec)
        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(values)[None])
        labels = logits.argmax(dim=0).to(torch.uint8).numpy()
        nib.save(nib.Nifti1Image(labels, image.affine), f"nnunet-{how}.nii.gz")
        return {"seconds": time.perf_counter() - began, "mask": f"nnunet-{how}.nii.gz"}

    return run


def peak(spec: Spec, how: str) -> Run:
    """Measure the processor's peak with a large matrix product in fp32 or bf16."""
    import torch

    torch.set_num_threads(spec["threads"])
    edge = 2048
    one, other = (torch.rand(edge, edge).to({"fp32": torch.float32, "bf16": torch.bfloat16}[how]) for _ in range(2))

    def run(_volume: str) -> Answer:
        taken = []
        for _ in range(8):
            began = time.perf_counter()
            torch.mm(one, other)
            taken.append(time.perf_counter() - began)
        return {"seconds": min(taken), "gflops_per_second": 2 * edge**3 / min(taken) / 1e9}

    return run


def flops(spec: Spec, how: str) -> Run:  # noqa: ARG001 - the signature is the contenders'
    """Count the network's floating-point operations for a tile: convolutions and products."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = torch_network(spec)

    def run(_volume: str) -> Answer:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(torch.zeros(1, 1, *spec["patch"]))
        return {"gflops_a_tile": counter.get_total_flops() / 1e9}

    return run


def normal(values: np.ndarray, spec: Spec) -> np.ndarray:
    """Apply the card's intensity steps with numpy."""
    if spec["intensity"] == "percentiles":
        low, high = np.percentile(values, [1, 99.5])
        values = np.clip(values, low, high)
        return ((values - low) / (high - low)).astype(np.float32)
    return values / np.float32(255)


def torch_network(spec: Spec) -> Any:
    """Return the network in PyTorch, from the exported checkpoint or from the bundled model's ONNX file."""
    import torch

    if spec["network"] in NETWORKS:
        from voxport.adapters.runtimes.torch.networks import build_network

        trained = build_network(NETWORKS[spec["network"]].described)
        trained.load_state_dict(torch.load(spec["checkpoint"], weights_only=True))
        return trained.eval()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from recipes.two_photon_vessels.model import VesselNet
    from recipes.two_photon_vessels.quantise import IntegerVesselNet

    network = VesselNet().eval()
    fill(IntegerVesselNet(plain=network), Path(spec["model_file"]))
    return network


def fill(integers: Any, model: Path) -> None:
    """Copy the weights of an ONNX file in integers to its PyTorch source network. KeyError if they do not match.

    The network in floats inside it then has the weights of the file, and rounds no values between its layers.
    """
    import onnx
    import torch
    from onnx import numpy_helper

    graph = onnx.load(model).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    parameters = dict(integers.named_parameters())
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        layer = node.input[2].removeprefix("network.").removesuffix(".bias")
        values, step = (stored[name] for name in makers[node.input[1]].input[:2])
        axis = 1 if node.op_type == "ConvTranspose" else 0
        weight = values.astype(np.float32) * step.reshape([-1 if at == axis else 1 for at in range(values.ndim)])
        parameters[f"{layer}.weight"].data = torch.from_numpy(weight)
        parameters[f"{layer}.bias"].data = torch.from_numpy(stored[node.input[2]].copy())


CONTENDERS: dict[str, Callable[[Spec, str], Run]] = {
    "voxport": voxport,
    "bare": bare,
    "monai": monai,
    "nnunet": nnunet,
    "peak": peak,
    "flops": flops,
}

if __name__ == "__main__":
    # disables ONNX Runtime's telemetry before it is loaded
    import voxport.adapters

    main()
