"""HRV-mini: the world it was trained on, its captions, its ground-truth scorer and its training."""
