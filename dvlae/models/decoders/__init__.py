"""The autoregressive decoder, and how noisy images are sampled from it."""
