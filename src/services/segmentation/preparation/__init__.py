"""What a run needs before inference: the box and its space, normalised planes, and a plan of tiles."""
