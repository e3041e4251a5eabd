"""Adapters of `ModelFiles` and `ModelRepository`."""
