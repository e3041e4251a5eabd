"""Recipes that train the bundled models."""
