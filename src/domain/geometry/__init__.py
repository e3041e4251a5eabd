"""Voxel grids in space: affines, orientation, resampling."""
