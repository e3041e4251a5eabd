"""Jobs: submit, run, delete; a worker and its operator."""
