"""Adapters of `SurfaceMaker`."""
