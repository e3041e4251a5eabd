"""Servers that receive DICOM objects."""
