"""Model files: self-describing ONNX, foreign ONNX with a card beside it, and checkpoints with a card."""

from .files import CARD_KEY, OnnxModelFiles

__all__ = ["CARD_KEY", "OnnxModelFiles"]
