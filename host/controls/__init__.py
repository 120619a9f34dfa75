"""Controls in a sampling run."""
