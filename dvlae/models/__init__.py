"""The networks of the method, one file each, and the likelihood."""
