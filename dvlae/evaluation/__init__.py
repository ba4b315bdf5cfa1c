"""Measurements against clean images, and of noise."""
