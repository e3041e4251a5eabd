"""Train a network on synthetic images until its labels are confident.

With random weights, every rounding error flips some labels, so precisions cannot be compared.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from material import blobs
from networks import NETWORKS
from voxport.adapters.runtimes.torch.networks import build_network

PICTURE, PATCH = (192, 192, 96), (64, 64, 32)
SEED = 1


def main() -> None:
    """Train, print the confidence of the labels, write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--threads", type=int, default=2)
    wanted = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(wanted.threads)
    network = build_network(NETWORKS[wanted.network].described)
    random, (picture, inside) = np.random.default_rng(SEED), blobs(PICTURE, SEED)
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, wanted.steps)
    for step in range(1, wanted.steps + 1):
        start = [int(random.integers(n - p + 1)) for n, p in zip(PICTURE, PATCH, strict=True)]
        cut = tuple(slice(a, a + p) for a, p in zip(start, PATCH, strict=True))
        logits = network(torch.from_numpy(picture[cut].astype(np.float32) / 255)[None, None])
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(inside[cut].astype(np.int64))[None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step == wanted.steps:
            print(f"step {step} of {wanted.steps}: loss {loss.item():.3f}", flush=True)
    torch.save(network.state_dict(), wanted.output)


if __name__ == "__main__":
    main()
