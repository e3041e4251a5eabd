"""Model files and model stores."""
