"""The embedded model HRV-mini as the host's MODEL, CLIP and VAE."""
