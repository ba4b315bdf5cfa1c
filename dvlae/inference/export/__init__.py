"""The direct denoiser as a file that other programs run."""
