"""The pure core: geometry, tiling, intensity, model cards, parity; numpy and scipy only."""
