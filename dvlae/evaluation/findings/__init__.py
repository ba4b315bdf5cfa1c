"""What is odd in the images of a dataset: found in each frame, and in all of them together."""
