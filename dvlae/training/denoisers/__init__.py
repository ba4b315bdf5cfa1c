"""How direct denoisers learn, without clean images."""
