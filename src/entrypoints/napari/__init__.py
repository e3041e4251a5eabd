"""The napari plug-in: reads and writes volumes, and segments layers; see ``napari.yaml``."""
