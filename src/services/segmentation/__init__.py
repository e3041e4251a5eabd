"""Segment one case: open, prepare, infer, decode, write."""
