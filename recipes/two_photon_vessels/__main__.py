"""`python -m recipes.two_photon_vessels --out runs/vessels` trains the bundled model, in floats and integers."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import quantise
from .train import SMOKE, TrainingPlan, resized, train


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, train, fine-tune in integers, and print the paths of both weights."""
    parser = argparse.ArgumentParser(prog="recipes.two_photon_vessels", description=train.__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/two_photon_vessels"),
        help="folder of the pool, checkpoints, log and weights",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a run of a few seconds that only proves that the recipe works"
    )
    parser.add_argument("--steps", type=int, help="training steps")
    parser.add_argument("--volumes", type=int, help="synthetic volumes in the pool")
    parser.add_argument("--seed", type=int, help="the seed of everything")
    parser.add_argument("--workers", type=int, default=2, help="processes that generate volumes")
    parser.add_argument("--threads", type=int, default=1, help="threads that train; volumes are drawn on another")
    options = parser.parse_args(arguments)
    plan = resized(SMOKE if options.smoke else TrainingPlan(), options.steps, options.volumes, options.seed)
    print(train(plan, options.out, options.workers, options.threads))
    integers = quantise.SMOKE if options.smoke else quantise.QuantisingPlan()
    print(quantise.quantise(integers, plan, options.out, options.workers, options.threads))


if __name__ == "__main__":
    main()
