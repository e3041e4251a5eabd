"""One volume store over several: content chooses the store, then the name."""

from .store import RoutedStore

__all__ = ["RoutedStore"]
