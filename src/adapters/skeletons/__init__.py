"""Centre lines of masks."""
