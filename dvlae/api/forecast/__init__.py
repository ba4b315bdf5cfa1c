"""How long the rest of a grid takes, from what this machine does in some seconds."""
