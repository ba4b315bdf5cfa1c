"""Weights that the paper's authors' code saved, as a model of ours."""
