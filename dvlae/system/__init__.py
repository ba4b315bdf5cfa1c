"""Files, devices, progress and errors: what every part uses."""
