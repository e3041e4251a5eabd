"""Adapters of `ArtifactWriter`."""
