"""Adapters of `TuningStore`."""
