"""Files, devices, progress and errors, which all other parts use."""
