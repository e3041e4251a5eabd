"""DICOM series that arrive over the network: kept, segmented once complete, and their masks sent back."""
