"""The results of a dataset: one file for each source, with its axes, its calibration and its names."""
