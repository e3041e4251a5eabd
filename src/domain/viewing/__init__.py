"""Anatomical slices and how they are displayed."""
