"""Adapters of `PictureEncoder`."""
