"""Denoising in one call, from a command or from Python, by the steps of the workflow."""
