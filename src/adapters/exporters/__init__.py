"""Adapters of `ModelExporter`."""
