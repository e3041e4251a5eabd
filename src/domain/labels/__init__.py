"""Label maps and their statistics."""
