"""ONNX models of any kind: kept, loaded, batched."""
