"""For programs that embed voxport: contract suites for the ports, hypothesis strategies, and broken files to refuse."""
