"""Adapters: one folder a technology. An adapter implements ports and imports no other adapter."""

import os

# From 1.29 on, ONNX Runtime for Linux and macOS reports sessions to Microsoft from native code, with the model's file
# name and a hash of its weights. It reads this variable when it is imported, which any adapter may do first;
# disable_telemetry_events does not suffice.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
