"""Masks measured."""
