"""Sliding-window inference: patches, blending, stitching."""
