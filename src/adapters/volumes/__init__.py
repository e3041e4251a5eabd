"""Volume stores, one folder a format."""
