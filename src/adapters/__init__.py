"""One folder a technology; each implements ports and imports no other adapter."""

import os

# ONNX Runtime's builds for Linux and macOS report sessions to Microsoft from 1.29 on, the model's file name and a hash
# of its weights among it, by native code that nothing in Python sees. This is its switch; it is read when the library
# is loaded, and any adapter may be the first to load it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
