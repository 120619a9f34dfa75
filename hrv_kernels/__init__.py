"""Tensor mathematics of head relevance: plain references and fast versions."""
