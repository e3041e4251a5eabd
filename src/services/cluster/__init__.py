"""One volume in blocks, on as many machines as there are."""
