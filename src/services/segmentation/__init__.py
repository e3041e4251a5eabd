"""Segment one volume: open a case, prepare, infer, decode, write."""
