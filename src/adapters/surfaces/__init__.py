"""Surface makers."""
