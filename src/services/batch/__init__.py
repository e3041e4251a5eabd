"""Segment a folder of cases over a queue of jobs."""
