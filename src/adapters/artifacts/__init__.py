"""Writers of small result files."""
