"""The DICOM node as a process of its own, with senders and archives that are real."""
