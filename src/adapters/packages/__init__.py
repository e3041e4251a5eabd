"""Packages of models for other frameworks, one folder a format."""
