"""Adapters that send webhooks."""
