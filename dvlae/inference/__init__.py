"""Inference with a trained model: denoised images, samples, likelihood, new images."""
