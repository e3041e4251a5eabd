"""Pure rules and value objects: geometry, inference, intensity, labels, cards, jobs. Imports numpy and scipy only."""
