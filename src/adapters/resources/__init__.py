"""Adapters of the Resources port."""
