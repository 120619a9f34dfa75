"""Architectures: how each family of denoisers attends to text."""
