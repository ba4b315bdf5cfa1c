"""What is odd in the images of a dataset, in each frame and in all of them together, and what to do about the noise."""
