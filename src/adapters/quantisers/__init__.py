"""Adapters of `Quantiser`."""
