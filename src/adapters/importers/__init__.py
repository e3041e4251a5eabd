"""Importers of networks from the files of other frameworks."""
