"""The demo: a page to view and segment volumes."""
