"""Models: find, load, export, verify, tune, and keep them loaded."""
