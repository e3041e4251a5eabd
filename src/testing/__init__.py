"""Contract suites for the ports, hypothesis strategies, fakes, and invalid files."""
