"""Adapters of `InferenceRuntime` and `TensorSession`, one folder a library."""
