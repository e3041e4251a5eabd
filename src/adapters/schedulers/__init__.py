"""Where the blocks of a volume are worked on."""
