"""Methods that train a network."""
