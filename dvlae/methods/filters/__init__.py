"""Methods that train nothing."""
