"""Adapters of the Locks port."""
