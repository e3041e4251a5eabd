"""``python -m voxport`` is ``voxport``."""

from .entrypoints.cli.main import run

if __name__ == "__main__":
    run()
