"""What the application needs from outside, as protocols; each has a contract suite in ``voxport.testing``."""
