"""Ordered weakening: images and scores over a whole plan."""
