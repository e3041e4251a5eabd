"""One folder a technology; each implements ports and imports no other adapter."""
