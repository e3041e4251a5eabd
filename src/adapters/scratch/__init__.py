"""Scratch storage for large arrays."""
