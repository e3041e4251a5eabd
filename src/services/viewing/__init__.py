"""Look at a volume and its mask."""
