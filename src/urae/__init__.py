"""Ultra-resolution adaptation of image diffusion transformers."""
