"""Ways to denoise images, to compare with each other."""
