"""Adapters of `PageWriter`."""
