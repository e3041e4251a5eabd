"""Adapters of `Scratch` and `WorkFolders`."""
