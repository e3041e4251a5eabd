"""Pages on cases, cohorts and comparisons."""
