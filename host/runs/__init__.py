"""What a sampling run offers: attention, windows, rows, gradients, steps, noise."""
