"""The DICOM network: what other machines send by C-STORE."""
