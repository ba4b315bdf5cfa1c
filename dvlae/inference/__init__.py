"""What a trained model is asked: denoised images, samples, likelihood, new images."""
