"""The demo: a page on which a volume is dropped, looked at, segmented, and the mask taken home."""
