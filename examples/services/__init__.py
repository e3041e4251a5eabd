"""BentoML services on voxport's store of ONNX models."""
