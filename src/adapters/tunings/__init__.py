"""Tuning stores."""
