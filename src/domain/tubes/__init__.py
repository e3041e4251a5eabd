"""Tubes, such as vessels and neurites: the graph of their centre lines, lengths and radii."""
