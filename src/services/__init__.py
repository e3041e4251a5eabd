"""The use cases; each receives its ports as arguments."""
