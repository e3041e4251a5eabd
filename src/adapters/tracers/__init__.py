"""Paths of centre lines."""
