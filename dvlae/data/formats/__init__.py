"""One module for each kind of image file; each has a function ``sources``."""
