"""Inference runtimes, one folder a library."""
